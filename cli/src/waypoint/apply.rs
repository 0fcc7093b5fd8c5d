//! `meltemi waypoint apply`.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mesh_api::labels;
use serde_json::json;

use super::{Shape, explained, gateway, gateways, wait};
use crate::cluster::Cluster;
use crate::output;

/// Creates a waypoint, or changes it.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    shape: Shape,
    /// Label the namespace, so that all its services use the waypoint.
    #[arg(long)]
    enroll_namespace: bool,
    /// Replace the label if the namespace uses another waypoint.
    #[arg(long)]
    overwrite: bool,
    /// Wait until the waypoint takes traffic.
    #[arg(long, short = 'w')]
    wait: bool,
    /// Longest wait, such as 90s or 2m.
    #[arg(long, default_value = "90s", value_parser = mesh_core::duration::parse)]
    waypoint_timeout: Duration,
}

impl Apply {
    pub(super) async fn run(self, cluster: &Cluster, name: &str) -> Result<()> {
        let client = cluster.client().await?;
        let namespace = cluster.namespace_or(&client).to_owned();
        let namespaces = Api::<Namespace>::all(client.clone());
        let found = namespaces.get_opt(&namespace).await.context("asking for the namespace")?;
        let found = found
            .with_context(|| format!("namespace {namespace} does not exist: kubectl create namespace {namespace}"))?;
        if self.enroll_namespace && !self.may_enroll(&found, &namespace) {
            return Ok(());
        }
        let params = PatchParams::apply(MANAGER);
        let wanted = gateway(Some(&namespace), name, &self.shape);
        gateways(&client, Some(&namespace)).patch(name, &params, &Patch::Apply(wanted)).await.map_err(explained)?;
        output::line(format!("✅ waypoint {namespace}/{name} applied"))?;
        if self.enroll_namespace {
            enroll(&client, &namespace, name).await?;
        }
        if self.wait {
            wait(&client, &[(namespace.clone(), name.to_owned())], self.waypoint_timeout).await?;
            output::line(format!("✅ waypoint {namespace}/{name} is ready!"))?;
        }
        Ok(())
    }

    /// Whether the namespace may be labelled; says why not.
    fn may_enroll(&self, namespace: &Namespace, name: &str) -> bool {
        if let Some(other) = namespace.labels().get(labels::USE_WAYPOINT)
            && !self.overwrite
        {
            output::note(format!(
                "Warning: namespace {name} already has the label {}={other}, nothing was changed; add --overwrite to replace it",
                labels::USE_WAYPOINT
            ));
            return false;
        }
        if namespace.labels().get(labels::DATAPLANE_MODE).map(String::as_str) != Some(labels::DATAPLANE_MODE_AMBIENT) {
            output::note(format!(
                "Warning: namespace {name} is not in the mesh, its traffic will not reach the waypoint. Put it in:  meltemi enroll {name}"
            ));
        }
        true
    }
}

async fn enroll(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let patch = json!({"metadata": {"labels": {labels::USE_WAYPOINT: name}}});
    Api::<Namespace>::all(client.clone())
        .patch(namespace, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("labelling namespace {namespace}"))?;
    output::line(format!("✅ namespace {namespace} labeled with \"{}: {name}\"", labels::USE_WAYPOINT))
}

/// As istioctl names itself, so that either tool may go on with what the other began.
const MANAGER: &str = "istioctl";
