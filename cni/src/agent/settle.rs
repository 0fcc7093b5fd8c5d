//! Brings pods to the state they should be in, one change after the other.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mesh_api::labels;

use super::decide::{self, Action};
use super::enrol::{EnrolError, Enroller, SCOPE, full_name};
use super::notice::Notices;
use super::queue::{Change, Outcome, Queue};
use super::watch::World;
use crate::eligibility::{Eligibility, Labels};
use crate::metrics::{EventKind, Metrics};

/// Takes changes from the queue and acts on them. Clones work beside each other on different pods.
#[derive(Clone)]
pub struct Settler {
    /// What is known about the node.
    pub world: Arc<World>,
    /// Where changes come from.
    pub queue: Arc<Queue>,
    /// Who acts.
    pub enroller: Arc<Enroller>,
    /// The rule.
    pub eligibility: Arc<Eligibility>,
    /// Counts.
    pub metrics: Metrics,
    /// Tells users about pods that cannot be enrolled.
    pub notices: Notices,
}

impl Settler {
    /// Works until the process ends.
    pub async fn run(self) {
        loop {
            let (uid, change) = self.queue.next().await;
            let outcome = self.settle(&uid, &change).await;
            self.queue.done(&uid, change, outcome);
        }
    }

    async fn settle(&self, uid: &str, change: &Change) -> Outcome {
        let (kind, pod, action) = match change {
            Change::Updated { old } => {
                // The state of now counts; a pod that is gone has a change of its own.
                let Some(pod) = self.world.pod(uid) else { return Outcome::Settled };
                let action = if is_node_proxy(&pod) {
                    Action::None
                } else {
                    decide::on_update(old.as_deref(), &pod, &self.labels_of(&pod), &self.eligibility)
                };
                (if old.is_some() { "update" } else { "add" }, pod, action)
            }
            Change::Deleted { last } => {
                let action = decide::on_delete(last, &self.labels_of(last), &self.eligibility);
                ("delete", Arc::clone(last), action)
            }
        };
        self.metrics.reconcile_events.get_or_create(&EventKind { r#type: kind }).inc();
        let done = match action {
            Action::None => return Outcome::Settled,
            Action::Add => self.enroller.add(&pod).await,
            Action::UpdateAddresses => self.enroller.update_addresses(&pod),
            Action::Release => self.enroller.remove(&pod, false).await,
            Action::Forget => self.enroller.remove(&pod, true).await,
        };
        match done {
            Ok(()) => Outcome::Settled,
            Err(error) => self.failed(&pod, &action, &error).await,
        }
    }

    async fn failed(&self, pod: &Pod, action: &Action, error: &EnrolError) -> Outcome {
        let chain = error_chain(error);
        let name = full_name(pod);
        if error.is_retryable() {
            tracing::warn!(target: SCOPE, pod = %name, ?action, error = %chain, "pod is not as wanted, trying again");
            return Outcome::Retry;
        }
        tracing::error!(target: SCOPE, pod = %name, ?action, error = %chain, "pod is not as wanted");
        if *action == Action::Add {
            self.notices.warn(pod, FAILED, &format!("not captured: {chain}")).await;
        }
        Outcome::Settled
    }

    fn labels_of(&self, pod: &Pod) -> Arc<Labels> {
        self.world.namespace(&pod.namespace().unwrap_or_default()).unwrap_or_default()
    }
}

/// An error with what caused it.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The node proxy is never captured by itself, whatever its labels say.
#[must_use]
pub fn is_node_proxy(pod: &Pod) -> bool {
    let label = pod.labels().get("app").map(String::as_str);
    label == Some("ztunnel") && pod.namespace().as_deref() == Some(labels::SYSTEM_NAMESPACE)
}

/// Reason of the event for a pod that cannot be captured as it is.
const FAILED: &str = "AmbientEnrolmentFailed";
