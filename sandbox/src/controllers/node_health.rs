//! Node health: a node whose heartbeat stopped is marked unknown and takes no new pods.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::{ApiContext, Cluster, ControllerError};
use crate::informer::now;

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nodes = cluster.cache.nodes.generation();
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            _ = nodes.changed() => {}
        }
        if let Err(error) = round(&cluster).await {
            tracing::debug!(%error, "node health round failed");
        }
    }
}

async fn round(cluster: &Cluster) -> Result<(), ControllerError> {
    let leases = cluster
        .api::<Lease>(LEASE_NAMESPACE)
        .list(&ListParams::default())
        .await
        .context(|| "listing node leases".to_owned())?;
    let now = jiff::Timestamp::now();
    for node in cluster.cache.nodes.list() {
        let name = node.name_any();
        let lease = leases.items.iter().find(|lease| lease.name_any() == name);
        let api = kube::Api::<Node>::all(cluster.client.clone());
        if !is_alive(&node, lease, now)
            && let Some(conditions) = unknown_conditions(&node)
        {
            let patch = json!({"status": {"conditions": conditions}});
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .context(|| format!("marking node {name} unknown"))?;
        }
        if let Some(taints) = wanted_taints(&node) {
            let patch = json!({"spec": {"taints": taints}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .context(|| format!("tainting node {name}"))?;
        }
    }
    Ok(())
}

/// A sign of life within the grace period: the lease, or for a new node its creation.
fn is_alive(node: &Node, lease: Option<&Lease>, now: jiff::Timestamp) -> bool {
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let Some(last) = renewed.max(created) else {
        return false;
    };
    Duration::try_from(now.duration_since(last)).unwrap_or_default() < GRACE
}

/// The conditions with `Ready` unknown, or `None` when they say so already.
fn unknown_conditions(node: &Node) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref()?.conditions.clone()?;
    let ready = conditions.iter_mut().find(|condition| condition.type_ == "Ready" && condition.status != "Unknown")?;
    ready.status = "Unknown".to_owned();
    ready.reason = Some("NodeStatusUnknown".to_owned());
    ready.message = Some("Kubelet stopped posting node status.".to_owned());
    ready.last_transition_time = Some(now());
    Some(conditions)
}

/// The taints that the `Ready` condition asks for, or `None` when they are right.
fn wanted_taints(node: &Node) -> Option<Vec<Taint>> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    // A node that has not reported yet is about to: it is not tainted for that.
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?.status.as_str();
    let wanted = match ready {
        "True" => None,
        "False" => Some("node.kubernetes.io/not-ready"),
        _ => Some("node.kubernetes.io/unreachable"),
    };
    let before = node.spec.as_ref().and_then(|spec| spec.taints.clone());
    let before = before.unwrap_or_default();
    let mut taints: Vec<Taint> =
        before.iter().filter(|taint| !HEALTH_TAINTS.contains(&taint.key.as_str())).cloned().collect();
    taints.extend(wanted.map(|key| {
        let known = before.iter().find(|taint| taint.key == key);
        known.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        })
    }));
    (taints != before).then_some(taints)
}

/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const HEALTH_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Time between two looks at all nodes (Kubernetes: 5 s).
const ROUND: Duration = Duration::from_secs(5);
/// Silence after which a node counts as lost (Kubernetes: 40 s).
const GRACE: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn taints_follow_the_ready_condition_and_leave_others_alone() {
        assert!(wanted_taints(&node("True", json!([]))).is_none());
        let mine = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        let taints = wanted_taints(&node("Unknown", mine)).unwrap();
        let keys: Vec<_> = taints.iter().map(|taint| taint.key.as_str()).collect();
        assert_eq!(keys, ["gpu", "node.kubernetes.io/unreachable"]);
        let lost = node("Unknown", serde_json::to_value(&taints).unwrap());
        assert!(wanted_taints(&lost).is_none());
        let back = node("True", serde_json::to_value(&taints).unwrap());
        assert_eq!(wanted_taints(&back).unwrap().len(), 1);
    }

    #[test]
    fn a_node_is_lost_forty_seconds_after_its_last_heartbeat() {
        let lease: Lease = serde_json::from_value(json!({
            "spec": {"renewTime": "2026-01-01T00:01:00.000000Z"}
        }))
        .unwrap();
        let node = node("True", json!([]));
        let at = |text: &str| text.parse().unwrap();
        assert!(is_alive(&node, Some(&lease), at("2026-01-01T00:01:39Z")));
        assert!(!is_alive(&node, Some(&lease), at("2026-01-01T00:01:40Z")));
        assert!(is_alive(&node, None, at("2026-01-01T00:00:30Z")));
        assert_eq!(unknown_conditions(&node).unwrap()[0].status, "Unknown");
    }
}
