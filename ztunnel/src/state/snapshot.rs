//! One consistent, immutable view of everything the control plane said.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_policy::Policy;

use super::gateway::Ports;
use super::policies::{Policies, PolicyIndex};
use super::service::{NetworkCidr, Service};
use super::shards::Shards;
use super::workload::Workload;

/// What this proxy knows of itself before the control plane says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Network that this proxy is on; the empty name is valid.
    pub network: Arc<str>,
    /// Node that this proxy serves; `None`: all workloads count as its own.
    pub node: Option<Arc<str>>,
    /// Whether it also listens for SOCKS in every pod.
    pub socks5: bool,
    /// Whether applications that take the PROXY protocol listen on loopback rather than on the pod's address.
    pub localhost_app_tunnel: bool,
}

impl Default for Local {
    fn default() -> Self {
        Self { network: Arc::default(), node: None, socks5: false, localhost_app_tunnel: true }
    }
}

impl Local {
    /// Whether the proxy itself listens on `port` of every pod: traffic for it must never be sent on to it.
    #[must_use]
    pub fn owns_port(&self, port: u16) -> bool {
        PROXY_PORTS.contains(&port) || (self.socks5 && port == SOCKS_PORT)
    }

    /// Whether this proxy serves the workload.
    #[must_use]
    pub fn serves(&self, workload: &Workload) -> bool {
        self.node.as_ref().is_none_or(|node| *node == workload.node)
    }
}

/// Ports of this proxy in every pod: 15001 outbound, 15006 plaintext inbound, 15008 HBONE.
pub const PROXY_PORTS: [u16; 3] = [15001, 15006, 15008];
/// One more where SOCKS is switched on.
pub const SOCKS_PORT: u16 = 15080;

/// A view of the state. All lookups are consistent with each other; nothing blocks.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts the changes; larger is newer.
    pub generation: u64,
    /// What this proxy knows of itself.
    pub local: Arc<Local>,
    pub(crate) workloads: Shards<Arc<str>, Arc<Workload>>,
    /// Best first.
    pub(crate) by_ip: Shards<NetworkAddr, Vec<Arc<Workload>>>,
    /// Workloads with a hostname, by namespace and hostname; best first.
    pub(crate) by_hostname: Shards<NamespacedName, Vec<Arc<Workload>>>,
    /// Workloads of this node, by namespace and name; best first.
    pub(crate) local_workloads: Shards<NamespacedName, Vec<Arc<Workload>>>,
    pub(crate) services: Shards<NamespacedName, Arc<Service>>,
    /// By key.
    pub(crate) by_vip: Shards<NetworkAddr, Vec<Arc<Service>>>,
    /// By key.
    pub(crate) service_hostnames: Shards<Arc<str>, Vec<Arc<Service>>>,
    pub(crate) by_cidr: Arc<Vec<(NetworkCidr, Arc<Service>)>>,
    pub(crate) endpoints: Shards<NamespacedName, Arc<Endpoints>>,
    /// Endpoints whose service is not known yet.
    pub(crate) staged: Shards<NamespacedName, Arc<Endpoints>>,
    pub(crate) policies: Arc<PolicyIndex>,
}

/// Endpoints of a service, by workload uid.
pub type Endpoints = BTreeMap<Arc<str>, Endpoint>;

/// A workload as an endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload as it was last updated.
    pub workload: Arc<Workload>,
    /// Its own ports for the service.
    pub ports: Ports,
}

/// What an address or hostname stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
}

impl Snapshot {
    /// Exact.
    #[must_use]
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The best workload with that address; host-network workloads are not found.
    #[must_use]
    pub fn workload_by_ip(&self, addr: &NetworkAddr) -> Option<&Arc<Workload>> {
        self.by_ip.get(addr)?.first()
    }

    /// All workloads with that address, best first; host-network workloads are not found.
    #[must_use]
    pub fn workloads_by_ip(&self, addr: &NetworkAddr) -> &[Arc<Workload>] {
        self.by_ip.get(addr).map_or(&[], Vec::as_slice)
    }

    /// A workload that this proxy serves.
    #[must_use]
    pub fn local_workload(&self, name: &str, namespace: &str, service_account: &str) -> Option<&Arc<Workload>> {
        let named = self.local_workloads.get(&NamespacedName::new(namespace, name))?;
        named.iter().find(|workload| workload.identity.service_account() == service_account)
    }

    /// Exact, whatever its visibility.
    #[must_use]
    pub fn service_by_key(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The best visible service with that address, else with a range that holds it.
    #[must_use]
    pub fn service_by_vip(&self, client: Option<&str>, addr: &NetworkAddr) -> Option<&Arc<Service>> {
        let exact = self.by_vip.get(addr).and_then(|services| best_visible(client, services));
        exact.or_else(|| self.service_by_cidr(client, addr))
    }

    fn service_by_cidr(&self, client: Option<&str>, addr: &NetworkAddr) -> Option<&Arc<Service>> {
        let holding = self.by_cidr.iter().filter(|(range, service)| range.contains(addr) && service.visible_to(client));
        let rank = |(range, service): &&(NetworkCidr, Arc<Service>)| {
            (is_own(client, service), range.net.prefix_len(), service.canonical)
        };
        // Reversed because max_by_key keeps the last of equals, and the first is meant.
        holding.rev().max_by_key(rank).map(|(_, service)| service)
    }

    /// A workload by address, else a service by address.
    #[must_use]
    pub fn address(&self, client: Option<&str>, addr: &NetworkAddr) -> Option<Found> {
        if let Some(workload) = self.workload_by_ip(addr) {
            return Some(Found::Workload(Arc::clone(workload)));
        }
        self.service_by_vip(client, addr).cloned().map(Found::Service)
    }

    /// The best visible service of that name.
    #[must_use]
    pub fn service_by_hostname(&self, client: Option<&str>, hostname: &str) -> Option<&Arc<Service>> {
        best_visible(client, self.services_named(&hostname.to_ascii_lowercase()))
    }

    /// Every service of that name (lower case), whatever its visibility; by key.
    #[must_use]
    pub fn services_named(&self, hostname: &str) -> &[Arc<Service>] {
        self.service_hostnames.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// A service, else a workload of that hostname and namespace.
    #[must_use]
    pub fn hostname(&self, name: &NamespacedName) -> Option<Found> {
        if let Some(service) = self.services.get(name) {
            return Some(Found::Service(Arc::clone(service)));
        }
        self.by_hostname.get(name)?.first().cloned().map(Found::Workload)
    }

    /// Endpoints of a service that its health policy takes.
    #[must_use]
    pub fn endpoints(&self, service: &Service) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(&service.key)
    }

    /// The policies that apply to a workload as destination, and those it names that are unknown.
    #[must_use]
    pub fn policies_for(&self, workload: &Workload) -> Policies {
        self.policies.applying_to(workload)
    }

    /// Exact, by `namespace/name`.
    #[must_use]
    pub fn policy(&self, key: &str) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// All workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|(_, workload)| workload)
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().map(|(_, service)| service)
    }

    /// All policies, in no particular order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// Endpoints whose service is not known, by service.
    pub fn staged(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Endpoints>)> {
        self.staged.iter()
    }
}

/// The client's own namespace, else a canonical one, else the first.
fn best_visible<'a>(client: Option<&str>, services: &'a [Arc<Service>]) -> Option<&'a Arc<Service>> {
    let visible = || services.iter().filter(|service| service.visible_to(client));
    visible()
        .find(|service| is_own(client, service))
        .or_else(|| visible().find(|service| service.canonical))
        .or_else(|| visible().next())
}

fn is_own(client: Option<&str>, service: &Service) -> bool {
    client.is_some_and(|client| *service.key.namespace == *client)
}
