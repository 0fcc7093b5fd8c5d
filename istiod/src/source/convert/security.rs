//! AuthorizationPolicies and PeerAuthentications.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_api::security::{AuthorizationPolicySpec, PeerAuthenticationSpec, WorkloadSelector};
use mesh_core::env::parse_bool;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Converted, Unreadable, annotation, fields};
use crate::world::{AuthorizationPolicy, Labels, Object, PeerAuthentication};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields<S: Default> {
    spec: S,
}

/// Policies of another revision are that one's affair.
pub(super) fn authorization(key: &NamespacedName, mut object: DynamicObject, revision: &str) -> Converted {
    let owner = object.metadata.labels.as_ref().and_then(|labels| labels.get(names::REVISION));
    if owner.is_some_and(|owner| owner != revision) {
        return Ok(None);
    }
    let Fields::<AuthorizationPolicySpec> { spec } = fields(&mut object)?;
    Ok(Some(Object::Authorization(AuthorizationPolicy {
        key: key.clone(),
        generation: object.metadata.generation.unwrap_or_default(),
        dry_run: annotation(&object, names::DRY_RUN).and_then(parse_bool).unwrap_or_default(),
        selector: selector(spec.selector.as_ref()),
        spec: Arc::new(spec),
    })))
}

pub(super) fn peer(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let Fields::<PeerAuthenticationSpec> { spec } = fields(&mut object)?;
    let port = |(text, mode): (&String, &mesh_api::security::MutualTls)| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok((port, mode.mode.unwrap_or_default())),
        _ => Err(Unreadable(format!("portLevelMtls {text:?}: expected a port from 1 to 65535"))),
    };
    let ports = spec.port_level_mtls.iter().map(port).collect::<Result<BTreeMap<_, _>, _>>()?;
    let created = object.metadata.creation_timestamp.as_ref();
    Ok(Some(Object::Peer(PeerAuthentication {
        key: key.clone(),
        created_s: created.map(|time| time.0.as_second()).unwrap_or_default(),
        selector: selector(spec.selector.as_ref()),
        mode: spec.mtls.and_then(|mtls| mtls.mode).unwrap_or_default(),
        ports,
    })))
}

fn selector(selector: Option<&WorkloadSelector>) -> Option<Labels> {
    let labels: Labels = selector?.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    (!labels.is_empty()).then_some(labels)
}
