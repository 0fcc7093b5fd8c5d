//! Turns at TLS handshakes: so many for a pod, so many of them for one client. Who does not go on loses his turn to
//! those who wait.

mod queue;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use queue::{Bounds, Queue};

use crate::limits::{POD_HANDSHAKES_MAX, SOURCE_HANDSHAKES_MAX, TURN_GRACE, TURN_GRACE_NEWCOMER};

/// The turns of one pod. Shared by its workers.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Mutex<Queue<Arc<Notify>>>,
    since: Instant,
}

/// Leave to do one handshake, or a place in the queue; given back on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    id: u64,
    /// Rings when the turn has come, and once more when it must be given up.
    bell: Arc<Notify>,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(Bounds {
            all: POD_HANDSHAKES_MAX,
            source: SOURCE_HANDSHAKES_MAX,
            grace: TURN_GRACE,
            grace_newcomer: TURN_GRACE_NEWCOMER,
        })
    }
}

impl Turns {
    fn new(bounds: Bounds) -> Self {
        Self { queue: Mutex::new(Queue::new(bounds)), since: Instant::now() }
    }

    /// Waits for a turn. Clients with few turns come first; while somebody waits at the pod's bound, those who have held
    /// theirs for longest are told to give it up.
    ///
    /// # Cancel safety
    /// Cancel-safe; the place in the queue is lost.
    pub(crate) async fn take(&self, source: IpAddr) -> Turn<'_> {
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
    pub(crate) async fn lost(&self) {
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

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_cannot_take_every_turn() {
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
        assert!(turns.queue().is_empty(), "nothing is kept of clients that left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_stalls_does_not_keep_a_newcomer_waiting() {
        let turns = Turns::default();
        let crowd = POD_HANDSHAKES_MAX / SOURCE_HANDSHAKES_MAX;
        let mut held = Vec::new();
        for last in 1..=u8::try_from(crowd).unwrap() {
            for _ in 0..SOURCE_HANDSHAKES_MAX {
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
        assert!(waited <= TURN_GRACE_NEWCOMER + 2 * LOOK_AROUND, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_sent_away_while_nobody_waits() {
        let turns = Turns::default();
        let held: Vec<_> = (0..SOURCE_HANDSHAKES_MAX).filter_map(|_| turns.take(client(1)).now_or_never()).collect();
        // At its own bound a client waits for itself.
        let own = tokio::time::timeout(TURN_GRACE * 20, turns.take(client(1))).await;
        assert!(own.is_err());
        assert!(held.iter().all(|turn| turn.lost().now_or_never().is_none()));
    }
}
