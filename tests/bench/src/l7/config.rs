//! What our proxy is told, and who tells it: a control plane without TLS that knows one gateway or waypoint.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_wire::{discovery, l7, type_url, workload as wire};
use mesh_xds::server::{
    AdsService, Backing, Change, Gatekeeper, Hub, HubOptions, Resource, TypeSpec, Unobserved, content_version,
};
use prost::Message;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use super::{CONFIG_PORT, OUR_PORT, VIP};
use crate::serve::HTTP_PORT;
use crate::town::pod_ip;

/// Where the proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// Alone before the server, on the same loopback.
    Gateway,
    /// Between the node proxies of the client's and of the server's pod.
    Waypoint,
}

/// Serves the configuration with so many routes until the process is ended.
pub(crate) fn serve(place: Place, routes: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let own = |url| TypeSpec { url, backing: Backing::Own, after: None };
        let types = [own(type_url::ADDRESS), own(type_url::L7)];
        let hub = Hub::new(&types, HubOptions::default(), Box::new(Unobserved));
        hub.publish("1".into(), &resources(place, routes));
        hub.set_ready(true);
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, CONFIG_PORT)).context("port of the configuration")?;
        listener.set_nonblocking(true)?;
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
        let service = AdsService::new(hub, Arc::new(Anybody));
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

struct Anybody;

impl Gatekeeper for Anybody {
    type Caller = ();

    async fn admit(&self, _headers: &http::HeaderMap, _extensions: &http::Extensions) -> Result<(), Status> {
        Ok(())
    }

    fn check(&self, _caller: &(), _node: &discovery::Node) -> Result<(), Status> {
        Ok(())
    }
}

fn resources(place: Place, routes: usize) -> Vec<Change> {
    let (role, name, body) = match place {
        Place::Gateway => (
            l7::proxy::Role::Gateway,
            format!("{GATEWAY}/listener/http"),
            l7::resource::Kind::Listener(listener(routes)),
        ),
        Place::Waypoint => {
            let name = format!("{GATEWAY}/bench/{}:{}", host("web"), VIP.1);
            (l7::proxy::Role::Waypoint, name, l7::resource::Kind::Port(service_port(routes)))
        }
    };
    let proxy = l7::Proxy {
        namespace: "bench".into(),
        name: "edge".into(),
        role: role.into(),
        settings: Some(l7::Settings { trust_domains: vec!["cluster.local".into()], ..l7::Settings::default() }),
        ..l7::Proxy::default()
    };
    let proxy = l7::Resource { kind: Some(l7::resource::Kind::Proxy(proxy)) };
    let body = l7::Resource { kind: Some(body) };
    let mut changes = vec![
        change(type_url::L7, GATEWAY, &[], &proxy.encode_to_vec()),
        change(type_url::L7, &name, &[GATEWAY], &body.encode_to_vec()),
    ];
    if place == Place::Waypoint {
        changes.push(workload_change(workload("client", "client", pod_ip(1)), &[]));
    }
    for version in ["v1", "v2"] {
        let name = format!("bench/{}", host(version));
        let service = wire::Service {
            name: version.into(),
            namespace: "bench".into(),
            hostname: host(version),
            ports: vec![port()],
            ..wire::Service::default()
        };
        let service = wire::Address { r#type: Some(wire::address::Type::Service(service)) };
        let mut endpoint = match place {
            Place::Gateway => workload(version, "web", Ipv4Addr::LOCALHOST),
            Place::Waypoint => workload(version, "server", pod_ip(2)),
        };
        if place == Place::Waypoint {
            endpoint.tunnel_protocol = wire::TunnelProtocol::Hbone.into();
        }
        endpoint.services = [(name.clone(), wire::PortList { ports: vec![port()] })].into();
        changes.push(change(type_url::ADDRESS, &name, &[], &service.encode_to_vec()));
        changes.push(workload_change(endpoint, &[&name]));
    }
    changes
}

fn workload(name: &str, account: &str, ip: Ipv4Addr) -> wire::Workload {
    wire::Workload {
        uid: format!("Kubernetes//Pod/bench/{name}"),
        name: name.into(),
        namespace: "bench".into(),
        service_account: account.into(),
        addresses: vec![ip.octets().to_vec()],
        ..wire::Workload::default()
    }
}

/// The service of the full way, with the routes of [`table`].
fn service_port(routes: usize) -> l7::Port {
    l7::Port {
        gateway: GATEWAY.into(),
        namespace: "bench".into(),
        hostname: host("web"),
        port: VIP.1.into(),
        protocol: l7::Protocol::Http.into(),
        addresses: vec![VIP.0.octets().to_vec()],
        backends: backends(),
        http: Some(table(routes)),
        ..l7::Port::default()
    }
}

fn listener(routes: usize) -> l7::Listener {
    l7::Listener {
        gateway: GATEWAY.into(),
        section: "http".into(),
        port: OUR_PORT.into(),
        protocol: l7::Protocol::Http.into(),
        backends: backends(),
        http: Some(table(routes)),
        ..l7::Listener::default()
    }
}

fn backends() -> Vec<l7::Backend> {
    let backend = |version: &str| l7::Backend {
        namespace: "bench".into(),
        hostname: host(version),
        port: 80,
        http: l7::backend::Http::Same.into(),
        ..l7::Backend::default()
    };
    vec![backend("v1"), backend("v2")]
}

/// Routes by path that no request takes, then the one that a header chooses, then the one that divides.
fn table(routes: usize) -> l7::HttpTable {
    let to = |weights: &[(u32, u32)]| l7::HttpRule {
        action: Some(l7::http_rule::Action::Forward(l7::Forward {
            backends: weights
                .iter()
                .map(|(backend, weight)| l7::WeightedBackend {
                    weight: *weight,
                    target: Some(l7::weighted_backend::Target::Backend(*backend)),
                    ..l7::WeightedBackend::default()
                })
                .collect(),
        })),
        ..l7::HttpRule::default()
    };
    let mut entries: Vec<_> = (0..routes.saturating_sub(2))
        .map(|number| {
            let path = l7::PathMatch {
                kind: Some(l7::path_match::Kind::SegmentPrefix(format!("/api/v{}/item{number}", number % 7))),
                ignore_case: false,
            };
            l7::HttpEntry { r#match: Some(l7::HttpMatch { path: Some(path), ..l7::HttpMatch::default() }), rule: 0 }
        })
        .collect();
    let header = l7::HeaderMatch {
        name: "x-tester".into(),
        value: Some(l7::StringMatch { kind: Some(l7::string_match::Kind::Exact("yes".into())), ignore_case: false }),
    };
    let by_header = l7::HttpMatch { headers: vec![header], ..l7::HttpMatch::default() };
    entries.push(l7::HttpEntry { r#match: Some(by_header), rule: 0 });
    entries.push(l7::HttpEntry { r#match: Some(l7::HttpMatch::default()), rule: 1 });
    l7::HttpTable {
        hosts: vec![l7::VirtualHost { hostnames: vec!["*".into()], entries }],
        rules: vec![to(&[(1, 1)]), to(&[(0, 90), (1, 10)])],
    }
}

fn host(version: &str) -> String {
    format!("{version}.bench.svc.cluster.local")
}

fn port() -> wire::Port {
    wire::Port { service_port: 80, target_port: HTTP_PORT.into(), ..wire::Port::default() }
}

/// A workload, which is also found by its addresses.
fn workload_change(workload: wire::Workload, groups: &[&str]) -> Change {
    let address = |bytes: &Vec<u8>| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?));
    let aliases = workload.addresses.iter().filter_map(address).map(|ip| format!("/{ip}").into()).collect();
    let uid = workload.uid.clone();
    let body = wire::Address { r#type: Some(wire::address::Type::Workload(workload)) }.encode_to_vec();
    let resource = Resource { aliases, is_group: false, ..resource(&uid, groups, &body) };
    Change { type_url: type_url::ADDRESS, name: uid.into(), resource: Some(Arc::new(resource)) }
}

fn change(type_url: &'static str, name: &str, groups: &[&str], body: &[u8]) -> Change {
    Change { type_url, name: name.into(), resource: Some(Arc::new(resource(name, groups, body))) }
}

fn resource(name: &str, groups: &[&str], body: &[u8]) -> Resource {
    Resource {
        name: name.into(),
        aliases: Box::default(),
        version: content_version(body),
        body: body.to_vec().into(),
        groups: groups.iter().map(|group| Arc::from(*group)).collect(),
        is_group: groups.is_empty(),
        node: None,
        referenced: false,
        audience: None,
    }
}

/// The gateway that our proxy is of.
pub(super) const GATEWAY: &str = "bench/edge";
