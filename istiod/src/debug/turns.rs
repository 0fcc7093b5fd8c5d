//! Who may have a page built: a few at the same time, and of each caller one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Who asks for a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// Somebody on this machine.
    Machine,
    /// A service account of the control plane's namespace.
    Own(Arc<str>),
    /// Anybody of another namespace: its service accounts share a turn, for they can make as many as they like.
    Namespace(Arc<str>),
}

/// Gives turns. Clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Places>);

#[derive(Debug)]
struct Places {
    own: Arc<Semaphore>,
    /// Of other namespaces: they never take a place from whoever runs the control plane.
    others: Arc<Semaphore>,
    asking: Mutex<HashSet<Asker>>,
    left: Notify,
    wait: Duration,
}

/// Somebody's turn; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Turn {
    _seat: Seat,
    _place: OwnedSemaphorePermit,
}

/// Keeps others of the same caller away.
#[derive(Debug)]
struct Seat {
    places: Arc<Places>,
    asker: Asker,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(WAIT)
    }
}

impl Turns {
    /// Callers wait this long for their turn.
    pub(super) fn new(wait: Duration) -> Self {
        Self(Arc::new(Places {
            own: Arc::new(Semaphore::new(OWN_MAX)),
            others: Arc::new(Semaphore::new(OTHERS_MAX)),
            asking: Mutex::default(),
            left: Notify::new(),
            wait,
        }))
    }

    /// The caller's turn, or none in time.
    pub(super) async fn take(&self, asker: Asker) -> Option<Turn> {
        let entered = async {
            let seat = self.seat(asker).await;
            let places = match &seat.asker {
                Asker::Machine | Asker::Own(_) => &self.0.own,
                Asker::Namespace(_) => &self.0.others,
            };
            let place = places.clone().acquire_owned().await.ok()?;
            Some(Turn { _seat: seat, _place: place })
        };
        tokio::time::timeout(self.0.wait, entered).await.ok()?
    }

    async fn seat(&self, asker: Asker) -> Seat {
        loop {
            // Made before looking: who leaves after that wakes it.
            let left = self.0.left.notified();
            if self.0.asking.lock().unwrap_or_else(PoisonError::into_inner).insert(asker.clone()) {
                return Seat { places: self.0.clone(), asker };
            }
            left.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.asker);
        self.places.left.notify_waiters();
    }
}

/// Pages for the control plane's namespace and this machine that are built at the same time.
const OWN_MAX: usize = 4;
/// Those for other namespaces.
const OTHERS_MAX: usize = 2;
/// How long a caller waits.
const WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Asker {
        Asker::Own(name.into())
    }

    fn other(name: &str) -> Asker {
        Asker::Namespace(name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_for_each_caller() {
        let turns = Turns::default();
        let first = turns.take(own("a")).await.unwrap();
        assert!(turns.take(own("a")).await.is_none(), "waited, and in vain");
        assert!(turns.take(own("b")).await.is_some() && turns.take(Asker::Machine).await.is_some());
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(own("a")).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(turns.0.asking.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_at_the_same_time_and_others_take_no_place_of_ours() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for name in ["a", "b"] {
            held.push(turns.take(other(name)).await.unwrap());
        }
        assert!(turns.take(other("c")).await.is_none());
        for name in ["a", "b", "c", "d"] {
            held.push(turns.take(own(name)).await.unwrap());
        }
        assert!(turns.take(Asker::Machine).await.is_none());
        drop(held);
        assert!(turns.take(other("c")).await.is_some());
    }
}
