//! `meltemi waypoint list` and `status`. Scripts read them: nothing else is printed.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use kube::ResourceExt;
use kube::api::DynamicObject;
use mesh_api::labels;

use super::{Programmed, all, is_waypoint, wait};
use crate::cluster::Cluster;
use crate::output;

/// Lists waypoints.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

/// Shows whether waypoints are ready.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Wait until all are ready.
    #[arg(long, short = 'w', default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// Longest wait, such as 90s or 2m.
    #[arg(long, default_value = "90s", value_parser = mesh_core::duration::parse)]
    waypoint_timeout: Duration,
}

impl List {
    pub(super) async fn run(self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client().await?;
        let namespace = cluster.namespace_or(&client).to_owned();
        let found = all(&client, (!self.all_namespaces).then_some(&namespace)).await?;
        if found.is_empty() {
            return output::line("No waypoints found.");
        }
        let rows = found.iter().filter(|one| is_waypoint(one)).map(|one| {
            let label = |name: &str, default: &str| one.labels().get(name).map_or(default, String::as_str).to_owned();
            let columns = [
                one.name_any(),
                label(labels::REVISION, "default"),
                label(labels::WAYPOINT_FOR, "none"),
                Programmed::of(one).status,
            ];
            within(one, self.all_namespaces, columns)
        });
        output::wide_table(
            &header(self.all_namespaces, &["NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED"]),
            rows.collect(),
        )
    }
}

impl Status {
    pub(super) async fn run(self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client().await?;
        let namespace = cluster.namespace_or(&client).to_owned();
        let scope = (!self.all_namespaces).then_some(namespace.as_str());
        let names = all(&client, scope).await?;
        let names = names.iter().filter(|one| is_waypoint(one));
        let names: Vec<_> = names.map(|one| (one.namespace().unwrap_or_default(), one.name_any())).collect();
        if names.is_empty() {
            return output::line("No waypoints found.");
        }
        let waited = if self.wait { wait(&client, &names, self.waypoint_timeout).await } else { Ok(()) };
        let found = all(&client, scope).await?;
        let rows = found.iter().filter(|one| is_waypoint(one)).map(|one| {
            let programmed = Programmed::of(one);
            let columns = [one.name_any(), programmed.status, programmed.kind, programmed.reason, programmed.message];
            within(one, self.all_namespaces, columns)
        });
        let columns = ["NAME", "STATUS", "TYPE", "REASON", "MESSAGE"];
        output::wide_table(&header(self.all_namespaces, &columns), rows.collect())?;
        waited
    }
}

fn header(all_namespaces: bool, columns: &[&'static str]) -> Vec<&'static str> {
    all_namespaces.then_some("NAMESPACE").into_iter().chain(columns.iter().copied()).collect()
}

fn within<const N: usize>(one: &DynamicObject, all_namespaces: bool, columns: [String; N]) -> Vec<String> {
    all_namespaces.then(|| one.namespace().unwrap_or_default()).into_iter().chain(columns).collect()
}
