//! A workload as the proxy knows it, decoded from the wire.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName};
use mesh_wire::workload as wire;

use super::gateway::{GatewayAddress, Ports};
use super::reject::{self, FieldError};
use super::words::Words;

/// A pod or anything else that traffic comes from or goes to. Immutable; shared between snapshots.
///
/// # Source
/// `istio.workload.Workload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Resource key; opaque but for the `//Pod/` part.
    pub uid: Arc<str>,
    /// Pod name or the like.
    pub name: Arc<str>,
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Who it is.
    pub identity: Identity,
    /// Addresses on `network`; the first is the primary one; may be empty.
    pub ips: Box<[IpAddr]>,
    /// DNS name, where there is no address, or an alias for lookups; may be empty.
    pub hostname: Arc<str>,
    /// Network name; the empty one is valid.
    pub network: Arc<str>,
    /// How it is reached.
    pub protocol: Protocol,
    /// The workload itself speaks HBONE, without a proxy in front.
    pub native_tunnel: bool,
    /// Waypoint for traffic that addresses the workload rather than a service.
    pub waypoint: Option<Box<GatewayAddress>>,
    /// How to reach it from other networks.
    pub network_gateway: Option<Box<GatewayAddress>>,
    /// Node it runs on; may be empty.
    pub node: Arc<str>,
    /// For metrics and baggage.
    pub canonical_name: Arc<str>,
    /// For metrics and baggage.
    pub canonical_revision: Arc<str>,
    /// Kind of its owner.
    pub workload_type: WorkloadType,
    /// Name of its owner, such as the Deployment.
    pub workload_name: Arc<str>,
    /// Services that it backs, with its own ports for each.
    pub services: Box<[(NamespacedName, Ports)]>,
    /// Keys `namespace/name` of the policies attached to this very workload.
    pub authorization_policies: Box<[Arc<str>]>,
    /// Whether it may get new traffic.
    pub health: Health,
    /// Cluster it runs in.
    pub cluster_id: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// Whether its address is its own.
    pub network_mode: NetworkMode,
    /// Load-balancing weight; 0: never chosen.
    pub capacity: u32,
    /// A tunnel that the application terminates behind the proxy.
    pub application_tunnel: Option<ApplicationTunnel>,
}

impl Workload {
    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its own ports for a service that it backs.
    #[must_use]
    pub fn ports_for(&self, service: &NamespacedName) -> Option<&Ports> {
        self.services.iter().find(|(key, _)| key == service).map(|(_, ports)| ports)
    }

    /// Whether the address is one of its own.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }

    /// Which of several workloads with one address is meant; larger wins.
    pub(crate) fn rank(&self) -> u8 {
        let pod = u8::from(self.uid.contains("//Pod/"));
        2 * pod + u8::from(self.protocol == Protocol::Hbone)
    }

    /// # Errors
    /// The first field that cannot be used.
    pub(crate) fn decode(message: wire::Workload, words: &mut Words) -> Result<Self, FieldError> {
        use wire::{NetworkMode as Mode, WorkloadStatus as Status};
        let identity = decode_identity(&message, words)?;
        let health = match reject::number("status", message.status, "0 or 1")? {
            Status::Healthy => Health::Healthy,
            Status::Unhealthy => Health::Unhealthy,
        };
        let network_mode = match reject::number("network_mode", message.network_mode, "0 or 1")? {
            Mode::Standard => NetworkMode::Standard,
            Mode::HostNetwork => NetworkMode::HostNetwork,
        };
        let cluster_id = if message.cluster_id.is_empty() { DEFAULT_CLUSTER } else { &message.cluster_id };
        let locality = message.locality.unwrap_or_default();
        let policies = message.authorization_policies.iter();
        Ok(Self {
            uid: message.uid.as_str().into(),
            name: message.name.as_str().into(),
            namespace: words.intern(&message.namespace),
            identity,
            ips: decode_ips(&message.addresses)?,
            hostname: words.intern(&message.hostname),
            network: words.intern(&message.network),
            protocol: decode_protocol(message.tunnel_protocol)?,
            native_tunnel: message.native_tunnel,
            waypoint: decode_gateway("waypoint", message.waypoint.as_ref(), words)?,
            network_gateway: decode_gateway("network_gateway", message.network_gateway.as_ref(), words)?,
            node: words.intern(&message.node),
            canonical_name: words.intern(&message.canonical_name),
            canonical_revision: words.intern(&message.canonical_revision),
            workload_type: WorkloadType::decode(message.workload_type),
            workload_name: words.intern(&message.workload_name),
            services: decode_services(&message.services, words)?,
            authorization_policies: policies.map(|key| words.intern(key)).collect(),
            health,
            cluster_id: words.intern(cluster_id),
            locality: Locality {
                region: words.intern(&locality.region),
                zone: words.intern(&locality.zone),
                subzone: words.intern(&locality.subzone),
            },
            network_mode,
            capacity: message.capacity.unwrap_or(1),
            application_tunnel: message.application_tunnel.map(ApplicationTunnel::decode).transpose()?,
        })
    }
}

fn decode_identity(message: &wire::Workload, words: &mut Words) -> Result<Identity, FieldError> {
    let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let domain = or(&message.trust_domain, mesh_core::TrustDomain::DEFAULT);
    let account = or(&message.service_account, "default");
    words
        .identity(&domain, &message.namespace, &account)
        .ok_or_else(|| FieldError::new("trust_domain", format!("{domain:?}"), "a name without '/'"))
}

fn decode_ips(addresses: &[impl AsRef<[u8]>]) -> Result<Box<[IpAddr]>, FieldError> {
    addresses.iter().enumerate().map(|(n, bytes)| reject::ip(&format!("addresses[{n}]"), bytes.as_ref())).collect()
}

fn decode_protocol(number: i32) -> Result<Protocol, FieldError> {
    match reject::number("tunnel_protocol", number, "0 (NONE) or 1 (HBONE)")? {
        wire::TunnelProtocol::None => Ok(Protocol::Tcp),
        wire::TunnelProtocol::Hbone => Ok(Protocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => {
            Err(FieldError::new("tunnel_protocol", "2 (LEGACY_ISTIO_MTLS)", "0 (NONE) or 1 (HBONE)"))
        }
    }
}

fn decode_gateway(
    field: &str,
    message: Option<&wire::GatewayAddress>,
    words: &mut Words,
) -> Result<Option<Box<GatewayAddress>>, FieldError> {
    message.map(|message| GatewayAddress::decode(field, message, words).map(Box::new)).transpose()
}

fn decode_services(
    services: &std::collections::BTreeMap<String, wire::PortList>,
    words: &mut Words,
) -> Result<Box<[(NamespacedName, Ports)]>, FieldError> {
    let decode = |(key, list): (&String, &wire::PortList)| {
        let name = key.split_once('/').filter(|(_, hostname)| !hostname.contains('/'));
        let (namespace, hostname) =
            name.ok_or_else(|| FieldError::new("services", format!("key {key:?}"), "<namespace>/<hostname>"))?;
        let name = NamespacedName::new(words.intern(namespace), words.intern(hostname));
        Ok((name, Ports::decode(&format!("services[{key}].ports"), &list.ports)?))
    };
    services.iter().map(decode).collect()
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As it is, without a tunnel.
    Tcp,
    /// Through HBONE on port 15008.
    Hbone,
}

/// Whether a workload may get new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may.
    Healthy,
    /// Only where the service takes all endpoints.
    Unhealthy,
}

/// Whether a workload's address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own.
    Standard,
    /// The node's: it cannot be found by address.
    HostNetwork,
}

/// Kind of a workload's owner; part of baggage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadType {
    /// Also stands for kinds that this proxy does not know.
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

impl WorkloadType {
    fn decode(number: i32) -> Self {
        match wire::WorkloadType::try_from(number) {
            Ok(wire::WorkloadType::Cronjob) => Self::CronJob,
            Ok(wire::WorkloadType::Pod) => Self::Pod,
            Ok(wire::WorkloadType::Job) => Self::Job,
            Ok(wire::WorkloadType::Deployment) | Err(_) => Self::Deployment,
        }
    }

    /// Lower-case name as baggage has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

impl fmt::Display for WorkloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a workload runs; each part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone within the region.
    pub zone: Arc<str>,
    /// Part of the zone.
    pub subzone: Arc<str>,
}

/// A tunnel that the application terminates behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// Announce the original addresses in a PROXY header.
    pub proxy_protocol: bool,
    /// Port to use in place of the destination's.
    pub port: Option<u16>,
}

impl ApplicationTunnel {
    fn decode(message: wire::ApplicationTunnel) -> Result<Self, FieldError> {
        use wire::application_tunnel::Protocol as Wire;
        let field = "application_tunnel";
        let protocol: Wire = reject::number(&format!("{field}.protocol"), message.protocol, "0 (NONE) or 1 (PROXY)")?;
        let port = reject::port(&format!("{field}.port"), message.port)?;
        Ok(Self { proxy_protocol: protocol == Wire::Proxy, port: (port != 0).then_some(port) })
    }
}

/// Cluster of a workload that names none.
const DEFAULT_CLUSTER: &str = "Kubernetes";
