//! The record of a denied connection: who, to whom, which rule decided, and the nearest change
//! that would have allowed it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::Identity;
use mesh_policy::{Connection, Policy, Reason, Verdict, nearest_allow};
use mesh_telemetry::log::{self, Line, Record};
use tracing::Level;

use crate::state::Workload;

/// A connection that was refused, or ended, by what somebody wrote down.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// Client address and port; port 0 stands for all connections of the client that are alike.
    pub src_addr: SocketAddr,
    /// The client's workload, when its address is known.
    pub source: Option<&'a Arc<Workload>>,
    /// The workload that was meant.
    pub destination: &'a Arc<Workload>,
    /// What policies saw.
    pub connection: &'a Connection,
    /// What decided.
    pub cause: Cause<'a>,
    /// The connection was open already, and a change ended it.
    pub established: bool,
}

/// What decided about a connection that was denied.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// Policies.
    Policy {
        /// Those that applied.
        policies: &'a [Arc<Policy>],
        /// What they said.
        verdict: &'a Verdict,
    },
    /// A policy that the workload names is not known.
    MissingPolicy {
        /// Which one.
        reason: &'a str,
    },
    /// The service takes traffic through its waypoint only.
    WaypointRequired {
        /// Which service, which waypoint, and what to do.
        reason: &'a str,
    },
}

/// The value of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DenialKind {
    DenyRule,
    NoAllowRule,
    MissingPolicy,
    WaypointRequired,
}

impl DenialKind {
    pub(super) const ALL: [Self; 4] = [Self::DenyRule, Self::NoAllowRule, Self::MissingPolicy, Self::WaypointRequired];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DenyRule => "deny_rule",
            Self::NoAllowRule => "no_allow_rule",
            Self::MissingPolicy => "missing_policy",
            Self::WaypointRequired => "waypoint_required",
        }
    }
}

impl Cause<'_> {
    pub(super) fn kind(&self) -> DenialKind {
        match self {
            Self::Policy { verdict, .. } if matches!(verdict.reason, Reason::Denied(_)) => DenialKind::DenyRule,
            Self::Policy { .. } => DenialKind::NoAllowRule,
            Self::MissingPolicy { .. } => DenialKind::MissingPolicy,
            Self::WaypointRequired { .. } => DenialKind::WaypointRequired,
        }
    }
}

/// Records a workload may cause at once, per worker, and one more each [`REFILL`]: enough to see every kind of
/// denied client, few enough that a retrying one does not fill the disk.
pub(super) const BURST: u32 = 20;
/// See [`BURST`].
pub(super) const REFILL: Duration = Duration::from_millis(500);
/// Workloads remembered, per worker. Beyond that, those of others are counted but not recorded for a moment.
const BUDGETS_MAX: usize = 1024;
/// How often records that were left out are summed up, while there are any.
pub(super) const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// Limits how many records each workload can cause.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    /// By uid of the destination.
    budgets: HashMap<Arc<str>, Budget>,
}

#[derive(Debug)]
struct Budget {
    workload: Arc<Workload>,
    left: u32,
    refilled: Instant,
    /// Records left out since the last one.
    left_out: u64,
}

impl Budgets {
    /// Whether one more record may be written, and how many were left out before it.
    pub(super) fn admit(&mut self, workload: &Arc<Workload>, now: Instant) -> Option<u64> {
        if self.budgets.len() >= BUDGETS_MAX && !self.budgets.contains_key(&workload.uid) {
            self.sweep(now);
            if self.budgets.len() >= BUDGETS_MAX {
                return None;
            }
        }
        let full = || Budget { workload: Arc::clone(workload), left: BURST, refilled: now, left_out: 0 };
        let budget = self.budgets.entry(Arc::clone(&workload.uid)).or_insert_with(full);
        budget.refill(now);
        if budget.left == 0 {
            budget.left_out += 1;
            return None;
        }
        budget.left -= 1;
        Some(std::mem::take(&mut budget.left_out))
    }

    /// Forgets workloads that have their full budget again.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.budgets.retain(|_, budget| {
            budget.refill(now);
            budget.left < BURST || budget.left_out > 0
        });
    }

    /// Records that were left out and that no later record tells of, by workload.
    pub(super) fn take_left_out(&mut self) -> Vec<(Arc<Workload>, u64)> {
        let left_out = self.budgets.values_mut().filter(|budget| budget.left_out > 0);
        left_out.map(|budget| (Arc::clone(&budget.workload), std::mem::take(&mut budget.left_out))).collect()
    }
}

impl Budget {
    fn refill(&mut self, now: Instant) {
        let refills = now.saturating_duration_since(self.refilled).as_millis() / REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            self.left = self.left.saturating_add(refills).min(BURST);
            self.refilled = now;
        }
    }
}

/// Hands the record to the log's writer thread, which finds the nearest change and the words.
pub(super) fn record(denial: &Denial<'_>, left_out: u64) {
    if !tracing::enabled!(target: DENIAL, Level::WARN) {
        return;
    }
    let (policies, verdict, reason) = match denial.cause {
        Cause::Policy { policies, verdict } => (policies.to_vec(), Some(verdict.clone()), None),
        Cause::MissingPolicy { reason } | Cause::WaypointRequired { reason } => (vec![], None, Some(reason.into())),
    };
    let kept = Kept {
        src_addr: denial.src_addr,
        source: denial.source.cloned(),
        destination: Arc::clone(denial.destination),
        connection: denial.connection.clone(),
        kind: denial.cause.kind(),
        policies,
        verdict,
        reason,
        established: denial.established,
        left_out,
    };
    log::record(Level::WARN, DENIAL, "connection denied", Arc::new(kept));
}

/// A denial until it is written.
struct Kept {
    src_addr: SocketAddr,
    source: Option<Arc<Workload>>,
    destination: Arc<Workload>,
    connection: Connection,
    kind: DenialKind,
    policies: Vec<Arc<Policy>>,
    verdict: Option<Verdict>,
    reason: Option<Box<str>>,
    established: bool,
    left_out: u64,
}

impl Record for Kept {
    fn fields(&self, line: &mut Line<'_>) {
        let source = self.source.as_deref();
        match self.src_addr.port() {
            0 => line.shown("src.addr", &self.src_addr.ip()),
            _ => line.addr("src.addr", self.src_addr),
        }
        line.known("src.workload", source.map(|workload| &*workload.name));
        line.known("src.namespace", source.map(|workload| &*workload.namespace));
        line.text("src.identity", &identity(self.connection.identity.as_ref()));
        line.addr("dst.addr", self.connection.destination);
        line.text("dst.workload", &self.destination.name);
        line.text("dst.namespace", &self.destination.namespace);
        line.shown("dst.identity", &self.destination.identity);
        line.text("denied_by", self.kind.as_str());
        if let Some(verdict) = &self.verdict {
            match &verdict.reason {
                Reason::NoneMatched { policies } => line.text("policy", &join(policies)),
                reason => decided(line, reason),
            }
            line.shown("reason", &verdict.reason);
            if let Some(change) = nearest_allow(&self.policies, &self.connection) {
                line.shown("nearest_allow", &change);
            }
        }
        line.known("reason", self.reason.as_deref());
        if self.established {
            line.text("established", "true");
        }
        if self.left_out > 0 {
            line.number("suppressed", self.left_out);
        }
    }
}

/// The rule that decided, if one did.
fn decided(line: &mut Line<'_>, reason: &Reason) {
    if let Some(rule) = reason.rule() {
        line.shown("policy", &rule.policy);
        line.number("rule", rule.rule as u64);
    }
}

fn identity(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "none (plaintext)".to_owned(), ToString::to_string)
}

fn join(names: &[mesh_core::NamespacedName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Tells how many records were left out, where nothing else will.
pub(super) fn summary(workload: &Workload, left_out: u64) {
    tracing::warn!(
        target: DENIAL,
        { dst.workload = &*workload.name, dst.namespace = &*workload.namespace, suppressed = left_out },
        "more connections were denied than are recorded one by one"
    );
}

/// What policies said about one connection.
struct Decision {
    connection: Connection,
    verdict: Verdict,
}

impl Record for Decision {
    fn fields(&self, line: &mut Line<'_>) {
        line.shown("src.ip", &self.connection.source_ip);
        line.text("src.identity", &identity(self.connection.identity.as_ref()));
        line.addr("dst.addr", self.connection.destination);
        line.text("allowed", if self.verdict.allowed { "true" } else { "false" });
        decided(line, &self.verdict.reason);
        line.shown("reason", &self.verdict.reason);
    }
}

/// What a policy would have done.
struct DryRun(mesh_policy::DryRunNote);

impl Record for DryRun {
    fn fields(&self, line: &mut Line<'_>) {
        if let mesh_policy::DryRunNote::WouldDeny(rule) | mesh_policy::DryRunNote::WouldAllow(rule) = &self.0 {
            line.shown("policy", &rule.policy);
        }
        line.shown("note", &self.0);
    }
}

/// What policies said, at debug or info.
pub(super) fn log_verdict(connection: &Connection, verdict: &Verdict, at_info: bool) {
    let (level, enabled) = if at_info {
        (Level::INFO, tracing::enabled!(target: POLICY, Level::INFO))
    } else {
        (Level::DEBUG, tracing::enabled!(target: POLICY, Level::DEBUG))
    };
    if !enabled {
        return;
    }
    let decision = Decision { connection: connection.clone(), verdict: verdict.clone() };
    log::record(level, POLICY, "policy decision", Arc::new(decision));
    for note in &verdict.notes {
        log::record(level, POLICY, "dry run", Arc::new(DryRun(note.clone())));
    }
}

/// Scope of the records of denials.
const DENIAL: &str = "denial";
/// Scope of policy decisions.
const POLICY: &str = "policy";
