//! Jobs: pods that run to completion.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};

use super::{ApiContext, Cluster, ControllerError, is_not_found, owner, replica_set};
use crate::informer::{Key, KeyQueue, key_of};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.jobs.on_change(move |change| {
        if let Some(job) = &change.new {
            keys.push(key_of(job.as_ref()));
        }
    });
    let keys = queue.clone();
    cluster.cache.pods.on_change(move |change| {
        for pod in change.sides() {
            if let Some(key) = owner::controller_key(&pod.metadata, "Job") {
                keys.push(key);
            }
        }
    });
    let shared = queue.clone();
    super::work("job", queue, |key| reconcile(&cluster, &shared, key)).await;
}

async fn reconcile(cluster: &Cluster, queue: &KeyQueue, key: Key) -> Result<(), ControllerError> {
    let Some(job) = cluster.cache.jobs.get(&key.namespace, &key.name) else {
        return Ok(());
    };
    let Some(spec) = &job.spec else {
        return Ok(());
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let pods: Vec<Arc<Pod>> = cluster
        .cache
        .pods
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|pod| owner::is_controlled_by(&pod.metadata, job.as_ref()))
        .collect();
    let now = jiff::Timestamp::now();
    let plan = plan::plan(&job, &pods, now);
    if let Some(wait) = plan.wait {
        queue.push_after(key.clone(), wait);
    }
    replica_set::delete_pods(cluster, &plan.delete).await?;
    for _ in 0..plan.create {
        let mut pod = replica_set::pod_of_template(
            &spec.template,
            &key.namespace,
            &key.name,
            owner::controller_reference(job.as_ref()),
        );
        for label in ["job-name", "batch.kubernetes.io/job-name"] {
            pod.labels_mut().insert(label.to_owned(), key.name.to_string());
        }
        for label in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
            pod.labels_mut().insert(label.to_owned(), job.uid().unwrap_or_default());
        }
        let created = cluster
            .api::<Pod>(&key.namespace)
            .create(&PostParams::default(), &pod)
            .await
            .context(|| format!("creating a pod of job {key}"))?;
        cluster.cache.pods.observe(created);
    }
    let Some(patch) = super::status_patch::status_patch(job.status.as_ref(), &plan.status) else {
        return Ok(());
    };
    let answer = cluster
        .api::<Job>(&key.namespace)
        .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    match answer {
        Ok(job) => cluster.cache.jobs.observe(job),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error).context(|| format!("status of job {key}")),
    }
    Ok(())
}
