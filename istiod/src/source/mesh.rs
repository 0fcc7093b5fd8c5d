//! The mesh configuration: read once before anything else, then followed.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;

use super::watch::chain;
use crate::config::idle::Idle;
use crate::config::{Config, mesh};
use crate::metrics::Metrics;
use crate::world::{Change, MeshSettings};

/// Name of the ConfigMap.
pub fn name(config: &Config) -> String {
    match config.revision.as_str() {
        "default" | "" => "istio".to_owned(),
        revision => format!("istio-{revision}"),
    }
}

/// The settings to start with: the ConfigMap's, else the file's, else the defaults.
///
/// # Errors
/// The API server cannot be asked, or the configuration cannot be used: there is none before it to keep.
pub async fn initial(client: &Client, config: &Config, told: &Told) -> anyhow::Result<MeshSettings> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &config.namespace);
    let name = name(config);
    let text = match maps.get_opt(&name).await? {
        Some(map) => text(&map),
        None => {
            tracing::info!(config_map = name, "no mesh configuration in the cluster");
            std::fs::read_to_string(&config.mesh_config_file).unwrap_or_default()
        }
    };
    Ok(read(&text, config, told)?)
}

/// Follows the ConfigMap, until nobody listens. An invalid value, or no ConfigMap, keeps what is in force.
pub async fn follow(client: Client, config: Arc<Config>, changes: mpsc::Sender<Change>, told: Told) {
    let maps: Api<ConfigMap> = Api::namespaced(client, &config.namespace);
    let selection = watcher::Config::default().fields(&format!("metadata.name={}", name(&config)));
    let events = watcher(maps, selection).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let map = match event {
            Ok(Event::Apply(map) | Event::InitApply(map)) => map,
            Ok(Event::Delete(_)) => {
                tracing::warn!("the mesh configuration was deleted; the last one stays in force");
                continue;
            }
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "watch of the mesh configuration failed, trying again");
                continue;
            }
        };
        // A server without field selectors tells of other maps too.
        if map.metadata.name.as_deref() != Some(&name(&config)) {
            continue;
        }
        if let Some(settings) = told.take(&map, &config)
            && changes.send(Change::Settings(Arc::new(settings))).await.is_err()
        {
            return;
        }
    }
}

/// Who is told what became of the mesh configuration.
#[derive(Clone, Debug)]
pub struct Told {
    /// For metrics.
    pub metrics: Arc<Metrics>,
    /// For debugging.
    pub report: mesh::MeshReport,
}

impl Told {
    /// The settings of a map that can be used; none keeps those in force.
    fn take(&self, map: &ConfigMap, config: &Config) -> Option<MeshSettings> {
        match read(&text(map), config, self) {
            Ok(settings) => {
                let networks = map.data.as_ref().and_then(|data| data.get("meshNetworks"));
                if networks.is_some_and(|text| !matches!(text.trim(), "" | "networks: {}")) {
                    tracing::warn!(reason = NETWORKS, "meshNetworks has no effect");
                    self.report.also(Idle { field: "meshNetworks".to_owned(), reason: NETWORKS });
                }
                Some(settings)
            }
            Err(error) => {
                self.report.refused(error.to_string());
                self.metrics.mesh_config_refused();
                tracing::error!(%error, "the new mesh configuration is not used, the last one stays in force");
                None
            }
        }
    }
}

fn text(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("mesh")).cloned().unwrap_or_default()
}

/// Settings from a text, and tells what of it has no effect.
///
/// # Errors
/// It cannot be used.
pub fn read(text: &str, config: &Config, told: &Told) -> Result<MeshSettings, mesh::MeshConfigError> {
    let (settings, idle) = mesh::settings(text, config)?;
    for one in &idle {
        tracing::warn!(field = one.field, reason = one.reason, "field of the mesh configuration has no effect");
    }
    told.metrics.mesh_config_used(idle.iter().map(|one| one.field.as_str()));
    told.report.used(idle);
    Ok(settings)
}

const NETWORKS: &str = "ambient reads networks from namespace labels and Gateways";

#[cfg(test)]
mod tests {
    use clap::Parser;
    use mesh_telemetry::metrics::Registry;

    use super::*;
    use crate::config::{Cli, Command};

    fn map(mesh: &str, networks: &str) -> ConfigMap {
        let data = [("mesh", mesh), ("meshNetworks", networks)].map(|(key, text)| (key.to_owned(), text.to_owned()));
        ConfigMap { data: Some(data.into()), ..ConfigMap::default() }
    }

    #[test]
    fn what_cannot_be_used_is_told_and_the_last_one_stays_until_it_can() {
        let Command::Discovery(flags) = Cli::try_parse_from(["istiod", "discovery"]).unwrap().command;
        let config = Config::new(&flags, &mesh_core::env::Env::default(), 2).unwrap();
        let registry = Registry::new();
        let told = Told { metrics: Arc::new(Metrics::new(&registry)), report: mesh::MeshReport::default() };
        let used = told.take(&map("rootNamespace: root\naccessLogFile: x", "networks: {}"), &config).unwrap();
        assert_eq!(&*used.root_namespace, "root");
        assert!(told.take(&map("promises: {l7DenyAtL4: often}", ""), &config).is_none());
        let report = told.report.get();
        assert!(report.refused.unwrap().contains("promises.l7DenyAtL4"));
        assert_eq!(report.without_effect[0].field, "accessLogFile", "of what is in force");
        let text = registry.encode();
        assert!(text.contains("pilot_mesh_config_invalid 1") && text.contains("pilot_mesh_config_rejects 1"));
        assert!(text.contains("pilot_mesh_config_without_effect{field=\"accessLogFile\"} 1"), "{text}");
        assert!(told.take(&map("", "networks: {n1: {}}"), &config).is_some());
        let report = told.report.get();
        assert!(report.refused.is_none() && registry.encode().contains("pilot_mesh_config_invalid 0"));
        assert_eq!(report.without_effect[0].field, "meshNetworks");
    }
}
