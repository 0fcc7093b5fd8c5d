//! Runs the probes of one running container.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use super::Kubelet;
use super::probe::{Action, Counter, Kind, Settings, Target, perform};
use super::record::PodRecord;
use crate::events;

/// What the probes of a container need.
pub(super) struct Probing {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) target: Target,
    pub(super) record: PodRecord,
}

/// Why a container must be restarted.
#[derive(Debug)]
pub(super) struct Unhealthy {
    pub(super) kind: Kind,
    /// `terminationGracePeriodSeconds` of the probe.
    pub(super) grace_seconds: Option<i64>,
}

impl Probing {
    /// Keeps `started` and `ready` current; returns when the container must be restarted.
    pub(super) async fn run(self) -> Unhealthy {
        if let Some(probe) = &self.container.startup_probe
            && !self.wait_started(probe).await
        {
            return Unhealthy { kind: Kind::Startup, grace_seconds: probe.termination_grace_period_seconds };
        }
        let always_ready = self.container.readiness_probe.is_none();
        self.record.container(&self.container.name, |record| {
            record.started = true;
            record.ready |= always_ready;
        });
        tokio::select! {
            () = self.readiness() => std::future::pending().await,
            unhealthy = self.liveness() => unhealthy,
        }
    }

    async fn wait_started(&self, probe: &Probe) -> bool {
        self.until(Kind::Startup, probe, |_| true).await
    }

    /// Never returns.
    async fn readiness(&self) {
        let Some(probe) = &self.container.readiness_probe else {
            return std::future::pending().await;
        };
        let name = self.container.name.as_str();
        self.until(Kind::Readiness, probe, |ready| {
            self.record.container(name, |record| record.ready = ready);
            false
        })
        .await;
    }

    /// Returns when the container is not alive any more.
    async fn liveness(&self) -> Unhealthy {
        let Some(probe) = &self.container.liveness_probe else {
            return std::future::pending().await;
        };
        self.until(Kind::Liveness, probe, |alive| !alive).await;
        Unhealthy { kind: Kind::Liveness, grace_seconds: probe.termination_grace_period_seconds }
    }

    /// Probes until `stop` accepts a verdict; returns that verdict.
    async fn until(&self, kind: Kind, probe: &Probe, stop: impl Fn(bool) -> bool) -> bool {
        let settings = Settings::of(probe);
        let action = Action::of_probe(probe, &self.container);
        let mut counter = Counter::new(settings.clone());
        tokio::time::sleep(settings.initial_delay).await;
        let mut extra = false;
        loop {
            let outcome = match &action {
                Ok(action) => perform(&self.target, action, settings.timeout).await,
                Err(reason) => Err(reason.clone()),
            };
            // An extra probe that fails did not happen.
            if !(extra && outcome.is_err()) {
                if let Err(reason) = &outcome {
                    self.report(kind, reason);
                }
                if let Some(verdict) = counter.observe(outcome.is_ok())
                    && stop(verdict)
                {
                    return verdict;
                }
            }
            let next = counter.next(kind);
            extra = next.extra;
            tokio::time::sleep(next.wait).await;
        }
    }

    fn report(&self, kind: Kind, reason: &str) {
        let message = format!("{} probe failed: {reason}", kind.name());
        self.kubelet.events.record(&self.pod, Some(&self.container.name), events::Kind::Warning, "Unhealthy", message);
    }
}
