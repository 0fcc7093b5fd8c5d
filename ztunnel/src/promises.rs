//! Which of our promises hold where the reference behaves in another way: ours, unless the operator or the controller
//! says otherwise.
//!
//! The controller answers a stream with the header `x-meltemi-promises`, for instance
//! `waypointRequired=strict,policyBeforeTraffic=reference`. What it does not name keeps the default of the process,
//! and so does everything while the stream is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::config::{Config, Promise};

/// A promise that the data path keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A service with a policy that needs layer 7 takes traffic only through its waypoint.
    WaypointRequired,
    /// A connection waits for policies that its workload names, and is refused if they do not come.
    PolicyBeforeTraffic,
}

/// Which promises are kept to the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strict {
    /// [`Name::WaypointRequired`].
    pub waypoint_required: bool,
    /// [`Name::PolicyBeforeTraffic`].
    pub policy_before_traffic: bool,
}

/// What holds now. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Promises {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    defaults: Strict,
    waypoint_required: AtomicBool,
    policy_before_traffic: AtomicBool,
    changed: watch::Sender<u64>,
}

impl Strict {
    /// What the settings say.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            waypoint_required: config.waypoint_required == Promise::Strict,
            policy_before_traffic: config.policy_before_traffic == Promise::Strict,
        }
    }

    /// What holds once the controller has said `header`. Words that nobody knows change nothing; a promise that is named
    /// twice is kept if either says so.
    #[must_use]
    pub fn negotiated(self, header: Option<&str>) -> Self {
        let said = |name: &str| {
            let all = header.unwrap_or_default().split(',').filter_map(|word| word.split_once('='));
            let values = all.filter(|(key, _)| key.trim() == name).filter_map(|(_, value)| match value.trim() {
                "strict" => Some(true),
                "reference" => Some(false),
                _ => None,
            });
            values.reduce(|a, b| a || b)
        };
        Self {
            waypoint_required: said("waypointRequired").unwrap_or(self.waypoint_required),
            policy_before_traffic: said("policyBeforeTraffic").unwrap_or(self.policy_before_traffic),
        }
    }
}

impl Promises {
    /// Holds `defaults` until a controller speaks.
    #[must_use]
    pub fn new(defaults: Strict) -> Self {
        let inner = Inner {
            defaults,
            waypoint_required: AtomicBool::new(defaults.waypoint_required),
            policy_before_traffic: AtomicBool::new(defaults.policy_before_traffic),
            changed: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A stream to a controller began, with this header or without any.
    pub fn negotiate(&self, header: Option<&str>) {
        let now = self.inner.defaults.negotiated(header);
        let before = Strict {
            waypoint_required: self.inner.waypoint_required.swap(now.waypoint_required, Ordering::Relaxed),
            policy_before_traffic: self.inner.policy_before_traffic.swap(now.policy_before_traffic, Ordering::Relaxed),
        };
        if now != before {
            tracing::info!(?now, header, "the controller decided which promises hold");
            self.inner.changed.send_modify(|changes| *changes += 1);
        }
    }

    /// Whether a promise is kept to the letter.
    #[must_use]
    pub fn strict(&self, name: Name) -> bool {
        let flag = match name {
            Name::WaypointRequired => &self.inner.waypoint_required,
            Name::PolicyBeforeTraffic => &self.inner.policy_before_traffic,
        };
        flag.load(Ordering::Relaxed)
    }

    /// Yields whenever what holds has changed.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Strict = Strict { waypoint_required: true, policy_before_traffic: true };
    const REFERENCE: Strict = Strict { waypoint_required: false, policy_before_traffic: false };

    #[test]
    fn the_controller_decides_and_what_it_does_not_name_keeps_the_default() {
        let waypoint = Strict { waypoint_required: true, policy_before_traffic: false };
        let policy = Strict { waypoint_required: false, policy_before_traffic: true };
        let table = [
            (STRICT, None, STRICT),
            (STRICT, Some(""), STRICT),
            (STRICT, Some("waypointRequired=reference"), policy),
            (STRICT, Some("waypointRequired=strict,policyBeforeTraffic=reference"), waypoint),
            (STRICT, Some(" policyBeforeTraffic = reference , l7DenyAtL4=strict"), waypoint),
            (STRICT, Some("waypointRequired=off,waypointrequired=reference,garbage,=,"), STRICT),
            (STRICT, Some("waypointRequired=reference,waypointRequired=strict"), STRICT),
            (REFERENCE, None, REFERENCE),
            (REFERENCE, Some("waypointRequired=strict"), waypoint),
            (REFERENCE, Some("policyBeforeTraffic=strict,waypointRequired=strict"), STRICT),
        ];
        for (defaults, header, expected) in table {
            assert_eq!(defaults.negotiated(header), expected, "{defaults:?} {header:?}");
        }
    }

    #[test]
    fn each_stream_starts_from_the_defaults_and_only_changes_are_told() {
        let promises = Promises::new(STRICT);
        let mut changed = promises.changed();
        promises.negotiate(None);
        assert!(!changed.has_changed().unwrap());
        promises.negotiate(Some("waypointRequired=reference"));
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        assert!(!promises.strict(Name::WaypointRequired) && promises.strict(Name::PolicyBeforeTraffic));
        promises.negotiate(None);
        assert!(promises.strict(Name::WaypointRequired) && changed.has_changed().unwrap());
    }
}
