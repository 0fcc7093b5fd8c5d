//! DaemonSets: one pod on every node that fits.

mod plan;
mod target;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};

use super::scale::{Fenceposts, fenceposts};
use super::{ApiContext, Cluster, ControllerError, is_not_found, owner, pod_state, replica_set};
use crate::controllers::deployment::template_hash;
use crate::informer::{Key, KeyQueue, key_of};
use plan::{NodeView, PodView};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.daemon_sets.on_change(move |change| {
        if let Some(set) = &change.new {
            keys.push(key_of(set.as_ref()));
        }
    });
    let keys = queue.clone();
    cluster.cache.pods.on_change(move |change| {
        for pod in change.sides() {
            if let Some(key) = owner::controller_key(&pod.metadata, "DaemonSet") {
                keys.push(key);
            }
        }
    });
    let keys = queue.clone();
    let sets = cluster.cache.daemon_sets.clone();
    cluster.cache.nodes.on_change(move |change| {
        // Heartbeats change a node too; only what decides about placement counts.
        let facts = |node: &k8s_openapi::api::core::v1::Node| (node.metadata.labels.clone(), node.spec.clone());
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && facts(old) == facts(new)
        {
            return;
        }
        for set in sets.list() {
            keys.push(key_of(set.as_ref()));
        }
    });
    let shared = queue.clone();
    super::work("daemon-set", queue, |key| reconcile(&cluster, &shared, key)).await;
}

async fn reconcile(cluster: &Cluster, queue: &KeyQueue, key: Key) -> Result<(), ControllerError> {
    let Some(set) = cluster.cache.daemon_sets.get(&key.namespace, &key.name) else {
        return Ok(());
    };
    let Some(spec) = &set.spec else {
        return Ok(());
    };
    owner::selector(set.as_ref(), &spec.selector)?;
    let hash = template_hash(&spec.template);
    let mut views = views(cluster, &set, &hash);
    if set.metadata.deletion_timestamp.is_none() {
        let plan = plan::plan(&views, limits(&set, &views));
        replica_set::delete_pods(cluster, &plan.delete).await?;
        for node in &plan.create {
            create_pod(cluster, &set, node, &hash).await?;
        }
        if !plan.is_empty() {
            views = self::views(cluster, &set, &hash);
        }
    }
    let now = jiff::Timestamp::now();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    if let Some(wait) = views
        .iter()
        .flat_map(|view| &view.pods)
        .filter_map(|view| pod_state::available_in(&view.pod, min_ready, now))
        .filter(|wait| !wait.is_zero())
        .min()
    {
        queue.push_after(key, wait);
    }
    write_status(cluster, &set, &views).await
}

fn views(cluster: &Cluster, set: &DaemonSet, hash: &str) -> Vec<NodeView> {
    let Some(spec) = &set.spec else {
        return Vec::new();
    };
    let now = jiff::Timestamp::now();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let pods: Vec<_> = cluster
        .cache
        .pods
        .in_namespace(&set.namespace().unwrap_or_default())
        .into_iter()
        .filter(|pod| owner::is_controlled_by(&pod.metadata, set))
        .collect();
    let mut views: Vec<NodeView> = cluster
        .cache
        .nodes
        .list()
        .iter()
        .map(|node| NodeView { name: node.name_any(), wanted: target::runs_on(&spec.template, node), pods: Vec::new() })
        .collect();
    for pod in pods {
        let Some(node) = target::node_of(&pod) else {
            continue;
        };
        let view = PodView {
            current: pod.labels().get(target::HASH_LABEL).map(String::as_str) == Some(hash),
            available: pod_state::is_available(&pod, min_ready, now),
            pod: Arc::clone(&pod),
        };
        match views.iter_mut().find(|view| view.name == node) {
            Some(node) => node.pods.push(view),
            // The node is gone: the pod is not wanted anywhere.
            None => views.push(NodeView { name: node.to_owned(), wanted: false, pods: vec![view] }),
        }
    }
    views
}

/// What a rolling update may do; `None` for `OnDelete`.
fn limits(set: &DaemonSet, views: &[NodeView]) -> Option<Fenceposts> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let nodes = views.iter().filter(|view| view.wanted).count();
    Some(fenceposts(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        ("0", "1"),
        i32::try_from(nodes).unwrap_or(i32::MAX),
    ))
}

async fn create_pod(cluster: &Cluster, set: &DaemonSet, node: &str, hash: &str) -> Result<(), ControllerError> {
    let Some(spec) = &set.spec else {
        return Ok(());
    };
    let namespace = set.namespace().unwrap_or_default();
    let mut pod =
        replica_set::pod_of_template(&spec.template, &namespace, &set.name_any(), owner::controller_reference(set));
    target::bind(&mut pod, node, hash);
    let created = cluster
        .api::<Pod>(&namespace)
        .create(&PostParams::default(), &pod)
        .await
        .context(|| format!("creating the pod of {} on {node}", set.name_any()))?;
    cluster.cache.pods.observe(created);
    Ok(())
}

async fn write_status(cluster: &Cluster, set: &DaemonSet, views: &[NodeView]) -> Result<(), ControllerError> {
    let status = plan::status(set, views);
    let Some(patch) = super::status_patch::status_patch(set.status.as_ref(), &status) else {
        return Ok(());
    };
    let name = set.name_any();
    let answer = cluster
        .api::<DaemonSet>(&set.namespace().unwrap_or_default())
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    match answer {
        Ok(set) => cluster.cache.daemon_sets.observe(set),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error).context(|| format!("status of daemon set {name}")),
    }
    Ok(())
}
