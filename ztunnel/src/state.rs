//! What the control plane told this proxy: workloads, services and policies.
//!
//! One writer turns each response into the next immutable [`Snapshot`]; readers load the current
//! one without a lock and keep it for as long as one decision takes. A response becomes visible as
//! a whole.

mod dump;
mod feed;
mod gateway;
mod local;
mod policies;
mod reject;
mod service;
mod shards;
mod snapshot;
mod words;
mod workload;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use feed::{Feed, IdentityWatcher};
pub use gateway::{Destination, GatewayAddress, HBONE_PORT, Ports};
pub use local::{LocalConfig, LocalError};
pub use policies::Policies;
pub use reject::FieldError;
pub use service::{HealthPolicy, IpFamilies, LbScope, LoadBalancer, Mode, NetworkCidr, Service, Visibility};
pub use snapshot::{Endpoint, Endpoints, Found, Local, PROXY_PORTS, SOCKS_PORT, Snapshot};
pub use workload::{ApplicationTunnel, Health, Locality, NetworkMode, Protocol, Workload, WorkloadType};

/// How long a connection may wait for the record of its own workload.
pub const WORKLOAD_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may wait for a policy that its workload names.
pub const POLICY_WAIT: Duration = Duration::from_secs(1);

/// The current snapshot. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct State {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
}

/// A workload names policies that did not arrive in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {} of workload {namespace}/{workload} is not known to this proxy yet", names.join(", "))]
pub struct MissingPolicies {
    /// Namespace of the workload.
    pub namespace: Arc<str>,
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Keys of the policies.
    pub names: Vec<Arc<str>>,
}

impl State {
    /// An empty state and the one feed that may fill it.
    #[must_use]
    pub fn new(local: Local, identities: Arc<dyn IdentityWatcher>) -> (Self, Feed) {
        let first = Snapshot { local: Arc::new(local), ..Snapshot::default() };
        let current = Arc::new(ArcSwap::from_pointee(first.clone()));
        let (sender, generation) = watch::channel(0);
        let feed = Feed::new(first, Arc::clone(&current), sender, identities);
        (Self { current, generation }, feed)
    }

    /// The current view.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Yields the generation whenever the snapshot was replaced.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// The record of a workload that this proxy serves, waiting up to [`WORKLOAD_WAIT`] for it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn await_local_workload(
        &self,
        name: &str,
        namespace: &str,
        service_account: &str,
    ) -> Option<Arc<Workload>> {
        let find = |snapshot: &Snapshot| snapshot.local_workload(name, namespace, service_account).cloned();
        self.await_some(find, WORKLOAD_WAIT).await
    }

    /// The policies for a workload by its current record, once all that it names are known: a
    /// connection that came before its policy waits, then is refused.
    ///
    /// # Errors
    /// The deadline passed; names what is missing.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn await_policies(&self, workload: &Workload, deadline: Duration) -> Result<Policies, MissingPolicies> {
        let complete = |snapshot: &Snapshot| {
            let policies = current_policies(snapshot, workload);
            policies.missing.is_empty().then_some(policies)
        };
        if let Some(policies) = self.await_some(complete, deadline).await {
            return Ok(policies);
        }
        Err(MissingPolicies {
            namespace: Arc::clone(&workload.namespace),
            workload: Arc::clone(&workload.name),
            names: current_policies(&self.snapshot(), workload).missing,
        })
    }

    async fn await_some<T>(&self, find: impl Fn(&Snapshot) -> Option<T>, deadline: Duration) -> Option<T> {
        if let Some(found) = find(&self.current.load()) {
            return Some(found);
        }
        let mut changed = self.changed();
        let search = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = find(&self.current.load()) {
                    return Some(found);
                }
                // The feed is gone only when the process ends.
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(deadline, search).await.ok().flatten()
    }
}

/// By the workload's current record: its attached policies may have changed since it was looked up.
fn current_policies(snapshot: &Snapshot, workload: &Workload) -> Policies {
    let current = snapshot.workload_by_uid(&workload.uid);
    snapshot.policies_for(current.map_or(workload, Arc::as_ref))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
