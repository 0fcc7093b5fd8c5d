//! How long things took, and what of it counts.

use std::time::Duration;

/// Latencies of one kind.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// One more.
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that `percent` of all do not exceed; zero if there are none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let nth = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(nth).copied().unwrap_or_default()
    }
}

/// The middle one of the 99th percentiles of windows that follow each other: what slows one of them down once, be it the
/// machine, does not decide. Zero if there are no windows.
pub fn typical_p99<'a>(windows: impl Iterator<Item = &'a Latencies>) -> Duration {
    let mut each: Vec<_> = windows.map(|window| window.percentile(99)).collect();
    each.sort_unstable();
    each.get(each.len() / 2).copied().unwrap_or_default()
}

/// Whether `disturbed` is bearable: at most twice as long as `undisturbed`, or, where that is so short that the machine's
/// own noise outweighs it, at most `floor`. Nothing measured is not bearable.
#[must_use]
pub fn bearable(undisturbed: Duration, disturbed: Duration, floor: Duration) -> bool {
    !disturbed.is_zero() && disturbed <= (undisturbed * 2).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: impl IntoIterator<Item = u64>) -> Latencies {
        Latencies(ms.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(of([]).percentile(99), Duration::ZERO);
        assert_eq!(of([7]).percentile(99), Duration::from_millis(7));
        assert_eq!(of((1..=100).rev()).percentile(99), Duration::from_millis(99));
        assert_eq!(of(1..=100).percentile(50), Duration::from_millis(50));
    }

    #[test]
    fn one_slow_window_does_not_decide_and_half_of_them_do() {
        let windows = [of([1; 100]), of([90; 100]), of([2; 100]), of([3; 100])];
        assert_eq!(typical_p99(windows.iter().take(3)), Duration::from_millis(2));
        assert_eq!(typical_p99(windows.iter().skip(1)), Duration::from_millis(3));
        assert_eq!(typical_p99(windows.iter()), Duration::from_millis(3));
        assert_eq!(typical_p99([].iter()), Duration::ZERO);
    }

    #[test]
    fn twice_is_bearable_and_so_is_less_than_the_noise() {
        let ms = Duration::from_millis;
        assert!(bearable(ms(10), ms(20), ms(5)));
        assert!(!bearable(ms(10), ms(21), ms(5)));
        assert!(bearable(ms(1), ms(5), ms(5)));
        assert!(!bearable(ms(1), ms(6), ms(5)));
        assert!(!bearable(ms(1), Duration::ZERO, ms(5)));
    }
}
