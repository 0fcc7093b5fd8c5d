//! How much of everything.

use std::time::Duration;

/// The load of one run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long the load lasts.
    pub duration: Duration,
    /// New connections each second, each with one request.
    pub connections_per_second: u32,
    /// Connections that stay open, and say something now and then.
    pub held: usize,
    /// From the end of the load until memory is looked at.
    pub rest: Duration,
    /// When an unused tunnel is closed: before memory and descriptors are looked at.
    pub pool_release: Duration,
    /// How much more memory than before the load may be left, percent.
    pub left_percent: u64,
}

impl Plan {
    /// The real thing.
    #[must_use]
    pub fn of_minutes(minutes: f64) -> Self {
        Self {
            duration: Duration::from_secs_f64(minutes * 60.0),
            connections_per_second: 200,
            held: 2_000,
            rest: Duration::from_secs(60),
            pool_release: Duration::from_secs(30),
            left_percent: 10,
        }
    }

    /// Small enough to run beside other tests, with programs that are not optimised.
    #[must_use]
    pub fn short() -> Self {
        Self {
            duration: Duration::from_secs(15),
            connections_per_second: 40,
            held: 200,
            rest: Duration::from_secs(12),
            pool_release: Duration::from_secs(2),
            // Counters of pods that are gone stay for a minute, for which nobody waits here; a leak would be more than this.
            left_percent: 35,
        }
    }
}
