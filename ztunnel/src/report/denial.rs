//! The record of a denied connection: who, to whom, which rule decided, and the nearest change
//! that would have allowed it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::Identity;
use mesh_policy::{Connection, Policy, Reason, Verdict, nearest_allow};
use mesh_telemetry::metrics::{Counter, Registry};

use crate::state::Workload;

/// A connection that policy refused.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// Client address and port.
    pub src_addr: SocketAddr,
    /// The client's workload, when its address is known.
    pub source: Option<&'a Workload>,
    /// The workload that was meant.
    pub destination: &'a Workload,
    /// What policies saw.
    pub connection: &'a Connection,
    /// The policies that applied.
    pub policies: &'a [Arc<Policy>],
    /// What they said.
    pub verdict: &'a Verdict,
}

/// Limits how many records one workload can cause.
#[derive(Debug)]
pub(super) struct Denials {
    /// By uid of the destination.
    budgets: Mutex<HashMap<Arc<str>, Budget>>,
    suppressed: Counter,
}

/// Records a workload may cause at once, and one more each [`REFILL`]: enough to see every kind of
/// denied client, few enough that a retrying one does not fill the disk.
const BURST: u32 = 20;
/// See [`BURST`].
const REFILL: Duration = Duration::from_millis(500);
/// Workloads remembered; beyond that all start over.
const BUDGETS_MAX: usize = 1024;

#[derive(Debug)]
struct Budget {
    left: u32,
    refilled: Instant,
    /// Records left out since the last one.
    suppressed: u64,
}

impl Denials {
    pub(super) fn new(registry: &Registry) -> Self {
        let suppressed = Counter::default();
        registry.register(
            "ztunnel_denial_records_suppressed",
            "Denials that were counted but not recorded in full, to bound the log",
            suppressed.clone(),
        );
        Self { budgets: Mutex::default(), suppressed }
    }

    pub(super) fn record(&self, denial: &Denial<'_>) {
        match self.admit(&denial.destination.uid, Instant::now()) {
            Some(suppressed) => log(denial, suppressed),
            None => {
                self.suppressed.inc();
            }
        }
    }

    /// Whether one more record may be written, and how many were left out before it.
    fn admit(&self, uid: &Arc<str>, now: Instant) -> Option<u64> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= BUDGETS_MAX && !budgets.contains_key(uid) {
            budgets.clear();
        }
        let budget = budgets.entry(Arc::clone(uid)).or_insert(Budget { left: BURST, refilled: now, suppressed: 0 });
        let refills = now.saturating_duration_since(budget.refilled).as_millis() / REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            budget.left = budget.left.saturating_add(refills).min(BURST);
            budget.refilled = now;
        }
        if budget.left == 0 {
            budget.suppressed += 1;
            return None;
        }
        budget.left -= 1;
        Some(std::mem::take(&mut budget.suppressed))
    }
}

fn log(denial: &Denial<'_>, suppressed: u64) {
    let Denial { src_addr, source, destination, connection, policies, verdict } = denial;
    let rule = verdict.reason.rule();
    let policies_tried = match &verdict.reason {
        Reason::NoneMatched { policies } => Some(join(policies)),
        _ => None,
    };
    tracing::warn!(
        target: "denial",
        {
            src.addr = %src_addr,
            src.workload = source.map(|workload| &*workload.name),
            src.namespace = source.map(|workload| &*workload.namespace),
            src.identity = identity(connection.identity.as_ref()),
            dst.addr = %connection.destination,
            dst.workload = &*destination.name,
            dst.namespace = &*destination.namespace,
            dst.identity = %destination.identity,
            policy = rule.map(|rule| rule.policy.to_string()).or(policies_tried),
            rule = rule.map(|rule| rule.rule as u64),
            reason = %verdict.reason,
            nearest_allow = nearest_allow(policies, connection).map(|change| change.to_string()),
            suppressed = (suppressed > 0).then_some(suppressed),
        },
        "connection denied"
    );
}

fn identity(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "none (plaintext)".to_owned(), ToString::to_string)
}

fn join(names: &[mesh_core::NamespacedName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What policies said, at debug or info.
pub(super) fn log_verdict(verdict: &Verdict, at_info: bool) {
    let policy = verdict.reason.rule().map(|rule| rule.policy.to_string());
    if at_info {
        tracing::info!(target: "policy", policy, rule = ?verdict.reason.rule().map(|rule| rule.rule), reason = %verdict.reason, "policy decision");
    } else {
        tracing::debug!(target: "policy", policy, reason = %verdict.reason, "policy decision");
    }
    for note in &verdict.notes {
        if at_info {
            tracing::info!(target: "policy", %note, "dry run");
        } else {
            tracing::debug!(target: "policy", %note, "dry run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_recorded_then_counted_then_recorded_again() {
        let denials = Denials::new(&Registry::new());
        let (uid, now): (Arc<str>, _) = ("pod".into(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(denials.admit(&uid, now), Some(0));
        }
        assert_eq!(denials.admit(&uid, now), None);
        assert_eq!(denials.admit(&uid, now), None);
        assert_eq!(denials.admit(&"other".into(), now), Some(0), "one workload does not silence another");
        assert_eq!(denials.admit(&uid, now + REFILL), Some(2));
        assert_eq!(denials.admit(&uid, now + REFILL), None);
    }
}
