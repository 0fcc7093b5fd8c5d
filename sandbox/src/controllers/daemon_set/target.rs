//! Which nodes a DaemonSet's pods belong to. Pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};
use kube::ResourceExt;

use crate::controllers::pod_state;
use crate::controllers::scheduler::fit;

/// Names the template a daemon pod was made of.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";

/// Whether a pod of the template belongs on the node: its selector and affinity fit, and it
/// tolerates the node's taints.
pub(super) fn runs_on(template: &PodTemplateSpec, node: &Node) -> bool {
    let mut spec = template.spec.clone().unwrap_or_default();
    add_tolerations(&mut spec);
    fit::fits(&spec, node).is_ok()
}

/// Ties a new pod to one node (the scheduler then binds it there) and names its revision.
pub(super) fn bind(pod: &mut Pod, node: &str, hash: &str) {
    pod.labels_mut().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    add_tolerations(spec);
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // Replaces required terms of the template: they were checked when the node was chosen.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: NAME_FIELD.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
}

/// The node a daemon pod is bound to, or is going to be bound to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod_state::node_name(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?
            .node_selector_terms
            .first()?
            .match_fields
            .as_ref()?
            .iter()
            .find(|field| field.key == NAME_FIELD)?
            .values
            .as_ref()?
            .first()
            .map(String::as_str)
    })
}

/// Daemon pods stay on nodes with trouble: they may be what repairs it.
fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED {
        if *key == NETWORK_TAINT && !host_network {
            continue;
        }
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

const NAME_FIELD: &str = "metadata.name";
const NETWORK_TAINT: &str = "node.kubernetes.io/network-unavailable";
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    (NETWORK_TAINT, "NoSchedule"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(spec: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "node-1", "labels": {"disk": "fast"}}, "spec": spec
        }))
        .unwrap()
    }

    fn template(spec: serde_json::Value) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn a_bound_pod_names_its_node_before_the_scheduler_did() {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        bind(&mut pod, "node-2", "abc");
        bind(&mut pod, "node-2", "abc");
        assert_eq!(node_of(&pod), Some("node-2"));
        let tolerations = pod.spec.unwrap().tolerations.unwrap();
        assert_eq!(tolerations.len(), TOLERATED.len() - 1);
    }

    #[test]
    fn selector_and_taints_decide_and_cordoned_nodes_keep_their_daemons() {
        let plain = template(json!({"containers": []}));
        let picky = template(json!({"containers": [], "nodeSelector": {"disk": "slow"}}));
        assert!(runs_on(&plain, &node(json!({}))));
        assert!(!runs_on(&picky, &node(json!({}))));
        assert!(runs_on(&plain, &node(json!({"unschedulable": true}))));
        let tainted = node(json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]}));
        assert!(!runs_on(&plain, &tainted));
        let tolerant = template(json!({"containers": [], "tolerations": [{"operator": "Exists"}]}));
        assert!(runs_on(&tolerant, &tainted));
    }
}
