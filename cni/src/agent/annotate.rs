//! The annotation by which everybody else learns that a pod is captured.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mesh_api::labels;
use serde_json::json;

/// Writes or (with `None`) removes the annotation. A pod that is gone is no error when removing.
///
/// # Errors
/// As the API server gives them.
pub async fn redirection(client: &Client, namespace: &str, name: &str, value: Option<&str>) -> kube::Result<()> {
    let patch = json!({"metadata": {"annotations": {labels::REDIRECTION: value}}});
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 && value.is_none() => Ok(()),
        other => other.map(drop),
    }
}
