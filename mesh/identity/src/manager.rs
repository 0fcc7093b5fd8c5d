//! Certificates of all identities of a node, asked for once each and kept fresh in the background.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use mesh_core::Identity;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::clock::Clock;
use crate::error::CertError;
use crate::schedule::{CertState, Priority, Schedule, Ticket};
use crate::workload::WorkloadCert;

/// Whoever can make certificates: the authority's client, or a test's authority in memory.
pub trait CertSource: Send + Sync + 'static {
    /// One certificate for `identity`, with a key made for it.
    ///
    /// # Errors
    /// Any [`CertError`]; the caller retries.
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>>;
}

/// The certificates of one node. Cheap to clone; usable from every thread. The work is done by one background task on
/// the runtime that called [`CertManager::spawn`]; it ends with the last clone.
#[derive(Clone)]
pub struct CertManager {
    shared: Arc<Shared>,
    _driver: Arc<AbortOnDrop>,
}

struct Shared {
    core: Mutex<Core>,
    wake: Notify,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Core {
    schedule: Schedule,
    running: HashMap<Ticket, AbortHandle>,
}

impl CertManager {
    /// Starts the background task on the current runtime.
    #[must_use]
    pub fn spawn(source: Arc<dyn CertSource>, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared { core: Mutex::default(), wake: Notify::new(), clock });
        let driver = Driver { shared: shared.clone(), source, requests: JoinSet::new(), tickets: HashMap::new() };
        let task = tokio::spawn(driver.run());
        Self { shared, _driver: Arc::new(AbortOnDrop(task.abort_handle())) }
    }

    /// The certificate of `identity`: at once if there is one, else after the request that runs or starts now. A failure
    /// that waits for its retry is returned at once.
    ///
    /// # Errors
    /// The failure of the last attempt; [`CertError::Forgotten`] when the last user of the identity left meanwhile.
    ///
    /// # Cancel safety
    /// Cancel-safe; the request goes on for others.
    pub async fn fetch(&self, identity: &Identity) -> Result<Arc<WorkloadCert>, CertError> {
        let mut view = self.ask(identity, Priority::RealTime)?;
        let state = view.wait_for(|state| !matches!(state, CertState::Initialising)).await;
        let forgotten = || CertError::Forgotten { identity: identity.clone() };
        match &*state.map_err(|_| forgotten())? {
            CertState::Available { cert, .. } if cert.not_after() > self.shared.clock.now() => Ok(cert.clone()),
            CertState::Available { .. } => Err(CertError::Expired {
                identity: identity.clone(),
                cause: "its renewal is still under way".to_owned(),
            }),
            CertState::Unavailable { error, .. } => Err(error.clone()),
            CertState::Initialising => Err(forgotten()),
        }
    }

    /// Starts to get a certificate that will be wanted soon.
    pub fn prefetch(&self, identity: &Identity) {
        if let Err(error) = self.ask(identity, Priority::WarmUp) {
            tracing::warn!(%error, "certificate not prefetched");
        }
    }

    /// Drops key and certificate: no workload on this node uses the identity any more. Waiters get an error.
    pub fn forget(&self, identity: &Identity) {
        let mut core = self.shared.core();
        if let Some(ticket) = core.schedule.forget(identity)
            && let Some(task) = core.running.get(&ticket)
        {
            task.abort();
        }
    }

    /// Every identity with its state, for display.
    #[must_use]
    pub fn list(&self) -> Vec<(Identity, CertState)> {
        let mut list = self.shared.core().schedule.list();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    fn ask(&self, identity: &Identity, priority: Priority) -> Result<watch::Receiver<CertState>, CertError> {
        let now = self.shared.clock.now();
        let view = self.shared.core().schedule.ask(identity, priority, now)?;
        if matches!(&*view.borrow(), CertState::Initialising) {
            self.shared.wake.notify_one();
        }
        Ok(view)
    }
}

impl fmt::Debug for CertManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertManager")
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing under the lock can panic half-way through a change that matters.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Driver {
    shared: Arc<Shared>,
    source: Arc<dyn CertSource>,
    requests: JoinSet<Result<WorkloadCert, CertError>>,
    tickets: HashMap<Id, (Identity, Ticket)>,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let now = self.shared.clock.now();
            self.start_due(now);
            let pause = self.pause(now);
            tokio::select! {
                Some(ended) = self.requests.join_next_with_id() => self.take(ended),
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn start_due(&mut self, now: SystemTime) {
        let shared = self.shared.clone();
        let mut core = shared.core();
        while let Some((identity, ticket)) = core.schedule.start_next(now) {
            let answer = self.source.issue(identity.clone());
            let wanted = identity.clone();
            let task = self.requests.spawn(async move {
                let late = CertError::TimedOut { identity: wanted, budget: REQUEST_BUDGET };
                tokio::time::timeout(REQUEST_BUDGET, answer).await.unwrap_or(Err(late))
            });
            self.tickets.insert(task.id(), (identity, ticket));
            core.running.insert(ticket, task);
        }
    }

    fn take(&mut self, ended: Result<(Id, Result<WorkloadCert, CertError>), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, answer)) => (id, Ok(answer)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((identity, ticket)) = self.tickets.remove(&id) else {
            return;
        };
        let mut core = self.shared.core();
        core.running.remove(&ticket);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) if error.is_cancelled() => {
                core.schedule.cancelled();
                return;
            }
            // A panic while making a certificate counts as a failed attempt, so that it is retried like one.
            Err(error) => Err(CertError::Request { identity: identity.clone(), reason: error.to_string() }),
        };
        match &answer {
            Ok(cert) => tracing::debug!(%identity, not_after = ?cert.not_after(), "certificate issued"),
            Err(error) => tracing::warn!(%identity, %error, "certificate not issued"),
        }
        core.schedule.finished(&identity, ticket, answer, self.shared.clock.now());
    }

    /// Until something is due after `now`, the moment of the last [`Driver::start_due`]: with a later one, what became due
    /// between the two would be overlooked. Capped, because the wall clock may be stepped while we sleep.
    fn pause(&self, now: SystemTime) -> Duration {
        // A request that is due but waits for a free slot is started by the end of another one.
        let next = self.shared.core().schedule.next_due().filter(|due| *due > now);
        next.and_then(|due| due.duration_since(now).ok()).unwrap_or(PAUSE_MAX).min(PAUSE_MAX)
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One attempt at the authority, connecting included.
const REQUEST_BUDGET: Duration = Duration::from_secs(10);
/// Longest sleep without a look at the clock.
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
