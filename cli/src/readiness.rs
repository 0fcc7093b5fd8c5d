//! Waiting until what was applied runs.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

/// What an object must reach before its component counts as installed.
#[derive(Debug, Clone)]
enum Target {
    Deployment(String),
    DaemonSet(String),
}

/// Waits until every Deployment and DaemonSet among `objects` is fully rolled out.
///
/// # Errors
/// After `timeout`: names what is missing and the reason that the cluster gives.
pub async fn wait(client: &Client, namespace: &str, objects: &[Value], timeout: Duration) -> Result<()> {
    let targets: Vec<Target> = objects.iter().filter_map(target).collect();
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        let mut missing = Vec::new();
        for target in &targets {
            if let Some(text) = lacking(client, namespace, target).await? {
                missing.push(text);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            let why = reasons(client, namespace).await.unwrap_or_default();
            bail!("not ready after {}s: {}{why}", timeout.as_secs(), missing.join("; "));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn target(object: &Value) -> Option<Target> {
    let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
    match object.get("kind")?.as_str()? {
        "Deployment" => Some(Target::Deployment(name)),
        "DaemonSet" => Some(Target::DaemonSet(name)),
        _ => None,
    }
}

async fn lacking(client: &Client, namespace: &str, target: &Target) -> Result<Option<String>> {
    match target {
        Target::Deployment(name) => {
            let object = Api::<Deployment>::namespaced(client.clone(), namespace).get(name).await?;
            let wanted = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let status = object.status.unwrap_or_default();
            let current = status.observed_generation == object.metadata.generation;
            let ready = status.updated_replicas.unwrap_or(0).min(status.available_replicas.unwrap_or(0));
            Ok((!current || ready < wanted).then(|| format!("Deployment {name}: {ready} of {wanted} replicas ready")))
        }
        Target::DaemonSet(name) => {
            let object = Api::<DaemonSet>::namespaced(client.clone(), namespace).get(name).await?;
            let status = object.status.unwrap_or_default();
            let current = status.observed_generation == object.metadata.generation;
            let wanted = status.desired_number_scheduled;
            let ready = status.number_ready.min(status.updated_number_scheduled.unwrap_or(0));
            Ok((!current || wanted == 0 || ready < wanted)
                .then(|| format!("DaemonSet {name}: {ready} of {wanted} pods ready")))
        }
    }
}

/// The newest warnings of the namespace's pods, so that the error says why and not only what.
async fn reasons(client: &Client, namespace: &str) -> Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let unready: Vec<String> = pods.iter().filter(|pod| !is_ready(pod)).map(ResourceExt::name_any).collect();
    let events = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let mut lines: Vec<String> = events
        .iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"))
        .filter(|event| event.involved_object.name.as_ref().is_some_and(|name| unready.contains(name)))
        .filter_map(|event| {
            Some(format!("\n  pod {}: {}", event.involved_object.name.as_ref()?, event.message.as_ref()?))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.truncate(REASONS_MAX);
    Ok(lines.concat())
}

/// Whether the pod's Ready condition is true.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// How often the cluster is asked.
const POLL: Duration = Duration::from_millis(250);
/// Reasons shown when the wait is over.
const REASONS_MAX: usize = 5;
