//! Which chain serves what was called. Pure lookups, built anew with each change.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_route::host_table::HostTable;

use super::compile::BadResource;
use super::handle::{ChainHandle, Hosts};
use super::secure::ServerTls;
use super::{Chain, Entry, Proxy};
use crate::connection::Destination;

/// Everything that is served at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// Counts changes.
    pub version: u64,
    /// The proxy itself; nothing is served before it is known.
    pub proxy: Option<Arc<Proxy>>,
    by_address: HashMap<SocketAddr, ChainHandle>,
    by_name: HashMap<Box<str>, HashMap<u16, ChainHandle>>,
    /// Addresses of services, whatever the port.
    addresses: HashMap<IpAddr, ()>,
    sockets: BTreeMap<u16, Arc<Socket>>,
    /// How listeners are reached, by the name of their chain, for display.
    listened: BTreeMap<Arc<str>, Listened>,
    /// Resources that could not be used, and why; what they were before is still in force.
    refused: BTreeMap<Arc<str>, Arc<str>>,
    /// Parts of live resources that could not be used.
    impaired: BTreeMap<Arc<str>, Arc<[BadResource]>>,
    /// All chains by name, for display.
    chains: BTreeMap<Arc<str>, Arc<Chain>>,
}

/// A port that a gateway listens on, shared by its listeners.
pub struct Socket {
    /// Connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Port that clients call.
    pub called: u16,
    /// Of connections that are not TLS.
    pub plain: Option<Plain>,
    /// By server name.
    tls: HostTable<Secured>,
    /// Hosts of HTTPS listeners.
    https: Option<Arc<Hosts>>,
}

/// How a listener is reached.
pub struct Listened {
    /// Port of the pod.
    pub port: u16,
    /// Connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// How to shake hands.
    pub tls: Option<Arc<ServerTls>>,
}

/// What serves connections that are not TLS.
#[derive(Clone)]
pub enum Plain {
    /// HTTP listeners, by host.
    Http(ChainHandle),
    /// The one TCP listener.
    Bytes(ChainHandle),
}

/// A listener that is found by server name.
#[derive(Clone)]
pub struct Secured {
    /// How to shake hands.
    pub tls: Arc<ServerTls>,
    /// The listener's chain.
    pub chain: ChainHandle,
}

impl Snapshot {
    /// The chain of a service port that is called by address or name. None: this proxy does not serve it.
    #[must_use]
    pub fn find(&self, destination: &Destination) -> Option<ChainHandle> {
        match destination {
            Destination::Address(address) => self.by_address.get(address).cloned(),
            Destination::Name(name, port) => self.by_name.get(&**name)?.get(port).cloned(),
        }
    }

    /// Whether an address is that of a service, so that no workload can be meant.
    #[must_use]
    pub fn is_service(&self, ip: IpAddr) -> bool {
        self.addresses.contains_key(&ip)
    }

    /// Ports that a gateway listens on.
    #[must_use]
    pub fn sockets(&self) -> &BTreeMap<u16, Arc<Socket>> {
        &self.sockets
    }

    /// All chains, for display, by name.
    #[must_use]
    pub fn chains(&self) -> &BTreeMap<Arc<str>, Arc<Chain>> {
        &self.chains
    }

    /// How a listener is reached, by the name of its chain, for display.
    #[must_use]
    pub fn listened(&self, chain: &str) -> Option<&Listened> {
        self.listened.get(chain)
    }

    /// Resources that could not be used, and why, by name.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.refused
    }

    /// Parts of live resources that could not be used, by the name of the resource: they are left out, or refuse traffic.
    #[must_use]
    pub fn impaired(&self) -> &BTreeMap<Arc<str>, Arc<[BadResource]>> {
        &self.impaired
    }

    pub(super) fn with_problems(
        self,
        refused: BTreeMap<Arc<str>, Arc<str>>,
        impaired: BTreeMap<Arc<str>, Arc<[BadResource]>>,
    ) -> Self {
        Self { refused, impaired, ..self }
    }
}

impl Socket {
    /// Whether connections may be TLS.
    #[must_use]
    pub fn expects_tls(&self) -> bool {
        !self.tls.is_empty()
    }

    /// The listener for a server name; none is the empty name.
    #[must_use]
    pub fn secured(&self, sni: &str) -> Option<&Secured> {
        self.tls.find(sni)
    }

    /// What requests of a connection are served with, whose certificate was found by `sni`.
    #[must_use]
    pub fn https(&self, secured: &Secured, sni: Option<Arc<str>>) -> ChainHandle {
        match &self.https {
            Some(hosts) => ChainHandle::by_host(hosts.clone(), Some(sni.unwrap_or_default())),
            None => secured.chain.clone(),
        }
    }
}

/// A listener as the index needs it.
pub(super) struct Listening {
    pub(super) port: u16,
    pub(super) proxy_protocol: bool,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) chain: Arc<Chain>,
    pub(super) handle: ChainHandle,
}

/// Host tables of ports, kept from one snapshot to the next, since connections hold on to them.
#[derive(Default)]
pub(super) struct PortHosts {
    plain: BTreeMap<u16, Arc<Hosts>>,
    secure: BTreeMap<u16, Arc<Hosts>>,
}

impl Snapshot {
    /// Puts a snapshot together from live chains. Of several chains of one namespace with one address and port the first by
    /// name wins; where they disagree whether it is HTTP, the bytes decide. What services of several namespaces claim is
    /// nobody's: one of them would take the other's calls and leave out its policies.
    pub(super) fn build(
        version: u64,
        proxy: Option<Arc<Proxy>>,
        ports: &[(Arc<Chain>, ChainHandle)],
        listeners: Vec<Listening>,
        hosts: &mut PortHosts,
    ) -> Self {
        let mut snapshot = Self { version, proxy, ..Self::default() };
        let (mut addresses, mut names) = (Claims::default(), Claims::default());
        for (chain, handle) in ports {
            snapshot.chains.insert(chain.name.clone(), chain.clone());
            let Entry::Port(entry) = &chain.entry else { continue };
            let namespace = &*entry.service.namespace;
            for ip in &entry.addresses {
                snapshot.addresses.insert(*ip, ());
                addresses.claim(SocketAddr::new(*ip, entry.port), namespace, handle);
            }
            if entry.by_hostname {
                names.claim((&*entry.service.hostname, entry.port), namespace, handle);
            }
        }
        snapshot.by_address = addresses.settled().collect();
        for ((host, port), handle) in names.settled() {
            snapshot.by_name.entry(host.into()).or_default().insert(port, handle);
        }
        for one in &listeners {
            snapshot.chains.insert(one.chain.name.clone(), one.chain.clone());
            let Listening { port, proxy_protocol, ref tls, .. } = *one;
            let shown = Listened { port, proxy_protocol, tls: tls.clone() };
            snapshot.listened.insert(one.chain.name.clone(), shown);
        }
        snapshot.sockets = sockets(listeners, hosts);
        snapshot
    }
}

/// Who claims what: the first of one namespace, or nobody where there are several.
struct Claims<'a, K>(HashMap<K, (&'a str, Option<ChainHandle>)>);

impl<K> Default for Claims<'_, K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, K: Hash + Eq> Claims<'a, K> {
    fn claim(&mut self, key: K, namespace: &'a str, handle: &ChainHandle) {
        let (first, holder) = self.0.entry(key).or_insert_with(|| (namespace, Some(handle.clone())));
        if *first != namespace {
            *holder = None;
        }
    }

    fn settled(self) -> impl Iterator<Item = (K, ChainHandle)> {
        self.0.into_iter().filter_map(|(key, (_, holder))| Some((key, holder?)))
    }
}

fn sockets(listeners: Vec<Listening>, hosts: &mut PortHosts) -> BTreeMap<u16, Arc<Socket>> {
    let mut by_port: BTreeMap<u16, Vec<Listening>> = BTreeMap::new();
    for listener in listeners {
        by_port.entry(listener.port).or_default().push(listener);
    }
    hosts.plain.retain(|port, _| by_port.contains_key(port));
    hosts.secure.retain(|port, _| by_port.contains_key(port));
    by_port.into_iter().map(|(port, listeners)| (port, Arc::new(socket(port, listeners, hosts)))).collect()
}

fn socket(port: u16, listeners: Vec<Listening>, hosts: &mut PortHosts) -> Socket {
    let proxy_protocol = listeners.iter().any(|one| one.proxy_protocol);
    let (mut plain, mut secure, mut tls) = (HostTable::default(), HostTable::default(), HostTable::default());
    let (mut bytes, mut called) = (None, port);
    for one in listeners {
        let Entry::Listener(entry) = &one.chain.entry else { continue };
        called = entry.port;
        let hostname = entry.hostname.as_ref();
        // The controller has settled conflicts; if two share a name all the same, the first stays.
        match &one.tls {
            Some(own) => {
                let secured = Secured { tls: own.clone(), chain: one.handle.clone() };
                if tls.insert(hostname, secured).is_ok() && one.chain.protocol.is_http() {
                    let _ = secure.insert(hostname, one.handle.clone());
                }
            }
            None if one.chain.protocol.is_http() => {
                let _ = plain.insert(hostname, one.handle.clone());
            }
            None => bytes = bytes.or(Some(one.handle.clone())),
        }
    }
    let shared = |table: HostTable<ChainHandle>, kept: &mut BTreeMap<u16, Arc<Hosts>>| {
        if table.is_empty() {
            return None;
        }
        if let Some(hosts) = kept.get(&port) {
            hosts.publish(table);
            return Some(hosts.clone());
        }
        let made = Arc::new(Hosts::new(table));
        kept.insert(port, made.clone());
        Some(made)
    };
    let by_host = shared(plain, &mut hosts.plain).map(|hosts| Plain::Http(ChainHandle::by_host(hosts, None)));
    let plain = by_host.or(bytes.map(Plain::Bytes));
    Socket { proxy_protocol, called, plain, tls, https: shared(secure, &mut hosts.secure) }
}
