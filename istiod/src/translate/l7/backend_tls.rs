//! BackendTLSPolicies: TLS towards services.

use std::sync::Arc;

use mesh_api::gateway::{BackendTLSPolicySpec, PolicyTargetReference, SubjectAltNameType};
use mesh_core::names::NamespacedName;
use mesh_wire::l7;
use mesh_wire::l7::client_tls::Mode;
use rustls_pki_types::DnsName;

use super::tls::authorities;
use crate::world::{BackendTlsPolicy, Kind, Labels, Material, TargetKind, World};

/// Why a policy cannot be honoured: its backends are not called at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendTlsProblem {
    /// Neither authorities nor the system's are named, or both.
    #[error("validation: expected caCertificateRefs or wellKnownCACertificates \"System\", not both")]
    NoAuthority,
    /// The kind of what holds the authorities cannot be read.
    #[error("validation.caCertificateRefs: kind {kind:?} of group {group:?} cannot be read, expected ConfigMap")]
    Kind {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
    },
    /// There is no such ConfigMap, or no certificate in it.
    #[error("validation.caCertificateRefs: ConfigMap {object} has no certificates in ca.crt")]
    Authority {
        /// The ConfigMap.
        object: NamespacedName,
    },
    /// The name that the certificate must have is missing or malformed.
    #[error("validation.hostname: {hostname:?} is no DNS name")]
    Hostname {
        /// As written.
        hostname: String,
    },
    /// A further name is missing.
    #[error("validation.subjectAltNames: entry {entry} has no value of its type")]
    AltName {
        /// Position.
        entry: usize,
    },
}

/// The policy that is in force for a port of a service: one for the port before one for all, then the oldest.
///
/// # Source
/// spec of the gateway controller, section 15.
pub fn policy_for<'a>(
    world: &'a World,
    kind: TargetKind,
    target: &NamespacedName,
    port_name: &str,
) -> Option<&'a Arc<BackendTlsPolicy>> {
    let named = world.backend_policies(kind, target).filter(|(kind, _)| *kind == Kind::BackendTlsPolicy);
    let policies = named.filter_map(|(_, key)| world.backend_tls(key));
    let in_force = policies.filter(|one| world.visible(&one.key.namespace) && !is_ignored(&one.annotations));
    let ranked = in_force.filter_map(|one| {
        let refs = one.spec.target_refs.iter().filter(|written| names(written, kind, target));
        let sections: Vec<_> = refs.map(|written| written.section_name.as_deref()).collect();
        match (sections.contains(&Some(port_name)), sections.contains(&None)) {
            (true, _) if !port_name.is_empty() => Some((0, one)),
            (_, true) => Some((1, one)),
            _ => None,
        }
    });
    let best = ranked.min_by(|(rank, a), (other, b)| (rank, a.age()).cmp(&(other, b.age())));
    best.map(|(_, policy)| policy)
}

fn names(written: &PolicyTargetReference, kind: TargetKind, target: &NamespacedName) -> bool {
    let meant = match (written.group.as_str(), written.kind.as_str()) {
        ("" | "core", "Service") => kind == TargetKind::Service,
        (mesh_api::labels::NETWORKING_GROUP, "ServiceEntry") => kind == TargetKind::ServiceEntry,
        _ => false,
    };
    meant && *written.name == *target.name
}

/// Whether an annotation asks for a policy to be left alone.
pub fn is_ignored(annotations: &Labels) -> bool {
    annotations.get(IGNORE).and_then(mesh_core::env::parse_bool).unwrap_or_default()
}

/// TLS settings of a policy. `read` gives ConfigMaps.
///
/// # Errors
/// The policy cannot be honoured: nothing may be sent to its backends.
pub fn client_tls<'a>(
    policy: &BackendTlsPolicy,
    mut read: impl FnMut(Kind, &NamespacedName) -> Option<&'a Arc<Material>>,
) -> Result<l7::ClientTls, BackendTlsProblem> {
    let spec: &BackendTLSPolicySpec = &policy.spec;
    let validation = &spec.validation;
    if !is_dns_name(&validation.hostname) {
        return Err(BackendTlsProblem::Hostname { hostname: validation.hostname.clone() });
    }
    let system = validation.well_known_ca_certificates.as_deref();
    let roots = match (validation.ca_certificate_refs.first(), system) {
        // Only the first counts.
        (Some(written), None) => {
            if !(matches!(written.group.as_str(), "" | "core") && written.kind == "ConfigMap") {
                let (group, kind) = (written.group.clone(), written.kind.clone());
                return Err(BackendTlsProblem::Kind { group, kind });
            }
            let object = NamespacedName::new(policy.key.namespace.clone(), written.name.as_str());
            let map = read(Kind::ConfigMap, &object);
            let pem = map.and_then(|map| map.get(CA_KEY)).and_then(authorities);
            pem.ok_or(BackendTlsProblem::Authority { object })?
        }
        (None, Some("System")) => bytes::Bytes::new(),
        _ => return Err(BackendTlsProblem::NoAuthority),
    };
    let mut names = Vec::new();
    for (entry, written) in validation.subject_alt_names.iter().enumerate() {
        let name = match written.type_ {
            SubjectAltNameType::Hostname => written.hostname.clone().filter(|name| !name.contains("://")),
            SubjectAltNameType::Uri => written.uri.clone().filter(|name| name.contains("://")),
        };
        names.push(name.filter(|name| !name.is_empty()).ok_or(BackendTlsProblem::AltName { entry })?);
    }
    Ok(l7::ClientTls {
        mode: Mode::Simple.into(),
        sni: validation.hostname.clone(),
        subject_alt_names: names,
        roots: roots.to_vec(),
        ..l7::ClientTls::default()
    })
}

fn is_dns_name(text: &str) -> bool {
    let label = |one: &str| !one.is_empty() && one.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    DnsName::try_from(text).is_ok() && text.split('.').all(label)
}

/// Key of a ConfigMap with authorities.
const CA_KEY: &str = "ca.crt";
/// Asks for a policy to be left alone.
const IGNORE: &str = "istio.io/ignore-policy-attachment";
