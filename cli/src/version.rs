//! `meltemi version`: of this tool, of the control plane, of the node proxies.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use kube::ResourceExt;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::control_plane;
use crate::output::{self, Format};
use crate::proxy;

/// Shows versions.
#[derive(Debug, Args)]
#[command(after_help = "Example: meltemi version -o json")]
pub struct Version {
    /// Ask the cluster too.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    remote: bool,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mesh_version: Vec<Instance>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data_plane_version: Vec<Instance>,
}

#[derive(Debug, Serialize)]
struct Instance {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IstioVersion")]
    version: String,
}

impl Version {
    /// Runs the command. A cluster that cannot be reached is a notice, not an error.
    ///
    /// # Errors
    /// When nothing can be printed.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let mut versions = Versions {
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh_version: Vec::new(),
            data_plane_version: Vec::new(),
        };
        let reached = match self.remote {
            true => ask(cluster, &mut versions).await,
            false => Ok(()),
        };
        if let Err(error) = &reached {
            output::note(format!("the mesh is not present in the cluster: {error:#}"));
        }
        if self.output != Format::Short {
            return output::machine(self.output, &versions);
        }
        output::line(format!("client version: {}", versions.client_version))?;
        if !self.remote || reached.is_err() {
            return Ok(());
        }
        for (version, _) in count(&versions.mesh_version) {
            output::line(format!("control plane version: {version}"))?;
        }
        let proxies: Vec<String> = count(&versions.data_plane_version)
            .into_iter()
            .map(|(version, count)| format!("{version} ({count} proxies)"))
            .collect();
        let proxies = if proxies.is_empty() { "none".to_owned() } else { proxies.join(", ") };
        output::line(format!("data plane version: {proxies}"))
    }
}

async fn ask(cluster: &Cluster, versions: &mut Versions) -> Result<()> {
    let client = cluster.client().await?;
    let control = control_plane::pods(&client, &cluster.istio_namespace).await?;
    for pod in &control {
        let (_, body) = proxy::admin(&client, pod, CONTROL_PLANE_PORT, "GET", "/version").await?;
        let version = String::from_utf8_lossy(&body).trim().to_owned();
        versions.mesh_version.push(Instance { id: pod.name_any(), version });
    }
    for pod in proxy::all(&client, &cluster.istio_namespace).await? {
        let dump = proxy::get_json(&client, &pod, PROXY_PORT, "/config_dump").await;
        let version = dump.ok().and_then(|dump| {
            let version = dump.get("version")?;
            Some(version.get("version").unwrap_or(version).as_str()?.to_owned())
        });
        let id = format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default());
        versions.data_plane_version.push(Instance { id, version: version.unwrap_or_else(|| "unknown".to_owned()) });
    }
    Ok(())
}

fn count(instances: &[Instance]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for instance in instances {
        *counts.entry(instance.version.as_str()).or_default() += 1;
    }
    counts
}

const CONTROL_PLANE_PORT: u16 = 15014;
const PROXY_PORT: u16 = 15000;
