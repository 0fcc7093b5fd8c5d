//! One workload that this replica looks after, and what follows from what happens to it. Without I/O.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mesh_core::names::NamespacedName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::Health;
use super::{Claim, Refusal};
use crate::world::{WorkloadGroup, World};

/// Which stream's entry was written last, and what came of it.
pub(super) type Outcome = Option<(u64, Result<(), Refusal>)>;

/// One workload.
pub(super) struct Place {
    /// The group that it counts for.
    pub(super) of: NamespacedName,
    /// None where it was connected to somebody else, or to an earlier process of ours.
    pub(super) claim: Option<Arc<Claim>>,
    pub(super) phase: Phase,
    pub(super) streams: usize,
    pub(super) health: Option<Health>,
    /// Counts streams: who waits for its entry waits for this.
    pub(super) seq: u64,
    pub(super) written: watch::Sender<Outcome>,
    /// When something was written last.
    pub(super) wrote: Option<Instant>,
    /// UID and generation of the group that the entry was made from.
    pub(super) group: Option<(Arc<str>, i64)>,
    pub(super) due: Option<Instant>,
    pub(super) busy: bool,
    pub(super) failures: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    Connected {
        since: Timestamp,
        /// The entry does not say so yet.
        fresh: bool,
    },
    Leaving {
        at: Timestamp,
        from: Arc<str>,
        gone_at: Instant,
        /// The entry says that it left.
        told: bool,
    },
}

/// What to write about whom.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) key: NamespacedName,
    pub(super) what: What,
    pub(super) health: Option<Health>,
    pub(super) seq: u64,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Connected { claim: Arc<Claim>, since: Timestamp, fresh: bool },
    Left { at: Timestamp, from: Arc<str> },
    Gone,
}

/// What came of an [`Order`].
#[derive(Debug)]
pub(super) enum Done {
    /// The entry says it, made from this version of the group.
    Written {
        since: Timestamp,
        group: Option<(Arc<str>, i64)>,
    },
    /// Somebody else has the entry.
    NotOurs,
    Refused(Refusal),
    Failed,
}

/// When a workload is looked at again.
pub(super) enum Next {
    /// When something happens to it.
    Rest,
    At(Instant),
    /// Never.
    Forget,
}

impl Place {
    pub(super) fn new(of: NamespacedName, phase: Phase) -> Self {
        Self {
            of,
            claim: None,
            phase,
            streams: 0,
            health: None,
            seq: 0,
            written: watch::Sender::new(None),
            wrote: None,
            group: None,
            due: None,
            busy: false,
            failures: 0,
        }
    }

    /// One that comes and goes, or is healthy and not, all the time is written about now and then only.
    pub(super) fn not_before(&self, now: Instant) -> Instant {
        self.wrote.map_or(now, |wrote| now.max(wrote + WRITE_EVERY))
    }

    /// What to wait after failures.
    pub(super) fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => (RETRY * 2u32.saturating_pow(failures.min(10) - 1)).min(RETRY_MAX),
        }
    }

    pub(super) fn what(&self, now: Instant) -> Option<What> {
        match &self.phase {
            Phase::Connected { since, fresh } => {
                self.claim.clone().map(|claim| What::Connected { claim, since: *since, fresh: *fresh })
            }
            Phase::Leaving { told: true, gone_at, .. } => (now >= *gone_at).then_some(What::Gone),
            Phase::Leaving { at, from, .. } => Some(What::Left { at: *at, from: from.clone() }),
        }
    }

    pub(super) fn after(&mut self, order: &Order, done: Done, now: Instant) -> Next {
        let retry = now + self.pause();
        match (&mut self.phase, &order.what, done) {
            // It has come again meanwhile: that is due by itself.
            (Phase::Connected { .. }, What::Left { .. } | What::Gone, _) => Next::Rest,
            (Phase::Connected { .. }, _, Done::Failed) => Next::At(retry),
            (Phase::Connected { since, fresh }, _, Done::Written { since: written, group }) => {
                self.group = group;
                if order.seq == self.seq {
                    (*since, *fresh) = (written, false);
                }
                // What was told meanwhile is due by itself.
                Next::Rest
            }
            (Phase::Connected { fresh, .. }, _, Done::NotOurs | Done::Refused(_)) => {
                *fresh &= order.seq != self.seq;
                Next::Rest
            }
            // It left meanwhile: that is due by itself, at once where there is nothing to be told.
            (Phase::Leaving { .. }, What::Connected { .. }, Done::Refused(_)) => Next::Forget,
            (Phase::Leaving { .. }, What::Connected { .. }, _) => Next::At(now),
            (Phase::Leaving { .. }, _, Done::Failed) if self.failures < ATTEMPTS_MAX => Next::At(retry),
            (Phase::Leaving { told, gone_at, .. }, What::Left { .. }, Done::Written { .. }) => {
                *told = true;
                Next::At(*gone_at)
            }
            (Phase::Leaving { .. }, _, _) => Next::Forget,
        }
    }

    /// Whether its entry is not what it should be.
    pub(super) fn differs(&self, key: &NamespacedName, me: &Arc<str>, world: &World) -> bool {
        let (Phase::Connected { since, fresh: false }, Some(claim)) = (&self.phase, &self.claim) else { return false };
        let group = world.workload_group(&claim.group).map(version);
        if group != self.group {
            return true;
        }
        if group.is_none() {
            return false;
        }
        let Some(entry) = world.workload_entry(key) else { return true };
        let Some(one) = &entry.registered else { return true };
        let theirs = one.controller != *me && one.connected > Some(*since);
        one.disconnected.is_some() || !(theirs || (one.controller == *me && one.connected == Some(*since)))
    }
}

impl Phase {
    pub(super) fn fresh(since: Timestamp) -> Self {
        Self::Connected { since, fresh: true }
    }
}

/// What an entry is made from.
pub(super) fn version(group: &Arc<WorkloadGroup>) -> (Arc<str>, i64) {
    (group.uid.clone(), group.generation)
}

/// Time between two writes about one workload.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// After the first failure; doubles with each.
const RETRY: Duration = Duration::from_millis(500);
/// Longest pause between attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Attempts to tell that somebody left, before it is left to the upkeep.
const ATTEMPTS_MAX: u32 = 6;
