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
use crate::config::{Config, mesh};
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
pub async fn initial(client: &Client, config: &Config) -> anyhow::Result<MeshSettings> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &config.namespace);
    let name = name(config);
    let text = match maps.get_opt(&name).await? {
        Some(map) => text(&map),
        None => {
            tracing::info!(config_map = name, "no mesh configuration in the cluster");
            std::fs::read_to_string(&config.mesh_config_file).unwrap_or_default()
        }
    };
    Ok(read(&text, config)?)
}

/// Follows the ConfigMap, until nobody listens. An invalid value, or no ConfigMap, keeps what is in force.
pub async fn follow(client: Client, config: Arc<Config>, changes: mpsc::Sender<Change>) {
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
        match read(&text(&map), &config) {
            Ok(settings) => {
                if changes.send(Change::Settings(Arc::new(settings))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the new mesh configuration is not used, the last one stays in force")
            }
        }
    }
}

fn text(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("mesh")).cloned().unwrap_or_default()
}

fn read(text: &str, config: &Config) -> Result<MeshSettings, mesh::MeshConfigError> {
    let (settings, others) = mesh::settings(text, config)?;
    if !others.is_empty() {
        tracing::warn!(fields = others.join(", "), "fields of the mesh configuration have no effect yet");
    }
    Ok(settings)
}
