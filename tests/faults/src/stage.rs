//! What most tests begin with: a small cluster, a control plane that serves it, a proxy that knows all of it.

use std::time::Duration;

use anyhow::Result;

use crate::ads::{Proxy, Target};
use crate::cluster::{Cluster, SYSTEM, configs};
use crate::mirror::Mirror;
use crate::objects::{PodId, Size};
use crate::plane::{Options, Plane};

/// The stage; what is first dropped is what depends on the rest.
#[derive(Debug)]
pub struct Stage {
    /// Knows everything from the start.
    pub mirror: Mirror,
    /// Where proxies connect.
    pub target: Target,
    /// The control plane.
    pub plane: Plane,
    /// The API server.
    pub cluster: Cluster,
    /// What is in it.
    pub size: Size,
}

impl Stage {
    /// Builds it with so many pods.
    ///
    /// # Errors
    /// The control plane does not come up, or does not serve.
    pub async fn set(pods: usize, options: &Options) -> Result<Self> {
        let size = Size { pods };
        let cluster = Cluster::start().await?;
        cluster.populate(size)?;
        let plane = Plane::ready(&cluster, "istiod-1", options).await?;
        let target = plane.target(&cluster).await?;
        let mut mirror = Mirror::start(Proxy::reader(1), &target);
        let last = size.uid(PodId(pods - 1));
        mirror.wait("the first answer", START, |known| known.version(&last).is_some()).await?;
        Ok(Self { mirror, target, plane, cluster, size })
    }

    /// Turns a pod unready or ready and waits until the proxy has heard of it.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn hear_of(&mut self, pod: PodId, ready: bool, within: Duration) -> Result<Duration> {
        let name = self.size.uid(pod);
        let before = self.mirror.known().version(&name).map(str::to_owned);
        self.cluster.set_ready(self.size, pod, ready)?;
        let news = |known: &crate::mirror::Known| known.version(&name) != before.as_deref();
        self.mirror.wait("the proxy hears of the change", within, news).await
    }

    /// Who holds a lock.
    #[must_use]
    pub fn holder(&self, lock: &str) -> Option<String> {
        let lease = self.cluster.get(&configs::leases(), Some(SYSTEM), lock)?;
        let holder = lease.value().pointer("/spec/holderIdentity")?.as_str()?;
        (!holder.is_empty()).then(|| holder.to_owned())
    }
}

const START: Duration = Duration::from_secs(20);
