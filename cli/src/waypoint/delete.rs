//! `meltemi waypoint delete`.

use anyhow::{Result, bail, ensure};
use clap::Args;
use futures::stream::{self, StreamExt};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt};
use mesh_api::labels;

use super::{all, gateways, is_waypoint};
use crate::cluster::Cluster;
use crate::output;

/// Removes waypoints.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Which ones.
    names: Vec<String>,
    /// All of the namespace.
    #[arg(long)]
    all: bool,
    /// All of this revision.
    #[arg(long, short = 'r')]
    revision: Option<String>,
}

impl Delete {
    pub(super) async fn run(self, cluster: &Cluster) -> Result<()> {
        let many = self.all || self.revision.is_some();
        ensure!(self.names.is_empty() || !many, "name waypoints, or say --all or --revision, not both");
        ensure!(!self.names.is_empty() || many, "which waypoint? Name it, or say --all for every one of the namespace");
        let client = cluster.client().await?;
        let namespace = cluster.namespace_or(&client).to_owned();
        let found = all(&client, Some(&namespace)).await?;
        let concerned = found.iter().filter(|one| is_waypoint(one));
        let concerned = concerned.filter(|one| match &self.revision {
            Some(revision) => one.labels().get(labels::REVISION).map_or("default", String::as_str) == revision,
            None => true,
        });
        let existing: Vec<String> = concerned.map(ResourceExt::name_any).collect();
        let names = if many { existing.clone() } else { self.names };
        let (known, unknown): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| existing.contains(name));
        for name in unknown {
            output::line(format!("waypoint {namespace}/{name} not found"))?;
        }
        let outcomes: Vec<_> =
            stream::iter(known).map(|name| remove(&client, &namespace, name)).buffer_unordered(AT_ONCE).collect().await;
        let errors: Vec<String> =
            outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        if !errors.is_empty() {
            bail!("{}", errors.join("; "));
        }
        Ok(())
    }
}

async fn remove(client: &Client, namespace: &str, name: String) -> Result<()> {
    match gateways(client, Some(namespace)).delete(&name, &DeleteParams::default()).await {
        Ok(_) => output::line(format!("waypoint {namespace}/{name} deleted")),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            output::line(format!("waypoint {namespace}/{name} not found"))
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("deleting waypoint {namespace}/{name}"))),
    }
}

/// Deletions that are under way at the same time.
const AT_ONCE: usize = 8;
