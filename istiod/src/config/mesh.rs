//! Mesh configuration: the ConfigMap that users edit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::identity::TrustDomain;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Config;
use super::idle::{self, Idle};
use super::mesh_l7;
use crate::world::{MeshSettings, Promise, Promises};

/// Why a mesh configuration is not used. The one before stays in force.
#[derive(Debug, thiserror::Error)]
#[error("mesh configuration: {reason}")]
pub struct MeshConfigError {
    /// What is wrong, naming field and value.
    pub reason: String,
}

/// Settings from the text of a mesh configuration, and the fields that have no effect.
///
/// # Errors
/// See [`MeshConfigError`].
pub fn settings(text: &str, config: &Config) -> Result<(MeshSettings, Vec<Idle>), MeshConfigError> {
    let bad = |reason: String| MeshConfigError { reason };
    let fields: Option<BTreeMap<String, Value>> = match text.trim().is_empty() {
        true => None,
        false => serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?,
    };
    let mut mesh = Fields(fields.unwrap_or_default());
    let trust_domain =
        |name: &str, field: &str| TrustDomain::new(name).map_err(|error| bad(format!("{field}: {error}")));
    let name: String = mesh.take("trustDomain")?;
    let own = if name.is_empty() { TrustDomain::default() } else { trust_domain(&name, "trustDomain")? };
    let aliases: Vec<String> = mesh.take("trustDomainAliases")?;
    let aliases = aliases.iter().map(|name| trust_domain(name, "trustDomainAliases")).collect::<Result<_, _>>()?;
    let promises: BTreeMap<String, Promise> = mesh.take("promises")?;
    if let Some(unknown) = promises.keys().find(|name| !PROMISES.contains(&name.as_str())) {
        return Err(bad(format!("promises: {unknown:?} is unknown, expected one of {}", PROMISES.join(", "))));
    }
    let promise = |name: &str| promises.get(name).copied().unwrap_or_default();
    let root: String = mesh.take("rootNamespace")?;
    let root = if root.is_empty() { config.namespace.as_str() } else { &root };
    let (l7, unread) = mesh_l7::settings(&mut mesh)?;
    let settings = MeshSettings {
        cluster_id: config.cluster_id.as_str().into(),
        domain: config.domain.as_str().into(),
        trust_domain: own,
        trust_domain_aliases: aliases,
        root_namespace: root.into(),
        system_namespace: config.namespace.as_str().into(),
        revision: Arc::from(config.revision.as_str()),
        l7_deny_at_l4: promise(L7_DENY_AT_L4).is_strict(),
        promises: Promises {
            l7_deny_at_l4: promise(L7_DENY_AT_L4),
            waypoint_required: promise(WAYPOINT_REQUIRED),
            policy_before_traffic: promise(POLICY_BEFORE_TRAFFIC),
            unserved_fields: promise(UNSERVED_FIELDS),
        },
        implicit_waypoint_allow: config.implicit_waypoint_allow,
        dry_run: config.dry_run,
        discovery_selectors: mesh.take("discoverySelectors")?,
        entry_visibility: mesh.take("serviceEntryVisibility")?,
        entries_select_pods: config.entries_select_pods,
        services_select_workload_entries: config.services_select_workload_entries,
        multi_network: config.multi_network,
        scopes: mesh.take("serviceScopeConfigs")?,
        proxies: config.proxies.clone(),
        l7,
    };
    Ok((settings, mesh.0.keys().map(|field| idle::mesh(field)).chain(unread).collect()))
}

/// Fields that were not looked at yet.
pub(super) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Reads a field; one that is not there, or null, is what it is by default.
    pub(super) fn take<T: Default + DeserializeOwned>(&mut self, field: &str) -> Result<T, MeshConfigError> {
        let Some(value) = self.0.remove(field).filter(|value| !value.is_null()) else { return Ok(T::default()) };
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let within = match path.as_str() {
                "." => String::new(),
                item if item.starts_with('[') => path,
                _ => format!(".{path}"),
            };
            MeshConfigError { reason: format!("{field}{within}: {}", error.inner()) }
        })
    }
}

/// What became of the mesh configuration, for debugging. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MeshReport(Arc<Mutex<Reported>>);

/// What a [`MeshReport`] says.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// Fields of what is in force that have no effect.
    pub without_effect: Vec<Idle>,
    /// Why the last that was written is not in force, if it is not.
    pub refused: Option<String>,
}

impl MeshReport {
    /// As it is now.
    pub fn get(&self) -> Reported {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A configuration is in force.
    pub fn used(&self, without_effect: Vec<Idle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Reported { without_effect, refused: None };
    }

    /// Something beside it has no effect.
    pub fn also(&self, idle: Idle) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).without_effect.push(idle);
    }

    /// A configuration was refused; the one before stays in force.
    pub fn refused(&self, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused = Some(reason);
    }
}

/// Promises with a switch.
const PROMISES: [&str; 4] = [L7_DENY_AT_L4, WAYPOINT_REQUIRED, POLICY_BEFORE_TRAFFIC, UNSERVED_FIELDS];
const L7_DENY_AT_L4: &str = "l7DenyAtL4";
const WAYPOINT_REQUIRED: &str = "waypointRequired";
const POLICY_BEFORE_TRAFFIC: &str = "policyBeforeTraffic";
const UNSERVED_FIELDS: &str = "unservedFields";
