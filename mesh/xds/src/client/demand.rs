//! Asking for single resources by name and waiting for the answer.
//!
//! ```text
//! Demand::fetch --bounded queue--> run: one request on the wire per name --> response applied --> every waiter wakes
//! ```

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Asks the control plane for resources by name. Cheap to clone; clones share the queue.
#[derive(Clone, Debug)]
pub struct Demand {
    asks: mpsc::Sender<Ask>,
}

/// The other end of [`Demand`], for [`super::run_on_demand`].
#[derive(Debug)]
pub struct Demands {
    asks: mpsc::Receiver<Ask>,
}

/// One question.
#[derive(Debug)]
pub(super) struct Ask {
    name: String,
    answered: oneshot::Sender<()>,
}

/// Why it is not known whether a resource exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DemandError {
    /// The control plane did not answer. It may be gone or slow; trying again may help.
    #[error("control plane did not say within {budget:?} what {name} is")]
    TimedOut {
        /// What was asked for.
        name: String,
        /// How long was waited.
        budget: Duration,
    },
    /// More questions wait than are kept. Trying again may help.
    #[error("{limit} questions to the control plane wait already, {name} is not asked for")]
    TooMany {
        /// What was to be asked for.
        name: String,
        /// The bound.
        limit: usize,
    },
    /// The process is ending.
    #[error("nobody asks the control plane any more, {name} stays unknown")]
    Ended {
        /// What was asked for.
        name: String,
    },
}

impl Demand {
    /// A queue and its other end.
    #[must_use]
    pub fn channel() -> (Self, Demands) {
        let (sender, receiver) = mpsc::channel(ASKS_MAX);
        (Self { asks: sender }, Demands { asks: receiver })
    }

    /// Asks for `name` and waits until it is answered: a resource of that name or alias has been applied, or there is
    /// none. Questions for one name share one request.
    ///
    /// # Errors
    /// [`DemandError`]: whether there is such a resource is not known.
    ///
    /// # Cancel safety
    /// Cancel-safe; the question goes on for others.
    pub async fn fetch(&self, name: &str, budget: Duration) -> Result<(), DemandError> {
        let (answered, answer) = oneshot::channel();
        self.asks.try_send(Ask { name: name.to_owned(), answered }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DemandError::TooMany { name: name.to_owned(), limit: ASKS_MAX },
            mpsc::error::TrySendError::Closed(_) => DemandError::Ended { name: name.to_owned() },
        })?;
        match tokio::time::timeout(budget, answer).await {
            Ok(Ok(())) => Ok(()),
            // The queue ended, or forgot the question because there were too many.
            Ok(Err(_)) => Err(DemandError::Ended { name: name.to_owned() }),
            Err(_) => Err(DemandError::TimedOut { name: name.to_owned(), budget }),
        }
    }
}

impl Demands {
    pub(super) async fn next(&mut self) -> Option<Ask> {
        self.asks.recv().await
    }
}

/// Who waits for which name.
#[derive(Debug, Default)]
pub(super) struct Waiters(HashMap<String, Vec<oneshot::Sender<()>>>);

impl Waiters {
    /// Whether `ask` is the first for its name, and so has to go on the wire.
    pub(super) fn add(&mut self, ask: Ask) -> Option<String> {
        if self.0.len() >= NAMES_MAX && !self.0.contains_key(&ask.name) {
            self.0.retain(|_, waiting| {
                waiting.retain(|one| !one.is_closed());
                !waiting.is_empty()
            });
            if self.0.len() >= NAMES_MAX {
                // Dropped: the asker learns that it is not answered.
                return None;
            }
        }
        let waiting = self.0.entry(ask.name.clone()).or_default();
        // Those who gave up must not pile up while nobody answers.
        waiting.retain(|one| !one.is_closed());
        let first = waiting.is_empty();
        waiting.push(ask.answered);
        first.then_some(ask.name)
    }

    /// Wakes all who wait for `name`.
    pub(super) fn wake(&mut self, name: &str) {
        for one in self.0.remove(name).into_iter().flatten() {
            // It may have given up.
            let _ = one.send(());
        }
    }

    /// Names that are waited for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, waiting)| waiting.iter().any(|one| !one.is_closed())).map(|(name, _)| name.as_str())
    }
}

/// Questions that wait for the stream.
const ASKS_MAX: usize = 4096;
/// Names that are waited for at once.
const NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str) -> (Ask, oneshot::Receiver<()>) {
        let (answered, answer) = oneshot::channel();
        (Ask { name: name.to_owned(), answered }, answer)
    }

    #[test]
    fn one_request_for_all_who_wait_and_one_answer_wakes_them_all() {
        let mut waiters = Waiters::default();
        let ((one, mut first), (two, mut second)) = (ask("n"), ask("n"));
        assert_eq!(waiters.add(one).as_deref(), Some("n"));
        assert_eq!(waiters.add(two), None);
        waiters.wake("other");
        assert!(first.try_recv().is_err());
        waiters.wake("n");
        assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
        assert_eq!(waiters.add(ask("n").0).as_deref(), Some("n"), "asked for again once answered");
    }

    #[test]
    fn those_who_gave_up_make_room() {
        let mut waiters = Waiters::default();
        for n in 0..NAMES_MAX {
            assert!(waiters.add(ask(&n.to_string()).0).is_some());
        }
        let (last, answer) = ask("last");
        assert_eq!(waiters.add(last).as_deref(), Some("last"), "all others are gone");
        assert_eq!(waiters.names().collect::<Vec<_>>(), ["last"]);
        drop(answer);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_an_error() {
        let (demand, mut demands) = Demand::channel();
        let budget = Duration::from_secs(5);
        let error = demand.fetch("n1/10.0.0.1", budget).await.unwrap_err();
        assert_eq!(error.to_string(), "control plane did not say within 5s what n1/10.0.0.1 is");
        assert!(demands.next().await.is_some());
        drop(demands);
        assert!(matches!(demand.fetch("n", budget).await, Err(DemandError::Ended { .. })));
    }
}
