//! ReplicaSets: as many pods of one template as wanted.

mod plan;

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::{ApiContext, Cluster, ControllerError, is_not_found, owner, pod_state};
use crate::informer::{Key, KeyQueue};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.replica_sets.on_change(move |change| {
        if let Some(set) = &change.new {
            keys.push(crate::informer::key_of(set.as_ref()));
        }
    });
    let keys = queue.clone();
    let sets = cluster.cache.replica_sets.clone();
    cluster.cache.pods.on_change(move |change| {
        for pod in change.sides() {
            match owner::controller_of(&pod.metadata) {
                Some(_) => {
                    if let Some(key) = owner::controller_key(&pod.metadata, "ReplicaSet") {
                        keys.push(key);
                    }
                }
                // A pod without controller: a set whose selector matches adopts it.
                None => {
                    for set in sets.in_namespace(&pod.namespace().unwrap_or_default()) {
                        keys.push(crate::informer::key_of(set.as_ref()));
                    }
                }
            }
        }
    });
    let shared = queue.clone();
    super::work("replica-set", queue, |key| reconcile(&cluster, &shared, key)).await;
}

async fn reconcile(cluster: &Cluster, queue: &KeyQueue, key: Key) -> Result<(), ControllerError> {
    let Some(set) = cluster.cache.replica_sets.get(&key.namespace, &key.name) else {
        return Ok(());
    };
    let Some(spec) = &set.spec else {
        return Ok(());
    };
    let mut pods = owned_pods(cluster, &set).await?;
    if set.metadata.deletion_timestamp.is_none()
        && let Some(template) = &spec.template
    {
        let plan = plan::plan(spec.replicas.unwrap_or(1), &pods);
        create_pods(cluster, set.as_ref(), template, plan.create).await?;
        delete_pods(cluster, &plan.delete).await?;
        if !plan.is_empty() {
            pods = owned_pods(cluster, &set).await?;
        }
    }
    let now = jiff::Timestamp::now();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    if let Some(wait) =
        pods.iter().filter_map(|pod| pod_state::available_in(pod, min_ready, now)).filter(|wait| !wait.is_zero()).min()
    {
        queue.push_after(key.clone(), wait);
    }
    write_status(cluster, &set, plan::status(&set, &pods, now)).await
}

/// The pods of a set; matching ones without controller are adopted.
async fn owned_pods(cluster: &Cluster, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, ControllerError> {
    let Some(spec) = &set.spec else {
        return Ok(Vec::new());
    };
    let selector = owner::selector(set, &spec.selector)?;
    let namespace = set.namespace().unwrap_or_default();
    let mut owned = Vec::new();
    for pod in cluster.cache.pods.in_namespace(&namespace) {
        if !owner::matches(&selector, &pod.metadata) {
            continue;
        }
        if owner::is_controlled_by(&pod.metadata, set) {
            owned.push(pod);
        } else if owner::controller_of(&pod.metadata).is_none()
            && pod_state::is_active(&pod)
            && set.metadata.deletion_timestamp.is_none()
        {
            owned.push(adopt(cluster, set, &pod).await?);
        }
    }
    Ok(owned)
}

async fn adopt(cluster: &Cluster, set: &ReplicaSet, pod: &Pod) -> Result<Arc<Pod>, ControllerError> {
    let name = pod.name_any();
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(owner::controller_reference(set));
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": owners}});
    let adopted = cluster
        .api::<Pod>(&pod.namespace().unwrap_or_default())
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .context(|| format!("adopting pod {name}"))?;
    cluster.cache.pods.observe(adopted.clone());
    Ok(Arc::new(adopted))
}

/// Creates `count` pods of a template, owned by `set`.
async fn create_pods(
    cluster: &Cluster,
    set: &ReplicaSet,
    template: &PodTemplateSpec,
    count: usize,
) -> Result<(), ControllerError> {
    if count == 0 {
        return Ok(());
    }
    let namespace = set.namespace().unwrap_or_default();
    let api = cluster.api::<Pod>(&namespace);
    let pod = pod_of_template(template, &namespace, &set.name_any(), owner::controller_reference(set));
    let post = PostParams::default();
    let mut created =
        futures::stream::iter((0..count).map(|_| api.create(&post, &pod))).buffer_unordered(WRITES_AT_ONCE);
    let mut result = Ok(());
    while let Some(answer) = created.next().await {
        match answer {
            Ok(pod) => cluster.cache.pods.observe(pod),
            Err(error) => {
                result = Err(error).context(|| format!("creating a pod of {}", set.name_any()));
            }
        }
    }
    result
}

/// A new pod of a template, to be named by the server.
pub(super) fn pod_of_template(
    template: &PodTemplateSpec,
    namespace: &str,
    owner_name: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{owner_name}-")),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Deletes pods; those gone already are fine.
pub(super) async fn delete_pods(cluster: &Cluster, pods: &[Arc<Pod>]) -> Result<(), ControllerError> {
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match cluster.api::<Pod>(&namespace).delete(&name, &params).await {
            Ok(_) => cluster.cache.pods.observe_deleting(&namespace, &name),
            Err(error) if is_not_found(&error) || super::is_conflict(&error) => {}
            Err(error) => return Err(error).context(|| format!("deleting pod {name}")),
        }
    }
    Ok(())
}

async fn write_status(cluster: &Cluster, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), ControllerError> {
    let Some(patch) = super::status_patch::status_patch(set.status.as_ref(), &status) else {
        return Ok(());
    };
    let name = set.name_any();
    let answer = cluster
        .api::<ReplicaSet>(&set.namespace().unwrap_or_default())
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    match answer {
        Ok(set) => cluster.cache.replica_sets.observe(set),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error).context(|| format!("status of replica set {name}")),
    }
    Ok(())
}

/// Pod creations of one set in flight at once; keeps a large scale-up from filling the server.
const WRITES_AT_ONCE: usize = 16;
