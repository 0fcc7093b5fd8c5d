//! Two pods, the proxies of their nodes, and a control plane that says what the test wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::env::Env;
use mesh_core::{Identity, addr};
use mesh_identity::testing::{IssueOptions, TestCa};
use mesh_identity::{CertError, CertManager, CertSource, Crl, SystemClock, TlsPolicy, WorkloadCert};
use mesh_telemetry::log::{self, Format, LogHandle};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::{security, workload as wire};
use tokio::sync::watch;
use ztunnel::config::Config;
use ztunnel::dns::{NameServers, Resolver};
use ztunnel::pod::{PodProxy, PodSpec};
use ztunnel::promises::{Promises, Strict};
use ztunnel::report::Report;
use ztunnel::revocation::RevocationMetrics;
use ztunnel::shared::Shared;
use ztunnel::state::{Feed, IdentityWatcher, Local, State};
use ztunnel::workers::Workers;

use crate::pod::Pod;

/// Setting of a test that has a name server of its own, `ip:port`.
pub(crate) const NAME_SERVER: &str = "TEST_NAME_SERVER";
/// Port of the service and of its application.
pub(crate) const SERVICE_PORT: u16 = 80;
pub(crate) const APP_PORT: u16 = 8080;

/// `web` on one node calls `cart` on another.
pub(crate) struct Mesh {
    pub(crate) web: Pod,
    pub(crate) cart: Pod,
    pub(crate) web_node: Node,
    pub(crate) cart_node: Node,
    pub(crate) vip: SocketAddr,
    pub(crate) vip6: SocketAddr,
    pub(crate) ca: Arc<TestCa>,
}

/// The proxy of one node.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) feed: Feed,
    pub(crate) registry: Registry,
    pub(crate) proxy: Option<PodProxy>,
}

/// Which pods are enrolled.
#[derive(Clone, Copy)]
pub(crate) struct Enrolled {
    pub(crate) web: bool,
    pub(crate) cart: bool,
}

pub(crate) const BOTH: Enrolled = Enrolled { web: true, cart: true };

impl Mesh {
    pub(crate) async fn start(enrolled: Enrolled) -> Self {
        Self::start_with(enrolled, &[]).await
    }

    /// [`Mesh::start`] with further settings for both proxies.
    pub(crate) async fn start_with(enrolled: Enrolled, settings: &[(&str, &str)]) -> Self {
        Self::start_each(enrolled, settings, settings).await
    }

    /// [`Mesh::start`] with further settings for the proxy of `web` and for that of `cart`.
    pub(crate) async fn start_each(enrolled: Enrolled, of_web: &[(&str, &str)], of_cart: &[(&str, &str)]) -> Self {
        logs();
        // Addresses of their own tell the log lines of tests apart.
        let net = NEXT_NET.fetch_add(1, Ordering::SeqCst);
        let web = Pod::new("web", &format!("10.{net}.0.5"), &format!("fd00:{net}::5"));
        let cart = Pod::new("cart", &format!("10.{net}.0.77"), &format!("fd00:{net}::77"));
        web.join(&cart);
        let ca = Arc::new(TestCa::new());
        let mut mesh = Self {
            web_node: Node::start(&ca, &web, of_web).await,
            cart_node: Node::start(&ca, &cart, of_cart).await,
            vip: format!("172.{net}.0.9:{SERVICE_PORT}").parse().unwrap(),
            vip6: format!("[fd99:{net}::9]:{SERVICE_PORT}").parse().unwrap(),
            web,
            cart,
            ca,
        };
        mesh.tell(enrolled, &[]);
        if enrolled.web {
            mesh.web_node.enrol(&mesh.web).await;
        }
        if enrolled.cart {
            mesh.cart_node.enrol(&mesh.cart).await;
        }
        mesh
    }

    /// Sends the workloads and the service to both nodes; `attached` are the policies that `cart` names.
    pub(crate) fn tell(&mut self, enrolled: Enrolled, attached: &[&str]) {
        let web = workload(&self.web, enrolled.web, &[]);
        let mut cart = workload(&self.cart, enrolled.cart, attached);
        let ports = vec![wire::Port {
            service_port: SERVICE_PORT.into(),
            target_port: APP_PORT.into(),
            ..wire::Port::default()
        }];
        cart.services = [(SERVICE.to_owned(), wire::PortList { ports: ports.clone() })].into();
        let service = wire::Service {
            name: "cart".into(),
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            addresses: [self.vip.ip(), self.vip6.ip()].map(network_address).into(),
            ports,
            ..wire::Service::default()
        };
        let resources = [
            (web.uid.clone(), wire::address::Type::Workload(web)),
            (cart.uid.clone(), wire::address::Type::Workload(cart)),
            (SERVICE.to_owned(), wire::address::Type::Service(service)),
        ];
        let resources = resources.map(|(name, kind)| (name, wire::Address { r#type: Some(kind) }));
        for node in [&mut self.web_node, &mut self.cart_node] {
            assert!(node.feed.addresses(resources.to_vec(), &[]).is_empty());
        }
    }

    /// Another address of the pod of `cart`, for a peer that is not `cart`.
    pub(crate) fn other_ip(&self) -> IpAddr {
        let IpAddr::V4(cart) = self.cart.v4 else { unreachable!("pods are made with an IPv4 address first") };
        let [a, b, c, _] = cart.octets();
        let other = IpAddr::from([a, b, c, 200]);
        self.cart.add_address(other);
        other
    }

    /// Sends a policy to the node of `cart`.
    pub(crate) fn policy(&mut self, policy: security::Authorization) {
        let name = format!("{}/{}", policy.namespace, policy.name);
        assert!(self.cart_node.feed.policies(vec![(name, policy)], &[]).is_empty());
    }

    pub(crate) fn app(&self) -> SocketAddr {
        SocketAddr::new(self.cart.v4, APP_PORT)
    }
}

impl Node {
    /// Tells this node alone; later resources replace earlier ones of the same name.
    pub(crate) fn tell(&mut self, resources: impl IntoIterator<Item = wire::address::Type>) {
        let named = resources.into_iter().map(|kind| {
            let name = match &kind {
                wire::address::Type::Workload(workload) => workload.uid.clone(),
                wire::address::Type::Service(service) => format!("{}/{}", service.namespace, service.hostname),
            };
            (name, wire::Address { r#type: Some(kind) })
        });
        assert!(self.feed.addresses(named.collect(), &[]).is_empty());
    }

    async fn start(ca: &Arc<TestCa>, pod: &Pod, settings: &[(&str, &str)]) -> Self {
        let node = format!("node-of-{}", pod.name);
        let own = [("NODE_NAME", node.as_str()), ("ZTUNNEL_WORKER_THREADS", "2")];
        let env: Env = own.iter().chain(settings).copied().collect();
        let config = Arc::new(Config::from_env(&env).unwrap());
        let registry = Registry::new();
        let crl = match &config.crl_path {
            Some(path) => Crl::open(path, RevocationMetrics::register(&registry)).await,
            None => None,
        };
        let source = Authority { ca: ca.clone(), tls: TlsPolicy::default().with_crl(crl.clone()) };
        let certs = CertManager::spawn(Arc::new(source), Arc::new(SystemClock));
        let local = Local {
            network: config.network.as_str().into(),
            node: config.node.as_deref().map(Into::into),
            localhost_app_tunnel: config.localhost_app_tunnel,
            ..Local::default()
        };
        let (state, feed) = State::new(local, Arc::new(Warm(certs.clone())));
        // The sender may go: the value stays.
        let (_, synced) = watch::channel(true);
        let mut dns = ztunnel::dns::Dns::from_config(&config, &registry);
        if let Some(servers) = name_servers(settings) {
            dns.servers = servers;
        }
        let shared = Arc::new(Shared {
            resolver: Arc::new(Resolver::new(dns.servers.clone())),
            dns,
            report: Report::new(&registry, false),
            workers: Workers::start(2).unwrap(),
            crl,
            promises: Promises::new(Strict::from_config(&config)),
            config,
            state,
            certs,
            readiness: Readiness::new(),
            synced,
            demand: None,
        });
        Self { shared, feed, registry, proxy: None }
    }

    pub(crate) async fn enrol(&mut self, pod: &Pod) {
        let spec = PodSpec {
            uid: format!("uid-of-{}", pod.name).into(),
            name: pod.name.into(),
            namespace: "shop".into(),
            service_account: pod.name.into(),
            netns: pod.netns.clone(),
        };
        self.proxy = Some(PodProxy::start(spec, self.shared.clone()).await.unwrap());
        pod.redirect();
    }
}

/// The test's own name server, where it has one.
fn name_servers(settings: &[(&str, &str)]) -> Option<NameServers> {
    let (_, addr) = settings.iter().find(|(name, _)| *name == NAME_SERVER)?;
    Some(NameServers::fixed(vec![addr.parse().unwrap()]))
}

/// Certificates from memory that keep to the settings of their proxy.
struct Authority {
    ca: Arc<TestCa>,
    tls: TlsPolicy,
}

impl CertSource for Authority {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        let options = IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() };
        let cert = self.ca.issue_under(&identity, &options, self.tls.clone());
        std::future::ready(Ok(Arc::into_inner(cert).unwrap())).boxed()
    }
}

struct Warm(CertManager);

impl IdentityWatcher for Warm {
    fn needed(&self, identity: &Identity) {
        self.0.prefetch(identity);
    }

    fn unneeded(&self, identity: &Identity) {
        self.0.forget(identity);
    }
}

pub(crate) fn identity_of(pod: &Pod) -> Identity {
    format!("spiffe://cluster.local/ns/shop/sa/{}", pod.name).parse().unwrap()
}

pub(crate) fn workload(pod: &Pod, enrolled: bool, policies: &[&str]) -> wire::Workload {
    wire::Workload {
        uid: format!("Kubernetes//Pod/shop/{}", pod.name),
        name: pod.name.into(),
        namespace: "shop".into(),
        service_account: pod.name.into(),
        trust_domain: "cluster.local".into(),
        addresses: [pod.v4, pod.v6].map(addr::ip_to_bytes).into(),
        tunnel_protocol: i32::from(enrolled),
        node: format!("node-of-{}", pod.name),
        workload_name: pod.name.into(),
        canonical_name: pod.name.into(),
        authorization_policies: policies.iter().map(|name| (*name).to_owned()).collect(),
        ..wire::Workload::default()
    }
}

pub(crate) fn network_address(ip: IpAddr) -> wire::NetworkAddress {
    wire::NetworkAddress { network: String::new(), address: addr::ip_to_bytes(ip), length: None }
}

/// All log lines of the process so far.
pub(crate) fn logs() -> String {
    static LOGS: OnceLock<(Sink, LogHandle)> = OnceLock::new();
    let (sink, handle) = LOGS.get_or_init(|| {
        let sink = Sink::default();
        let options = log::Options {
            component: "ztunnel",
            format: Format::Plain,
            default_filter: "info,access=info,ztunnel=debug,dns=debug".into(),
        };
        (sink.clone(), log::init_to(options, Box::new(sink)).unwrap())
    });
    handle.flush();
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

/// Waits for a log line that holds all of `parts`.
pub(crate) async fn log_line(parts: &[&str]) -> String {
    for _ in 0..500 {
        let logs = logs();
        if let Some(line) = logs.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
            return line.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no log line with {parts:?} in:\n{}", logs());
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static NEXT_NET: AtomicU8 = AtomicU8::new(20);
pub(crate) const SERVICE: &str = "shop/cart.shop.svc.cluster.local";
