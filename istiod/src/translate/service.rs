//! A Kubernetes Service becomes a service resource.

use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::load_balancing::{HealthPolicy, Mode, Scope};
use mesh_wire::workload::{AppProtocol, IpFamilies, LoadBalancing, NetworkAddress, Port, Service as WireService};

use crate::world::{Distribution, Families, MeshSettings, Namespace, Protocol, Service, Slice, TargetPort};

/// The resource of a Service.
///
/// # Source
/// spec of the workload model, section 4.
pub fn service(
    service: &Service,
    namespace: Option<&Namespace>,
    network: &str,
    settings: &MeshSettings,
) -> WireService {
    let address =
        |ip: &std::net::IpAddr| NetworkAddress { network: network.to_owned(), address: ip_to_bytes(*ip), length: None };
    let ports = service.ports.iter().map(|port| {
        let target = match port.target {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => 0,
        };
        Port { app_protocol: app_protocol(port.protocol).into(), ..wire_port(port.port, target) }
    });
    WireService {
        name: service.key.name.to_string(),
        namespace: service.key.namespace.to_string(),
        hostname: hostname(&service.key, settings),
        addresses: service.cluster_ips.iter().map(address).collect(),
        ports: ports.collect(),
        load_balancing: load_balancing(service, namespace),
        ip_families: families(service.families).into(),
        canonical: true,
        ..WireService::default()
    }
}

/// The DNS name of a Service.
pub fn hostname(service: &NamespacedName, settings: &MeshSettings) -> String {
    format!("{}.{}.svc.{}", service.name, service.namespace, settings.domain)
}

/// The key of a Service on the wire: `namespace/hostname`.
pub fn key(service: &NamespacedName, settings: &MeshSettings) -> String {
    format!("{}/{}", service.namespace, hostname(service, settings))
}

/// A port of a workload: the protocol is the service's affair.
pub(super) fn wire_port(service_port: u16, target_port: u16) -> Port {
    Port { service_port: service_port.into(), target_port: target_port.into(), ..Port::default() }
}

/// Ports of a service as a slice serves them: joined by the service port's name.
pub(super) fn joined_ports(service: &Service, slice: &Slice) -> Vec<Port> {
    let target = |name: &str| slice.ports.iter().find(|(have, _)| **have == *name).map(|(_, number)| *number);
    let ports = service.ports.iter();
    ports.filter_map(|port| Some(wire_port(port.port, target(&port.name)?))).collect()
}

fn app_protocol(protocol: Protocol) -> AppProtocol {
    match protocol {
        Protocol::Unknown => AppProtocol::Unknown,
        Protocol::Http => AppProtocol::Http11,
        Protocol::Http2 => AppProtocol::Http2,
        Protocol::Grpc => AppProtocol::Grpc,
        Protocol::Tcp => AppProtocol::Tcp,
        Protocol::Tls => AppProtocol::Tls,
    }
}

fn families(families: Families) -> IpFamilies {
    match families {
        Families::Automatic => IpFamilies::Automatic,
        Families::V4 => IpFamilies::Ipv4Only,
        Families::V6 => IpFamilies::Ipv6Only,
        Families::Dual => IpFamilies::Dual,
    }
}

/// The first setting that says anything decides; publishing unready endpoints comes on top.
fn load_balancing(service: &Service, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    let annotated = || service.distribution_annotation.or_else(|| namespace.and_then(|one| one.distribution));
    let (scopes, mode): (&[Scope], Mode) = if service.node_local {
        (&[Scope::Node], Mode::Strict)
    } else {
        match service.distribution.or_else(annotated) {
            Some(Distribution::SameZone) => (&[Scope::Network, Scope::Region, Scope::Zone], Mode::Failover),
            Some(Distribution::SameNode) => {
                (&[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node], Mode::Failover)
            }
            Some(Distribution::Any) | None => (&[], Mode::UnspecifiedMode),
        }
    };
    let health = if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    if scopes.is_empty() && health == HealthPolicy::OnlyHealthy {
        return None;
    }
    Some(LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}
