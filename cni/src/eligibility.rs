//! Which pods are captured. Pure; the plugin and the agent ask the same function.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mesh_api::labels as names;
use serde::{Deserialize, Serialize};

/// Labels of a pod or namespace.
pub type Labels = BTreeMap<String, String>;

/// A pod is captured when both selectors match. An empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnablementSelector {
    /// On the pod's labels.
    pub pod_selector: LabelSelector,
    /// On the labels of the pod's namespace.
    pub namespace_selector: LabelSelector,
}

/// The rule set of one node.
#[derive(Debug, Clone)]
pub struct Eligibility {
    selectors: Vec<EnablementSelector>,
    excluded_namespaces: Vec<String>,
}

impl Eligibility {
    /// Pods that one of `selectors` matches, except in `excluded_namespaces`.
    #[must_use]
    pub fn new(selectors: Vec<EnablementSelector>, excluded_namespaces: Vec<String>) -> Self {
        Self { selectors, excluded_namespaces }
    }

    /// Whether the namespace is left alone whatever its labels and its pods say.
    #[must_use]
    pub fn excludes(&self, namespace: &str) -> bool {
        self.excluded_namespaces.iter().any(|excluded| excluded == namespace)
    }

    /// Whether the pod is to be captured.
    #[must_use]
    pub fn captures(&self, pod: &Pod, namespace_labels: &Labels) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        let annotations = pod.metadata.annotations.as_ref();
        let sidecar = annotations.is_some_and(|all| all.contains_key(names::SIDECAR_STATUS));
        if self.excludes(namespace) || host_network || sidecar {
            return false;
        }
        let empty = Labels::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
        self.selectors.iter().any(|selector| {
            matches(&selector.pod_selector, labels) && matches(&selector.namespace_selector, namespace_labels)
        })
    }
}

/// The default: a pod that says `ambient`, or a pod that does not say `none` in a namespace that says `ambient`.
#[must_use]
pub fn default_selectors() -> Vec<EnablementSelector> {
    let requirement = |operator: &str, value: &str| LabelSelector {
        match_expressions: Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
            key: names::DATAPLANE_MODE.to_owned(),
            operator: operator.to_owned(),
            values: Some(vec![value.to_owned()]),
        }]),
        match_labels: None,
    };
    vec![
        EnablementSelector {
            pod_selector: requirement("In", names::DATAPLANE_MODE_AMBIENT),
            namespace_selector: LabelSelector::default(),
        },
        EnablementSelector {
            pod_selector: requirement("NotIn", names::DATAPLANE_MODE_NONE),
            namespace_selector: requirement("In", names::DATAPLANE_MODE_AMBIENT),
        },
    ]
}

/// What is wrong with a selector, or nothing.
#[must_use]
pub fn selector_error(selector: &LabelSelector) -> Option<String> {
    let mut expressions = selector.match_expressions.iter().flatten();
    let bad = expressions.find(|one| !matches!(one.operator.as_str(), "In" | "NotIn" | "Exists" | "DoesNotExist"))?;
    Some(format!("operator {:?} of {:?}: expected In, NotIn, Exists or DoesNotExist", bad.operator, bad.key))
}

/// Kubernetes label selector semantics; an operator that nobody knows matches nothing.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let plain = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|one| {
        let found = labels.get(&one.key);
        let listed = |value: &String| one.values.iter().flatten().any(|wanted| wanted == value);
        match one.operator.as_str() {
            "In" => found.is_some_and(listed),
            "NotIn" => found.is_none_or(|value| !listed(value)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    plain && expressions
}

/// Whether the pod has ended for good.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// A comma list as settings and annotations spell it: items trimmed, empty items dropped.
#[must_use]
pub fn comma_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(mode: Option<&str>) -> Labels {
        mode.map(|mode| (names::DATAPLANE_MODE.to_owned(), mode.to_owned())).into_iter().collect()
    }

    fn pod(namespace: &str, mode: Option<&str>) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": namespace}})).unwrap();
        pod.metadata.labels = Some(labels(mode));
        pod
    }

    fn default_rules() -> Eligibility {
        Eligibility::new(default_selectors(), vec!["kube-system".into()])
    }

    #[test]
    fn the_truth_table_of_the_default() {
        let (a, n, o) = (Some("ambient"), Some("none"), Some("other"));
        for (pod_mode, namespace_mode, captured) in [
            (a, None, true),
            (a, n, true),
            (a, a, true),
            (n, None, false),
            (n, a, false),
            (None, None, false),
            (None, a, true),
            (None, n, false),
            (None, o, false),
            (o, a, true),
            (o, None, false),
        ] {
            let found = default_rules().captures(&pod("demo", pod_mode), &labels(namespace_mode));
            assert_eq!(found, captured, "pod {pod_mode:?}, namespace {namespace_mode:?}");
        }
    }

    #[test]
    fn api_row_19_the_label_is_case_sensitive() {
        assert!(!default_rules().captures(&pod("demo", None), &labels(Some("Ambient"))));
    }

    #[test]
    fn an_excluded_namespace_wins_over_an_explicit_pod_label() {
        assert!(!default_rules().captures(&pod("kube-system", Some("ambient")), &labels(Some("ambient"))));
    }

    #[test]
    fn host_network_and_sidecar_pods_are_never_captured() {
        let mut host = pod("demo", Some("ambient"));
        host.spec = serde_json::from_value(json!({"containers": [], "hostNetwork": true})).unwrap();
        assert!(!default_rules().captures(&host, &Labels::new()));
        let mut sidecar = pod("demo", Some("ambient"));
        sidecar.metadata.annotations = Some([(names::SIDECAR_STATUS.to_owned(), "{}".to_owned())].into());
        assert!(!default_rules().captures(&sidecar, &Labels::new()));
    }

    #[test]
    fn an_empty_selector_matches_everything_and_no_selector_nothing() {
        let all = Eligibility::new(vec![EnablementSelector::default()], Vec::new());
        assert!(all.captures(&pod("demo", None), &Labels::new()));
        assert!(!Eligibility::new(Vec::new(), Vec::new()).captures(&pod("demo", Some("ambient")), &Labels::new()));
    }

    #[test]
    fn an_unknown_operator_matches_nothing_and_is_named() {
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}))
                .unwrap();
        assert!(!matches(&selector, &Labels::new()));
        assert!(selector_error(&selector).unwrap().contains("\"Like\""));
    }
}
