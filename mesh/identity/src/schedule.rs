//! Which identity gets a certificate next, and what everyone else sees meanwhile. No I/O: `now` comes in, work goes out.
//!
//! ```text
//!            ask                 success
//! (absent) ------> Initialising ---------> Available --+ about half-life: asked again, old one stays
//!                       | failure             ^   |    |
//!                       v        success      |   +----+
//!                  Unavailable ---------------+   failure past its end -> Unavailable
//!  forget, in any state: (absent)
//! ```
//!
//! What no workload was ever announced for, only connections asked for, is dropped when it would be asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::Identity;
use mesh_core::backoff::Backoff;
use rand::Rng;
use tokio::sync::watch;

use crate::error::CertError;
use crate::workload::WorkloadCert;

/// What is known about the certificate of one identity.
#[derive(Debug, Clone)]
pub enum CertState {
    /// The first request is queued or under way.
    Initialising,
    /// There is a certificate; it is renewed at `refresh_at`.
    Available {
        /// The certificate to use now.
        cert: Arc<WorkloadCert>,
        /// When its successor is asked for.
        refresh_at: SystemTime,
    },
    /// There is none; the authority is asked again at `retry_at`.
    Unavailable {
        /// The last failure.
        error: CertError,
        /// When the next attempt is due.
        retry_at: SystemTime,
    },
}

/// How urgent a request is; later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Renewal and retries.
    Background,
    /// A workload appeared.
    WarmUp,
    /// A connection waits.
    RealTime,
}

/// Names one request, so that an answer that comes after a forget is not mistaken for a newer one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// One entry per identity in use.
#[derive(Default)]
pub(crate) struct Schedule {
    entries: HashMap<Identity, Entry>,
    outstanding: usize,
    next_ticket: u64,
}

struct Entry {
    state: watch::Sender<CertState>,
    queued: Option<Queued>,
    in_flight: Option<Ticket>,
    backoff: Backoff,
    /// A workload uses it, which will be told when it leaves; connections come and go unannounced.
    claimed: bool,
    /// A connection met the last failure.
    missed: bool,
}

#[derive(Clone, Copy)]
struct Queued {
    priority: Priority,
    due: SystemTime,
}

impl Schedule {
    /// Makes sure that somebody cares for `identity` and returns a view on it.
    pub(crate) fn ask(
        &mut self,
        identity: &Identity,
        priority: Priority,
        now: SystemTime,
    ) -> Result<watch::Receiver<CertState>, CertError> {
        let claimed = priority == Priority::WarmUp;
        if let Some(entry) = self.entries.get_mut(identity) {
            entry.claimed |= claimed;
            entry.missed |= matches!(&*entry.state.borrow(), CertState::Unavailable { .. });
            // A retry that waits for its time is not brought forward: back-off protects the authority.
            if let Some(queued) = &mut entry.queued
                && queued.due <= now
            {
                queued.priority = queued.priority.max(priority);
            }
            return Ok(entry.state.subscribe());
        }
        if self.entries.len() >= MAX_IDENTITIES {
            return Err(CertError::TooMany { identity: identity.clone(), limit: MAX_IDENTITIES });
        }
        let (state, view) = watch::channel(CertState::Initialising);
        let entry = Entry {
            state,
            queued: Some(Queued { priority, due: now }),
            in_flight: None,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX, RETRY_JITTER_PERCENT),
            claimed,
            missed: false,
        };
        self.entries.insert(identity.clone(), entry);
        Ok(view)
    }

    /// Drops everything about `identity`, waking whoever waits. Returns the request to cancel, if one is under way.
    pub(crate) fn forget(&mut self, identity: &Identity) -> Option<Ticket> {
        self.entries.remove(identity)?.in_flight
    }

    /// The most urgent request that may start now, if any; the caller starts it and reports with [`Schedule::finished`]
    /// or [`Schedule::cancelled`].
    pub(crate) fn start_next(&mut self, now: SystemTime) -> Option<(Identity, Ticket)> {
        self.entries.retain(|_, entry| !entry.is_abandoned(now));
        if self.outstanding >= MAX_OUTSTANDING {
            return None;
        }
        let (identity, _) = self
            .entries
            .iter()
            .filter_map(|(identity, entry)| Some((identity, entry.queued?)))
            .filter(|(_, queued)| queued.due <= now)
            .max_by_key(|(_, queued)| (queued.priority, std::cmp::Reverse(queued.due)))?;
        let identity = identity.clone();
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.outstanding += 1;
        let entry = self.entries.get_mut(&identity)?;
        entry.queued = None;
        entry.in_flight = Some(ticket);
        Some((identity, ticket))
    }

    /// When something becomes due, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        self.entries.values().filter_map(|entry| entry.queued).map(|queued| queued.due).min()
    }

    /// Takes the answer to a request.
    pub(crate) fn finished(
        &mut self,
        identity: &Identity,
        ticket: Ticket,
        answer: Result<WorkloadCert, CertError>,
        now: SystemTime,
    ) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(identity).filter(|entry| entry.in_flight == Some(ticket)) else {
            return;
        };
        entry.in_flight = None;
        entry.missed = false;
        let (state, due) = match answer {
            Ok(cert) => {
                entry.backoff.reset();
                let roll = rand::rng().random_range(0..=RENEWAL_EARLY_PER_MILLE);
                let refresh_at = renewal_time(cert.half_life(), now, roll);
                (CertState::Available { cert: Arc::new(cert), refresh_at }, refresh_at)
            }
            Err(error) => entry.failed(identity, error, now),
        };
        entry.queued = Some(Queued { priority: Priority::Background, due });
        entry.state.send_replace(state);
    }

    /// A request that [`Schedule::forget`] told to cancel has ended.
    pub(crate) fn cancelled(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Every identity with its state.
    pub(crate) fn list(&self) -> Vec<(Identity, CertState)> {
        self.entries.iter().map(|(identity, entry)| (identity.clone(), entry.state.borrow().clone())).collect()
    }
}

impl Entry {
    /// Due again in the background, for nobody that is known. Where connections still run into a failure it is kept:
    /// each of them would start afresh, past the back-off.
    fn is_abandoned(&self, now: SystemTime) -> bool {
        let due = self.queued.is_some_and(|queued| queued.priority == Priority::Background && queued.due <= now);
        due && !self.claimed && !self.missed
    }

    /// A certificate that is still good outlives a failed renewal; it is retried before its end.
    fn failed(&mut self, identity: &Identity, error: CertError, now: SystemTime) -> (CertState, SystemTime) {
        let retry_at = now + self.backoff.next_delay();
        match &*self.state.borrow() {
            CertState::Available { cert, .. } if cert.not_after() > now => {
                let retry_at = retry_at.min(cert.not_after());
                (CertState::Available { cert: cert.clone(), refresh_at: retry_at }, retry_at)
            }
            CertState::Available { .. } => {
                let error = CertError::Expired { identity: identity.clone(), cause: error.to_string() };
                (CertState::Unavailable { error, retry_at }, retry_at)
            }
            _ => (CertState::Unavailable { error, retry_at }, retry_at),
        }
    }
}

/// Half-life, or up to a twentieth of the way there earlier, and never later: the pods of a node that start together
/// would otherwise all renew in the same second, twice a day.
fn renewal_time(half_life: SystemTime, now: SystemTime, per_mille_early: u32) -> SystemTime {
    let way = half_life.duration_since(now).unwrap_or(Duration::ZERO);
    (half_life - way / 1000 * per_mille_early.min(RENEWAL_EARLY_PER_MILLE)).max(now + RENEWAL_MIN)
}

/// Requests to the authority at once: enough to warm a node quickly, few enough not to flood the authority.
const MAX_OUTSTANDING: usize = 8;
/// Identities on one node; Kubernetes nodes run some hundred pods at most.
const MAX_IDENTITIES: usize = 10_000;
/// First wait after a failure.
const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// Longest wait between attempts.
const RETRY_MAX: Duration = Duration::from_secs(150);
/// Spread of the waits.
const RETRY_JITTER_PERCENT: u32 = 20;
/// Largest part of the way to the half-life that a renewal may be early, in thousandths.
const RENEWAL_EARLY_PER_MILLE: u32 = 50;
/// A certificate that is born old must not make a busy loop.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
