//! Short ways to say what a control plane sends, for tests of everything that reads the state.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use mesh_core::Identity;
use mesh_core::addr::ip_to_bytes;
use mesh_wire::{security, workload as wire};

use super::{Feed, IdentityWatcher, Local, Snapshot, State};

/// The node and network that the tested proxy is on.
pub(crate) const NODE: &str = "node-1";
pub(crate) const NETWORK: &str = "n1";

/// A state and the means to change it.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) feed: Feed,
    pub(crate) identities: Arc<Recorder>,
}

/// What the certificate side was told, in order: `+` needed, `-` no longer.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl IdentityWatcher for Recorder {
    fn needed(&self, identity: &Identity) {
        self.0.lock().unwrap().push(format!("+{}", identity.principal()));
    }

    fn unneeded(&self, identity: &Identity) {
        self.0.lock().unwrap().push(format!("-{}", identity.principal()));
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Local { network: NETWORK.into(), node: Some(NODE.into()), ..Local::default() })
    }

    pub(crate) fn of(local: Local) -> Self {
        let identities = Arc::new(Recorder::default());
        let (state, feed) = State::new(local, identities.clone());
        Self { state, feed, identities }
    }

    /// Applies resources that are all fine.
    pub(crate) fn with(mut self, resources: impl IntoIterator<Item = wire::Address>) -> Self {
        self.add(resources);
        self
    }

    pub(crate) fn add(&mut self, resources: impl IntoIterator<Item = wire::Address>) {
        let named = resources.into_iter().map(|resource| (String::new(), resource)).collect();
        assert_eq!(self.feed.addresses(named, &[]), []);
    }

    pub(crate) fn remove(&mut self, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(self.feed.addresses(Vec::new(), &names), []);
    }

    pub(crate) fn add_policy(&mut self, policy: security::Authorization) {
        let name = format!("{}/{}", policy.namespace, policy.name);
        assert_eq!(self.feed.policies(vec![(name, policy)], &[]), []);
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.state.snapshot()
    }
}

pub(crate) fn address(workload: wire::Workload) -> wire::Address {
    wire::Address { r#type: Some(wire::address::Type::Workload(workload)) }
}

pub(crate) fn service_address(service: wire::Service) -> wire::Address {
    wire::Address { r#type: Some(wire::address::Type::Service(service)) }
}

/// An enrolled pod `ns/name` with service account `name`, on another node.
pub(crate) fn pod(key: &str, ip: &str) -> wire::Workload {
    let (namespace, name) = key.split_once('/').unwrap();
    wire::Workload {
        uid: format!("Kubernetes//Pod/{key}"),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
        addresses: if ip.is_empty() { Vec::new() } else { vec![ip_to_bytes(ip.parse::<IpAddr>().unwrap())] },
        network: NETWORK.to_owned(),
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        node: "node-2".to_owned(),
        canonical_name: name.to_owned(),
        workload_name: name.to_owned(),
        ..Default::default()
    }
}

/// Makes a workload back `service` (`ns/hostname`) with its own ports.
pub(crate) fn backs(mut workload: wire::Workload, service: &str, ports: &[(u32, u32)]) -> wire::Workload {
    workload.services.insert(service.to_owned(), wire::PortList { ports: port_list(ports) });
    workload
}

/// A service `ns/hostname` on the proxy's network.
pub(crate) fn service(key: &str, vips: &[&str], ports: &[(u32, u32)]) -> wire::Service {
    let (namespace, hostname) = key.split_once('/').unwrap();
    wire::Service {
        name: hostname.split('.').next().unwrap().to_owned(),
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vips.iter().map(|vip| network_address(vip)).collect(),
        ports: port_list(ports),
        ..Default::default()
    }
}

/// `ip` or `ip/length` on the proxy's network.
pub(crate) fn network_address(text: &str) -> wire::NetworkAddress {
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip, Some(length.parse().unwrap())),
        None => (text, None),
    };
    let address = ip_to_bytes(ip.parse().unwrap());
    wire::NetworkAddress { network: NETWORK.to_owned(), address, length }
}

/// A reference to the gateway `ns/hostname`, port 15008.
pub(crate) fn gateway(key: &str) -> wire::GatewayAddress {
    use wire::gateway_address::Destination;
    let (namespace, hostname) = key.split_once('/').unwrap();
    let name = wire::NamespacedHostname { namespace: namespace.to_owned(), hostname: hostname.to_owned() };
    wire::GatewayAddress { destination: Some(Destination::Hostname(name)), hbone_mtls_port: 15008 }
}

/// A reference to a gateway by address, port 15008.
pub(crate) fn gateway_at(ip: &str) -> wire::GatewayAddress {
    use wire::gateway_address::Destination;
    wire::GatewayAddress { destination: Some(Destination::Address(network_address(ip))), hbone_mtls_port: 15008 }
}

pub(crate) fn policy(key: &str, scope: security::Scope, action: security::Action) -> security::Authorization {
    let (namespace, name) = key.split_once('/').unwrap();
    security::Authorization {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        scope: scope.into(),
        action: action.into(),
        ..Default::default()
    }
}

/// A rule that matches one principal.
pub(crate) fn from_principal(principal: &str) -> security::Rule {
    use security::string_match::MatchType;
    let principal = security::StringMatch { match_type: Some(MatchType::Exact(principal.to_owned())) };
    let one = security::Match { principals: vec![principal], ..Default::default() };
    security::Rule { clauses: vec![security::Clause { matches: vec![one] }] }
}

fn port_list(ports: &[(u32, u32)]) -> Vec<wire::Port> {
    let port = |(service_port, target_port): &(u32, u32)| wire::Port {
        service_port: *service_port,
        target_port: *target_port,
        ..Default::default()
    };
    ports.iter().map(port).collect()
}
