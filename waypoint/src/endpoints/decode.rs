//! Workloads and services as they come over the wire, turned into what endpoints are made of.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName, NetworkAddr, TrustDomain};
use mesh_wire::meltemi;
use mesh_wire::workload::{self as wire, gateway_address, load_balancing as lb};
use prost::Message as _;

use super::words::Words;
use super::{Locality, Preference, PreferenceMode, Scope};
use crate::report::End;

/// One unusable field. The resource is refused as a whole; an earlier good copy stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found}, expected {expected}")]
pub struct FieldError {
    /// Path of the field in the message.
    pub field: String,
    /// The value as it came.
    pub found: String,
    /// What would have been fine.
    pub expected: &'static str,
}

/// Something that traffic goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Resource key.
    pub uid: Arc<str>,
    /// Who it is.
    pub identity: Identity,
    /// On `network`; the first is the primary one; may be empty.
    pub addresses: Box<[IpAddr]>,
    /// DNS name of one without addresses; may be empty.
    pub hostname: Arc<str>,
    /// Network name; may be empty.
    pub network: Arc<str>,
    /// It is reached through a tunnel on port 15008.
    pub tunnel: bool,
    /// Its address is that of its node.
    pub host_network: bool,
    /// Waypoint for calls that name its address.
    pub waypoint: Option<Gateway>,
    /// How to reach it from other networks.
    pub network_gateway: Option<Gateway>,
    /// Services that it backs, with its own ports for each.
    pub services: Box<[(NamespacedName, Ports)]>,
    /// Takes new traffic.
    pub healthy: bool,
    /// Load-balancing weight.
    pub weight: u32,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Node that it runs on; may be empty.
    pub node: Arc<str>,
    /// Cluster that it runs in.
    pub cluster: Arc<str>,
    /// As far as they were sent.
    pub labels: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// For metrics and logs.
    pub end: Arc<End>,
}

impl Workload {
    /// Whether it is a pod; other workloads are where somebody says that they are.
    pub(super) fn is_pod(&self) -> bool {
        self.uid.split_once('/').is_some_and(|(_, rest)| rest.starts_with("/Pod/"))
    }

    /// Services of its own namespace.
    pub(super) fn own_services(&self) -> impl Iterator<Item = &(NamespacedName, Ports)> {
        self.services.iter().filter(|(service, _)| service.namespace == self.end.namespace)
    }
}

/// A name with virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// `namespace/hostname`.
    pub key: NamespacedName,
    /// Virtual addresses.
    pub addresses: Box<[NetworkAddr]>,
    /// Service port to target port.
    pub ports: Ports,
    /// Further identities that its endpoints may prove.
    pub identities: Box<[Identity]>,
    /// Waypoints, one of them picked by weight.
    pub waypoints: Box<[(Gateway, u32)]>,
    /// How endpoints are preferred.
    pub preference: Preference,
    /// A policy of it needs a waypoint: it takes traffic from there only.
    pub guarded: bool,
}

/// How to reach a waypoint or the gateway of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// What to look up.
    pub destination: GatewayDestination,
    /// Port of its HBONE listener.
    pub port: u16,
}

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayDestination {
    /// `namespace/hostname` of a service or workload.
    Name(NamespacedName),
    /// An address of a service or workload.
    Address(NetworkAddr),
}

/// Service port to target port; target 0: each endpoint has its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Box<[(u16, u16)]>);

impl Ports {
    /// Target of a service port.
    #[must_use]
    pub fn target(&self, port: u16) -> Option<u16> {
        self.0.iter().find(|(service, _)| *service == port).map(|(_, target)| *target)
    }

    /// Service ports.
    pub fn services(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().map(|(service, _)| *service)
    }

    /// Whether any port of a service, of which these are declared, is served at `target` by a workload whose own ports for
    /// the service are `own`.
    pub(super) fn lead_to(&self, own: &Self, target: u16) -> bool {
        let set = |port: &u16| *port > 0;
        let declared = self.0.iter().map(|(public, declared)| own.target(*public).filter(set).unwrap_or(*declared));
        let further = own.0.iter().filter(|(public, _)| self.target(*public).is_none()).map(|(_, target)| *target);
        declared.chain(further).any(|port| port == target)
    }

    fn decode(field: &str, ports: &[wire::Port]) -> Result<Self, FieldError> {
        let one = |(n, one): (usize, &wire::Port)| {
            let service = port(&format!("{field}[{n}].service_port"), one.service_port)?;
            Ok((service, port(&format!("{field}[{n}].target_port"), one.target_port)?))
        };
        ports.iter().enumerate().map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, found: impl fmt::Display, expected: &'static str) -> Self {
        Self { field: field.into(), found: found.to_string(), expected }
    }
}

impl Workload {
    /// Its own ports for a service.
    #[must_use]
    pub fn ports_for(&self, service: &NamespacedName) -> Option<&Ports> {
        self.services.iter().find(|(key, _)| key == service).map(|(_, ports)| ports)
    }

    pub(super) fn decode(message: wire::Workload, words: &mut Words) -> Result<Self, FieldError> {
        let identity = identity(&message)?;
        let healthy = match number("status", message.status, "0 or 1")? {
            wire::WorkloadStatus::Healthy => true,
            wire::WorkloadStatus::Unhealthy => false,
        };
        let tunnel = match number("tunnel_protocol", message.tunnel_protocol, "0 (NONE) or 1 (HBONE)")? {
            wire::TunnelProtocol::None => false,
            wire::TunnelProtocol::Hbone => true,
            wire::TunnelProtocol::LegacyIstioMtls => {
                return Err(FieldError::new("tunnel_protocol", "2 (LEGACY_ISTIO_MTLS)", "0 (NONE) or 1 (HBONE)"));
            }
        };
        let host_network = message.network_mode == wire::NetworkMode::HostNetwork as i32;
        let addresses = message.addresses.iter().enumerate();
        let addresses: Box<[_]> =
            addresses.map(|(n, bytes)| ip(&format!("addresses[{n}]"), bytes)).collect::<Result<_, _>>()?;
        let place = message.locality.clone().unwrap_or_default();
        let labels = labels(&message.extensions, words)?;
        let cluster = words.share(if message.cluster_id.is_empty() { DEFAULT_CLUSTER } else { &message.cluster_id });
        let end = end(&message, &identity, &labels, cluster.clone(), words);
        Ok(Self {
            uid: message.uid.as_str().into(),
            addresses,
            hostname: words.share(&message.hostname),
            network: words.share(&message.network),
            // The node's own address has no tunnel of the pod.
            tunnel: tunnel && !host_network,
            host_network,
            waypoint: message.waypoint.as_ref().map(|one| Gateway::decode("waypoint", one, words)).transpose()?,
            network_gateway: message
                .network_gateway
                .as_ref()
                .map(|one| Gateway::decode("network_gateway", one, words))
                .transpose()?,
            services: services(&message.services, words)?,
            healthy,
            weight: message.capacity.unwrap_or(1),
            locality: Arc::new(Locality {
                region: words.share(&place.region),
                zone: words.share(&place.zone),
                subzone: words.share(&place.subzone),
            }),
            node: words.share(&message.node),
            cluster,
            labels,
            end: Arc::new(end),
            identity,
        })
    }
}

impl Service {
    pub(super) fn decode(message: &wire::Service, words: &mut Words) -> Result<Self, FieldError> {
        let addresses = message.addresses.iter().enumerate().filter(|(_, one)| {
            // Ranges are no destinations of their own.
            one.length.is_none_or(|length| usize::try_from(length).is_ok_and(|bits| bits == one.address.len() * 8))
        });
        let addresses = addresses.map(|(n, one)| {
            let ip = ip(&format!("addresses[{n}]"), &one.address)?;
            Ok(NetworkAddr::new(words.share(&one.network), ip))
        });
        let addresses = addresses.collect::<Result<_, _>>()?;
        let mut waypoints = Vec::new();
        for (n, weighted) in message.weighted_waypoints.iter().enumerate().filter(|(_, one)| one.weight > 0) {
            let field = format!("weighted_waypoints[{n}].destination");
            let destination = weighted.destination.as_ref();
            let destination =
                destination.ok_or_else(|| FieldError::new(field.as_str(), "none", "a hostname or an address"))?;
            waypoints.push((Gateway::decode(&field, destination, words)?, weighted.weight));
        }
        if waypoints.is_empty()
            && let Some(one) = &message.waypoint
        {
            waypoints.push((Gateway::decode("waypoint", one, words)?, 1));
        }
        let identities = message.subject_alt_names.iter().filter_map(|name| name.parse().ok());
        Ok(Self {
            key: NamespacedName::new(words.share(&message.namespace), words.share(&message.hostname)),
            addresses,
            ports: Ports::decode("ports", &message.ports)?,
            identities: identities.collect(),
            waypoints: waypoints.into(),
            preference: message.load_balancing.as_ref().map(preference).transpose()?.unwrap_or_default(),
            // The name decides, whatever is under it.
            guarded: message.extensions.iter().any(|one| one.name == meltemi::WAYPOINT_REQUIRED),
        })
    }
}

impl Gateway {
    fn decode(field: &str, message: &wire::GatewayAddress, words: &mut Words) -> Result<Self, FieldError> {
        let destination = match &message.destination {
            Some(gateway_address::Destination::Hostname(name)) => {
                GatewayDestination::Name(NamespacedName::new(words.share(&name.namespace), words.share(&name.hostname)))
            }
            Some(gateway_address::Destination::Address(address)) => {
                let ip = ip(&format!("{field}.address"), &address.address)?;
                GatewayDestination::Address(NetworkAddr::new(words.share(&address.network), ip))
            }
            None => return Err(FieldError::new(field, "no destination", "a hostname or an address")),
        };
        let port = port(&format!("{field}.hbone_mtls_port"), message.hbone_mtls_port)?;
        Ok(Self { destination, port: if port == 0 { HBONE_PORT } else { port } })
    }
}

fn identity(message: &wire::Workload) -> Result<Identity, FieldError> {
    let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let domain = or(&message.trust_domain, TrustDomain::DEFAULT);
    let trust_domain = TrustDomain::new(&domain)
        .map_err(|_| FieldError::new("trust_domain", format!("{domain:?}"), "a name without '/'"))?;
    Ok(Identity::new(trust_domain, &message.namespace, &or(&message.service_account, "default")))
}

fn end(
    message: &wire::Workload,
    identity: &Identity,
    labels: &BTreeMap<Arc<str>, Arc<str>>,
    cluster: Arc<str>,
    words: &mut Words,
) -> End {
    let mut label = |name: &str, default: &str| labels.get(name).cloned().unwrap_or_else(|| words.share(default));
    let (app, version) = (label("app", &message.canonical_name), label("version", &message.canonical_revision));
    let workload = if message.workload_name.is_empty() { &message.name } else { &message.workload_name };
    End {
        workload: words.share(workload),
        namespace: words.share(&message.namespace),
        identity: Some(identity.clone()),
        app,
        version,
        canonical_service: words.share(&message.canonical_name),
        canonical_revision: words.share(&message.canonical_revision),
        cluster,
    }
}

type Labels = Arc<BTreeMap<Arc<str>, Arc<str>>>;

fn labels(extensions: &[wire::Extension], words: &mut Words) -> Result<Labels, FieldError> {
    let Some(any) = extensions.iter().find(|one| one.name == meltemi::LABELS).and_then(|one| one.config.as_ref())
    else {
        return Ok(Arc::default());
    };
    let decoded = meltemi::Labels::decode(any.value.as_slice())
        .map_err(|error| FieldError::new("extensions[meltemi.labels]", error, "labels"))?;
    Ok(Arc::new(decoded.labels.iter().map(|(name, value)| (words.share(name), words.share(value))).collect()))
}

fn services(
    services: &BTreeMap<String, wire::PortList>,
    words: &mut Words,
) -> Result<Box<[(NamespacedName, Ports)]>, FieldError> {
    let decode = |(key, list): (&String, &wire::PortList)| {
        let (namespace, hostname) = key
            .split_once('/')
            .ok_or_else(|| FieldError::new("services", format!("key {key:?}"), "<namespace>/<hostname>"))?;
        let name = NamespacedName::new(words.share(namespace), words.share(hostname));
        Ok((name, Ports::decode(&format!("services[{key}].ports"), &list.ports)?))
    };
    services.iter().map(decode).collect()
}

fn preference(message: &wire::LoadBalancing) -> Result<Preference, FieldError> {
    let mode = match number("load_balancing.mode", message.mode, "0 to 3")? {
        lb::Mode::UnspecifiedMode => PreferenceMode::Standard,
        lb::Mode::Strict => PreferenceMode::Strict,
        lb::Mode::Failover => PreferenceMode::Failover,
        lb::Mode::Passthrough => PreferenceMode::Passthrough,
    };
    let scope = |(n, number_of): (usize, &i32)| {
        let field = format!("load_balancing.routing_preference[{n}]");
        Ok(match number(&field, *number_of, "1 to 6")? {
            lb::Scope::UnspecifiedScope => return Err(FieldError::new(field, "0 (UNSPECIFIED)", "1 to 6")),
            lb::Scope::Region => Scope::Region,
            lb::Scope::Zone => Scope::Zone,
            lb::Scope::Subzone => Scope::Subzone,
            lb::Scope::Node => Scope::Node,
            lb::Scope::Cluster => Scope::Cluster,
            lb::Scope::Network => Scope::Network,
        })
    };
    let scopes = message.routing_preference.iter().enumerate().map(scope).collect::<Result<_, _>>()?;
    let health: lb::HealthPolicy = number("load_balancing.health_policy", message.health_policy, "0 or 1")?;
    Ok(Preference { scopes, mode, allow_unhealthy: health == lb::HealthPolicy::AllowAll })
}

fn number<E: TryFrom<i32>>(field: &str, value: i32, expected: &'static str) -> Result<E, FieldError> {
    E::try_from(value).map_err(|_| FieldError::new(field, format!("unknown number {value}"), expected))
}

fn port(field: &str, value: u32) -> Result<u16, FieldError> {
    u16::try_from(value).map_err(|_| FieldError::new(field, value, "a port below 65536"))
}

fn ip(field: &str, bytes: &[u8]) -> Result<IpAddr, FieldError> {
    mesh_core::addr::ip_from_bytes(bytes)
        .ok_or_else(|| FieldError::new(field, format!("{} bytes", bytes.len()), "4 or 16 bytes"))
}

/// Where HBONE is served unless a reference says otherwise.
pub(super) const HBONE_PORT: u16 = 15008;
/// Cluster of a workload that names none.
const DEFAULT_CLUSTER: &str = "Kubernetes";
