//! How many retries may run. Pure; counts are atomics, because every request of every worker adds to them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mesh_wire::l7;

/// A share of the requests may be retries.
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: f64,
    min_concurrency: u32,
    /// Over a sliding interval, where one is given; by what runs at the moment otherwise.
    sliding: Option<Sliding>,
}

/// Counts over time.
#[derive(Debug)]
struct Sliding {
    requests: Window,
    retries: Window,
    /// Retries that are always allowed.
    floor: Window,
    min_rate: u32,
}

/// A count of the current interval and the one before. Counts of two workers that come at the very end of an interval
/// may be lost.
#[derive(Debug)]
struct Window {
    length: Duration,
    /// Number of the current interval.
    current: AtomicU64,
    now: AtomicU32,
    before: AtomicU32,
}

impl RetryBudget {
    pub(super) fn of(budget: &l7::RetryBudget) -> Self {
        let duration = |duration: Option<&prost_types::Duration>| {
            let given = duration.and_then(|given| Duration::try_from(*given).ok());
            given.filter(|given| *given >= Duration::from_millis(1))
        };
        let sliding = duration(budget.interval.as_ref()).map(|interval| Sliding {
            requests: Window::new(interval),
            retries: Window::new(interval),
            floor: Window::new(duration(budget.min_rate_interval.as_ref()).unwrap_or(FLOOR_INTERVAL)),
            min_rate: budget.min_rate,
        });
        Self { percent: budget.percent.clamp(0.0, 100.0), min_concurrency: budget.min_concurrency, sliding }
    }

    /// A request has begun.
    pub(super) fn request(&self, now: Duration) {
        if let Some(sliding) = &self.sliding {
            sliding.requests.add(now);
        }
    }

    /// Whether one more retry may run, when `running` do and `busy` requests are active or wait.
    pub(super) fn allows(&self, running: u32, busy: u32, now: Duration) -> bool {
        let Some(sliding) = &self.sliding else {
            let share = (f64::from(busy) * self.percent / 100.0) as u32;
            return running < share.max(self.min_concurrency);
        };
        let (requests, retries) = (sliding.requests.sliding(now), sliding.retries.sliding(now));
        let in_budget = retries + 1.0 <= requests * self.percent / 100.0 || running < self.min_concurrency;
        let allowed = in_budget || sliding.floor.add(now) < sliding.min_rate;
        if allowed {
            sliding.retries.add(now);
        }
        allowed
    }
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { length, current: AtomicU64::new(0), now: AtomicU32::new(0), before: AtomicU32::new(0) }
    }

    /// Counts one more and tells how many there were in this interval.
    fn add(&self, now: Duration) -> u32 {
        self.advance(now);
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    /// Over one length of time up to now: the interval before counts as far as it is still within.
    fn sliding(&self, now: Duration) -> f64 {
        let within = 1.0 - self.advance(now);
        f64::from(self.now.load(Ordering::Relaxed)) + f64::from(self.before.load(Ordering::Relaxed)) * within
    }

    /// Returns how much of the current interval has passed.
    fn advance(&self, now: Duration) -> f64 {
        let passed = now.as_secs_f64() / self.length.as_secs_f64();
        let number = passed as u64;
        let known = self.current.load(Ordering::Relaxed);
        if number > known && self.current.compare_exchange(known, number, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let count = self.now.swap(0, Ordering::Relaxed);
            self.before.store(if number == known + 1 { count } else { 0 }, Ordering::Relaxed);
        }
        passed.fract()
    }
}

/// Where the policy says nothing.
const FLOOR_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn concurrent_retries_are_a_share_of_what_runs_but_three_at_least() {
        let budget = RetryBudget::of(&l7::RetryBudget { percent: 20.0, min_concurrency: 3, ..Default::default() });
        for (running, busy, allowed) in
            [(0, 1, true), (2, 1, true), (3, 1, false), (3, 19, false), (3, 20, true), (4, 20, false), (19, 100, true)]
        {
            assert_eq!(budget.allows(running, busy, Duration::ZERO), allowed, "{running} of {busy}");
        }
    }

    #[test]
    fn over_an_interval_retries_are_a_share_of_requests_with_a_floor() {
        let wanted = l7::RetryBudget {
            percent: 20.0,
            interval: seconds(10),
            min_rate: 2,
            min_rate_interval: seconds(1),
            ..Default::default()
        };
        let budget = RetryBudget::of(&wanted);
        let at = Duration::from_secs;
        for _ in 0..100 {
            budget.request(at(20));
        }
        let allowed = (0..100).filter(|_| budget.allows(0, 0, at(21))).count();
        assert_eq!(allowed, 22, "a fifth, and two by the floor");
        let later = (0..100).filter(|_| budget.allows(0, 0, at(22))).count();
        assert_eq!(later, 2, "the floor again");
        let much_later = (0..100).filter(|_| budget.allows(0, 0, at(90))).count();
        assert_eq!(much_later, 2);
    }
}
