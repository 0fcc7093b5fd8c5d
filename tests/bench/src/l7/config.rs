//! What our proxy is told, and who tells it: a control plane without TLS that knows one gateway.

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

use super::{CONFIG_PORT, OUR_PORT};
use crate::serve::HTTP_PORT;

/// Serves the configuration with so many routes until the process is ended.
pub(crate) fn serve(routes: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let own = |url| TypeSpec { url, backing: Backing::Own, after: None };
        let types = [own(type_url::ADDRESS), own(type_url::L7)];
        let hub = Hub::new(&types, HubOptions::default(), Box::new(Unobserved));
        hub.publish("1".into(), &resources(routes));
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

fn resources(routes: usize) -> Vec<Change> {
    let proxy = l7::Proxy {
        namespace: "bench".into(),
        name: "edge".into(),
        role: l7::proxy::Role::Gateway.into(),
        settings: Some(l7::Settings { trust_domains: vec!["cluster.local".into()], ..l7::Settings::default() }),
        ..l7::Proxy::default()
    };
    let proxy = l7::Resource { kind: Some(l7::resource::Kind::Proxy(proxy)) };
    let listener = l7::Resource { kind: Some(l7::resource::Kind::Listener(listener(routes))) };
    let mut changes = vec![
        change(type_url::L7, GATEWAY, &[], &proxy.encode_to_vec()),
        change(type_url::L7, &format!("{GATEWAY}/listener/http"), &[GATEWAY], &listener.encode_to_vec()),
    ];
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
        let workload = wire::Workload {
            uid: format!("Kubernetes//Pod/bench/{version}"),
            name: version.into(),
            namespace: "bench".into(),
            service_account: "web".into(),
            addresses: vec![Ipv4Addr::LOCALHOST.octets().to_vec()],
            services: [(name.clone(), wire::PortList { ports: vec![port()] })].into(),
            ..wire::Workload::default()
        };
        let uid = workload.uid.clone();
        let workload = wire::Address { r#type: Some(wire::address::Type::Workload(workload)) };
        changes.push(change(type_url::ADDRESS, &name, &[], &service.encode_to_vec()));
        changes.push(change(type_url::ADDRESS, &uid, &[&name], &workload.encode_to_vec()));
    }
    changes
}

/// Routes by path that no request takes, then the one that a header chooses, then the one that divides.
fn listener(routes: usize) -> l7::Listener {
    let backend = |version: &str| l7::Backend {
        namespace: "bench".into(),
        hostname: host(version),
        port: 80,
        http: l7::backend::Http::Same.into(),
        ..l7::Backend::default()
    };
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
    l7::Listener {
        gateway: GATEWAY.into(),
        section: "http".into(),
        port: OUR_PORT.into(),
        protocol: l7::Protocol::Http.into(),
        backends: vec![backend("v1"), backend("v2")],
        http: Some(l7::HttpTable {
            hosts: vec![l7::VirtualHost { hostnames: vec!["*".into()], entries }],
            rules: vec![to(&[(1, 1)]), to(&[(0, 90), (1, 10)])],
        }),
        ..l7::Listener::default()
    }
}

fn host(version: &str) -> String {
    format!("{version}.bench.svc.cluster.local")
}

fn port() -> wire::Port {
    wire::Port { service_port: 80, target_port: HTTP_PORT.into(), ..wire::Port::default() }
}

fn change(type_url: &'static str, name: &str, groups: &[&str], body: &[u8]) -> Change {
    let resource = Resource {
        name: name.into(),
        aliases: Box::default(),
        version: content_version(body),
        body: body.to_vec().into(),
        groups: groups.iter().map(|group| Arc::from(*group)).collect(),
        is_group: groups.is_empty(),
        node: None,
        referenced: false,
        audience: None,
    };
    Change { type_url, name: name.into(), resource: Some(Arc::new(resource)) }
}

/// The gateway that our proxy is of.
pub(super) const GATEWAY: &str = "bench/edge";
