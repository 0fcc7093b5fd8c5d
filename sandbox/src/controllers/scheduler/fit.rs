//! Which nodes a pod fits, and why it fits no other. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use kube::ResourceExt;

/// Why a pod does not fit a node; the texts are the scheduler's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::controllers) enum Misfit {
    Selector,
    Taint(String),
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Selector => f.write_str("didn't match Pod's node affinity/selector"),
            Self::Taint(taint) => write!(f, "had untolerated taint {{{taint}}}"),
        }
    }
}

/// The best node for a pod: it fits and `cost` is lowest (then the name decides).
/// `Err` says how many nodes there are and why each fits not.
pub(super) fn choose<C: Ord>(spec: &PodSpec, nodes: &[&Node], cost: impl Fn(&str) -> C) -> Result<String, String> {
    let mut misfits: BTreeMap<Misfit, usize> = BTreeMap::new();
    let mut best: Option<(C, String)> = None;
    for node in nodes {
        match fits(spec, node) {
            Err(misfit) => *misfits.entry(misfit).or_default() += 1,
            Ok(()) => {
                let name = node.name_any();
                let candidate = (cost(&name), name);
                if best.as_ref().is_none_or(|best| candidate < *best) {
                    best = Some(candidate);
                }
            }
        }
    }
    if let Some((_, name)) = best {
        return Ok(name);
    }
    let reasons: Vec<String> = misfits.iter().map(|(misfit, count)| format!("{count} node(s) {misfit}")).collect();
    Err(format!("0/{} nodes are available: {}.", nodes.len(), reasons.join(", ")))
}

/// Whether a pod may be placed on a node.
pub(in crate::controllers) fn fits(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    let labels = node.labels();
    let selected = spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|required| &required.node_selector_terms);
    let attracted = terms.is_none_or(|terms| terms.iter().any(|term| term_matches(term, node)));
    if !selected || !attracted {
        return Err(Misfit::Selector);
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    match taints(node).into_iter().find(|taint| {
        taint.effect != "PreferNoSchedule" && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    }) {
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or("");
            Err(Misfit::Taint(format!("{}: {value}", taint.key)))
        }
        None => Ok(()),
    }
}

/// The node's taints; a cordoned node has one more.
fn taints(node: &Node) -> Vec<Taint> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let mut taints = spec.taints.clone().unwrap_or_default();
    if spec.unschedulable == Some(true) && !taints.iter().any(|taint| taint.key == CORDONED) {
        taints.push(Taint { key: CORDONED.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() });
    }
    taints
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let unset = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let effect = unset(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key = (unset(&toleration.key) && exists) || toleration.key.as_deref() == Some(&taint.key);
    let value = exists || toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("");
    effect && key && value
}

/// All requirements of a term; a term without any matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| meets(requirement, node.labels().get(&requirement.key).map(String::as_str)))
        && fields.iter().all(|requirement| {
            let value = (requirement.key == "metadata.name").then_some(name.as_str());
            meets(requirement, value)
        })
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = |order: std::cmp::Ordering| {
        let found: Option<i64> = value.and_then(|value| value.parse().ok());
        let bound: Option<i64> = values.first().and_then(|value| value.parse().ok());
        matches!((found, bound), (Some(found), Some(bound)) if found.cmp(&bound) == order)
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(std::cmp::Ordering::Greater),
        "Lt" => compared(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// The taint that `kubectl cordon` stands for.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, labels: serde_json::Value, spec: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap()
    }

    fn spec(value: serde_json::Value) -> PodSpec {
        let mut spec = value;
        spec["containers"] = json!([]);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn taints_need_a_matching_toleration() {
        let tainted = node(
            "n",
            json!({}),
            json!({"taints": [
            {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
        );
        let table = [
            (json!([]), false),
            (json!([{"key": "gpu", "operator": "Equal", "value": "yes"}]), true),
            (json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]), true),
            (json!([{"key": "gpu", "value": "yes", "effect": "NoExecute"}]), false),
            (json!([{"key": "gpu", "value": "no"}]), false),
            (json!([{"key": "gpu", "operator": "Exists"}]), true),
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "other", "operator": "Exists"}]), false),
        ];
        for (tolerations, fit) in table {
            let found = fits(&spec(json!({"tolerations": tolerations.clone()})), &tainted);
            assert_eq!(found.is_ok(), fit, "{tolerations}");
        }
        let soft = node(
            "n",
            json!({}),
            json!({"taints": [
            {"key": "gpu", "effect": "PreferNoSchedule"}]}),
        );
        assert!(fits(&spec(json!({})), &soft).is_ok());
    }

    #[test]
    fn required_affinity_is_any_term_with_all_its_requirements() {
        let node = node("n1", json!({"zone": "a", "size": "8"}), json!({}));
        let table = [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]), true),
            (json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]), false),
            (
                json!([{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"},
                {"key": "size", "operator": "Gt", "values": ["4"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "size", "operator": "Lt", "values": ["4"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                true,
            ),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]), false),
            (json!([{"matchExpressions": [{"key": "zone", "operator": "Like", "values": ["a"]}]}]), false),
        ];
        for (terms, fit) in table {
            let spec = spec(json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms.clone()}}}}));
            assert_eq!(fits(&spec, &node).is_ok(), fit, "{terms}");
        }
    }

    #[test]
    fn the_cheapest_fitting_node_wins_and_refusals_are_counted() {
        let one = node("n1", json!({}), json!({}));
        let two = node("n2", json!({"disk": "fast"}), json!({"unschedulable": true}));
        let three = node("n3", json!({}), json!({}));
        let nodes = [&one, &two, &three];
        let load = |name: &str| if name == "n1" { 5 } else { 2 };
        assert_eq!(choose(&spec(json!({})), &nodes, load).unwrap(), "n3");
        let picky = spec(json!({"nodeSelector": {"disk": "fast"}}));
        assert_eq!(
            choose(&picky, &nodes, load).unwrap_err(),
            "0/3 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, \
             1 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }."
        );
    }
}
