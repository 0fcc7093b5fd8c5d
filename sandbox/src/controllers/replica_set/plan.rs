//! What a ReplicaSet does next. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::controllers::pod_state;

/// The steps that bring the number of pods to the number wanted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Pods to create.
    pub(super) create: usize,
    /// Pods to delete, the least useful ones.
    pub(super) delete: Vec<Arc<Pod>>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create == 0 && self.delete.is_empty()
    }
}

/// Compares the active pods with the number wanted.
pub(super) fn plan(replicas: i32, pods: &[Arc<Pod>]) -> Plan {
    let wanted = usize::try_from(replicas).unwrap_or(0).min(CREATE_MAX);
    let mut active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod_state::is_active(pod)).collect();
    if active.len() <= wanted {
        return Plan { create: wanted - active.len(), delete: Vec::new() };
    }
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &active {
        *per_node.entry(pod_state::node_name(pod).unwrap_or("")).or_default() += 1;
    }
    active.sort_by_key(|pod| usefulness(pod, &per_node));
    let surplus = active.len() - wanted;
    Plan { create: 0, delete: active.into_iter().take(surplus).cloned().collect() }
}

/// Orders pods from the one to delete first to the one to keep longest: unbound before bound,
/// pending before running, not ready before ready, on the fuller node first, restarted most
/// often first, youngest first.
fn usefulness<'a>(
    pod: &'a Pod,
    per_node: &BTreeMap<&str, usize>,
) -> (bool, bool, bool, Reverse<usize>, Reverse<i32>, Reverse<jiff::Timestamp>, &'a str) {
    let node = pod_state::node_name(pod).unwrap_or("");
    let created = pod.metadata.creation_timestamp.as_ref().map_or(jiff::Timestamp::MIN, |time| time.0);
    (
        !node.is_empty(),
        pod_state::phase(pod) == "Running",
        pod_state::is_ready(pod),
        Reverse(per_node.get(node).copied().unwrap_or(0)),
        Reverse(pod_state::restarts(pod)),
        Reverse(created),
        pod.metadata.name.as_deref().unwrap_or(""),
    )
}

/// The status that the pods amount to.
pub(super) fn status(set: &ReplicaSet, pods: &[Arc<Pod>], now: jiff::Timestamp) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let active: Vec<_> = pods.iter().filter(|pod| pod_state::is_active(pod)).collect();
    let count =
        |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
    };
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: Some(count(&labelled)),
        ready_replicas: Some(count(&pod_state::is_ready)),
        available_replicas: Some(count(&|pod| pod_state::is_available(pod, min_ready, now))),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    }
}

/// Replicas of one set that the sandbox runs at most: each is a namespace and a process.
const CREATE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [
                    {"type": "Ready", "status": if ready { "True" } else { "False" },
                     "lastTransitionTime": "2026-01-01T00:00:10Z"}
                ]}
            }))
            .unwrap(),
        )
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn finished_pods_are_replaced_and_only_active_ones_count() {
        let pods = [pod("a", "n1", "Running", true), pod("b", "n1", "Failed", false)];
        assert_eq!(plan(2, &pods).create, 1);
        assert!(plan(1, &pods).is_empty());
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("ready-crowded-1", "n1", "Running", true),
            pod("ready-crowded-2", "n1", "Running", true),
            pod("ready-alone", "n2", "Running", true),
            pod("unready", "n1", "Running", false),
            pod("pending", "n1", "Pending", false),
            pod("unbound", "", "Pending", false),
        ];
        assert_eq!(
            names(&plan(0, &pods).delete),
            ["unbound", "pending", "unready", "ready-crowded-1", "ready-crowded-2", "ready-alone"]
        );
        assert_eq!(names(&plan(5, &pods).delete), ["unbound"]);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let set: ReplicaSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "generation": 3},
            "spec": {"minReadySeconds": 30, "selector": {}}
        }))
        .unwrap();
        let pods = [pod("a", "n1", "Running", true), pod("b", "n1", "Running", false)];
        let at = |text: &str| status(&set, &pods, text.parse().unwrap());
        let early = at("2026-01-01T00:00:20Z");
        assert_eq!((early.replicas, early.ready_replicas), (2, Some(1)));
        assert_eq!(early.available_replicas, Some(0));
        assert_eq!(at("2026-01-01T00:00:40Z").available_replicas, Some(1));
        assert_eq!(early.observed_generation, Some(3));
    }
}
