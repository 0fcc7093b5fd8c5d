//! Growing waits between attempts.

use std::time::Duration;

use rand::Rng;

/// Exponential back-off with jitter. Plain state: the caller sleeps.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    jitter_percent: u32,
    next: Duration,
}

impl Backoff {
    /// Starts at `initial`, doubles each time, never exceeds `cap`; each wait is spread by
    /// +-`jitter_percent` (0 to 100).
    #[must_use]
    pub fn new(initial: Duration, cap: Duration, jitter_percent: u32) -> Self {
        Self { initial, cap, jitter_percent: jitter_percent.min(100), next: initial }
    }

    /// How long to wait before the next attempt; each call doubles the one after.
    pub fn next_delay(&mut self) -> Duration {
        let base = self.next.min(self.cap);
        self.next = base.saturating_mul(2).min(self.cap);
        if self.jitter_percent == 0 {
            return base;
        }
        let percent = rand::rng().random_range(100 - self.jitter_percent..=100 + self.jitter_percent);
        (base.saturating_mul(percent) / 100).min(self.cap)
    }

    /// Back to the first wait: call after a success.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50), 0);
        let waits: Vec<_> = (0..5).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 50, 50]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_millis(), 10);
    }

    #[test]
    fn jitter_stays_in_its_band_and_below_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 20);
        for _ in 0..1000 {
            let wait = backoff.next_delay();
            assert!(wait >= Duration::from_millis(800) && wait <= Duration::from_secs(1), "{wait:?}");
        }
    }
}
