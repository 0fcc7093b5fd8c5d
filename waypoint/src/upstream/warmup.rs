//! Slow start: a new endpoint takes a growing share.

use std::time::Duration;

/// How shares grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Warmup {
    pub(super) window: Duration,
    /// Share at the start, 0 to 1.
    pub(super) minimum: f64,
    /// 1: linear; above: faster at the beginning.
    pub(super) aggression: f64,
}

impl Warmup {
    /// What an endpoint's weight is multiplied by, `age` after it has become healthy.
    pub(super) fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let passed = age.as_secs_f64().max(1.0) / self.window.as_secs_f64();
        passed.powf(1.0 / self.aggression).clamp(self.minimum, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_over_the_window() {
        let warmup = Warmup { window: Duration::from_secs(60), minimum: 0.1, aggression: 1.0 };
        for (age, wanted) in [(0, 0.1), (6, 0.1), (30, 0.5), (45, 0.75), (60, 1.0), (1000, 1.0)] {
            let factor = warmup.factor(Duration::from_secs(age));
            assert!((factor - wanted).abs() < 1e-9, "{age} s: {factor}");
        }
        let faster = Warmup { aggression: 2.0, ..warmup };
        assert!((faster.factor(Duration::from_secs(15)) - 0.5).abs() < 1e-9);
        let odd = Warmup { window: Duration::from_millis(500), ..warmup };
        assert!((odd.factor(Duration::from_millis(100)) - 1.0).abs() < 1e-9, "never above the whole weight");
    }
}
