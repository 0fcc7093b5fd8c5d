//! Reaching the control plane: its pods, and their debug port through the API server.

use anyhow::{Context, Result, ensure};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::proxy;
use crate::readiness::is_ready;

/// Every pod of the control plane, by name.
///
/// # Errors
/// There is none, or the API server does not answer.
pub async fn pods(client: &Client, system_namespace: &str) -> Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(client.clone(), system_namespace);
    let mut pods = api.list(&ListParams::default().labels(SELECTOR)).await.context("listing control planes")?.items;
    ensure!(
        !pods.is_empty(),
        "no pods with label {SELECTOR} in namespace {system_namespace}: is the mesh installed? ('meltemi install')"
    );
    pods.sort_by_key(ResourceExt::name_any);
    Ok(pods)
}

/// A pod of the control plane that can answer; every replica knows the same objects.
///
/// # Errors
/// As [`pods`].
pub async fn any(client: &Client, system_namespace: &str) -> Result<Pod> {
    let mut pods = pods(client, system_namespace).await?;
    pods.sort_by_key(|pod| !is_ready(pod));
    pods.into_iter().next().context("no control plane")
}

/// Asks the control plane for JSON.
///
/// # Errors
/// It cannot be reached, or answers something else.
pub async fn get(client: &Client, pod: &Pod, path: &str) -> Result<Value> {
    proxy::get_json(client, pod, PORT, path).await
}

/// Sends JSON to the control plane and reads its JSON answer.
///
/// # Errors
/// It cannot be reached, or refuses: its own words are in the error.
pub async fn post(client: &Client, pod: &Pod, path: &str, body: &Value) -> Result<Value> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let (status, answer) = proxy::exchange(client, pod, PORT, "POST", path, body).await?;
    ensure!(status == 200, "the control plane refuses ({status}): {}", String::from_utf8_lossy(&answer).trim());
    serde_json::from_slice(&answer)
        .with_context(|| format!("the control plane answered {path} with something else than JSON"))
}

const SELECTOR: &str = "app=istiod";
/// Metrics and debugging.
const PORT: u16 = 15014;
