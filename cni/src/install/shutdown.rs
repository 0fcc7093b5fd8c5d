//! Restart or uninstallation? Asked when the agent is told to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement};
use kube::{Api, Client};

use crate::config::Config;

/// What happens to the plugin on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It stays: another agent follows, and until then no pod starts outside the mesh by accident.
    Leave,
    /// It goes: the mesh is being uninstalled, or has left this node.
    CleanUp,
}

/// What the API server says about our DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It is there and wants this node.
    Wanted,
    /// It is there, being deleted.
    Deleting,
    /// It is there and does not select this node any more.
    NotThisNode,
    /// It is not there.
    Missing,
    /// We may not ask any more: our permissions are gone.
    Unauthorized,
    /// No usable answer.
    Unknown,
}

/// Decides. Pure.
#[must_use]
pub fn judge(observation: Observation, always_clean_up: bool) -> Decision {
    match observation {
        // Without an answer the node keeps its guard: pods that should be captured must not start in the clear because
        // the API server was away during a restart.
        Observation::Wanted | Observation::Unknown if !always_clean_up => Decision::Leave,
        _ => Decision::CleanUp,
    }
}

/// Asks the API server and decides.
pub async fn decide(client: &Client, config: &Config) -> Decision {
    let mut observation = Observation::Unknown;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        let asked = tokio::time::timeout(ASK_TIMEOUT, observe(client, config)).await;
        observation = asked.unwrap_or(Observation::Unknown);
        if observation != Observation::Unknown {
            break;
        }
    }
    tracing::info!(target: super::SCOPE, ?observation, "own DaemonSet");
    judge(observation, config.disable_safe_upgrade)
}

async fn observe(client: &Client, config: &Config) -> Observation {
    let api = Api::<DaemonSet>::namespaced(client.clone(), &config.pod_namespace);
    let set = match api.get(DAEMON_SET).await {
        Ok(set) => set,
        Err(kube::Error::Api(status)) if status.code == 404 => return Observation::Missing,
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => return Observation::Unauthorized,
        Err(error) => {
            tracing::warn!(target: super::SCOPE, %error, "cannot ask for the own DaemonSet");
            return Observation::Unknown;
        }
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Observation::Deleting;
    }
    let node = Api::<Node>::all(client.clone()).get(&config.node_name).await;
    // Only a clear answer says that the node is not wanted.
    let labels = match node {
        Ok(node) => node.metadata.labels.unwrap_or_default(),
        Err(_) => return Observation::Wanted,
    };
    if selects(&set, &config.node_name, &labels) { Observation::Wanted } else { Observation::NotThisNode }
}

/// Whether the required node affinity of the DaemonSet lets its pods onto the node.
#[must_use]
pub fn selects(set: &DaemonSet, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let affinity = spec.and_then(|spec| spec.affinity.as_ref()).and_then(|affinity| affinity.node_affinity.as_ref());
    let Some(required) =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
    else {
        return true;
    };
    let name = BTreeMap::from([("metadata.name".to_owned(), node.to_owned())]);
    required.node_selector_terms.iter().any(|term| {
        let by_label = term.match_expressions.iter().flatten().all(|one| holds(one, labels));
        let by_field = term.match_fields.iter().flatten().all(|one| holds(one, &name));
        // A term without any condition matches nothing.
        let some = term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten()).next().is_some();
        some && by_label && by_field
    })
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let found = labels.get(&requirement.key);
    let values = || requirement.values.iter().flatten();
    let compare = |wanted: fn(i64, i64) -> bool| {
        let pair = found.and_then(|text| text.parse().ok()).zip(values().next().and_then(|text| text.parse().ok()));
        pair.is_some_and(|(found, limit)| wanted(found, limit))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|found| values().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, limit| found > limit),
        "Lt" => compare(|found, limit| found < limit),
        _ => false,
    }
}

/// Name of the DaemonSet that runs the agent.
const DAEMON_SET: &str = "istio-cni-node";
/// Leaves most of the termination grace period for the clean-up.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cni_row_6_and_7_a_restart_leaves_everything_and_an_uninstallation_nothing() {
        use Decision::{CleanUp, Leave};
        for (observation, expected) in [
            (Observation::Wanted, Leave),
            (Observation::Deleting, CleanUp),
            (Observation::NotThisNode, CleanUp),
            (Observation::Missing, CleanUp),
            (Observation::Unauthorized, CleanUp),
            (Observation::Unknown, Leave),
        ] {
            assert_eq!(judge(observation, false), expected, "{observation:?}");
            assert_eq!(judge(observation, true), CleanUp, "{observation:?}");
        }
    }

    fn set(terms: serde_json::Value) -> DaemonSet {
        serde_json::from_value(json!({"metadata": {}, "spec": {"selector": {}, "template": {"metadata": {}, "spec": {
            "containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}}}}}))
        .unwrap()
    }

    #[test]
    fn required_affinity_decides_about_the_node() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "4".to_owned())]);
        let by = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        for (terms, expected) in [
            (by("zone", "In", &["a", "b"]), true),
            (by("zone", "In", &["b"]), false),
            (by("zone", "NotIn", &["a"]), false),
            (by("gpu", "NotIn", &["x"]), true),
            (by("zone", "Exists", &[]), true),
            (by("gpu", "Exists", &[]), false),
            (by("gpu", "DoesNotExist", &[]), true),
            (by("cores", "Gt", &["3"]), true),
            (by("cores", "Lt", &["4"]), false),
            (json!([{}]), false),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), true),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]), false),
        ] {
            assert_eq!(selects(&set(terms.clone()), "n1", &labels), expected, "{terms}");
        }
        assert!(selects(&DaemonSet::default(), "n1", &labels));
    }
}
