//! The work queue of a controller: each key at most once, some of them not before a given time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Key;

/// A set of keys waiting to be reconciled. Bounded by the number of objects there are, as each
/// key is in it at most once.
#[derive(Clone, Default)]
pub struct KeyQueue {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ready: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
}

impl KeyQueue {
    /// Adds a key to be handled as soon as possible.
    pub fn push(&self, key: Key) {
        let mut state = self.inner.state.lock().expect(POISON);
        state.later.remove(&key);
        state.ready.insert(key);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Adds a key to be handled after `delay`, or earlier if it was already due earlier.
    pub fn push_after(&self, key: Key, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = self.inner.state.lock().expect(POISON);
        if state.ready.contains(&key) {
            return;
        }
        let slot = state.later.entry(key).or_insert(due);
        *slot = (*slot).min(due);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Adds a key whose handling failed, with a delay that doubles per failure in a row.
    pub fn retry(&self, key: Key) {
        let failures = {
            let mut state = self.inner.state.lock().expect(POISON);
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            *count
        };
        self.push_after(key, retry_delay(failures));
    }

    /// Forgets the failures of a key: it was handled.
    pub fn done(&self, key: &Key) {
        self.inner.state.lock().expect(POISON).failures.remove(key);
    }

    /// The next key that is due; waits for one.
    ///
    /// # Cancel safety
    /// A key is only taken when it is returned, so dropping the future loses nothing.
    pub async fn next(&self) -> Key {
        loop {
            let wake = self.inner.wake.notified();
            let due = match self.take(Instant::now()) {
                Ok(key) => return key,
                Err(due) => due,
            };
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, wake).await;
                }
                None => wake.await,
            }
        }
    }

    /// A key that is due at `now`, or the time when the next one will be.
    fn take(&self, now: Instant) -> Result<Key, Option<Instant>> {
        let mut state = self.inner.state.lock().expect(POISON);
        let due: Vec<Key> = state.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            state.later.remove(&key);
            state.ready.insert(key);
        }
        match state.ready.pop_first() {
            Some(key) => Ok(key),
            None => Err(state.later.values().min().copied()),
        }
    }
}

/// 20 ms, doubling, at most 5 s.
fn retry_delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(RETRY_DOUBLINGS_MAX);
    (RETRY_FIRST * 2_u32.saturating_pow(doublings)).min(RETRY_CAP)
}

/// First delay after a failure (milliseconds): a conflict is over by then.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest delay between two tries of one key (seconds): a person waits for the sandbox.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Doublings after which the cap is certainly reached; keeps the arithmetic in range.
const RETRY_DOUBLINGS_MAX: u32 = 10;
/// Why taking the lock cannot fail: nothing panics while holding it.
const POISON: &str = "no code panics while it holds the queue's lock";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::informer::key;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_handled_once_however_often_it_is_pushed() {
        let queue = KeyQueue::default();
        queue.push(key("a", "b"));
        queue.push(key("a", "b"));
        assert_eq!(queue.next().await, key("a", "b"));
        assert!(queue.take(Instant::now()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_key_waits_and_a_push_overtakes_it() {
        let queue = KeyQueue::default();
        let start = Instant::now();
        queue.push_after(key("a", "slow"), Duration::from_secs(3));
        queue.push_after(key("a", "fast"), Duration::from_secs(1));
        assert_eq!(queue.next().await, key("a", "fast"));
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.push(key("a", "slow"));
        assert_eq!(queue.next().await, key("a", "slow"));
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[test]
    fn retries_double_up_to_the_cap() {
        assert_eq!(retry_delay(1), Duration::from_millis(20));
        assert_eq!(retry_delay(2), Duration::from_millis(40));
        assert_eq!(retry_delay(9), RETRY_CAP);
        assert_eq!(retry_delay(u32::MAX), RETRY_CAP);
    }
}
