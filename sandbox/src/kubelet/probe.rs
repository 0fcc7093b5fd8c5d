//! Probes: when a container counts as started, ready and alive. The counting is pure; `action`
//! performs a probe, `schedule` says when.

mod action;
mod grpc;
mod http;
mod tls;

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

pub(super) use action::{Action, Target, perform};

/// Which of a container's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As events name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// The timing and thresholds of a probe, with the API's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Settings {
    pub(super) fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32, minimum: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(minimum)
        };
        let seconds = |value, default, minimum| Duration::from_secs(number(value, default, minimum).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: number(probe.success_threshold, 1, 1),
            failure_threshold: number(probe.failure_threshold, 3, 1),
        }
    }
}

/// Counts the outcomes of one probe.
///
/// ```text
/// undecided ──successes──> good <──successes── bad
///     └───────failures───> bad  <──failures─── good
/// ```
#[derive(Debug)]
pub(super) struct Counter {
    settings: Settings,
    in_a_row: u32,
    last: Option<bool>,
    verdict: Option<bool>,
    eager: u32,
}

impl Counter {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, in_a_row: 0, last: None, verdict: None, eager: 0 }
    }

    /// Takes an outcome; the new verdict when it changed.
    pub(super) fn observe(&mut self, success: bool) -> Option<bool> {
        if self.last != Some(success) {
            self.last = Some(success);
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let threshold = if success { self.settings.success_threshold } else { self.settings.failure_threshold };
        if self.in_a_row < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }

    /// The wait before the next regular probe, or an early extra one that counts only when it
    /// succeeds: a container that needs a moment to open its port does not wait out a period.
    pub(super) fn next(&mut self, kind: Kind) -> Next {
        let early = EAGER_FIRST * 2_u32.saturating_pow(self.eager);
        if kind != Kind::Liveness
            && self.verdict.is_none()
            && self.last == Some(false)
            && self.eager < EAGER_MAX
            && early < self.settings.period
        {
            self.eager += 1;
            return Next { wait: early, extra: true };
        }
        Next { wait: self.settings.period, extra: false }
    }
}

/// When the next probe is, and whether its failure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) wait: Duration,
    pub(super) extra: bool,
}

/// Wait before the first extra probe of a container that is starting; doubles.
const EAGER_FIRST: Duration = Duration::from_millis(50);
/// Extra probes: 50 ms to 1.6 s, so about the first three seconds.
const EAGER_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(success: i32, failure: i32) -> Counter {
        Counter::new(Settings::of(&Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        }))
    }

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let mut counter = counter(2, 3);
        let outcomes = [true, false, true, true, false, false, true, false, false, false, false];
        let verdicts: Vec<_> = outcomes.map(|outcome| counter.observe(outcome)).into();
        assert_eq!(verdicts, [None, None, None, Some(true), None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn defaults_are_the_apis_and_nonsense_is_lifted() {
        let settings = Settings::of(&Probe::default());
        assert_eq!(settings.period, Duration::from_secs(10));
        assert_eq!(settings.timeout, Duration::from_secs(1));
        assert_eq!((settings.success_threshold, settings.failure_threshold), (1, 3));
        let zero = Settings::of(&Probe { period_seconds: Some(0), failure_threshold: Some(-1), ..Probe::default() });
        assert_eq!(zero.period, Duration::from_secs(1));
        assert_eq!(zero.failure_threshold, 3);
    }

    #[test]
    fn a_starting_container_is_probed_early_but_not_for_ever() {
        let mut counter = counter(1, 3);
        counter.observe(false);
        let waits: Vec<_> = (0..7).map(|_| counter.next(Kind::Readiness)).collect();
        assert_eq!(waits[0], Next { wait: Duration::from_millis(50), extra: true });
        assert_eq!(waits[5], Next { wait: Duration::from_millis(1600), extra: true });
        assert_eq!(waits[6], Next { wait: Duration::from_secs(10), extra: false });
        assert!(!self::counter(1, 3).next(Kind::Readiness).extra, "no extra before a failure");
        assert!(!counter.next(Kind::Liveness).extra);
    }
}
