//! `meltemi enroll` and `unenroll`: label a namespace and watch until its running pods have followed.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mesh_api::labels;
use serde_json::json;

use crate::cluster::Cluster;
use crate::output;

/// Puts a namespace into the mesh (the same as labelling it) and waits until its pods are enrolled.
#[derive(Debug, Args)]
#[command(after_help = "Example: meltemi enroll demo")]
pub struct Enroll {
    /// Namespace.
    name: String,
    /// Seconds to wait for the pods; 0 does not wait.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

impl Enroll {
    /// Runs the command: `wanted` is whether the namespace shall be in the mesh.
    ///
    /// # Errors
    /// When the namespace does not exist, or names the pods that have not followed in time.
    pub async fn run(self, cluster: &Cluster, wanted: bool) -> Result<()> {
        let client = cluster.client().await?;
        let value = wanted.then_some(labels::DATAPLANE_MODE_AMBIENT);
        let patch = json!({"metadata": {"labels": {labels::DATAPLANE_MODE: value}}});
        Api::<Namespace>::all(client.clone())
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .with_context(|| format!("labelling namespace {}", self.name))?;
        output::line(match wanted {
            true => format!(
                "namespace {} labelled {}={}",
                self.name,
                labels::DATAPLANE_MODE,
                labels::DATAPLANE_MODE_AMBIENT
            ),
            false => format!("label {} removed from namespace {}", labels::DATAPLANE_MODE, self.name),
        })?;
        if self.timeout == 0 {
            return Ok(());
        }
        let count = self.wait(&client, wanted).await?;
        output::line(format!(
            "{count} running pods {} the mesh, none was restarted",
            if wanted { "are in" } else { "have left" }
        ))
    }

    async fn wait(&self, client: &Client, wanted: bool) -> Result<usize> {
        let api = Api::<Pod>::namespaced(client.clone(), &self.name);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.timeout);
        loop {
            let pods = api.list(&ListParams::default()).await?;
            let concerned: Vec<&Pod> = pods.iter().filter(|pod| concerns(pod, wanted)).collect();
            let waiting: Vec<String> =
                concerned.iter().filter(|pod| enrolled(pod) != wanted).map(|pod| pod.name_any()).collect();
            if waiting.is_empty() {
                return Ok(concerned.len());
            }
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "after {}s these pods have not followed: {}.\nAsk the node agent why:  kubectl logs -n {} -l k8s-app=istio-cni-node",
                    self.timeout,
                    waiting.join(", "),
                    labels::SYSTEM_NAMESPACE,
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether the namespace label decides about this pod.
fn concerns(pod: &Pod, wanted: bool) -> bool {
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let own = pod.labels().get(labels::DATAPLANE_MODE).map(String::as_str);
    let overridden = own == Some(if wanted { labels::DATAPLANE_MODE_NONE } else { labels::DATAPLANE_MODE_AMBIENT });
    running
        && !host
        && !overridden
        && !pod.annotations().contains_key(labels::SIDECAR_STATUS)
        && pod.metadata.deletion_timestamp.is_none()
}

fn enrolled(pod: &Pod) -> bool {
    pod.annotations().get(labels::REDIRECTION).map(String::as_str) == Some(labels::REDIRECTION_ENABLED)
}

/// How often the cluster is asked.
const POLL: Duration = Duration::from_millis(100);
