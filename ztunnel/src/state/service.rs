//! A service as the proxy knows it, decoded from the wire.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::{Identity, NamespacedName, NetworkAddr};
use mesh_wire::meltemi;
use mesh_wire::workload::{self as wire, load_balancing as lb};

use super::gateway::{GatewayAddress, Ports};
use super::reject::{self, FieldError};
use super::words::Words;
use super::workload::Health;

/// A name and its virtual addresses. Immutable; shared between snapshots. Its endpoints are kept
/// apart, see [`super::Snapshot::endpoints`].
///
/// # Source
/// `istio.workload.Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `namespace/hostname`.
    pub key: NamespacedName,
    /// Short name.
    pub name: Arc<str>,
    /// Virtual addresses; empty for headless services.
    pub vips: Box<[NetworkAddr]>,
    /// Virtual address ranges.
    pub cidr_vips: Box<[NetworkCidr]>,
    /// Service port to target port.
    pub ports: Ports,
    /// Further server identities as they were sent, for display.
    pub subject_alt_names: Box<[String]>,
    /// Those of them that are SPIFFE identities; the rest can never match.
    pub identities: Box<[Identity]>,
    /// Waypoint for traffic that addresses the service.
    pub waypoint: Option<Box<GatewayAddress>>,
    /// Several waypoints, one chosen per connection; replaces `waypoint` when the weights sum up to more than 0.
    pub weighted_waypoints: Box<[(GatewayAddress, u32)]>,
    /// `None`: any healthy endpoint.
    pub load_balancer: Option<Box<LoadBalancer>>,
    /// Which endpoint addresses may be used.
    pub ip_families: IpFamilies,
    /// Preferred among services of equal hostname or address in different namespaces.
    pub canonical: bool,
    /// Who may use it.
    pub visibility: Visibility,
    /// It has a policy that needs layer 7: its ports take traffic only from its waypoint.
    pub waypoint_required: bool,
}

impl Service {
    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.key.namespace
    }

    /// Fully qualified host name.
    #[must_use]
    pub fn hostname(&self) -> &Arc<str> {
        &self.key.name
    }

    /// Whether a client of `namespace` may use it; without a namespace nothing is enforced.
    #[must_use]
    pub fn visible_to(&self, namespace: Option<&str>) -> bool {
        match (self.visibility, namespace) {
            (Visibility::Public, _) | (_, None) => true,
            (Visibility::Namespace, Some(namespace)) => *self.key.namespace == *namespace,
        }
    }

    /// The balancing mode; `Standard` when nothing is configured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.load_balancer.as_ref().map_or(Mode::Standard, |balancer| balancer.mode)
    }

    /// Whether an endpoint of that health belongs to the set that traffic is balanced over.
    pub(crate) fn takes(&self, health: Health) -> bool {
        let all = self.load_balancer.as_ref().is_some_and(|balancer| balancer.health_policy == HealthPolicy::AllowAll);
        all || health == Health::Healthy
    }

    /// # Errors
    /// The first field that cannot be used.
    pub(crate) fn decode(message: wire::Service, words: &mut Words) -> Result<Self, FieldError> {
        let (vips, cidr_vips) = decode_addresses(&message.addresses, words)?;
        let waypoint = message.waypoint.as_ref().map(|m| GatewayAddress::decode("waypoint", m, words)).transpose()?;
        let identities = message.subject_alt_names.iter().filter_map(|name| match name.parse() {
            Ok(identity) => Some(identity),
            Err(error) => {
                tracing::warn!(service = message.hostname, %error, "subject alternative name skipped");
                None
            }
        });
        let ip_families = match reject::number("ip_families", message.ip_families, "0 to 3")? {
            wire::IpFamilies::Automatic => IpFamilies::Automatic,
            wire::IpFamilies::Ipv4Only => IpFamilies::V4Only,
            wire::IpFamilies::Ipv6Only => IpFamilies::V6Only,
            wire::IpFamilies::Dual => IpFamilies::Dual,
        };
        Ok(Self {
            key: NamespacedName::new(words.intern(&message.namespace), words.intern(&message.hostname)),
            name: words.intern(&message.name),
            vips,
            cidr_vips,
            ports: Ports::decode("ports", &message.ports)?,
            identities: identities.collect(),
            waypoint: waypoint.map(Box::new),
            weighted_waypoints: decode_weighted(&message.weighted_waypoints, words)?,
            load_balancer: message.load_balancing.map(|m| LoadBalancer::decode(&m)).transpose()?.map(Box::new),
            ip_families,
            canonical: message.canonical,
            visibility: Visibility::decode(message.visibility),
            waypoint_required: decode_waypoint_required(&message.extensions)?,
            subject_alt_names: message.subject_alt_names.into(),
        })
    }
}

type Addresses = (Box<[NetworkAddr]>, Box<[NetworkCidr]>);

fn decode_addresses(addresses: &[wire::NetworkAddress], words: &mut Words) -> Result<Addresses, FieldError> {
    let (mut hosts, mut ranges) = (Vec::new(), Vec::new());
    for (n, addr) in addresses.iter().enumerate() {
        let ip = reject::ip(&format!("addresses[{n}].address"), &addr.address)?;
        let network = words.intern(&addr.network);
        let full = if addr.address.len() == 4 { 32 } else { 128 };
        match addr.length {
            None => hosts.push(NetworkAddr::new(network, ip)),
            Some(length) if length == full => hosts.push(NetworkAddr::new(network, ip)),
            Some(length) => {
                let bad = || FieldError::new(format!("addresses[{n}].length"), length, "a prefix length of its family");
                // The address was canonicalised; so must be the length of an IPv4-mapped range.
                let length = if full == 128 && ip.is_ipv4() { length.checked_sub(96) } else { Some(length) };
                let length = length.and_then(|length| u8::try_from(length).ok()).ok_or_else(bad)?;
                let net = IpNet::new(ip, length).map_err(|_| bad())?.trunc();
                ranges.push(NetworkCidr { network, net });
            }
        }
    }
    Ok((hosts.into(), ranges.into()))
}

fn decode_weighted(
    weighted: &[wire::WeightedWaypoint],
    words: &mut Words,
) -> Result<Box<[(GatewayAddress, u32)]>, FieldError> {
    let decode = |(n, entry): (usize, &wire::WeightedWaypoint)| {
        let field = format!("weighted_waypoints[{n}].destination");
        let Some(destination) = &entry.destination else {
            return Err(FieldError::new(field, "nothing", "a hostname or an address"));
        };
        Ok((GatewayAddress::decode(&field, destination, words)?, entry.weight))
    };
    weighted.iter().enumerate().map(decode).collect()
}

/// The name decides; a configuration under it that we cannot read must not weaken what it asks for.
fn decode_waypoint_required(extensions: &[wire::Extension]) -> Result<bool, FieldError> {
    let Some((n, extension)) = extensions.iter().enumerate().find(|(_, e)| e.name == meltemi::WAYPOINT_REQUIRED) else {
        return Ok(false);
    };
    match &extension.config {
        Some(config) if config.type_url != meltemi::WAYPOINT_REQUIRED_TYPE => {
            let field = format!("extensions[{n}].config.type_url");
            Err(FieldError::new(field, format!("{:?}", config.type_url), meltemi::WAYPOINT_REQUIRED_TYPE))
        }
        _ => Ok(true),
    }
}

/// An address range on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCidr {
    /// Network name.
    pub network: Arc<str>,
    /// The range; host bits are zero.
    pub net: IpNet,
}

impl NetworkCidr {
    pub(crate) fn contains(&self, addr: &NetworkAddr) -> bool {
        self.network == addr.network && self.net.contains(&addr.ip)
    }
}

/// How endpoints are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// What to compare between source and endpoint, most important first.
    pub routing_preferences: Box<[LbScope]>,
    /// What the comparison means.
    pub mode: Mode,
    /// Which endpoints take part.
    pub health_policy: HealthPolicy,
}

impl LoadBalancer {
    fn decode(message: &wire::LoadBalancing) -> Result<Self, FieldError> {
        let scope = |(n, number): (usize, &i32)| {
            let field = format!("load_balancing.routing_preference[{n}]");
            match reject::number(&field, *number, "1 to 6")? {
                lb::Scope::UnspecifiedScope => Err(FieldError::new(field, "UNSPECIFIED", "1 to 6")),
                lb::Scope::Region => Ok(LbScope::Region),
                lb::Scope::Zone => Ok(LbScope::Zone),
                lb::Scope::Subzone => Ok(LbScope::Subzone),
                lb::Scope::Node => Ok(LbScope::Node),
                lb::Scope::Cluster => Ok(LbScope::Cluster),
                lb::Scope::Network => Ok(LbScope::Network),
            }
        };
        let mode = match reject::number("load_balancing.mode", message.mode, "0 to 3")? {
            lb::Mode::UnspecifiedMode => Mode::Standard,
            lb::Mode::Strict => Mode::Strict,
            lb::Mode::Failover => Mode::Failover,
            lb::Mode::Passthrough => Mode::Passthrough,
        };
        let health_policy = match reject::number("load_balancing.health_policy", message.health_policy, "0 or 1")? {
            lb::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            lb::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        };
        let preferences: Result<_, _> = message.routing_preference.iter().enumerate().map(scope).collect();
        Ok(Self { routing_preferences: preferences?, mode, health_policy })
    }
}

/// What source and endpoint may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbScope {
    /// Region of the locality.
    Region,
    /// Zone of the locality.
    Zone,
    /// Subzone of the locality.
    Subzone,
    /// Node.
    Node,
    /// Cluster.
    Cluster,
    /// Network.
    Network,
}

/// How endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Any.
    Standard,
    /// Only those that have everything in common.
    Strict,
    /// Those that have most in common.
    Failover,
    /// None: the original address is used.
    Passthrough,
}

/// Which endpoints take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPolicy {
    /// Healthy ones.
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Which endpoint addresses may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilies {
    /// Not said.
    Automatic,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// Both.
    Dual,
}

impl IpFamilies {
    /// Whether the address is of a family that may be used.
    #[must_use]
    pub fn accepts(self, ip: IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::V4Only => ip.is_ipv4(),
            Self::V6Only => ip.is_ipv6(),
        }
    }
}

/// Who may use a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Clients of its own namespace.
    Namespace,
}

impl Visibility {
    fn decode(number: i32) -> Self {
        match wire::Visibility::try_from(number) {
            Ok(wire::Visibility::Namespace) => Self::Namespace,
            Ok(wire::Visibility::Public) | Err(_) => Self::Public,
        }
    }
}
