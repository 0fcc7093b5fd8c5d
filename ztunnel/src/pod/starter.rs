//! The data path as the session with the node agent sees it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::drain::DrainMode;
use serde_json::{Value, json};

use super::{PodProxy, PodSpec};
use crate::connections::ConnectionInfo;
use crate::node::{Pod, PodStarter, RunningPod};
use crate::report::Direction;
use crate::shared::Shared;

/// Starts [`PodProxy`]s for the pods that the node agent names.
pub struct PodProxies {
    shared: Arc<Shared>,
}

impl PodProxies {
    /// All pods share `shared`.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl PodStarter for PodProxies {
    fn start(&self, pod: Pod) -> BoxFuture<'static, Result<Box<dyn RunningPod>, String>> {
        let shared = self.shared.clone();
        async move {
            let spec = PodSpec {
                uid: pod.uid.into(),
                name: pod.name.into(),
                namespace: pod.namespace.into(),
                service_account: pod.service_account.into(),
                netns: pod.netns?,
            };
            let proxy = PodProxy::start(spec, shared).await.map_err(|e| e.to_string())?;
            Ok(Box::new(proxy) as Box<dyn RunningPod>)
        }
        .boxed()
    }
}

impl RunningPod for PodProxy {
    fn stop(self: Arc<Self>, mode: DrainMode) -> BoxFuture<'static, ()> {
        async move { PodProxy::stop(&self, mode).await }.boxed()
    }

    fn connections(&self) -> Value {
        let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
        for connection in PodProxy::connections(self) {
            match connection.direction {
                Direction::Inbound => inbound.push(shown(&connection)),
                Direction::Outbound => outbound.push(shown(&connection)),
            }
        }
        json!({"inbound": inbound, "outbound": outbound})
    }
}

fn shown(connection: &ConnectionInfo) -> Value {
    json!({
        "src": connection.src.to_string(),
        "originalDst": connection.original_dst.to_string(),
        "actualDst": connection.actual_dst.to_string(),
        "protocol": connection.protocol.to_string(),
    })
}
