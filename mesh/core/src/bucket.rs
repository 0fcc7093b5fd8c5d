//! A bound on how often something may happen: bursts up to a level, then a steady rate.

use std::time::Duration;

/// What a [`Bucket`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// As many at once.
    pub burst: u32,
    /// As many each second after that.
    pub per_second: u32,
}

/// A token bucket as plain state of 8 bytes. Time comes in as a value, and only when the bucket is empty: counting is
/// cheap enough for every frame of a connection.
#[derive(Debug, Clone)]
pub struct Bucket {
    tokens: u32,
    /// Milliseconds on the caller's clock when tokens were added last. Wraps after 49 days, which can only make one
    /// refill smaller.
    filled_ms: u32,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(allowance: Allowance) -> Self {
        Self { tokens: allowance.burst, filled_ms: 0 }
    }

    /// Takes one token. `now` is the time since any fixed moment before the bucket was made, and is only asked for when
    /// the bucket is empty.
    pub fn take(&mut self, allowance: Allowance, now: impl FnOnce() -> Duration) -> bool {
        if self.tokens == 0 {
            self.refill(allowance, now());
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }

    /// Puts `tokens` in, as many as there is room for.
    pub fn put(&mut self, allowance: Allowance, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(allowance.burst);
    }

    /// How long an empty bucket takes until it has a token.
    #[must_use]
    pub fn wait(allowance: Allowance) -> Duration {
        Duration::from_secs(1) / allowance.per_second.max(1)
    }

    fn refill(&mut self, allowance: Allowance, now: Duration) {
        // Cut off on purpose: see the field.
        let now_ms = now.as_millis() as u32;
        let elapsed_ms = u64::from(now_ms.wrapping_sub(self.filled_ms));
        let earned = elapsed_ms * u64::from(allowance.per_second) / 1000;
        // Time that is not worth a token yet goes on counting.
        if earned > 0 {
            self.put(allowance, u32::try_from(earned).unwrap_or(u32::MAX));
            self.filled_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOWANCE: Allowance = Allowance { burst: 10, per_second: 100 };

    fn taken(bucket: &mut Bucket, tries: usize, ms: u64) -> usize {
        (0..tries).filter(|_| bucket.take(ALLOWANCE, || Duration::from_millis(ms))).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::full(ALLOWANCE);
        assert_eq!(taken(&mut bucket, 100, 0), 10);
        assert_eq!(taken(&mut bucket, 100, 9), 0, "nine milliseconds earn nothing");
        assert_eq!(taken(&mut bucket, 100, 10), 1, "and are not forgotten");
        assert_eq!(taken(&mut bucket, 100, 60_000), 10, "never more than the burst");
    }

    #[test]
    fn time_is_not_asked_for_while_there_are_tokens() {
        let mut bucket = Bucket::full(ALLOWANCE);
        for _ in 0..ALLOWANCE.burst {
            assert!(bucket.take(ALLOWANCE, || panic!("asked for the time")));
        }
    }

    #[test]
    fn what_is_put_back_counts_up_to_the_burst() {
        let mut bucket = Bucket::full(ALLOWANCE);
        assert_eq!(taken(&mut bucket, 10, 0), 10);
        bucket.put(ALLOWANCE, 3);
        assert_eq!(taken(&mut bucket, 10, 0), 3);
        bucket.put(ALLOWANCE, 1000);
        assert_eq!(taken(&mut bucket, 1000, 0), 10);
    }

    proptest! {
        /// However the tries are spread, no stretch of time yields more than a burst and what the rate earns in it.
        #[test]
        fn never_more_than_burst_and_rate(steps in prop::collection::vec((0_u64..50, 0_usize..40), 1..60)) {
            let mut bucket = Bucket::full(ALLOWANCE);
            let (mut now, mut total) = (0, 0);
            for (pause, tries) in steps {
                now += pause;
                total += taken(&mut bucket, tries, now) as u64;
                prop_assert!(total <= 10 + now / 10);
            }
        }
    }
}
