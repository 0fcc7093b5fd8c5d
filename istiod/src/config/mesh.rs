//! Mesh configuration: the ConfigMap that users edit.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::identity::TrustDomain;
use serde::Deserialize;
use serde_json::Value;

use super::Config;
use crate::world::{MeshSettings, Selector};

/// The part of the mesh configuration that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    trust_domain: Option<String>,
    root_namespace: Option<String>,
    discovery_selectors: Vec<Selector>,
    promises: BTreeMap<String, Promise>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// How a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Promise {
    Strict,
    Reference,
}

/// Why a mesh configuration is not used. The one before stays in force.
#[derive(Debug, thiserror::Error)]
#[error("mesh configuration: {reason}")]
pub struct MeshConfigError {
    /// What is wrong, naming field and value.
    pub reason: String,
}

/// Settings from the text of a mesh configuration, and the fields that have no effect yet.
///
/// # Errors
/// See [`MeshConfigError`].
pub fn settings(text: &str, config: &Config) -> Result<(MeshSettings, Vec<String>), MeshConfigError> {
    let bad = |reason: String| MeshConfigError { reason };
    let mesh: MeshConfig = match text.trim().is_empty() {
        true => MeshConfig::default(),
        false => serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?,
    };
    let trust_domain = match mesh.trust_domain.as_deref().filter(|one| !one.is_empty()) {
        Some(name) => TrustDomain::new(name).map_err(|error| bad(format!("trustDomain: {error}")))?,
        None => TrustDomain::default(),
    };
    if let Some(unknown) = mesh.promises.keys().find(|name| !PROMISES.contains(&name.as_str())) {
        return Err(bad(format!("promises: {unknown:?} is unknown, expected one of {}", PROMISES.join(", "))));
    }
    let strict = |name: &str| mesh.promises.get(name).is_none_or(|promise| *promise == Promise::Strict);
    let root = mesh.root_namespace.as_deref().filter(|one| !one.is_empty()).unwrap_or(&config.namespace);
    let settings = MeshSettings {
        cluster_id: config.cluster_id.as_str().into(),
        domain: config.domain.as_str().into(),
        trust_domain,
        root_namespace: root.into(),
        system_namespace: config.namespace.as_str().into(),
        revision: Arc::from(config.revision.as_str()),
        l7_deny_at_l4: strict(L7_DENY_AT_L4),
        dry_run: config.dry_run,
        discovery_selectors: mesh.discovery_selectors,
    };
    let weakened =
        mesh.promises.iter().filter(|(name, promise)| **promise == Promise::Reference && *name != L7_DENY_AT_L4);
    let idle = weakened.map(|(name, _)| format!("promises.{name}"));
    Ok((settings, mesh.others.into_keys().chain(idle).collect()))
}

/// Promises with a switch.
const PROMISES: [&str; 4] = [L7_DENY_AT_L4, "waypointRequired", "policyBeforeTraffic", "unservedFields"];
/// The promise that already has both forms; the others are always strict.
const L7_DENY_AT_L4: &str = "l7DenyAtL4";
