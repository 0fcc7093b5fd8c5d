//! Turns at TLS handshakes: so many at one door, so many of them for one client. Who does not go on loses his turn to
//! those who wait.

mod queue;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use queue::Queue;

/// The turns at one door. Shared by workers.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue<Arc<Notify>>>,
    since: Instant,
}

/// How many turns there are, and how long one is safe.
#[derive(Debug, Clone, Copy)]
pub struct TurnBounds {
    /// Turns at once.
    pub all: usize,
    /// Those of them with one client, so that one client cannot take every turn.
    pub source: usize,
    /// A turn is safe for this long; after it, it goes to another client if one waits and has fewer turns.
    pub grace: Duration,
    /// As long when the one who waits has no turn at all and the holder's client has several.
    pub grace_newcomer: Duration,
}

/// Leave to do one handshake, or a place in the queue; given back on drop.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    id: u64,
    /// Rings when the turn has come, and once more when it must be given up.
    bell: Arc<Notify>,
}

impl Turns {
    /// All of them free.
    #[must_use]
    pub fn new(bounds: TurnBounds) -> Self {
        Self { queue: Mutex::new(Queue::new(bounds)), since: Instant::now() }
    }

    /// Waits for a turn. Clients with few turns come first; while somebody waits at the bound of all, those who have held
    /// theirs for longest are told to give it up.
    ///
    /// # Cancel safety
    /// Cancel-safe; the place in the queue is lost.
    pub async fn take(&self, source: IpAddr) -> Turn<'_> {
        let bell = Arc::new(Notify::new());
        let (id, mut has_turn) = self.queue().join(source, bell.clone(), self.since.elapsed());
        let turn = Turn { turns: self, id, bell };
        while !has_turn {
            // A bell rung is a turn; no bell is a reason to look for somebody who sleeps.
            has_turn = tokio::time::timeout(LOOK_AROUND, turn.bell.notified()).await.is_ok();
            if !has_turn {
                self.evict();
            }
        }
        turn
    }

    fn evict(&self) {
        let victim = self.queue().evict(self.since.elapsed());
        if let Some(bell) = victim {
            bell.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Arc<Notify>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until the turn must be given up because others wait and the client does not go on.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn lost(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let next = self.turns.queue().leave(self.id, self.turns.since.elapsed());
        next.iter().for_each(|bell| bell.notify_one());
    }
}

/// How often a client that waits looks for one that does not go on.
const LOOK_AROUND: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const ALL: usize = 256;
    const SOURCE: usize = 32;
    const GRACE: Duration = Duration::from_secs(1);
    const GRACE_NEWCOMER: Duration = Duration::from_millis(250);

    fn turns() -> Turns {
        Turns::new(TurnBounds { all: ALL, source: SOURCE, grace: GRACE, grace_newcomer: GRACE_NEWCOMER })
    }

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_cannot_take_every_turn() {
        let turns = turns();
        let take = |last| turns.take(client(last)).now_or_never();
        let mut held: Vec<_> = (0..SOURCE).map(|_| take(1).expect("a turn")).collect();
        let mut waiting = Box::pin(turns.take(client(1)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(take(2).expect("others are not affected"));
        held.pop();
        drop(waiting.now_or_never().expect("the next in the queue"));
        let others = ALL / SOURCE;
        for last in 2..=u8::try_from(others).unwrap() {
            held.extend((0..SOURCE).map(|_| take(last).expect("a turn")));
        }
        drop(take(100).expect("the one that was given back"));
        held.push(take(1).expect("a turn"));
        assert!(take(100).is_none(), "the bound of all");
        drop(held);
        assert!(turns.queue().is_empty(), "nothing is kept of clients that left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_stalls_does_not_keep_a_newcomer_waiting() {
        let turns = turns();
        let crowd = ALL / SOURCE;
        let mut held = Vec::new();
        for last in 1..=u8::try_from(crowd).unwrap() {
            for _ in 0..SOURCE {
                held.push(turns.take(client(last)).await);
            }
        }
        let started = Instant::now();
        // Each stalls until it is told to go, as a handshake does.
        let stalls = held.into_iter().map(|turn| async move { turn.lost().await });
        let crowd = futures::future::join_all(stalls);
        let newcomer = turns.take(client(200));
        tokio::select! {
            _ = crowd => panic!("all were told to go for one"),
            turn = newcomer => drop(turn),
        }
        let waited = started.elapsed();
        assert!(waited <= GRACE_NEWCOMER + 2 * LOOK_AROUND, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_sent_away_while_nobody_waits() {
        let turns = turns();
        let held: Vec<_> = (0..SOURCE).filter_map(|_| turns.take(client(1)).now_or_never()).collect();
        // At its own bound a client waits for itself.
        let own = tokio::time::timeout(GRACE * 20, turns.take(client(1))).await;
        assert!(own.is_err());
        assert!(held.iter().all(|turn| turn.lost().now_or_never().is_none()));
    }
}
