//! Mesh configuration: the ConfigMap that users edit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::identity::TrustDomain;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Config;
use super::idle::{self, Idle};
use super::mesh_l7;
use crate::ca::anchors;
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
    let (l7, mut unread) = mesh_l7::settings(&mut mesh)?;
    let trust_anchors = trust_anchors(&mut mesh, &mut unread)?;
    let settings = MeshSettings {
        cluster_id: config.cluster_id.as_str().into(),
        domain: config.domain.as_str().into(),
        trust_domain: own,
        trust_domain_aliases: aliases,
        trust_anchors,
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

/// An entry of `caCertificates`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CaCertificate {
    pem: String,
    spiffe_bundle_url: String,
    trust_domains: Vec<String>,
    cert_signers: Vec<String>,
}

/// `caCertificates`, as one PEM.
fn trust_anchors(mesh: &mut Fields, idle: &mut Vec<Idle>) -> Result<Arc<str>, MeshConfigError> {
    let written: Vec<CaCertificate> = mesh.take("caCertificates")?;
    let mut all = Vec::new();
    for (number, one) in written.iter().enumerate() {
        let unread = [
            ("spiffeBundleUrl", !one.spiffe_bundle_url.is_empty(), idle::FETCHED),
            ("trustDomains", !one.trust_domains.is_empty(), idle::EVERY_DOMAIN),
            ("certSigners", !one.cert_signers.is_empty(), idle::NO_SIGNERS),
        ];
        let unread = unread.into_iter().filter(|(_, written, _)| *written);
        idle.extend(
            unread.map(|(field, _, reason)| Idle { field: format!("caCertificates[{number}].{field}"), reason }),
        );
        if one.pem.is_empty() && !one.spiffe_bundle_url.is_empty() {
            continue;
        }
        let found = anchors::read(&one.pem)
            .map_err(|reason| MeshConfigError { reason: format!("caCertificates[{number}].pem: {reason}") })?;
        all.extend(found.into_iter().filter(|one| !all.contains(one)).collect::<Vec<_>>());
    }
    if all.len() > TRUST_ANCHORS_MAX {
        let reason = format!("caCertificates: {} certificates, at most {TRUST_ANCHORS_MAX} are taken", all.len());
        return Err(MeshConfigError { reason });
    }
    Ok(all.concat().into())
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

/// Certificates that are trusted beside the authority's: they are part of a ConfigMap in every namespace, and of every
/// answer of the authority.
const TRUST_ANCHORS_MAX: usize = 32;
/// Promises with a switch.
const PROMISES: [&str; 4] = [L7_DENY_AT_L4, WAYPOINT_REQUIRED, POLICY_BEFORE_TRAFFIC, UNSERVED_FIELDS];
const L7_DENY_AT_L4: &str = "l7DenyAtL4";
const WAYPOINT_REQUIRED: &str = "waypointRequired";
const POLICY_BEFORE_TRAFFIC: &str = "policyBeforeTraffic";
const UNSERVED_FIELDS: &str = "unservedFields";
