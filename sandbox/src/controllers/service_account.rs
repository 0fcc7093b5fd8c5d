//! What every namespace gets: service account `default` and the API server's CA.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{ApiContext, Cluster, ClusterConfig, ControllerError, is_conflict, is_not_found};
use crate::informer::{Key, KeyQueue, key};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster, config: ClusterConfig) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    cluster.cache.namespaces.on_change(move |change| {
        if let Some(namespace) = &change.new {
            keys.push(key("", &namespace.name_any()));
        }
    });
    let keys = queue.clone();
    cluster.cache.service_accounts.on_change(move |change| {
        if let (Some(account), None) = (&change.old, &change.new)
            && account.name_any() == ACCOUNT
        {
            keys.push(key("", &account.namespace().unwrap_or_default()));
        }
    });
    let keys = queue.clone();
    cluster.cache.config_maps.on_change(move |change| {
        if let Some(map) = &change.old
            && map.name_any() == ROOT_CA
        {
            keys.push(key("", &map.namespace().unwrap_or_default()));
        }
    });
    super::work("service-account", queue, |key| reconcile(&cluster, &config, key)).await;
}

async fn reconcile(cluster: &Cluster, config: &ClusterConfig, key: Key) -> Result<(), ControllerError> {
    let name = &*key.name;
    match cluster.cache.namespaces.get("", name) {
        Some(namespace) if !is_terminating(&namespace) => {}
        _ => return Ok(()),
    }
    if cluster.cache.service_accounts.get(name, ACCOUNT).is_none() {
        let account = ServiceAccount { metadata: meta(name, ACCOUNT), ..ServiceAccount::default() };
        let created = cluster.api::<ServiceAccount>(name).create(&PostParams::default(), &account).await;
        settle(created, || format!("creating service account {name}/{ACCOUNT}"))?;
    }
    publish_root(cluster, name, &config.ca_pem).await
}

async fn publish_root(cluster: &Cluster, namespace: &str, ca_pem: &str) -> Result<(), ControllerError> {
    let api = cluster.api::<ConfigMap>(namespace);
    let data = BTreeMap::from([("ca.crt".to_owned(), ca_pem.to_owned())]);
    match cluster.cache.config_maps.get(namespace, ROOT_CA) {
        Some(map) if map.data.as_ref() == Some(&data) => Ok(()),
        Some(_) => {
            let patch = json!({"data": data, "binaryData": null});
            let patched = api.patch(ROOT_CA, &PatchParams::default(), &Patch::Merge(&patch)).await;
            settle(patched, || format!("repairing config map {namespace}/{ROOT_CA}"))
        }
        None => {
            let map = ConfigMap { metadata: meta(namespace, ROOT_CA), data: Some(data), ..ConfigMap::default() };
            let created = api.create(&PostParams::default(), &map).await;
            settle(created, || format!("creating config map {namespace}/{ROOT_CA}"))
        }
    }
}

/// Somebody else was faster, or the namespace is going away: both are fine.
fn settle<T>(result: Result<T, kube::Error>, what: impl FnOnce() -> String) -> Result<(), ControllerError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) || is_not_found(&error) || is_forbidden(&error) => Ok(()),
        Err(error) => Err(error).context(what),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// What a pod runs as when it names no account.
const ACCOUNT: &str = "default";
/// Where pods read the API server's CA from.
const ROOT_CA: &str = "kube-root-ca.crt";
