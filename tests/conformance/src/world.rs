//! Everything around the proxy: network, control plane, node agent, and the resources that tests speak of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tempfile::TempDir;

use crate::ads::{self, Ads};
use crate::agent::{Agent, Session};
use crate::ca::Ca;
use crate::control::Control;
use crate::net::{Hub, Pod};
use crate::pki::{Authority, Credentials, Leaf};
use crate::proxy::Proxy;
use crate::tls::{self, Negotiation};
use crate::wire::ADDRESS;
use crate::wire::discovery::Resource;
use crate::wire::workload::{
    Address, Destination, GatewayAddress, Kind, NamespacedHostname, NetworkAddress, Port, PortList, Service, Workload,
};

/// One node with a control plane, and a network of pods.
pub struct World {
    /// The network.
    pub hub: Hub,
    /// Signs workloads.
    pub authority: Arc<Authority>,
    /// Signs the control plane's server.
    pub control_authority: Authority,
    /// Discovery.
    pub ads: Ads,
    /// Certificates.
    pub ca: Ca,
    /// The port of both.
    pub control: Control,
    /// The node agent.
    pub agent: Agent,
    /// Network namespace of the proxy process.
    pub node: Pod,
    /// Working directory of the proxy.
    pub dir: TempDir,
}

/// A proxy with its connection to the node agent.
pub struct Running {
    /// The process.
    pub proxy: Proxy,
    /// The session of the node agent.
    pub session: Session,
}

impl World {
    /// A control plane that signs everything and knows nothing, and no proxy yet.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("conformance-").tempdir().unwrap();
        let authority = Arc::new(Authority::root("mesh"));
        let control_authority = Authority::root("control plane");
        std::fs::write(dir.path().join("root.pem"), control_authority.root_pem()).unwrap();
        std::fs::write(dir.path().join("token"), "token-of-the-node").unwrap();
        let (ads, ca) = (Ads::default(), Ca::new(Arc::clone(&authority)));
        let hub = Hub::new();
        let node = hub.pod("istio-system", "ztunnel", NODE_IP);
        // The name server is a pod that tests may add.
        std::fs::write(dir.path().join("resolv.conf"), format!("nameserver {NAME_SERVER}\noptions timeout:1\n"))
            .unwrap();
        let server = tls::plain_server(&control_authority.issue(&Leaf::server("localhost")));
        let control = Control::start(&node.netns, ([127, 0, 0, 1], 15012).into(), server, ads.clone(), ca.clone());
        let agent = Agent::listen(&dir.path().join("zds.sock"));
        Self { hub, authority, control_authority, ads, ca, control, agent, node, dir }
    }

    /// Settings of a proxy that uses this world.
    #[must_use]
    pub fn env(&self) -> BTreeMap<String, String> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        [
            ("XDS_ADDRESS", "https://localhost:15012".to_owned()),
            ("CA_ADDRESS", "https://localhost:15012".to_owned()),
            ("XDS_ROOT_CA", file("root.pem")),
            ("CA_ROOT_CA", file("root.pem")),
            ("AUTH_TOKEN", file("token")),
            ("INPOD_UDS", file("zds.sock")),
            ("NODE_NAME", NODE.to_owned()),
            ("NETWORK", "n1".to_owned()),
            ("CLUSTER_ID", "cluster-1".to_owned()),
            ("POD_NAME", "ztunnel-abc".to_owned()),
            ("POD_NAMESPACE", "istio-system".to_owned()),
            ("SERVICE_ACCOUNT", "ztunnel".to_owned()),
            ("INSTANCE_IP", NODE_IP.to_owned()),
            ("ISTIO_META_DNS_CAPTURE", "false".to_owned()),
            ("ZTUNNEL_WORKER_THREADS", "2".to_owned()),
            ("RUST_LOG", "info,ztunnel=debug".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Starts the program; does not wait for anything. An empty value removes a setting.
    #[must_use]
    pub fn launch(&self, settings: &[(&str, &str)]) -> Proxy {
        let mut env = self.env();
        for (name, value) in settings {
            match *value {
                "" => env.remove(*name),
                value => env.insert((*name).to_owned(), value.to_owned()),
            };
        }
        Proxy::launch(&self.node.netns, self.dir.path(), &env)
    }

    /// Starts the program and waits until it is ready, with no pod.
    pub async fn start(&self, settings: &[(&str, &str)]) -> Running {
        let proxy = self.launch(settings);
        let session = self.agent.session().await;
        assert_eq!(session.snapshot_sent().await, "");
        proxy.ready().await;
        Running { proxy, session }
    }

    /// Settings of a peer with this identity that takes tunnels.
    #[must_use]
    pub fn server_tls(&self, identity: &str) -> Arc<ServerConfig> {
        let roots = [self.authority.root_der()];
        tls::mutual_server(&self.authority.of(identity), &roots, &Negotiation::default())
    }

    /// A day-long certificate.
    #[must_use]
    pub fn credentials(&self, identity: &str) -> Credentials {
        self.authority.of(identity)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    /// Redirects a pod and adds it.
    pub async fn enrol(&self, pod: &Pod) {
        crate::rules::redirect(&pod.netns, false);
        assert_eq!(self.session.add(pod).await, "");
    }

    /// [`Running::enrol`] with capture of DNS.
    pub async fn enrol_with_dns(&self, pod: &Pod) {
        crate::rules::redirect(&pod.netns, true);
        assert_eq!(self.session.add(pod).await, "");
    }
}

/// A pod's workload on the network `n1`. Those in the mesh run on the proxy's node.
#[must_use]
pub fn workload(pod: &Pod, tunnel: i32) -> Workload {
    Workload {
        uid: format!("cluster-1//Pod/{}/{}", pod.namespace, pod.name),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.name.clone(),
        trust_domain: "cluster.local".into(),
        addresses: vec![octets(pod.v4), octets(pod.v6)],
        network: "n1".into(),
        tunnel_protocol: tunnel,
        node: NODE.into(),
        canonical_name: format!("{}-app", pod.name),
        canonical_revision: "v1".into(),
        workload_name: format!("{}-deploy", pod.name),
        cluster_id: "cluster-1".into(),
        ..Workload::default()
    }
}

/// A service with addresses on `n1` and `(port, target)` pairs.
#[must_use]
pub fn service(namespace: &str, name: &str, vips: &[&str], ports: &[(u16, u16)]) -> Service {
    Service {
        name: name.into(),
        namespace: namespace.into(),
        hostname: format!("{name}.{namespace}.svc.cluster.local"),
        addresses: vips.iter().map(|vip| address("n1", vip)).collect(),
        ports: port_list(ports).ports,
        ..Service::default()
    }
}

/// Makes a workload an endpoint of a service.
#[must_use]
pub fn backing(mut workload: Workload, service: &Service, ports: &[(u16, u16)]) -> Workload {
    workload.services.insert(key(service), port_list(ports));
    workload
}

/// `namespace/hostname`.
#[must_use]
pub fn key(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.hostname)
}

/// A list of `(port, target)` pairs.
#[must_use]
pub fn port_list(ports: &[(u16, u16)]) -> PortList {
    let port = |&(service, target): &(u16, u16)| Port {
        service_port: service.into(),
        target_port: target.into(),
        ..Port::default()
    };
    PortList { ports: ports.iter().map(port).collect() }
}

/// A host address.
#[must_use]
pub fn address(network: &str, ip: &str) -> NetworkAddress {
    NetworkAddress { network: network.into(), address: octets(ip.parse().unwrap()), length: None }
}

/// A gateway by the host name of its service.
#[must_use]
pub fn gateway_host(service: &Service) -> GatewayAddress {
    let host = NamespacedHostname { namespace: service.namespace.clone(), hostname: service.hostname.clone() };
    GatewayAddress { destination: Some(Destination::Hostname(host)), hbone_mtls_port: 15008 }
}

/// A gateway by its address.
#[must_use]
pub fn gateway_at(network: &str, ip: &str) -> GatewayAddress {
    GatewayAddress { destination: Some(Destination::Address(address(network, ip))), hbone_mtls_port: 15008 }
}

/// A workload as a resource, with its addresses as aliases.
#[must_use]
pub fn wl(workload: &Workload) -> (&'static str, Resource) {
    let body = Address { kind: Some(Kind::Workload(workload.clone())) };
    let (kind, mut resource) = ads::resource(ADDRESS, &workload.uid, &body);
    let alias = |bytes: &Vec<u8>| Some(format!("{}/{}", workload.network, ip(bytes)?));
    resource.aliases = workload.addresses.iter().filter_map(alias).collect();
    (kind, resource)
}

/// A service as a resource, with its addresses as aliases.
#[must_use]
pub fn svc(service: &Service) -> (&'static str, Resource) {
    let body = Address { kind: Some(Kind::Service(service.clone())) };
    let (kind, mut resource) = ads::resource(ADDRESS, &key(service), &body);
    let alias = |vip: &NetworkAddress| Some(format!("{}/{}", vip.network, ip(&vip.address)?));
    resource.aliases = service.addresses.iter().filter_map(alias).collect();
    (kind, resource)
}

/// Bytes of an address.
#[must_use]
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Address of the proxy's pod.
pub const NODE_IP: &str = "10.0.0.4";
/// Address of the name server that the proxy knows.
pub const NAME_SERVER: &str = "10.0.0.53";
/// Name of the proxy's node.
pub const NODE: &str = "node-1";
