//! A control plane that says what the run wants, over delta-ADS without TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use mesh_core::addr::ip_to_bytes;
use mesh_wire::{discovery, security, type_url, workload as wire};
use mesh_xds::server::{
    AdsService, Backing, Change, Gatekeeper, Hub, HubOptions, Observer, Resource, TypeSpec, content_version,
};
use prost::Message;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use hostile::pod::{ECHO_PORT, NAMESPACE, Pod};

/// The control plane.
#[derive(Debug)]
pub struct Control {
    hub: Arc<Hub>,
    rejected: Arc<AtomicU64>,
    published: AtomicU64,
}

/// A pod as the control plane sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Which.
    pub pod: &'a Pod,
    /// Its node.
    pub node: &'a str,
    /// Whether it is an endpoint of the service.
    pub serves: bool,
}

impl Control {
    /// Knows the service and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let rejected = Arc::new(AtomicU64::new(0));
        let own = |url| TypeSpec { url, backing: Backing::Own, after: None };
        let types = [own(type_url::ADDRESS), own(type_url::AUTHORIZATION)];
        let hub = Hub::new(&types, HubOptions::default(), Box::new(Rejections(rejected.clone())));
        hub.set_ready(true);
        let control = Self { hub, rejected, published: AtomicU64::new(0) };
        let service = wire::Service {
            name: "cart".into(),
            namespace: NAMESPACE.into(),
            hostname: HOSTNAME.into(),
            addresses: vec![network_address(VIP.octets().to_vec())],
            ports: vec![port()],
            ..wire::Service::default()
        };
        let service = wire::Address { r#type: Some(wire::address::Type::Service(service)) };
        control.publish(vec![change(type_url::ADDRESS, &service_key(), Some(service.encode_to_vec()))]);
        control
    }

    /// Serves those who connect to `listener`.
    ///
    /// # Errors
    /// The listener is of no use.
    pub fn serve(&self, listener: std::net::TcpListener) -> Result<()> {
        listener.set_nonblocking(true)?;
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
        let service = AdsService::new(self.hub.clone(), Arc::new(Anybody));
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(())
    }

    /// Says what there is of some pods, all at once.
    pub fn tell(&self, pods: &[Seen<'_>]) {
        self.publish(pods.iter().map(|seen| change(type_url::ADDRESS, &uid(seen.pod), Some(workload(seen)))).collect());
    }

    /// A pod is no more.
    pub fn forget(&self, pod: &Pod) {
        self.publish(vec![change(type_url::ADDRESS, &uid(pod), None)]);
    }

    /// A policy for the whole namespace that denies one client, who need not exist.
    pub fn deny(&self, name: &str, client: &str) {
        let principal = format!("cluster.local/ns/{NAMESPACE}/sa/{client}");
        let exact = security::StringMatch { match_type: Some(security::string_match::MatchType::Exact(principal)) };
        let matches = vec![security::Match { principals: vec![exact], ..security::Match::default() }];
        let policy = security::Authorization {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            scope: security::Scope::Namespace.into(),
            action: security::Action::Deny.into(),
            rules: vec![security::Rule { clauses: vec![security::Clause { matches }] }],
            ..security::Authorization::default()
        };
        let name = format!("{NAMESPACE}/{name}");
        self.publish(vec![change(type_url::AUTHORIZATION, &name, Some(policy.encode_to_vec()))]);
    }

    /// How often it said something, and how often that was rejected.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.published.load(Ordering::Relaxed), self.rejected.load(Ordering::Relaxed))
    }

    fn publish(&self, changes: Vec<Change>) {
        let version = self.published.fetch_add(1, Ordering::Relaxed);
        self.hub.publish(version.to_string().into(), &changes);
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
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

struct Rejections(Arc<AtomicU64>);

impl Observer for Rejections {
    fn connection(&self, _open: bool) {}
    fn pushed(&self, _type_url: &str) {}

    fn rejected(&self, _type_url: &str, _node: &str, _message: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn stale(&self, _type_url: &str) {}
    fn lagging(&self, _node: &str) {}
}

fn workload(seen: &Seen<'_>) -> Vec<u8> {
    let Seen { pod, node, serves } = seen;
    let services = if *serves { [(service_key(), wire::PortList { ports: vec![port()] })].into() } else { [].into() };
    let workload = wire::Workload {
        uid: uid(pod),
        name: pod.name.clone(),
        namespace: NAMESPACE.into(),
        service_account: pod.name.clone(),
        trust_domain: "cluster.local".into(),
        addresses: vec![ip_to_bytes(pod.ip)],
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        node: (*node).to_owned(),
        workload_name: pod.name.clone(),
        canonical_name: pod.name.clone(),
        services,
        ..wire::Workload::default()
    };
    wire::Address { r#type: Some(wire::address::Type::Workload(workload)) }.encode_to_vec()
}

fn change(type_url: &'static str, name: &str, body: Option<Vec<u8>>) -> Change {
    let name: Arc<str> = name.into();
    let resource = body.map(|body| {
        Arc::new(Resource {
            name: name.clone(),
            aliases: Box::default(),
            version: content_version(&body),
            body: body.into(),
            groups: Box::default(),
            is_group: false,
            node: None,
            referenced: false,
            audience: None,
        })
    });
    Change { type_url, name, resource }
}

fn uid(pod: &Pod) -> String {
    format!("Kubernetes//Pod/{NAMESPACE}/{}", pod.name)
}

fn service_key() -> String {
    format!("{NAMESPACE}/{HOSTNAME}")
}

fn network_address(address: Vec<u8>) -> wire::NetworkAddress {
    wire::NetworkAddress { address, ..wire::NetworkAddress::default() }
}

fn port() -> wire::Port {
    wire::Port { service_port: SERVICE_PORT.into(), target_port: ECHO_PORT.into(), ..wire::Port::default() }
}

/// Address of the service.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 9);
/// Its port.
pub const SERVICE_PORT: u16 = 80;
const HOSTNAME: &str = "cart.shop.svc.cluster.local";
