//! What admission checks of every mesh kind: pure functions from an object to what is wrong with it.
//!
//! They read the object as it was sent, not as a type of ours: every mistake is found, not only the first, and a field
//! that nobody reads is told instead of vanishing. Each message is `path: value: expected …`.

mod advice;
mod attach;
mod authorization;
mod destination_rule;
mod entry;
mod extension;
mod field;
mod gateway;
mod jwt;
mod metadata;
mod name;
mod peer;
mod scalar;
mod sidecar;
mod telemetry;
mod traffic_policy;
mod unserved;
mod virtual_service;

use std::collections::BTreeMap;

use serde_json::Value;

pub use advice::{ADVISED, advice};
use field::{Field, Fields, Report};
pub use name::is_object_name;

/// What is asked to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Namespace it will be in.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its `spec`; null when it has none.
    pub spec: &'a Value,
}

/// What a judgement depends on besides the object.
#[derive(Clone, Debug)]
pub struct Context {
    /// Namespace whose policies hold for the whole mesh.
    pub root_namespace: String,
    /// Whether fields without effect in ambient are warned about: the promise `unservedFields`.
    pub warn_unserved: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self { root_namespace: crate::labels::SYSTEM_NAMESPACE.to_owned(), warn_unserved: true }
    }
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it must not be stored; none: it may. At most [`MESSAGES_MAX`], then one that counts the rest.
    pub errors: Vec<String>,
    /// What its author should know. Bounded like the errors.
    pub warnings: Vec<String>,
}

/// Judges an object of the mesh; none for a kind that is not of the mesh.
pub fn validate(object: &Candidate<'_>, context: &Context) -> Option<Verdict> {
    let check = spec_of(object.group, object.kind)?;
    let report = Report::default();
    metadata::check(object, &report);
    let root = Input { object, context };
    let empty = Value::Object(serde_json::Map::new());
    let spec = if object.spec.is_null() { &empty } else { object.spec };
    Field::new("spec".to_owned(), spec, &report).object(|fields| check(fields, &root));
    Some(report.into_verdict())
}

/// Every kind that [`validate`] judges, with its group.
pub const KINDS: [(&str, &str); 15] = [
    ("security.istio.io", "AuthorizationPolicy"),
    ("security.istio.io", "PeerAuthentication"),
    ("security.istio.io", "RequestAuthentication"),
    ("networking.istio.io", "ServiceEntry"),
    ("networking.istio.io", "WorkloadEntry"),
    ("networking.istio.io", "WorkloadGroup"),
    ("networking.istio.io", "DestinationRule"),
    ("networking.istio.io", "VirtualService"),
    ("networking.istio.io", "Gateway"),
    ("networking.istio.io", "Sidecar"),
    ("networking.istio.io", "ProxyConfig"),
    ("networking.istio.io", "EnvoyFilter"),
    ("telemetry.istio.io", "Telemetry"),
    ("extensions.istio.io", "WasmPlugin"),
    ("extensions.istio.io", "TrafficExtension"),
];

type SpecCheck = fn(&Fields<'_>, &Input<'_>);

fn spec_of(group: &str, kind: &str) -> Option<SpecCheck> {
    Some(match (group, kind) {
        ("security.istio.io", "AuthorizationPolicy") => authorization::spec,
        ("security.istio.io", "PeerAuthentication") => peer::spec,
        ("security.istio.io", "RequestAuthentication") => jwt::spec,
        ("networking.istio.io", "ServiceEntry") => entry::service,
        ("networking.istio.io", "WorkloadEntry") => entry::workload,
        ("networking.istio.io", "WorkloadGroup") => entry::group,
        ("networking.istio.io", "DestinationRule") => destination_rule::spec,
        ("networking.istio.io", "VirtualService") => virtual_service::spec,
        ("networking.istio.io", "Gateway") => gateway::spec,
        ("networking.istio.io", "Sidecar") => sidecar::spec,
        ("networking.istio.io", "ProxyConfig") => sidecar::proxy_config,
        ("networking.istio.io", "EnvoyFilter") => unserved::envoy_filter,
        ("telemetry.istio.io", "Telemetry") => telemetry::spec,
        ("extensions.istio.io", "WasmPlugin") => extension::wasm_plugin,
        ("extensions.istio.io", "TrafficExtension") => extension::traffic_extension,
        _ => return None,
    })
}

/// What every check of a spec may look at.
struct Input<'a> {
    object: &'a Candidate<'a>,
    context: &'a Context,
}

impl Input<'_> {
    /// Warns that something is accepted and does nothing, unless the mesh asked for silence.
    fn unserved(&self, fields: &Fields<'_>, message: &str) {
        if self.context.warn_unserved {
            fields.warn(message);
        }
    }
}

/// Messages of a sort that a verdict holds.
pub const MESSAGES_MAX: usize = 50;

#[cfg(test)]
mod tests;
