//! `meltemi uninstall`: removes what `install` applied, in the reverse order.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use mesh_api::labels;

use crate::charts::{self, COMPONENTS, Overrides};
use crate::cluster::Cluster;
use crate::install::api_for;
use crate::output;
use crate::progress::Progress;

/// Removes the mesh from the cluster.
#[derive(Debug, Args)]
#[command(after_help = "Example: meltemi uninstall --purge --skip-confirmation")]
pub struct Uninstall {
    /// Remove everything, CRDs included. Your policies go with the CRDs.
    #[arg(long)]
    purge: bool,
    /// Do not ask.
    #[arg(long, short = 'y')]
    skip_confirmation: bool,
    /// Go on although pods are still enrolled.
    #[arg(long)]
    force: bool,
}

impl Uninstall {
    /// Runs the command.
    ///
    /// # Errors
    /// Refuses while pods are enrolled: without the node agent nobody would take their rules away.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        ensure!(self.purge, "say what to remove: --purge removes everything that 'meltemi install' applied");
        let client = cluster.client().await?;
        self.refuse_enrolled(&client).await?;
        output::confirm("This will remove the mesh, its CRDs and every policy.", self.skip_confirmation)?;
        for component in COMPONENTS.iter().rev() {
            let progress = Progress::start(component.title);
            let objects = charts::render(*component, &cluster.istio_namespace, &Overrides::default())?;
            for object in objects.iter().rev() {
                let Ok((api, name)) = api_for(&client, object, &cluster.istio_namespace).await else {
                    continue; // A kind that is not served has no objects.
                };
                match api.delete(&name, &DeleteParams::foreground()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other.with_context(|| format!("deleting {name}"))?),
                }
            }
            progress.done(&format!("✔ {} removed", component.title));
        }
        output::note("✔ Uninstall complete");
        output::note(format!("Namespace {} was left in place, with the authority's secret.", cluster.istio_namespace));
        Ok(())
    }

    async fn refuse_enrolled(&self, client: &Client) -> Result<()> {
        let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
        let mut enrolled: Vec<String> = pods
            .iter()
            .filter(|pod| pod.annotations().contains_key(labels::REDIRECTION))
            .map(|pod| format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default()))
            .collect();
        if enrolled.is_empty() || self.force {
            return Ok(());
        }
        let count = enrolled.len();
        enrolled.truncate(NAMES_MAX);
        bail!(
            "{count} pods are still in the mesh ({}{}).\nTake them out first, or they keep their rules and lose their network:\n  \
             kubectl label namespace <name> istio.io/dataplane-mode-\nor add --force and restart them yourself",
            enrolled.join(", "),
            if count > NAMES_MAX { ", …" } else { "" },
        )
    }
}

/// Names shown before "and more".
const NAMES_MAX: usize = 30;
