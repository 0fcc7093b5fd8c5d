//! The scheduler: binds each pod to a node it fits, the one with the fewest pods first.

pub(super) mod fit;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{ApiContext, Cluster, ControllerError, is_conflict, is_not_found, pod_state};
use crate::events::{Kind, Recorder};
use crate::informer::{Key, KeyQueue, key_of, now};

/// Runs the scheduler for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.pods.on_change(move |change| {
        if let Some(pod) = &change.new
            && waits(pod)
        {
            keys.push(key_of(pod.as_ref()));
        }
    });
    let keys = queue.clone();
    let pods = cluster.cache.pods.clone();
    cluster.cache.nodes.on_change(move |change| {
        // A heartbeat makes no room; everything else may.
        let facts = |node: &Node| (node.metadata.labels.clone(), node.spec.clone());
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && facts(old) == facts(new)
        {
            return;
        }
        for pod in pods.list().iter().filter(|pod| waits(pod)) {
            keys.push(key_of(pod.as_ref()));
        }
    });
    let events = Recorder::start(cluster.client.clone(), "default-scheduler", None);
    super::work("scheduler", queue, |key| schedule(&cluster, &events, key)).await;
}

/// The pod is ours to place and not placed yet.
fn waits(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    pod_state::node_name(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !pod_state::is_finished(pod)
        && matches!(scheduler, None | Some("" | "default-scheduler"))
}

async fn schedule(cluster: &Cluster, events: &Recorder, key: Key) -> Result<(), ControllerError> {
    let Some(pod) = cluster.cache.pods.get(&key.namespace, &key.name) else {
        return Ok(());
    };
    let Some(spec) = pod.spec.as_ref().filter(|_| waits(&pod)) else {
        return Ok(());
    };
    let gates = spec.scheduling_gates.as_ref();
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return unschedulable(cluster, &pod, "SchedulingGated", "scheduling is blocked by gates").await;
    }
    let pods = cluster.cache.pods.list();
    let load = |node: &str| {
        pods.iter().filter(|pod| pod_state::node_name(pod) == Some(node) && !pod_state::is_finished(pod)).count()
    };
    // Pods of one owner spread over the nodes first, then the emptiest node.
    let siblings = |node: &str| {
        let owner = super::owner::controller_of(&pod.metadata).map(|owner| &owner.uid);
        pods.iter()
            .filter(|other| {
                owner.is_some()
                    && pod_state::node_name(other) == Some(node)
                    && pod_state::is_active(other)
                    && super::owner::controller_of(&other.metadata).map(|owner| &owner.uid) == owner
            })
            .count()
    };
    let nodes = cluster.cache.nodes.list();
    let nodes: Vec<&Node> = nodes.iter().map(Arc::as_ref).collect();
    match fit::choose(spec, &nodes, |node| (siblings(node), load(node))) {
        Ok(node) => {
            bind(cluster, &pod, &node).await?;
            let message = format!("Successfully assigned {key} to {node}");
            events.record(&pod, None, Kind::Normal, "Scheduled", message);
            Ok(())
        }
        Err(message) => {
            events.record(&pod, None, Kind::Warning, "FailedScheduling", message.clone());
            unschedulable(cluster, &pod, "Unschedulable", &message).await
        }
    }
}

async fn bind(cluster: &Cluster, pod: &Pod, node: &str) -> Result<(), ControllerError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let answer = cluster
        .api::<Pod>(&namespace)
        .create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await;
    match answer {
        Ok(_) => {}
        Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
        Err(error) => return Err(error).context(|| format!("binding pod {namespace}/{name}")),
    }
    // The answer is no pod: the next decision must count this one all the same.
    if let Some(slot) = cluster.cache.pods.get(&namespace, &name) {
        let mut bound = Pod::clone(&slot);
        bound.spec.get_or_insert_default().node_name = Some(node.to_owned());
        cluster.cache.pods.amend(bound);
    }
    Ok(())
}

async fn unschedulable(cluster: &Cluster, pod: &Pod, reason: &str, message: &str) -> Result<(), ControllerError> {
    let known = pod_state::condition(pod, "PodScheduled")
        .is_some_and(|condition| condition.status == "False" && condition.message.as_deref() == Some(message));
    if known {
        return Ok(());
    }
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(k8s_openapi::api::core::v1::PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now()),
        ..Default::default()
    });
    let patch = json!({"status": {"phase": "Pending", "conditions": conditions}});
    match cluster.api::<Pod>(&namespace).patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(pod) => cluster.cache.pods.observe(pod),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error).context(|| format!("status of pod {namespace}/{name}")),
    }
    Ok(())
}
