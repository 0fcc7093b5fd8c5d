//! Turns at TLS handshakes: so many for a pod, so many of them for one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::limits::{POD_HANDSHAKES_MAX, SOURCE_HANDSHAKES_MAX};

/// The turns of one pod. Shared by its workers.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Semaphore,
    /// Only those who have a turn or wait for one.
    sources: Mutex<HashMap<IpAddr, Source>>,
}

#[derive(Debug)]
struct Source {
    users: usize,
    turns: Arc<Semaphore>,
}

/// Leave to do one handshake, given back on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _place: Place<'a>,
}

/// Keeps the entry of a client.
#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    source: IpAddr,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Semaphore::new(POD_HANDSHAKES_MAX), sources: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn. The client's own bound comes first: what waits at it takes no turn of others.
    ///
    /// # Cancel safety
    /// Cancel-safe; the place in the queue is lost.
    pub(crate) async fn take(&self, source: IpAddr) -> Turn<'_> {
        let (place, own) = self.join(source);
        let own = own.acquire_owned().await.expect("is never closed");
        let all = self.all.acquire().await.expect("is never closed");
        Turn { _all: all, _own: own, _place: place }
    }

    fn join(&self, source: IpAddr) -> (Place<'_>, Arc<Semaphore>) {
        let mut sources = self.sources();
        let entry = sources
            .entry(source)
            .or_insert_with(|| Source { users: 0, turns: Arc::new(Semaphore::new(SOURCE_HANDSHAKES_MAX)) });
        entry.users += 1;
        (Place { turns: self, source }, entry.turns.clone())
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut sources = self.turns.sources();
        if let Some(entry) = sources.get_mut(&self.source) {
            entry.users -= 1;
            if entry.users == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_client_cannot_take_every_turn() {
        let turns = Turns::default();
        let take = |last| turns.take(client(last)).now_or_never();
        let mut held: Vec<_> = (0..SOURCE_HANDSHAKES_MAX).map(|_| take(1).expect("a turn")).collect();
        let mut waiting = Box::pin(turns.take(client(1)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(take(2).expect("others are not affected"));
        held.pop();
        drop(waiting.now_or_never().expect("the next in the queue"));
        let others = POD_HANDSHAKES_MAX / SOURCE_HANDSHAKES_MAX;
        for last in 2..=u8::try_from(others).unwrap() {
            held.extend((0..SOURCE_HANDSHAKES_MAX).map(|_| take(last).expect("a turn")));
        }
        drop(take(100).expect("the one that was given back"));
        held.push(take(1).expect("a turn"));
        assert!(take(100).is_none(), "the pod's own bound");
        drop(held);
        assert!(turns.sources().is_empty(), "nothing is kept of clients that left");
    }
}
