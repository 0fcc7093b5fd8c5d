//! Pods that should be captured and are not: reported, because until then they talk in the clear or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use super::decide::{addresses, is_enrolled};
use super::enrol::{SCOPE, full_name};
use super::notice::Notices;
use super::settle::is_node_proxy;
use super::watch::World;
use crate::eligibility::{Eligibility, is_terminal};
use crate::metrics::Metrics;

/// How long each pod has been waiting. Pure: the caller brings the time.
#[derive(Debug, Default)]
pub struct Waiting {
    since: HashMap<String, Instant>,
    reported: HashSet<String>,
}

impl Waiting {
    /// Takes the UIDs of all pods that wait now. Returns those that have become overdue since the last call.
    pub fn update(&mut self, waiting: impl IntoIterator<Item = String>, now: Instant) -> Vec<String> {
        let before = std::mem::take(&mut self.since);
        self.since = waiting.into_iter().map(|uid| (uid.clone(), before.get(&uid).copied().unwrap_or(now))).collect();
        self.reported.retain(|uid| self.since.contains_key(uid));
        let overdue = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= LIMIT);
        let fresh: Vec<String> =
            overdue.map(|(uid, _)| uid.clone()).filter(|uid| !self.reported.contains(uid)).collect();
        self.reported.extend(fresh.iter().cloned());
        fresh
    }

    /// How many pods are overdue.
    #[must_use]
    pub fn overdue(&self) -> usize {
        self.reported.len()
    }
}

/// Looks every second, for the life of the process.
pub async fn run(world: Arc<World>, eligibility: Arc<Eligibility>, metrics: Metrics, notices: Notices) {
    let mut waiting = Waiting::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let pods = world.pods();
        let late: HashMap<String, &Arc<Pod>> = pods
            .iter()
            .filter(|pod| waits(pod, &world, &eligibility))
            .map(|pod| (pod.uid().unwrap_or_default(), pod))
            .collect();
        let fresh = waiting.update(late.keys().cloned(), Instant::now());
        metrics.enrolment_overdue.set(i64::try_from(waiting.overdue()).unwrap_or(i64::MAX));
        for pod in fresh.iter().filter_map(|uid| late.get(uid)) {
            tracing::error!(target: SCOPE, pod = %full_name(pod), limit = ?LIMIT, "labelled pod is not captured");
            let message = format!(
                "labelled for the mesh but not captured after {}s; see the log of istio-cni-node on this node",
                LIMIT.as_secs()
            );
            notices.warn(pod, PENDING, &message).await;
        }
    }
}

/// A pod without an address has not started: the plugin does not let it.
fn waits(pod: &Pod, world: &World, eligibility: &Eligibility) -> bool {
    let labels = world.namespace(&pod.namespace().unwrap_or_default()).unwrap_or_default();
    !is_enrolled(pod)
        && !is_terminal(pod)
        && !is_node_proxy(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && !addresses(pod).is_empty()
        && eligibility.captures(pod, &labels)
}

/// From then on a pod is overdue.
pub const LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Reason of the event.
const PENDING: &str = "AmbientEnrolmentPending";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_reported_once_after_the_limit_and_again_when_it_waits_anew() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let one = || ["a".to_owned()];
        assert!(waiting.update(one(), at(0)).is_empty());
        assert!(waiting.update(one(), at(9)).is_empty());
        assert_eq!(waiting.update(one(), at(10)), ["a"]);
        assert!(waiting.update(one(), at(11)).is_empty());
        assert_eq!(waiting.overdue(), 1);
        assert!(waiting.update([], at(12)).is_empty());
        assert_eq!(waiting.overdue(), 0);
        assert!(waiting.update(one(), at(13)).is_empty());
        assert_eq!(waiting.update(one(), at(23)), ["a"]);
    }
}
