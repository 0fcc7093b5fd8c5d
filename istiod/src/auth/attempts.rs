//! Bounds on token reviews: how many at the same time, and how many refused ones of a source, so that one who guesses
//! does not keep the API server busy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_core::bucket::{Allowance, Bucket};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Counts refused calls. Sources that nobody refused cost nothing.
#[derive(Debug)]
pub struct Attempts {
    since: Instant,
    by_source: Mutex<HashMap<IpAddr, Source>>,
    own: Semaphore,
    others: Semaphore,
}

#[derive(Debug)]
struct Source {
    bucket: Bucket,
    /// When the bucket was found empty: until then nobody is asked.
    shut_until: Option<Instant>,
    last: Instant,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            by_source: Mutex::default(),
            own: Semaphore::new(REVIEWS_MAX),
            others: Semaphore::new(OTHERS_MAX),
        }
    }
}

impl Attempts {
    /// A place among the reviews under way, or none in time. Those of other clusters have places of their own: one that
    /// does not answer keeps nobody of ours waiting.
    pub(super) async fn review(&self, own: bool) -> Option<SemaphorePermit<'_>> {
        let places = if own { &self.own } else { &self.others };
        tokio::time::timeout(REVIEW_WAIT, places.acquire()).await.ok()?.ok()
    }

    /// Whether a call from there is looked at.
    pub(super) fn allows(&self, source: IpAddr, now: Instant) -> bool {
        let sources = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(&source).and_then(|one| one.shut_until).is_none_or(|until| now >= until)
    }

    /// A call from there was refused.
    pub(super) fn refused(&self, source: IpAddr, now: Instant) {
        let mut sources = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            sources.retain(|_, one| now.saturating_duration_since(one.last) < FORGET);
            if sources.len() >= SOURCES_MAX {
                return;
            }
        }
        let entry = sources.entry(source).or_insert_with(|| Source {
            bucket: Bucket::full(REFUSALS),
            shut_until: None,
            last: now,
        });
        entry.last = now;
        let elapsed = now.saturating_duration_since(self.since);
        if !entry.bucket.take(REFUSALS, || elapsed) {
            entry.shut_until = Some(now + PAUSE);
        }
    }
}

/// Reviews at the same time; the API server answers one in milliseconds.
const REVIEWS_MAX: usize = 128;
/// Reviews at the same time by other clusters.
const OTHERS_MAX: usize = 32;
/// How long a call waits for its review.
const REVIEW_WAIT: Duration = Duration::from_secs(5);
/// Refused calls of one source: proxies whose token has just expired try a few times, all pods of a node together.
const REFUSALS: Allowance = Allowance { burst: 60, per_second: 2 };
/// How long a source that was refused too often is not listened to.
const PAUSE: Duration = Duration::from_secs(2);
/// Sources that are remembered.
const SOURCES_MAX: usize = 16_384;
/// Quiet ones are forgotten after this time, if there is need for room.
const FORGET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_refused_too_often_is_not_listened_to_for_a_while() {
        let attempts = Attempts::default();
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..REFUSALS.burst {
            assert!(attempts.allows(bad, Instant::now()));
            attempts.refused(bad, Instant::now());
        }
        attempts.refused(bad, Instant::now());
        assert!(!attempts.allows(bad, Instant::now()) && attempts.allows(good, Instant::now()));
        tokio::time::advance(PAUSE).await;
        assert!(attempts.allows(bad, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_quiet_sources_make_room() {
        let attempts = Attempts::default();
        let ip = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..u32::try_from(SOURCES_MAX).unwrap() + 10 {
            attempts.refused(ip(number), Instant::now());
        }
        assert_eq!(attempts.by_source.lock().unwrap().len(), SOURCES_MAX);
        tokio::time::advance(FORGET).await;
        attempts.refused(ip(u32::MAX), Instant::now());
        assert_eq!(attempts.by_source.lock().unwrap().len(), 1);
    }
}
