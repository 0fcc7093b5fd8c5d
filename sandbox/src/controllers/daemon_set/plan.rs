//! What a DaemonSet does next, node by node. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::controllers::pod_state;
use crate::controllers::scale::Fenceposts;

/// One node and the set's pods on it.
#[derive(Debug)]
pub(super) struct NodeView {
    pub(super) name: String,
    /// A pod of the set belongs here.
    pub(super) wanted: bool,
    pub(super) pods: Vec<PodView>,
}

/// One pod of the set.
#[derive(Debug)]
pub(super) struct PodView {
    pub(super) pod: Arc<Pod>,
    /// Made of the present template.
    pub(super) current: bool,
    pub(super) available: bool,
}

impl NodeView {
    /// Pods that run on, oldest first.
    fn live(&self) -> Vec<&PodView> {
        let mut live: Vec<&PodView> = self.pods.iter().filter(|view| pod_state::is_active(&view.pod)).collect();
        live.sort_by_key(|view| view.pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        live
    }
}

/// The steps to take now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod of the present template.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// Decides for all nodes; `limits` is `None` when pods are replaced only after someone deleted
/// them (`OnDelete`).
pub(super) fn plan(nodes: &[NodeView], limits: Option<Fenceposts>) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        place(node, &mut plan);
    }
    if let Some(limits) = limits {
        if limits.surge > 0 {
            surge(nodes, limits.surge, &mut plan);
        } else {
            replace(nodes, limits.unavailable, &mut plan);
        }
    }
    plan
}

/// Presence only: a missing pod is made, superfluous and finished ones go.
fn place(node: &NodeView, plan: &mut Plan) {
    let finished = node
        .pods
        .iter()
        .filter(|view| pod_state::is_finished(&view.pod) && view.pod.metadata.deletion_timestamp.is_none());
    plan.delete.extend(finished.map(|view| Arc::clone(&view.pod)));
    let live = node.live();
    if !node.wanted {
        plan.delete.extend(live.iter().map(|view| Arc::clone(&view.pod)));
        return;
    }
    // A pod on its way out keeps the place until it is gone: two would fight for host ports
    // and host paths.
    if node.pods.is_empty() {
        plan.create.push(node.name.clone());
        return;
    }
    for current in [true, false] {
        let doubles = live.iter().filter(|view| view.current == current).skip(1);
        plan.delete.extend(doubles.map(|view| Arc::clone(&view.pod)));
    }
}

/// Old pods are deleted first, at most `unavailable` nodes at a time without an available pod.
fn replace(nodes: &[NodeView], unavailable: i32, plan: &mut Plan) {
    let wanted = || nodes.iter().filter(|node| node.wanted);
    let missing = wanted().filter(|node| !node.live().iter().any(|view| view.available)).count();
    let mut budget = unavailable - i32::try_from(missing).unwrap_or(i32::MAX);
    for node in wanted() {
        let live = node.live();
        if live.iter().any(|view| view.current) {
            plan.delete.extend(live.iter().filter(|view| !view.current).map(|view| Arc::clone(&view.pod)));
            continue;
        }
        let Some(old) = live.first() else {
            continue;
        };
        if !old.available {
            plan.delete.push(Arc::clone(&old.pod));
        } else if budget > 0 {
            budget -= 1;
            plan.delete.push(Arc::clone(&old.pod));
        }
    }
}

/// New pods are made first, at most `surge` nodes at a time with two; an old pod goes when the
/// new one is available.
fn surge(nodes: &[NodeView], surge: i32, plan: &mut Plan) {
    let both = |node: &&NodeView| {
        let live = node.live();
        live.iter().any(|view| view.current) && live.iter().any(|view| !view.current)
    };
    let surging = nodes.iter().filter(|node| node.wanted).filter(both).count();
    let mut budget = surge - i32::try_from(surging).unwrap_or(i32::MAX);
    for node in nodes.iter().filter(|node| node.wanted) {
        let live = node.live();
        let Some(old) = live.iter().find(|view| !view.current) else {
            continue;
        };
        match live.iter().find(|view| view.current) {
            Some(new) if new.available => plan.delete.push(Arc::clone(&old.pod)),
            Some(_) => {}
            None if !old.available || budget > 0 => {
                budget -= i32::from(old.available);
                plan.create.push(node.name.clone());
            }
            None => {}
        }
    }
}

/// The status that the nodes amount to.
pub(super) fn status(set: &DaemonSet, nodes: &[NodeView]) -> DaemonSetStatus {
    let count = |test: &dyn Fn(&NodeView) -> bool| {
        i32::try_from(nodes.iter().filter(|node| test(node)).count()).unwrap_or(i32::MAX)
    };
    let any =
        |node: &NodeView, test: &dyn Fn(&PodView) -> bool| node.wanted && node.live().iter().any(|view| test(view));
    let desired = count(&|node| node.wanted);
    let available = count(&|node| any(node, &|view| view.available));
    let before = set.status.as_ref();
    DaemonSetStatus {
        observed_generation: set.metadata.generation,
        desired_number_scheduled: desired,
        current_number_scheduled: count(&|node| any(node, &|_| true)),
        number_misscheduled: count(&|node| !node.wanted && !node.live().is_empty()),
        number_ready: count(&|node| any(node, &|view| pod_state::is_ready(&view.pod))),
        number_available: Some(available),
        number_unavailable: Some(desired - available),
        updated_number_scheduled: Some(count(&|node| any(node, &|view| view.current))),
        collision_count: before.and_then(|status| status.collision_count),
        conditions: before.and_then(|status| status.conditions.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, current: bool, available: bool) -> PodView {
        view(name, current, available, None, "Running")
    }

    fn view(name: &str, current: bool, available: bool, deleted: Option<&str>, phase: &str) -> PodView {
        PodView {
            pod: Arc::new(
                serde_json::from_value(serde_json::json!({
                    "metadata": {"name": name, "deletionTimestamp": deleted},
                    "status": {"phase": phase},
                }))
                .unwrap(),
            ),
            current,
            available,
        }
    }

    fn node(name: &str, wanted: bool, pods: Vec<PodView>) -> NodeView {
        NodeView { name: name.into(), wanted, pods }
    }

    fn steps(nodes: &[NodeView], surge: i32, unavailable: i32) -> (Vec<String>, Vec<String>) {
        let plan = plan(nodes, Some(Fenceposts { surge, unavailable }));
        let deleted = plan.delete.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        (plan.create, deleted)
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_fitting_node_gets_one_pod_and_no_other_has_any() {
        let nodes = [
            node("n1", true, vec![]),
            node("n2", true, vec![pod("a", true, true), pod("b", true, true)]),
            node("n3", false, vec![pod("c", true, true)]),
            node("n4", true, vec![view("d", true, false, None, "Failed")]),
        ];
        assert_eq!(steps(&nodes, 0, 1), (texts(&["n1"]), texts(&["b", "c", "d"])));
    }

    #[test]
    fn a_terminating_pod_keeps_its_place() {
        let leaving = view("a", false, false, Some("2026-01-01T00:00:00Z"), "Running");
        assert_eq!(steps(&[node("n1", true, vec![leaving])], 0, 1), (vec![], vec![]));
    }

    #[test]
    fn replacing_keeps_to_the_budget_but_broken_pods_cost_nothing() {
        let nodes = [node("n1", true, vec![pod("a", false, true)]), node("n2", true, vec![pod("b", false, true)])];
        assert_eq!(steps(&nodes, 0, 1), (vec![], texts(&["a"])));
        let one_down = [node("n1", true, vec![pod("a", true, false)]), node("n2", true, vec![pod("b", false, true)])];
        assert_eq!(steps(&one_down, 0, 1), (vec![], vec![]));
        let broken = [node("n1", true, vec![pod("a", false, false)]), node("n2", true, vec![pod("b", false, true)])];
        assert_eq!(steps(&broken, 0, 1), (vec![], texts(&["a"])));
        assert!(plan(&broken, None).is_empty());
    }

    #[test]
    fn surging_starts_the_new_pod_before_the_old_one_goes() {
        let start = [node("n1", true, vec![pod("a", false, true)]), node("n2", true, vec![pod("b", false, true)])];
        assert_eq!(steps(&start, 1, 0), (texts(&["n1"]), vec![]));
        let under_way = [
            node("n1", true, vec![pod("a", false, true), pod("a2", true, false)]),
            node("n2", true, vec![pod("b", false, true)]),
        ];
        assert_eq!(steps(&under_way, 1, 0), (vec![], vec![]));
        let ready = [
            node("n1", true, vec![pod("a", false, true), pod("a2", true, true)]),
            node("n2", true, vec![pod("b", false, true)]),
        ];
        assert_eq!(steps(&ready, 1, 0), (vec![], texts(&["a"])));
    }

    #[test]
    fn the_status_counts_nodes() {
        let nodes = [
            node("n1", true, vec![pod("a", true, true)]),
            node("n2", true, vec![pod("b", false, false)]),
            node("n3", false, vec![pod("c", true, true)]),
        ];
        let status = status(&DaemonSet::default(), &nodes);
        assert_eq!(status.desired_number_scheduled, 2);
        assert_eq!(status.current_number_scheduled, 2);
        assert_eq!(status.number_misscheduled, 1);
        assert_eq!(status.updated_number_scheduled, Some(1));
        assert_eq!(status.number_unavailable, Some(1));
    }
}
