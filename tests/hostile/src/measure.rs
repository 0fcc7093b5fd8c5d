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

    /// Takes in those of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
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

/// Whether `disturbed` is bearable: its 99th percentile is at most twice that of `undisturbed`, or, where that is so short
/// that the machine's own noise outweighs it, at most `floor`.
#[must_use]
pub fn bearable(undisturbed: &Latencies, disturbed: &Latencies, floor: Duration) -> bool {
    let allowed = (undisturbed.percentile(99) * 2).max(floor);
    !disturbed.is_empty() && disturbed.percentile(99) <= allowed
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
    fn twice_is_bearable_and_so_is_less_than_the_noise() {
        let floor = Duration::from_millis(5);
        assert!(bearable(&of([10; 100]), &of([20; 100]), floor));
        assert!(!bearable(&of([10; 100]), &of([21; 100]), floor));
        assert!(bearable(&of([1; 100]), &of([5; 100]), floor));
        assert!(!bearable(&of([1; 100]), &of([6; 100]), floor));
        assert!(!bearable(&of([1]), &of([]), floor));
    }
}
