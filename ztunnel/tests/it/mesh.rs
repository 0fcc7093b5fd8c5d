//! Two pods, the proxies of their nodes, and a control plane that says what the test wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mesh_core::env::Env;
use mesh_core::{Identity, addr};
use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, CertSource, SystemClock};
use mesh_telemetry::log::{self, Format, LogHandle};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::{security, workload as wire};
use tokio::sync::watch;
use ztunnel::config::Config;
use ztunnel::pod::{PodProxy, PodSpec};
use ztunnel::report::Report;
use ztunnel::shared::Shared;
use ztunnel::state::{Feed, IdentityWatcher, Local, State};
use ztunnel::workers::Workers;

use crate::pod::Pod;

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
        logs();
        // Addresses of their own tell the log lines of tests apart.
        let net = NEXT_NET.fetch_add(1, Ordering::SeqCst);
        let web = Pod::new("web", &format!("10.{net}.0.5"), &format!("fd00:{net}::5"));
        let cart = Pod::new("cart", &format!("10.{net}.0.77"), &format!("fd00:{net}::77"));
        web.join(&cart);
        let ca = Arc::new(TestCa::new());
        let mut mesh = Self {
            web_node: Node::start(&ca, &web, settings),
            cart_node: Node::start(&ca, &cart, settings),
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
    fn start(ca: &Arc<TestCa>, pod: &Pod, settings: &[(&str, &str)]) -> Self {
        let node = format!("node-of-{}", pod.name);
        let own = [("NODE_NAME", node.as_str()), ("ZTUNNEL_WORKER_THREADS", "2")];
        let env: Env = own.iter().chain(settings).copied().collect();
        let config = Arc::new(Config::from_env(&env).unwrap());
        let source: Arc<dyn CertSource> = ca.clone();
        let certs = CertManager::spawn(source, Arc::new(SystemClock));
        let local = Local { network: "".into(), node: config.node.as_deref().map(Into::into) };
        let (state, feed) = State::new(local, Arc::new(Warm(certs.clone())));
        let registry = Registry::new();
        // The sender may go: the value stays.
        let (_, synced) = watch::channel(true);
        let shared = Arc::new(Shared {
            report: Report::new(&registry, false),
            workers: Workers::start(2).unwrap(),
            config,
            state,
            certs,
            readiness: Readiness::new(),
            synced,
        });
        Self { shared, feed, registry, proxy: None }
    }

    async fn enrol(&mut self, pod: &Pod) {
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

fn workload(pod: &Pod, enrolled: bool, policies: &[&str]) -> wire::Workload {
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

fn network_address(ip: IpAddr) -> wire::NetworkAddress {
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
            default_filter: "info,access=info,ztunnel=debug".into(),
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
const SERVICE: &str = "shop/cart.shop.svc.cluster.local";
