//! A service of a local file, and the references that workloads share with it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::addr::ip_to_bytes;
use mesh_core::{NamespacedName, NetworkAddr};
use mesh_wire::workload::{self as wire, load_balancing as lb};
use serde::{Deserialize, Serialize};

/// Names and values as in `config_dump`, without the endpoints: those come from the workloads.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Service {
    #[serde(default)]
    name: String,
    namespace: String,
    hostname: String,
    #[serde(default)]
    vips: Vec<Vip>,
    #[serde(default)]
    cidr_vips: Vec<CidrVip>,
    #[serde(default)]
    ports: BTreeMap<u16, u16>,
    #[serde(default)]
    subject_alt_names: Vec<String>,
    #[serde(default)]
    waypoint: Option<Gateway>,
    #[serde(default)]
    weighted_waypoints: Vec<WeightedWaypoint>,
    #[serde(default)]
    load_balancer: Option<LoadBalancer>,
    #[serde(default)]
    ip_families: Option<IpFamilies>,
    #[serde(default)]
    canonical: bool,
    #[serde(default)]
    visibility: Visibility,
}

/// `network/ip`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
struct Vip(NetworkAddr);

/// `network/ip/length`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
struct CidrVip {
    network: String,
    net: IpNet,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WeightedWaypoint {
    destination: Gateway,
    #[serde(default)]
    weight: u32,
}

/// A waypoint or a gateway of a network.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Gateway {
    destination: Destination,
    #[serde(default)]
    hbone_mtls_port: u16,
}

/// `network/ip` or `namespace/hostname`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
enum Destination {
    Address(NetworkAddr),
    Hostname(NamespacedName),
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LoadBalancer {
    routing_preferences: Vec<Scope>,
    mode: Mode,
    health_policy: HealthPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum Scope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum Mode {
    #[default]
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum HealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum IpFamilies {
    Dual,
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum Visibility {
    #[default]
    Public,
    Namespace,
}

impl Service {
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }

    /// What a control plane would send.
    pub(super) fn message(&self) -> wire::Service {
        let first_label = self.hostname.split('.').next().unwrap_or_default();
        let ranges =
            self.cidr_vips.iter().map(|vip| network_address(&vip.network, vip.net.addr(), Some(vip.net.prefix_len())));
        let vips = self.vips.iter().map(|Vip(addr)| network_address(&addr.network, addr.ip, None));
        wire::Service {
            name: if self.name.is_empty() { first_label.to_owned() } else { self.name.clone() },
            namespace: self.namespace.clone(),
            hostname: self.hostname.clone(),
            addresses: vips.chain(ranges).collect(),
            ports: message_ports(&self.ports),
            subject_alt_names: self.subject_alt_names.clone(),
            waypoint: self.waypoint.as_ref().map(Gateway::message),
            weighted_waypoints: self.weighted_waypoints.iter().map(WeightedWaypoint::message).collect(),
            load_balancing: self.load_balancer.as_ref().map(LoadBalancer::message),
            ip_families: match self.ip_families {
                None => wire::IpFamilies::Automatic,
                Some(IpFamilies::Dual) => wire::IpFamilies::Dual,
                Some(IpFamilies::V4) => wire::IpFamilies::Ipv4Only,
                Some(IpFamilies::V6) => wire::IpFamilies::Ipv6Only,
            }
            .into(),
            canonical: self.canonical,
            visibility: match self.visibility {
                Visibility::Public => wire::Visibility::Public.into(),
                Visibility::Namespace => wire::Visibility::Namespace.into(),
            },
            ..wire::Service::default()
        }
    }
}

impl WeightedWaypoint {
    fn message(&self) -> wire::WeightedWaypoint {
        wire::WeightedWaypoint { destination: Some(self.destination.message()), weight: self.weight }
    }
}

impl LoadBalancer {
    fn message(&self) -> wire::LoadBalancing {
        let scope = |scope: &Scope| match scope {
            Scope::Region => lb::Scope::Region.into(),
            Scope::Zone => lb::Scope::Zone.into(),
            Scope::Subzone => lb::Scope::Subzone.into(),
            Scope::Node => lb::Scope::Node.into(),
            Scope::Cluster => lb::Scope::Cluster.into(),
            Scope::Network => lb::Scope::Network.into(),
        };
        wire::LoadBalancing {
            routing_preference: self.routing_preferences.iter().map(scope).collect(),
            mode: match self.mode {
                Mode::Standard => lb::Mode::UnspecifiedMode.into(),
                Mode::Strict => lb::Mode::Strict.into(),
                Mode::Failover => lb::Mode::Failover.into(),
                Mode::Passthrough => lb::Mode::Passthrough.into(),
            },
            health_policy: match self.health_policy {
                HealthPolicy::OnlyHealthy => lb::HealthPolicy::OnlyHealthy.into(),
                HealthPolicy::AllowAll => lb::HealthPolicy::AllowAll.into(),
            },
        }
    }
}

impl Gateway {
    pub(super) fn message(&self) -> wire::GatewayAddress {
        use wire::gateway_address::Destination as Wire;
        let destination = match &self.destination {
            Destination::Address(addr) => Wire::Address(network_address(&addr.network, addr.ip, None)),
            Destination::Hostname(name) => Wire::Hostname(wire::NamespacedHostname {
                namespace: name.namespace.to_string(),
                hostname: name.name.to_string(),
            }),
        };
        wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: self.hbone_mtls_port.into() }
    }
}

impl TryFrom<String> for Vip {
    type Error = mesh_core::addr::ParseNetworkAddrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Vip> for String {
    fn from(Vip(addr): Vip) -> Self {
        addr.to_string()
    }
}

impl TryFrom<String> for CidrVip {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bad = || format!("range {text:?} is not of the form <network>/<ip>/<length>");
        let (network, net) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self { network: network.to_owned(), net: net.parse().map_err(|_| bad())? })
    }
}

impl From<CidrVip> for String {
    fn from(vip: CidrVip) -> Self {
        format!("{}/{}", vip.network, vip.net)
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // An address also reads as a name, so it is tried first.
        let address = text.parse().map(Self::Address);
        address.or_else(|_| text.parse().map(Self::Hostname)).map_err(|_| {
            format!("destination {text:?} is neither of the form <network>/<ip> nor <namespace>/<hostname>")
        })
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Hostname(name) => name.fmt(f),
        }
    }
}

/// Service port to target port, as messages.
pub(super) fn message_ports(ports: &BTreeMap<u16, u16>) -> Vec<wire::Port> {
    let port = |(service, target): (&u16, &u16)| wire::Port {
        service_port: (*service).into(),
        target_port: (*target).into(),
        ..wire::Port::default()
    };
    ports.iter().map(port).collect()
}

fn network_address(network: &str, ip: IpAddr, length: Option<u8>) -> wire::NetworkAddress {
    wire::NetworkAddress { network: network.to_owned(), address: ip_to_bytes(ip), length: length.map(Into::into) }
}
