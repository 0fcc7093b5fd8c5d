//! Outlier detection: endpoints that fail are left out for a while. Pure: outcomes and the time come in as values.
//!
//! ```text
//!             threshold reached, and the share allows it
//!   in use ------------------------------------------------> ejected
//!      ^                                                        |
//!      +--------------------------------------------------------+
//!             first sweep after multiplier × base time
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mesh_wire::l7;

/// When an endpoint counts as failing. A threshold of zero is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) consecutive_5xx: u32,
    pub(super) consecutive_gateway: u32,
    pub(super) split: bool,
    pub(super) consecutive_local: u32,
    pub(super) interval: Duration,
    pub(super) base: Duration,
    pub(super) max_percent: u32,
    pub(super) error_codes: Vec<u16>,
}

/// How an attempt ended, as far as it says something about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response.
    Status(u16),
    /// No connection, no response, or none in time.
    LocalFailure,
    /// A TCP connection was made.
    Connected,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocal,
}

/// Failures in a row. Shared by the workers.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    errors: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
}

/// Ejections of one endpoint, current and past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ejections {
    /// Since when, on the caller's clock.
    pub(super) since: Option<Duration>,
    /// How often in a row, as far as it is remembered.
    multiplier: u32,
    /// Ever.
    pub(super) count: u32,
}

impl Streaks {
    /// Counts an outcome; tells when a threshold is reached.
    pub(super) fn count(&self, outcome: Outcome, policy: &Policy) -> Option<Cause> {
        match outcome {
            Outcome::Status(status) => {
                reset(&self.local);
                let error = match &*policy.error_codes {
                    [] => (500..600).contains(&status),
                    codes => codes.contains(&status),
                };
                self.judge(error, matches!(status, 502..=504), policy)
            }
            Outcome::LocalFailure if policy.split => {
                reached(&self.local, policy.consecutive_local).then_some(Cause::ConsecutiveLocal)
            }
            Outcome::LocalFailure => self.judge(true, true, policy),
            Outcome::Connected => {
                reset(&self.local);
                if !policy.split {
                    reset(&self.errors);
                    reset(&self.gateway);
                }
                None
            }
        }
    }

    fn judge(&self, error: bool, gateway: bool, policy: &Policy) -> Option<Cause> {
        let by_gateway = gateway && reached(&self.gateway, policy.consecutive_gateway);
        let by_error = error && reached(&self.errors, policy.consecutive_5xx);
        if !gateway {
            reset(&self.gateway);
        }
        if !error {
            reset(&self.errors);
        }
        match (by_gateway, by_error) {
            (_, true) => Some(Cause::Consecutive5xx),
            (true, false) => Some(Cause::ConsecutiveGateway),
            (false, false) => None,
        }
    }

    /// As a new endpoint.
    pub(super) fn clear(&self) {
        reset(&self.errors);
        reset(&self.gateway);
        reset(&self.local);
    }
}

/// Does not touch what is zero already: the cache line stays shared.
fn reset(streak: &AtomicU32) {
    if streak.load(Ordering::Relaxed) != 0 {
        streak.store(0, Ordering::Relaxed);
    }
}

/// Counts one more; a streak that has reached its threshold starts again.
fn reached(streak: &AtomicU32, threshold: u32) -> bool {
    if threshold == 0 {
        return false;
    }
    let streak_before = streak.fetch_add(1, Ordering::Relaxed);
    if streak_before + 1 < threshold {
        return false;
    }
    streak.store(0, Ordering::Relaxed);
    true
}

impl Policy {
    pub(super) fn of(detection: &l7::OutlierDetection) -> Self {
        let duration = |duration: Option<&prost_types::Duration>, default| {
            duration
                .and_then(|given| Duration::try_from(*given).ok())
                .filter(|given| !given.is_zero())
                .unwrap_or(default)
        };
        Self {
            consecutive_5xx: detection.consecutive_5xx,
            consecutive_gateway: detection.consecutive_gateway_errors,
            split: detection.split_local_origin,
            consecutive_local: detection.consecutive_local_origin,
            interval: duration(detection.interval.as_ref(), INTERVAL),
            base: duration(detection.base_ejection_time.as_ref(), BASE_EJECTION),
            max_percent: detection.max_ejection_percent.min(100),
            error_codes: detection.error_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
        }
    }

    /// Whether one more of `total` may be ejected when `ejected` are.
    pub(super) fn allows(&self, ejected: usize, total: usize) -> bool {
        (ejected + 1).saturating_mul(100) <= total.saturating_mul(self.max_percent as usize)
    }
}

impl Ejections {
    /// Starts an ejection.
    pub(super) fn eject(&mut self, now: Duration, policy: &Policy) {
        self.since = Some(now);
        self.count += 1;
        if policy.base.saturating_mul(self.multiplier) < policy.longest() {
            self.multiplier += 1;
        }
    }

    /// How long the current ejection lasts.
    pub(super) fn length(&self, policy: &Policy) -> Duration {
        policy.base.saturating_mul(self.multiplier).min(policy.longest())
    }

    /// Once every interval. Tells whether the endpoint is back.
    pub(super) fn sweep(&mut self, now: Duration, policy: &Policy) -> bool {
        let Some(since) = self.since else {
            self.multiplier = self.multiplier.saturating_sub(1);
            return false;
        };
        let over = now.saturating_sub(since) >= self.length(policy);
        if over {
            self.since = None;
        }
        over
    }
}

impl Policy {
    fn longest(&self) -> Duration {
        LONGEST_EJECTION.max(self.base)
    }
}

impl Cause {
    /// As event logs have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGateway => "consecutive_gateway_failure",
            Self::ConsecutiveLocal => "consecutive_local_origin_failure",
        }
    }
}

/// Where the policy says nothing.
const INTERVAL: Duration = Duration::from_secs(10);
/// Where the policy says nothing.
const BASE_EJECTION: Duration = Duration::from_secs(30);
/// However often an endpoint fails, unless the base is longer.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
