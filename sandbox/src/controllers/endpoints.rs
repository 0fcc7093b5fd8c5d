//! Endpoint slices: which pods are behind each Service.

mod slices;

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use super::{ApiContext, Cluster, ControllerError, is_not_found};
use crate::informer::{Informer, Key, KeyQueue, key, key_of};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.services.on_change(move |change| {
        for service in change.sides() {
            keys.push(key_of(service.as_ref()));
        }
    });
    let keys = queue.clone();
    let services = cluster.cache.services.clone();
    cluster.cache.pods.on_change(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && slices::facts(old) == slices::facts(new)
        {
            return;
        }
        for pod in change.sides() {
            for service in selecting(&services, pod) {
                keys.push(service);
            }
        }
    });
    let keys = queue.clone();
    cluster.cache.endpoint_slices.on_change(move |change| {
        for slice in change.sides().filter(|slice| slices::is_ours(slice)) {
            if let Some(service) = slice.labels().get(slices::SERVICE_LABEL) {
                keys.push(key(&slice.namespace().unwrap_or_default(), service));
            }
        }
    });
    super::work("endpoints", queue, |key| reconcile(&cluster, key)).await;
}

/// Services whose selector matches the pod.
fn selecting(services: &Informer<Service>, pod: &Pod) -> Vec<Key> {
    services
        .in_namespace(&pod.namespace().unwrap_or_default())
        .iter()
        .filter(|service| slices::selects(service, pod))
        .map(|service| key_of(service.as_ref()))
        .collect()
}

async fn reconcile(cluster: &Cluster, key: Key) -> Result<(), ControllerError> {
    let live: Vec<_> = cluster
        .cache
        .endpoint_slices
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|slice| {
            slices::is_ours(slice) && slice.labels().get(slices::SERVICE_LABEL).map(String::as_str) == Some(&*key.name)
        })
        .collect();
    let wanted = match cluster.cache.services.get(&key.namespace, &key.name) {
        Some(service) if service.metadata.deletion_timestamp.is_none() => {
            let pods = cluster.cache.pods.in_namespace(&key.namespace);
            let zone = |node: &str| {
                let node = cluster.cache.nodes.get("", node)?;
                node.labels().get(slices::ZONE_LABEL).cloned()
            };
            slices::desired(&service, &pods, zone)
        }
        _ => Vec::new(),
    };
    let api = cluster.api::<EndpointSlice>(&key.namespace);
    let names: BTreeSet<_> = wanted.iter().map(ResourceExt::name_any).collect();
    let writes = futures::stream::iter(&wanted).filter(|slice| {
        let same = live.iter().any(|found| slices::is_same(found, slice));
        std::future::ready(!same)
    });
    let mut writes = std::pin::pin!(writes);
    while let Some(slice) = writes.next().await {
        let name = slice.name_any();
        let found = live.iter().find(|found| found.name_any() == name);
        let written = match found {
            None => api.create(&PostParams::default(), slice).await,
            Some(found) => {
                let mut slice = slice.clone();
                slice.metadata.resource_version = found.metadata.resource_version.clone();
                api.replace(&name, &PostParams::default(), &slice).await
            }
        }
        .context(|| format!("writing endpoint slice {name}"))?;
        cluster.cache.endpoint_slices.observe(written);
    }
    for stale in live.iter().filter(|slice| !names.contains(&slice.name_any())) {
        let name = stale.name_any();
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error).context(|| format!("deleting slice {name}")),
        }
    }
    Ok(())
}
