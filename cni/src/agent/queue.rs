//! Pods that have to be looked at, each at most once at a time, failed ones again later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Why a pod has to be looked at.
#[derive(Debug, Clone)]
pub enum Change {
    /// It, or its namespace, has changed. `old` is how it was when it was last settled, if that is known.
    Updated {
        /// Earlier state.
        old: Option<Arc<Pod>>,
    },
    /// It is gone; this is how it was.
    Deleted {
        /// Last state.
        last: Arc<Pod>,
    },
}

/// How looking at a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted, or not worth another attempt.
    Settled,
    /// To be tried again later.
    Retry,
}

/// The queue. One entry a pod, so its size is bounded by the pods of the node.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<String, Item>,
    /// When the retry budget is full again.
    budget: Option<Instant>,
}

#[derive(Debug)]
struct Item {
    /// What came since the last attempt began.
    waiting: Option<Change>,
    running: bool,
    failures: u32,
    due: Instant,
}

impl Queue {
    /// Adds a pod, or tells that it has changed again.
    pub fn push(&self, uid: String, change: Change) {
        let mut state = self.lock();
        let now = Instant::now();
        let item = state.items.entry(uid).or_insert(Item { waiting: None, running: false, failures: 0, due: now });
        item.waiting = Some(merge(item.waiting.take(), change));
        // News about a pod that waits for its next attempt may be just what it needs.
        item.due = now;
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for a pod that is due. The caller must call [`Queue::done`] for it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn next(&self) -> (String, Change) {
        loop {
            let next_due = match self.take(Instant::now()) {
                Ok(found) => {
                    // There may be more: another worker looks.
                    self.wake.notify_one();
                    return found;
                }
                Err(next_due) => next_due,
            };
            match next_due {
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Ends an attempt. `change` is what [`Queue::next`] gave.
    pub fn done(&self, uid: &str, change: Change, outcome: Outcome) {
        let mut state = self.lock();
        let now = Instant::now();
        let Some(item) = state.items.get_mut(uid) else { return };
        item.running = false;
        match outcome {
            Outcome::Settled if item.waiting.is_none() => drop(state.items.remove(uid)),
            Outcome::Settled => (item.failures, item.due) = (0, now),
            Outcome::Retry => {
                let fresh = item.waiting.is_some();
                item.waiting = Some(match item.waiting.take() {
                    Some(later) => merge(Some(change), later),
                    None => change,
                });
                item.failures += 1;
                let delay = if fresh { Duration::ZERO } else { backoff(item.failures) };
                let slot = state.budget.map_or(now, |full| (full + RETRY_INTERVAL).max(now));
                state.budget = Some(slot);
                // The budget lends up to a burst of retries.
                let due = (now + delay).max(slot.checked_sub(RETRY_INTERVAL * RETRY_BURST).unwrap_or(now));
                if let Some(item) = state.items.get_mut(uid) {
                    item.due = due;
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Makes every pod that waits for another attempt due now: what it waited for may be there.
    pub fn hurry(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        for item in state.items.values_mut().filter(|item| item.waiting.is_some()) {
            item.due = item.due.min(now);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Pods that wait or are being looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self, now: Instant) -> Result<(String, Change), Option<Instant>> {
        let mut state = self.lock();
        let ready = state.items.iter_mut().filter(|(_, item)| !item.running && item.waiting.is_some());
        let Some((uid, item)) = ready.min_by_key(|(_, item)| item.due) else { return Err(None) };
        if item.due > now {
            return Err(Some(item.due));
        }
        let Some(change) = item.waiting.take() else { return Err(None) };
        item.running = true;
        Ok((uid.clone(), change))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two changes as one: the later one counts, the earlier one knows the older state.
fn merge(earlier: Option<Change>, later: Change) -> Change {
    match (earlier, later) {
        (Some(Change::Updated { old }), Change::Updated { .. }) => Change::Updated { old },
        (_, later) => later,
    }
}

fn backoff(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY_FIRST.saturating_mul(factor).min(RETRY_CAP)
}

/// Wait before the second attempt; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest wait between attempts.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Retries of all pods together: ten a second.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Retries that may come at once.
const RETRY_BURST: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn updated() -> Change {
        Change::Updated { old: None }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_pods_come_back_with_growing_waits_up_to_the_cap() {
        let queue = Queue::default();
        queue.push("a".into(), updated());
        let mut last = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..13 {
            let (uid, change) = queue.next().await;
            waits.push(last.elapsed().as_millis());
            last = Instant::now();
            queue.done(&uid, change, Outcome::Retry);
        }
        assert_eq!(waits[..6], [0, 5, 10, 20, 40, 80]);
        assert_eq!(waits[12], 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_never_handed_out_twice_and_news_meanwhile_are_kept() {
        let queue = Queue::default();
        queue.push("a".into(), updated());
        let (uid, change) = queue.next().await;
        queue.push("a".into(), Change::Deleted { last: Arc::default() });
        let second = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(second.is_err(), "handed out while running");
        queue.done(&uid, change, Outcome::Settled);
        let (uid, change) = queue.next().await;
        assert!(matches!(change, Change::Deleted { .. }));
        queue.done(&uid, change, Outcome::Settled);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_known_state_survives_a_failed_attempt() {
        let queue = Queue::default();
        let old = Arc::new(Pod::default());
        queue.push("a".into(), Change::Updated { old: Some(Arc::clone(&old)) });
        let (uid, change) = queue.next().await;
        queue.push("a".into(), Change::Updated { old: Some(Arc::default()) });
        queue.done(&uid, change, Outcome::Retry);
        let (_, Change::Updated { old: Some(found) }) = queue.next().await else { panic!("lost") };
        assert!(Arc::ptr_eq(&old, &found));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_pods_can_be_hurried() {
        let queue = Queue::default();
        queue.push("a".into(), updated());
        for _ in 0..12 {
            let (uid, change) = queue.next().await;
            queue.done(&uid, change, Outcome::Retry);
        }
        let began = Instant::now();
        queue.hurry();
        queue.next().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_of_many_pods_are_paced_after_a_burst() {
        let queue = Queue::default();
        for index in 0..150 {
            queue.push(index.to_string(), updated());
        }
        for _ in 0..150 {
            let (uid, change) = queue.next().await;
            queue.done(&uid, change, Outcome::Retry);
        }
        let began = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 150 {
            let (uid, change) = queue.next().await;
            seen.insert(uid.clone());
            queue.done(&uid, change, Outcome::Settled);
        }
        assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    }
}
