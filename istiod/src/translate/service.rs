//! A Kubernetes Service becomes a service resource.

use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::{AppProtocol, IpFamilies, NetworkAddress, Port, Service as WireService};

use super::balance;
use crate::world::{Families, MeshSettings, Protocol, Service, Slice, TargetPort, World};

/// The resource of a Service, without what waypoints add.
///
/// # Source
/// spec of the workload model, section 4.
pub fn service(world: &World, service: &Service) -> WireService {
    let network = world.network();
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
        hostname: world.settings().hostname(&service.key).to_string(),
        addresses: service.cluster_ips.iter().map(address).collect(),
        ports: ports.collect(),
        load_balancing: balance::of_service(service, world.namespace(&service.key.namespace)),
        ip_families: families(service.families).into(),
        canonical: true,
        ..WireService::default()
    }
}

/// The key of a Service on the wire: `namespace/hostname`.
pub fn key(service: &NamespacedName, settings: &MeshSettings) -> String {
    format!("{}/{}", service.namespace, settings.hostname(service))
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

pub(super) fn app_protocol(protocol: Protocol) -> AppProtocol {
    match protocol {
        Protocol::Unknown | Protocol::GrpcWeb | Protocol::Udp | Protocol::Stream => AppProtocol::Unknown,
        Protocol::Http => AppProtocol::Http11,
        Protocol::Http2 => AppProtocol::Http2,
        Protocol::Grpc => AppProtocol::Grpc,
        Protocol::Tcp => AppProtocol::Tcp,
        Protocol::Tls | Protocol::Wss => AppProtocol::Tls,
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
