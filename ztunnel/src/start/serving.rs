//! What brings connections: the pods that the node agent names, or the one workload that this process is for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_sys::netns::NetNs;
use mesh_telemetry::ready::Readiness;
use tokio::task::JoinHandle;

use crate::config::{Config, Mode, WorkloadInfo};
use crate::node::{self, Node, Pod, Pods, ProtocolError};
use crate::pod::{Listening, PodProxy, PodSpec};
use crate::shared::Shared;

/// Everything that accepts connections of workloads.
pub(super) struct Serving {
    /// The session with the node agent, in shared mode.
    session: Option<Session>,
    /// The listener for the proxy's own endpoints, in shared mode.
    own: Option<PodProxy>,
}

struct Session {
    drain: DrainSignal,
    task: JoinHandle<Result<(), ProtocolError>>,
}

impl Serving {
    pub(super) async fn start(shared: &Arc<Shared>, pods: &Pods, readiness: &Readiness) -> anyhow::Result<Self> {
        match &shared.config.mode {
            Mode::Shared => {
                let (drain, watch) = drain::channel();
                let node = Node::new(shared.config.inpod_uds.clone(), pods.clone(), readiness.gate(node::READY_TASK));
                let task = tokio::spawn(node.run(watch));
                Ok(Self { session: Some(Session { drain, task }), own: start_own(shared).await })
            }
            Mode::Dedicated(info) => {
                // Until the ports are bound.
                let _proxy = shared.config.enable_proxy.then(|| readiness.register("proxy"));
                let _dns = shared.config.dns_capture.then(|| readiness.register("dns proxy"));
                pods.start(&dedicated(info)).await.map_err(anyhow::Error::msg).context("dedicated mode")?;
                Ok(Self { session: None, own: None })
            }
        }
    }

    /// Yields when nothing can be served any more.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn failed(&mut self) -> anyhow::Result<()> {
        match &mut self.session {
            Some(session) => (&mut session.task).await.context("the node session panicked")?.context("node session"),
            None => std::future::pending().await,
        }
    }

    /// Takes no more pods. Those that are served stay.
    pub(super) async fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.end().await;
        }
    }

    /// Ends the tunnels to the proxy's own endpoints, within the termination deadline.
    pub(super) async fn stop_own(self) {
        if let Some(own) = self.own {
            own.stop(DrainMode::Graceful).await;
        }
    }
}

impl Session {
    /// Ends the session with the node agent for good: a pod that it added later would never be stopped.
    async fn end(self) {
        let Self { drain, mut task } = self;
        drain.start(DrainMode::Graceful);
        // A session that ended by itself has told why.
        if !task.is_finished() && tokio::time::timeout(SESSION_END_BUDGET, &mut task).await.is_err() {
            tracing::warn!("the session with the node agent did not end in time");
            task.abort();
            let _ = task.await;
        }
    }
}

/// The workload that this process is for, in the namespace where the process is.
fn dedicated(info: &WorkloadInfo) -> Pod {
    Pod {
        uid: info.to_string(),
        name: info.name.clone(),
        namespace: info.namespace.clone(),
        service_account: info.service_account.clone(),
        netns: NetNs::current().map(Arc::new).map_err(|error| format!("own network namespace: {error}")),
    }
}

/// Lets workloads of the mesh reach the proxy's own endpoints, such as its metrics, through a tunnel. The proxy is a pod
/// like any other then, and needs to know which one.
async fn start_own(shared: &Arc<Shared>) -> Option<PodProxy> {
    let Config { own, enable_proxy, .. } = &*shared.config;
    let known = [&own.pod_name, &own.pod_namespace, &own.service_account];
    if !enable_proxy || known.iter().any(|part| part.is_empty()) {
        return None;
    }
    let started = async {
        let spec = PodSpec {
            uid: OWN_UID.into(),
            name: own.pod_name.as_str().into(),
            namespace: own.pod_namespace.as_str().into(),
            service_account: own.service_account.as_str().into(),
            netns: Arc::new(NetNs::current()?),
        };
        PodProxy::start_listening(spec, Listening::OWN, Arc::clone(shared)).await.map_err(anyhow::Error::from)
    };
    match started.await {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the proxy's own endpoints have no tunnel");
            None
        }
    }
}

/// Shown in logs only.
const OWN_UID: &str = "ztunnel";
/// Time for the request of the node agent that is being served.
const SESSION_END_BUDGET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_of_the_session_happens_once_it_has_ended() {
        for (needs, reached) in [(Duration::from_millis(300), 1), (Duration::from_secs(60), 0)] {
            let (session, mut watch) = drain::channel();
            let added = Arc::new(AtomicU8::new(0));
            let adds = Arc::clone(&added);
            let task = tokio::spawn(async move {
                watch.signaled().await;
                tokio::time::sleep(needs).await;
                adds.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            Session { drain: session, task }.end().await;
            assert_eq!(added.load(Ordering::SeqCst), reached);
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(added.load(Ordering::SeqCst), reached, "added after the session had ended");
        }
    }
}
