//! What the control plane says, in few words.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_wire::l7::{self, resource::Kind};
use mesh_wire::workload as wire;
use mesh_xds::server::{Resource, content_version};
use prost::Message as _;

/// The Gateway of all tests.
pub(crate) const GATEWAY: &str = "shop/wp";

/// A resource of the L7 type.
pub(crate) fn l7(name: &str, kind: Kind) -> Arc<Resource> {
    let body = l7::Resource { kind: Some(kind) }.encode_to_vec();
    let is_group = name == GATEWAY;
    resource(name, &[], body, if is_group { &[] } else { &[GATEWAY] }, is_group)
}

/// The waypoint itself.
pub(crate) fn proxy() -> l7::Proxy {
    l7::Proxy {
        namespace: "shop".into(),
        name: "wp".into(),
        role: l7::proxy::Role::Waypoint.into(),
        settings: Some(l7::Settings { trust_domains: vec!["cluster.local".into()], ..l7::Settings::default() }),
        ..l7::Proxy::default()
    }
}

/// Backend of a service of namespace `shop`.
pub(crate) fn backend(service: &str, port: u32) -> l7::Backend {
    l7::Backend { namespace: "shop".into(), hostname: host(service), port, ..l7::Backend::default() }
}

/// A port of a service of namespace `shop`; everything goes to its own endpoints.
pub(crate) fn port(service: &str, address: &str, port: u32, protocol: l7::Protocol) -> l7::Port {
    l7::Port {
        gateway: GATEWAY.into(),
        namespace: "shop".into(),
        hostname: host(service),
        port,
        protocol: protocol.into(),
        addresses: vec![bytes(address)],
        backends: vec![backend(service, port)],
        ..l7::Port::default()
    }
}

/// Name of a port's resource.
pub(crate) fn port_name(port: &l7::Port) -> String {
    format!("{GATEWAY}/{}/{}:{}", port.namespace, port.hostname, port.port)
}

/// A listener of the gateway with an HTTP table that sends everything to one service.
pub(crate) fn listener(section: &str, port: u32, protocol: l7::Protocol, service: &str) -> l7::Listener {
    let forward = l7::Forward {
        backends: vec![l7::WeightedBackend {
            weight: 1,
            target: Some(l7::weighted_backend::Target::Backend(0)),
            ..l7::WeightedBackend::default()
        }],
    };
    let rule =
        l7::HttpRule { action: Some(l7::http_rule::Action::Forward(forward.clone())), ..l7::HttpRule::default() };
    let entry = l7::HttpEntry { r#match: Some(l7::HttpMatch::default()), rule: 0 };
    let table = l7::HttpTable {
        hosts: vec![l7::VirtualHost { hostnames: vec!["*".into()], entries: vec![entry] }],
        rules: vec![rule],
    };
    let bytes = matches!(protocol, l7::Protocol::Tcp | l7::Protocol::Tls);
    l7::Listener {
        gateway: GATEWAY.into(),
        section: section.into(),
        port,
        protocol: protocol.into(),
        backends: vec![backend(service, 80)],
        http: (!bytes).then_some(table),
        tcp_rules: if bytes {
            vec![l7::L4Rule { backends: forward.backends, ..l7::L4Rule::default() }]
        } else {
            vec![]
        },
        ..l7::Listener::default()
    }
}

/// A service of namespace `shop` as the workload protocol has it, with its target port.
pub(crate) fn service(name: &str, address: &str, port: u32, target: u32) -> Arc<Resource> {
    let service = wire::Service {
        name: name.into(),
        namespace: "shop".into(),
        hostname: host(name),
        addresses: vec![wire::NetworkAddress { address: bytes(address), ..wire::NetworkAddress::default() }],
        ports: vec![wire::Port { service_port: port, target_port: target, ..wire::Port::default() }],
        ..wire::Service::default()
    };
    service_of(&service)
}

/// A service under its name and its addresses.
pub(crate) fn service_of(service: &wire::Service) -> Arc<Resource> {
    let ips = service.addresses.iter().filter_map(|one| mesh_core::addr::ip_from_bytes(&one.address));
    let aliases: Vec<_> = ips.map(|ip| format!("/{ip}")).collect();
    let aliases: Vec<_> = aliases.iter().map(String::as_str).collect();
    let body = wire::Address { r#type: Some(wire::address::Type::Service(service.clone())) }.encode_to_vec();
    resource(&format!("{}/{}", service.namespace, service.hostname), &aliases, body, &[], true)
}

/// A workload of namespace `shop` in the mesh that backs these services, with its own ports for them.
pub(crate) fn workload(name: &str, ip: &str, account: &str, services: &[(&str, u32, u32)]) -> wire::Workload {
    let ports = |port, target| wire::PortList {
        ports: vec![wire::Port { service_port: port, target_port: target, ..wire::Port::default() }],
    };
    wire::Workload {
        uid: format!("Kubernetes//Pod/shop/{name}"),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![bytes(ip)],
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        trust_domain: "cluster.local".into(),
        service_account: account.into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        services: services
            .iter()
            .map(|(service, port, target)| (format!("shop/{}", host(service)), ports(*port, *target)))
            .collect(),
        ..wire::Workload::default()
    }
}

/// A workload under its name, its address and its services.
pub(crate) fn address(workload: &wire::Workload) -> Arc<Resource> {
    let ips = workload.addresses.iter().map(|bytes| mesh_core::addr::ip_from_bytes(bytes).unwrap());
    let aliases: Vec<_> = ips.map(|ip: IpAddr| format!("{}/{ip}", workload.network)).collect();
    let aliases: Vec<_> = aliases.iter().map(String::as_str).collect();
    let groups: Vec<_> = workload.services.keys().map(String::as_str).collect();
    let body = wire::Address { r#type: Some(wire::address::Type::Workload(workload.clone())) }.encode_to_vec();
    resource(&workload.uid, &aliases, body, &groups, false)
}

/// An allow policy for one principal.
pub(crate) fn allow(name: &str, principal: &str) -> l7::Authorization {
    let source = l7::AuthorizationSource { principals: vec![principal.into()], ..l7::AuthorizationSource::default() };
    let rule = l7::AuthorizationRule { from: vec![source], ..l7::AuthorizationRule::default() };
    l7::Authorization { namespace: "shop".into(), name: name.into(), rules: vec![rule], ..l7::Authorization::default() }
}

pub(crate) fn host(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local")
}

fn bytes(ip: &str) -> Vec<u8> {
    mesh_core::addr::ip_to_bytes(ip.parse().unwrap())
}

fn resource(name: &str, aliases: &[&str], body: Vec<u8>, groups: &[&str], is_group: bool) -> Arc<Resource> {
    let shared = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect();
    Arc::new(Resource {
        name: name.into(),
        aliases: shared(aliases),
        version: content_version(&body),
        body: body.into(),
        groups: shared(groups),
        is_group,
        node: None,
        referenced: false,
        audience: None,
    })
}
