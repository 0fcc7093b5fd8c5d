//! What the control plane says, in few words.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_wire::l7::{self, resource::Kind};
use mesh_wire::workload as wire;
use mesh_xds::server::{Resource, content_version};
use prost::Message as _;

/// The Gateway of all tests.
pub(crate) const GATEWAY: &str = "shop/wp";

/// A service of namespace `shop`, whose only endpoint is on this loopback and not in the mesh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Port of the endpoint.
    pub(crate) target: u16,
    pub(crate) http: l7::backend::Http,
}

impl Service {
    pub(crate) const fn http1(name: &'static str, target: u16) -> Self {
        Self { name, target, http: l7::backend::Http::Http1 }
    }

    pub(crate) const fn http2(name: &'static str, target: u16) -> Self {
        Self { name, target, http: l7::backend::Http::Http2 }
    }

    /// How it is called.
    pub(crate) fn backend(&self) -> l7::Backend {
        l7::Backend {
            namespace: "shop".into(),
            hostname: host(self.name),
            port: SERVICE_PORT,
            http: self.http.into(),
            ..l7::Backend::default()
        }
    }

    /// It and its endpoint in the workload protocol.
    pub(crate) fn addresses(&self) -> Vec<Arc<Resource>> {
        let ports =
            vec![wire::Port { service_port: SERVICE_PORT, target_port: self.target.into(), ..wire::Port::default() }];
        let name = format!("shop/{}", host(self.name));
        let service = wire::Service {
            name: self.name.into(),
            namespace: "shop".into(),
            hostname: host(self.name),
            ports: ports.clone(),
            ..wire::Service::default()
        };
        let workload = wire::Workload {
            uid: format!("Kubernetes//Pod/shop/{}-1", self.name),
            name: format!("{}-1", self.name),
            namespace: "shop".into(),
            service_account: self.name.into(),
            addresses: vec![bytes("127.0.0.1")],
            services: [(name.clone(), wire::PortList { ports })].into(),
            ..wire::Workload::default()
        };
        let uid = workload.uid.clone();
        let encode = |address| wire::Address { r#type: Some(address) }.encode_to_vec();
        vec![
            resource(&name, &[], encode(wire::address::Type::Service(service)), true),
            resource(&uid, &[&name], encode(wire::address::Type::Workload(workload)), false),
        ]
    }
}

/// The proxy itself.
pub(crate) fn proxy(role: l7::proxy::Role, settings: l7::Settings) -> l7::Proxy {
    l7::Proxy {
        namespace: "shop".into(),
        name: "wp".into(),
        role: role.into(),
        settings: Some(l7::Settings { trust_domains: vec!["cluster.local".into()], ..settings }),
        ..l7::Proxy::default()
    }
}

/// A port of `service` that a waypoint serves.
pub(crate) fn port(service: Service, address: &str, port: u32, protocol: l7::Protocol) -> l7::Port {
    l7::Port {
        gateway: GATEWAY.into(),
        namespace: "shop".into(),
        hostname: host(service.name),
        port,
        protocol: protocol.into(),
        addresses: vec![bytes(address)],
        backends: vec![service.backend()],
        ..l7::Port::default()
    }
}

/// A listener that sends everything to the first service, and what is below a path to the second.
pub(crate) fn listener(port: u16, services: &[Service], below: Option<&str>) -> l7::Listener {
    let mut entries = Vec::new();
    if let Some(below) = below {
        let path = l7::PathMatch { kind: Some(l7::path_match::Kind::SegmentPrefix(below.into())), ignore_case: false };
        entries
            .push(l7::HttpEntry { r#match: Some(l7::HttpMatch { path: Some(path), ..Default::default() }), rule: 1 });
    }
    entries.push(l7::HttpEntry { r#match: Some(l7::HttpMatch::default()), rule: 0 });
    let hosts = vec![l7::VirtualHost { hostnames: vec!["*".into()], entries }];
    let rules = (0..services.len()).map(|index| forward(u32::try_from(index).unwrap())).collect();
    l7::Listener {
        gateway: GATEWAY.into(),
        section: format!("p{port}"),
        port: port.into(),
        protocol: l7::Protocol::Http.into(),
        backends: services.iter().map(Service::backend).collect(),
        http: Some(l7::HttpTable { hosts, rules }),
        ..l7::Listener::default()
    }
}

/// A listener for one host, or all (""), that sends everything to one service.
pub(crate) fn listener_for(hostname: &str, port: u16, protocol: l7::Protocol, service: Service) -> l7::Listener {
    let bytes = matches!(protocol, l7::Protocol::Tcp | l7::Protocol::Tls);
    let rule = l7::L4Rule { backends: all_to(0), ..l7::L4Rule::default() };
    let listener = listener(port, &[service], None);
    l7::Listener {
        section: format!("p{port}{hostname}"),
        hostname: hostname.into(),
        protocol: protocol.into(),
        http: listener.http.filter(|_| !bytes),
        tcp_rules: if bytes { vec![rule] } else { vec![] },
        ..listener
    }
}

/// Everything to one backend.
fn all_to(backend: u32) -> Vec<l7::WeightedBackend> {
    vec![l7::WeightedBackend {
        weight: 1,
        target: Some(l7::weighted_backend::Target::Backend(backend)),
        ..l7::WeightedBackend::default()
    }]
}

fn forward(backend: u32) -> l7::HttpRule {
    let forward = l7::Forward { backends: all_to(backend) };
    // As every route has it that says nothing of retries.
    let conditions = ["connect-failure", "refused-stream", "unavailable", "cancelled"].map(str::to_owned).to_vec();
    let retry = l7::Retry { attempts: 2, conditions, ..l7::Retry::default() };
    let action = Some(l7::http_rule::Action::Forward(forward));
    l7::HttpRule { action, retry: Some(retry), ..l7::HttpRule::default() }
}

/// Nobody may call these paths.
pub(crate) fn deny(paths: &[&str]) -> l7::Authorization {
    let operation = l7::AuthorizationOperation {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..l7::AuthorizationOperation::default()
    };
    l7::Authorization {
        namespace: "shop".into(),
        name: "deny".into(),
        action: l7::authorization::Action::Deny.into(),
        rules: vec![l7::AuthorizationRule { to: vec![operation], ..l7::AuthorizationRule::default() }],
        ..l7::Authorization::default()
    }
}

/// A resource of the L7 type.
pub(crate) fn l7(name: &str, kind: Kind) -> Arc<Resource> {
    let body = l7::Resource { kind: Some(kind) }.encode_to_vec();
    let is_group = name == GATEWAY;
    resource(name, if is_group { &[] } else { &[GATEWAY] }, body, is_group)
}

fn resource(name: &str, groups: &[&str], body: Vec<u8>, is_group: bool) -> Arc<Resource> {
    Arc::new(Resource {
        name: name.into(),
        aliases: Box::default(),
        version: content_version(&body),
        body: body.into(),
        groups: groups.iter().map(|group| Arc::from(*group)).collect(),
        is_group,
        node: None,
        referenced: false,
        audience: None,
    })
}

pub(crate) fn host(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local")
}

fn bytes(ip: &str) -> Vec<u8> {
    mesh_core::addr::ip_to_bytes(ip.parse::<IpAddr>().unwrap())
}

const SERVICE_PORT: u32 = 80;
