//! Judges a pod's live inbound connections again whenever its policies change.

use std::sync::{Arc, Weak};

use mesh_policy::Policy;

use super::Pod;
use crate::shared::Shared;

/// Runs until the pod's last connection is gone or everything is cut: connections stay under watch during a graceful
/// drain, too.
pub(super) async fn enforce_policies(pod: Weak<Pod>, shared: Arc<Shared>) {
    let mut changed = shared.state.changed();
    let mut known: Option<(u64, Vec<Arc<Policy>>)> = None;
    loop {
        changed.borrow_and_update();
        // The pod lives as long as a worker serves it.
        let Some(pod) = pod.upgrade() else { return };
        let snapshot = shared.state.snapshot();
        if let Some(workload) = snapshot.local_workload(&pod.name, &pod.namespace, &pod.service_account) {
            let policies = snapshot.policies_for(workload).applied;
            // A generation that was skipped may have let connections in which these policies deny, even if they are
            // the same as before it.
            let unbroken = known.as_ref().is_some_and(|(generation, known)| {
                snapshot.generation <= generation.saturating_add(1) && same(known, &policies)
            });
            if !unbroken {
                let cut = pod.live.enforce(&policies);
                if cut > 0 {
                    tracing::info!(pod = %pod.name, namespace = %pod.namespace, cut, "policy change ended connections");
                }
            }
            known = Some((snapshot.generation, policies));
        }
        // Neither the pod nor an old view may be kept alive by waiting.
        drop((pod, snapshot));
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Updates of other workloads leave the very same policies in place.
fn same(known: &[Arc<Policy>], now: &[Arc<Policy>]) -> bool {
    known.len() == now.len() && known.iter().zip(now).all(|(a, b)| Arc::ptr_eq(a, b))
}
