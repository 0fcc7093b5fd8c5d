//! Deployments: one ReplicaSet per template, and the way from one to the next.

mod revision;
mod rollout;
mod status;
mod template;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::scale::{Fenceposts, fenceposts};
use super::{ApiContext, Cluster, ControllerError, is_conflict, is_not_found, owner};
use crate::informer::{Key, KeyQueue, key_of};

pub(in crate::controllers) use template::hash_of as template_hash;

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.deployments.on_change(move |change| {
        if let Some(deployment) = &change.new {
            keys.push(key_of(deployment.as_ref()));
        }
    });
    let keys = queue.clone();
    cluster.cache.replica_sets.on_change(move |change| {
        for set in change.sides() {
            if let Some(key) = owner::controller_key(&set.metadata, "Deployment") {
                keys.push(key);
            }
        }
    });
    let keys = queue.clone();
    let sets = cluster.cache.replica_sets.clone();
    // `Recreate` waits for the last old pod to be gone, which no ReplicaSet status tells.
    cluster.cache.pods.on_change(move |change| {
        if let (Some(pod), None) = (&change.old, &change.new)
            && let Some(set) = owner::controller_key(&pod.metadata, "ReplicaSet")
            && let Some(set) = sets.get(&set.namespace, &set.name)
            && let Some(key) = owner::controller_key(&set.metadata, "Deployment")
        {
            keys.push(key);
        }
    });
    let shared = queue.clone();
    super::work("deployment", queue, |key| reconcile(&cluster, &shared, key)).await;
}

async fn reconcile(cluster: &Cluster, queue: &KeyQueue, key: Key) -> Result<(), ControllerError> {
    let Some(deployment) = cluster.cache.deployments.get(&key.namespace, &key.name) else {
        return Ok(());
    };
    let Some(spec) = &deployment.spec else {
        return Ok(());
    };
    owner::selector(deployment.as_ref(), &spec.selector)?;
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut sets = Sets::find(cluster, &deployment, spec);
    if sets.new.is_none() && spec.paused != Some(true) {
        sets.new = create_set(cluster, &deployment, spec, &sets.old).await?;
    }
    if let Some(new) = &sets.new {
        sets.new = Some(adopt_revision(cluster, &deployment, new, &sets.old).await?);
    }
    scale_sets(cluster, &deployment, spec, &sets).await?;
    let sets = Sets::find(cluster, &deployment, spec);
    prune_history(cluster, spec, &sets).await?;
    let now = jiff::Timestamp::now();
    let report = status::status(&deployment, sets.new.as_deref(), &sets.old, now);
    if let Some(wait) = report.deadline_in {
        queue.push_after(key, wait);
    }
    write_status(cluster, &deployment, report.status).await
}

/// The ReplicaSets of a Deployment.
struct Sets {
    /// The one whose template is the Deployment's.
    new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    fn find(cluster: &Cluster, deployment: &Deployment, spec: &DeploymentSpec) -> Self {
        let mut owned: Vec<_> = cluster
            .cache
            .replica_sets
            .in_namespace(&deployment.namespace().unwrap_or_default())
            .into_iter()
            .filter(|set| {
                owner::is_controlled_by(&set.metadata, deployment) && set.metadata.deletion_timestamp.is_none()
            })
            .collect();
        owned.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.name_any())
        });
        let new = owned.iter().position(|set| template::is_same(set, &spec.template));
        let new = new.map(|position| owned.remove(position));
        Self { new, old: owned }
    }
}

async fn create_set(
    cluster: &Cluster,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    old: &[Arc<ReplicaSet>],
) -> Result<Option<Arc<ReplicaSet>>, ControllerError> {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let mut set = template::replica_set(deployment, spec, collisions);
    let revision = revision::next(old);
    set.annotations_mut().insert(revision::ANNOTATION.to_owned(), revision.to_string());
    let namespace = deployment.namespace().unwrap_or_default();
    let api = cluster.api::<ReplicaSet>(&namespace);
    let name = set.name_any();
    match api.create(&PostParams::default(), &set).await {
        Ok(created) => {
            cluster.cache.replica_sets.observe(created.clone());
            Ok(Some(Arc::new(created)))
        }
        // Another object has the name: take another hash from the next collision count on.
        Err(error) if is_conflict(&error) => {
            if cluster.cache.replica_sets.get(&namespace, &name).is_some() {
                let patch = json!({"status": {"collisionCount": collisions + 1}});
                patch_status(cluster, deployment, &patch).await?;
            }
            Err(error).context(|| format!("creating replica set {name}"))
        }
        Err(error) => Err(error).context(|| format!("creating replica set {name}")),
    }
}

/// Gives the new set the highest revision (it may be an older one after a roll-back), and the
/// Deployment the same annotation.
async fn adopt_revision(
    cluster: &Cluster,
    deployment: &Deployment,
    new: &Arc<ReplicaSet>,
    old: &[Arc<ReplicaSet>],
) -> Result<Arc<ReplicaSet>, ControllerError> {
    let highest = revision::next(old);
    let current = revision::of(&new.metadata);
    let revision = current.max(highest);
    let mut new = Arc::clone(new);
    let patch = json!({"metadata": {"annotations": {revision::ANNOTATION: revision.to_string()}}});
    if revision != current {
        let name = new.name_any();
        let patched = cluster
            .api::<ReplicaSet>(&new.namespace().unwrap_or_default())
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context(|| format!("revision of replica set {name}"))?;
        cluster.cache.replica_sets.observe(patched.clone());
        new = Arc::new(patched);
    }
    if revision::of(&deployment.metadata) != revision {
        let name = deployment.name_any();
        let patched = cluster
            .api::<Deployment>(&deployment.namespace().unwrap_or_default())
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context(|| format!("revision of deployment {name}"))?;
        cluster.cache.deployments.observe(patched);
    }
    Ok(new)
}

async fn scale_sets(
    cluster: &Cluster,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    sets: &Sets,
) -> Result<(), ControllerError> {
    let all: Vec<&Arc<ReplicaSet>> = sets.new.iter().chain(&sets.old).collect();
    let sizes: Vec<rollout::Size> = all.iter().map(|set| rollout::Size::of(set)).collect();
    let wanted = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    let targets = if spec.paused == Some(true) {
        rollout::paused(wanted, &sizes)
    } else if strategy == Some("Recreate") {
        let pods_left = sets.old.iter().any(|set| has_pods(cluster, set));
        rollout::recreate(wanted, pods_left, &sizes)
    } else {
        rollout::rolling(wanted, limits(spec), &sizes)
    };
    for (set, target) in all.iter().zip(targets) {
        if rollout::Size::of(set).wanted != target {
            scale(cluster, deployment, set, target).await?;
        }
    }
    Ok(())
}

/// `maxSurge` and `maxUnavailable` of a Deployment as numbers.
fn limits(spec: &DeploymentSpec) -> Fenceposts {
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    fenceposts(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        ("25%", "25%"),
        spec.replicas.unwrap_or(1),
    )
}

fn has_pods(cluster: &Cluster, set: &ReplicaSet) -> bool {
    cluster
        .cache
        .pods
        .in_namespace(&set.namespace().unwrap_or_default())
        .iter()
        .any(|pod| owner::is_controlled_by(&pod.metadata, set) && !super::pod_state::is_finished(pod))
}

async fn scale(
    cluster: &Cluster,
    deployment: &Deployment,
    set: &ReplicaSet,
    replicas: i32,
) -> Result<(), ControllerError> {
    let name = set.name_any();
    let patch = json!({
        "metadata": {"resourceVersion": set.metadata.resource_version},
        "spec": {"replicas": replicas},
    });
    let scaled = cluster
        .api::<ReplicaSet>(&set.namespace().unwrap_or_default())
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .context(|| format!("scaling {name} of {}", deployment.name_any()))?;
    cluster.cache.replica_sets.observe(scaled);
    Ok(())
}

/// Deletes the oldest sets that are scaled down, beyond `revisionHistoryLimit`.
async fn prune_history(cluster: &Cluster, spec: &DeploymentSpec, sets: &Sets) -> Result<(), ControllerError> {
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let empty: Vec<_> = sets.old.iter().filter(|set| rollout::Size::of(set).is_empty()).collect();
    for set in empty.iter().take(empty.len().saturating_sub(limit)) {
        let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
        let deleted = cluster.api::<ReplicaSet>(&namespace).delete(&name, &DeleteParams::background()).await;
        match deleted {
            Ok(_) => cluster.cache.replica_sets.observe_deleting(&namespace, &name),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error).context(|| format!("deleting old {name}")),
        }
    }
    Ok(())
}

async fn write_status(
    cluster: &Cluster,
    deployment: &Deployment,
    status: k8s_openapi::api::apps::v1::DeploymentStatus,
) -> Result<(), ControllerError> {
    match super::status_patch::status_patch(deployment.status.as_ref(), &status) {
        Some(patch) => patch_status(cluster, deployment, &patch).await,
        None => Ok(()),
    }
}

async fn patch_status(
    cluster: &Cluster,
    deployment: &Deployment,
    patch: &serde_json::Value,
) -> Result<(), ControllerError> {
    let name = deployment.name_any();
    let answer = cluster
        .api::<Deployment>(&deployment.namespace().unwrap_or_default())
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match answer {
        Ok(deployment) => cluster.cache.deployments.observe(deployment),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error).context(|| format!("status of deployment {name}")),
    }
    Ok(())
}
