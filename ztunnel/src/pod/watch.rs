//! Judges a pod's live inbound connections again whenever its policies change.

use std::sync::{Arc, Weak};

use mesh_policy::Policy;

use super::Pod;
use crate::shared::Shared;

/// Runs until the pod's last connection is gone or everything is cut: connections stay under watch during a graceful
/// drain, too.
pub(super) async fn enforce_policies(pod: Weak<Pod>, shared: Arc<Shared>) {
    let mut changed = shared.state.changed();
    let mut known: Option<Vec<Arc<Policy>>> = None;
    loop {
        changed.borrow_and_update();
        // The pod lives as long as a worker serves it.
        let Some(pod) = pod.upgrade() else { return };
        if let Some(workload) = pod.workload(&shared) {
            let policies = shared.state.snapshot().policies_for(&workload).applied;
            if !known.as_ref().is_some_and(|known| same(known, &policies)) {
                let cut = pod.live.enforce(&policies);
                if cut > 0 {
                    tracing::info!(pod = %pod.name, namespace = %pod.namespace, cut, "policy change ended connections");
                }
                known = Some(policies);
            }
        }
        drop(pod);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Updates of other workloads leave the very same policies in place.
fn same(known: &[Arc<Policy>], now: &[Arc<Policy>]) -> bool {
    known.len() == now.len() && known.iter().zip(now).all(|(a, b)| Arc::ptr_eq(a, b))
}
