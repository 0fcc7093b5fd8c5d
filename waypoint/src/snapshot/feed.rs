//! The writer: compiles what the control plane sends, waits for the endpoints it needs, and makes it live in one step.
//!
//! ```text
//!            compile          endpoints known, or STAGING_BUDGET over
//! resource ----------> staged ---------------------------------------> live
//!     | bad                                                              ^
//!     +--> refused, what was live or staged before stays ----------------+
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mesh_core::NamespacedName;
use mesh_wire::{l7, type_url};
use mesh_xds::client::{Handler, Rejection, Resource};
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::chain::{Backend, Chain, Entry, Protocol};
use super::compile::{self, BackendParts, BadResource, Compiled, ListenerSocket, Parts};
use super::handle::ChainHandle;
use super::index::{Listening, PortHosts, Snapshot};
use super::onward::BackendGuard;
use super::{Proxy, Snapshots};
use crate::endpoints::{self, ServiceKey};
use crate::limits::STAGING_BUDGET;
use crate::report::Service;
use crate::upstream::{Cluster, UpstreamShared};

/// Applies both what is known of routes and of endpoints. Cheap to clone; clones share the state.
#[derive(Clone)]
pub struct Feed {
    writer: Arc<Mutex<Writer>>,
    /// A deadline was set.
    staged: Arc<Notify>,
}

/// Everything that is written.
struct Writer {
    endpoints: endpoints::Feed,
    upstream: Arc<UpstreamShared>,
    snapshots: Snapshots,
    /// Name of the proxy's own resource.
    group: Arc<str>,
    proxy: Option<Arc<Proxy>>,
    live: BTreeMap<Arc<str>, Live>,
    staged: BTreeMap<Arc<str>, Staged>,
    /// What could not be used, and why.
    refused: BTreeMap<Arc<str>, Arc<str>>,
    clusters: HashMap<Vec<u8>, Weak<Cluster>>,
    /// Those whose endpoints are picked by a table of hashes.
    hashing: Vec<Weak<Cluster>>,
    hosts: PortHosts,
    version: u64,
    /// True once everything that came first is live.
    ready: watch::Sender<bool>,
}

struct Live {
    parts: Arc<Parts>,
    backends: Arc<[Backend]>,
    impaired: Arc<[BadResource]>,
    chain: Arc<Chain>,
    handle: ChainHandle,
}

struct Staged {
    parts: Arc<Parts>,
    /// Made when it was staged, so that its endpoints are on their way.
    backends: Arc<[Backend]>,
    /// What of it cannot be used; all else will be in force.
    impaired: Arc<[BadResource]>,
    until: Instant,
}

impl Feed {
    /// A feed for the proxy whose resource is `group`. The receiver turns true when its first state is complete.
    #[must_use]
    pub fn new(
        group: &str,
        endpoints: endpoints::Feed,
        upstream: Arc<UpstreamShared>,
        snapshots: Snapshots,
    ) -> (Self, watch::Receiver<bool>) {
        let (ready, complete) = watch::channel(false);
        let writer = Writer {
            endpoints,
            upstream,
            snapshots,
            group: group.into(),
            proxy: None,
            live: BTreeMap::new(),
            staged: BTreeMap::new(),
            refused: BTreeMap::new(),
            clusters: HashMap::new(),
            hashing: Vec::new(),
            hosts: PortHosts::default(),
            version: 0,
            ready,
        };
        (Self { writer: Arc::new(Mutex::new(writer)), staged: Arc::default() }, complete)
    }

    /// Makes what waits too long for endpoints live without them. Runs for as long as the process.
    pub async fn keep_time(self) {
        loop {
            let next = self.writer().next_deadline();
            match next {
                Some(until) => tokio::time::sleep_until(until).await,
                None => self.staged.notified().await,
            }
            self.writer().promote(Instant::now());
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Feed {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let mut writer = self.writer();
        let rejected = match type_url {
            type_url::ADDRESS => {
                let rejected = writer.endpoints.apply(resources, &removed);
                writer.rearrange();
                rejected
            }
            type_url::L7 => writer.routes(resources, &removed),
            _ => Vec::new(),
        };
        writer.promote(Instant::now());
        let waiting = !writer.staged.is_empty();
        drop(writer);
        if waiting {
            self.staged.notify_one();
        }
        rejected
    }
}

/// What cannot be used of a resource that is in force.
type Impaired = Arc<[BadResource]>;

impl Writer {
    /// Makes tables of hashes here, where no request waits for them.
    fn rearrange(&self) {
        for cluster in self.hashing.iter().filter_map(Weak::upgrade) {
            cluster.follow();
        }
    }

    fn routes(&mut self, resources: Vec<Resource>, removed: &[String]) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        let mut changed = false;
        for resource in resources {
            match self.take(&resource) {
                Ok(at_once) => changed |= at_once | self.refused.remove(&*resource.name).is_some(),
                Err(error) => {
                    self.refused.insert(resource.name.as_str().into(), error.to_string().into());
                    rejected.push(Rejection::new(resource.name, error.to_string()));
                    changed = true;
                }
            }
        }
        for name in removed {
            self.staged.remove(name.as_str());
            changed |= self.refused.remove(name.as_str()).is_some();
            if let Some(gone) = self.live.remove(name.as_str()) {
                gone.handle.publish(None);
                changed = true;
            }
            if **name == *self.group && self.proxy.take().is_some() {
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
        self.follow();
        rejected
    }

    /// Takes a resource; true if something is live already because of it.
    fn take(&mut self, resource: &Resource) -> Result<bool, BadResource> {
        let own = *resource.name == *self.group;
        if !own && !resource.name.strip_prefix(&*self.group).is_some_and(|rest| rest.starts_with('/')) {
            let expected = format!("{} or a name that begins with it and a slash", self.group);
            return Err(BadResource::new("name", format!("{:?}", resource.name), expected));
        }
        match compile::compile(&resource.name, &resource.value)? {
            Compiled::Proxy(proxy) if own => {
                self.endpoints.serve_workloads(proxy.serves_workloads);
                self.upstream.settings(&proxy.settings);
                self.proxy = Some(Arc::new(*proxy));
                self.refresh();
                Ok(true)
            }
            Compiled::Parts(parts) if !own => {
                let parts = Arc::new(*parts);
                let (backends, impaired) = self.backends(&parts)?;
                for part in &*impaired {
                    tracing::warn!(resource = &*parts.name, problem = %part, "part of a resource cannot be used; the rest is in force");
                }
                // One change after another must not keep it waiting for ever.
                let waiting = self.staged.get(&parts.name).map(|before| before.until);
                let until = waiting.unwrap_or_else(|| Instant::now() + STAGING_BUDGET);
                let staged = Staged { backends, impaired, until, parts: parts.clone() };
                self.staged.insert(parts.name.clone(), staged);
                Ok(false)
            }
            Compiled::Proxy(_) | Compiled::Parts(_) => {
                Err(BadResource::new("kind", "of another kind than the name says", "a proxy of the proxy's own name"))
            }
        }
    }

    /// The backends of a resource, and what of it cannot be used.
    fn backends(&mut self, parts: &Parts) -> Result<(Arc<[Backend]>, Impaired), BadResource> {
        let mut impaired = parts.impaired.clone();
        let made = parts.backends.iter().enumerate();
        let made = made.map(|(n, one)| self.backend(n, &one.config, &mut impaired)).collect::<Result<_, _>>()?;
        Ok((made, impaired.into()))
    }

    /// Equal backends share a cluster: its connections, its counters and what it has learnt of its endpoints. One that
    /// cannot be called as it is said refuses for itself, and keeps nobody else from being called.
    fn backend(
        &mut self,
        n: usize,
        config: &Arc<l7::Backend>,
        impaired: &mut Vec<BadResource>,
    ) -> Result<Backend, BadResource> {
        let key = config.encode_to_vec();
        let service = Arc::new(Service::new(&config.namespace, &config.hostname));
        let view = self.endpoints.view(&ServiceKey {
            namespace: config.namespace.as_str().into(),
            hostname: config.hostname.as_str().into(),
            port: u16::try_from(config.port).unwrap_or_default(),
            via_waypoint: config.via_waypoint,
        });
        if let Some(cluster) = self.clusters.get(&key).and_then(Weak::upgrade) {
            return Ok(Backend { cluster, view, service, config: config.clone(), guard: None });
        }
        let bad = |error| BadResource::new(format!("backends[{n}]"), error, "a backend that can be called");
        match self.upstream.cluster(config, view.clone()) {
            Ok(cluster) => {
                self.clusters.insert(key, Arc::downgrade(&cluster));
                if cluster.is_hashing() {
                    self.hashing.push(Arc::downgrade(&cluster));
                }
                Ok(Backend { cluster, view, service, config: config.clone(), guard: None })
            }
            Err(error) => {
                let port = config.port.clamp(1, u16::MAX.into());
                let refused = l7::Backend { policy: None, port, refuse: error.to_string(), ..(**config).clone() };
                let cluster = self.upstream.cluster(&refused, view.clone()).map_err(bad)?;
                impaired.push(bad(error));
                Ok(Backend { cluster, view, service, config: Arc::new(refused), guard: None })
            }
        }
    }

    /// Asks for the endpoints of everything that is live or about to be.
    fn follow(&mut self) {
        let mut services: BTreeMap<NamespacedName, bool> = BTreeMap::new();
        let parts = self.live.values().map(|one| &one.parts).chain(self.staged.values().map(|one| &one.parts));
        for (name, via_waypoint) in parts.flat_map(|parts| parts.services()) {
            *services.entry(name).or_default() |= via_waypoint;
        }
        self.endpoints.follow(services);
    }

    /// When something goes live even without its endpoints. Nothing does before the proxy itself is known.
    fn next_deadline(&self) -> Option<Instant> {
        self.proxy.as_ref()?;
        self.staged.values().map(|one| one.until).min()
    }

    /// Makes live what has its endpoints, or has waited long enough.
    fn promote(&mut self, now: Instant) {
        if self.proxy.is_none() {
            return;
        }
        let endpoints = &self.endpoints;
        let complete = |staged: &Staged| staged.parts.services().keys().all(|name| endpoints.is_answered(name));
        let due = self.staged.iter().filter(|(_, one)| complete(one) || one.until <= now);
        let due: Vec<Arc<str>> = due.map(|(name, _)| name.clone()).collect();
        let any = !due.is_empty();
        for name in due {
            if let Some(staged) = self.staged.remove(&name) {
                self.enliven(name, staged);
            }
        }
        if any {
            self.publish();
            self.follow();
            self.clusters.retain(|_, cluster| cluster.strong_count() > 0);
            self.hashing.retain(|cluster| cluster.strong_count() > 0);
        }
        if self.staged.is_empty() && !*self.ready.borrow() {
            self.ready.send_replace(true);
        }
    }

    fn enliven(&mut self, name: Arc<str>, staged: Staged) {
        let Some(proxy) = self.proxy.clone() else { return };
        let chain = Arc::new(assemble(&staged.parts, staged.backends.clone(), proxy));
        match self.live.get_mut(&name) {
            Some(live) => {
                live.handle.publish(Some(chain.clone()));
                (live.parts, live.backends, live.chain) = (staged.parts, staged.backends, chain);
                live.impaired = staged.impaired;
            }
            None => {
                let handle = ChainHandle::new(chain.clone());
                let Staged { parts, backends, impaired, .. } = staged;
                self.live.insert(name, Live { parts, backends, impaired, chain, handle });
            }
        }
    }

    /// After the proxy itself changed.
    fn refresh(&mut self) {
        let Some(proxy) = &self.proxy else { return };
        for live in self.live.values_mut() {
            live.chain = Arc::new(assemble(&live.parts, live.backends.clone(), proxy.clone()));
            live.handle.publish(Some(live.chain.clone()));
        }
    }

    fn publish(&mut self) {
        self.settle_conflicts();
        self.version += 1;
        let mut ports = Vec::new();
        let mut listeners = Vec::new();
        for live in self.live.values() {
            match &live.parts.socket {
                None => ports.push((live.chain.clone(), live.handle.clone())),
                Some(ListenerSocket { port, proxy_protocol, tls }) => listeners.push(Listening {
                    port: *port,
                    proxy_protocol: *proxy_protocol,
                    tls: tls.clone(),
                    chain: live.chain.clone(),
                    handle: live.handle.clone(),
                }),
            }
        }
        let proxy = self.proxy.clone();
        let next = Snapshot::build(self.version, proxy, &ports, listeners, &mut self.hosts);
        let impaired = self.live.iter().filter(|(_, live)| !live.impaired.is_empty());
        let impaired = impaired.map(|(name, live)| (name.clone(), live.impaired.clone())).collect();
        self.snapshots.publish(next.with_problems(self.refused.clone(), impaired));
    }

    /// Services of one namespace that share an address and port have one chain. Where they disagree whether it is HTTP, its bytes decide.
    fn settle_conflicts(&mut self) {
        let mut first: HashMap<(&str, std::net::IpAddr, u16), (Arc<str>, Protocol)> = HashMap::new();
        let mut unsure = Vec::new();
        for (name, live) in &self.live {
            let Entry::Port(entry) = &live.parts.entry else { continue };
            for ip in &entry.addresses {
                let declared = live.parts.protocol;
                let (winner, protocol) = first
                    .entry((&entry.service.namespace, *ip, entry.port))
                    .or_insert_with(|| (name.clone(), declared));
                if winner != name && protocol.is_http() != declared.is_http() {
                    unsure.push(winner.clone());
                }
            }
        }
        for (name, live) in &mut self.live {
            let wanted = if unsure.contains(name) { Protocol::Detect } else { live.parts.protocol };
            if live.chain.protocol != wanted {
                live.chain = Arc::new(Chain { protocol: wanted, ..Chain::clone(&live.chain) });
                live.handle.publish(Some(live.chain.clone()));
            }
        }
    }
}

/// Guards are compiled with what the proxy says of itself.
fn guarded(parts: &Parts, backends: Arc<[Backend]>, proxy: &Proxy) -> Arc<[Backend]> {
    if parts.backends.iter().all(|one| one.guard.is_none()) {
        return backends;
    }
    let with_guard = |(backend, parts): (&Backend, &BackendParts)| {
        let guard = parts.guard.as_deref().map(|guard| BackendGuard::compile(guard, backend.config.port, proxy));
        Backend { guard: guard.map(Arc::new), ..backend.clone() }
    };
    backends.iter().zip(&parts.backends).map(with_guard).collect()
}

fn assemble(parts: &Parts, backends: Arc<[Backend]>, proxy: Arc<Proxy>) -> Chain {
    let compiled = compile::policies(&proxy.authorizations, &parts.authorizations, &proxy.settings.trust_domains);
    let mut refuse_all = parts.refuse_all.clone().or_else(|| proxy.refuse_all.clone());
    let policies = compiled.unwrap_or_else(|error| {
        // Each part was fine by itself. If they are not together, nothing passes.
        refuse_all = Some(error.to_string().into());
        mesh_policy::l7::Policies::default()
    });
    Chain {
        name: parts.name.clone(),
        entry: parts.entry.clone(),
        protocol: parts.protocol,
        backends: guarded(parts, backends, &proxy),
        default_backend: parts.default_backend,
        http: parts.http.clone(),
        tls_rules: parts.tls_rules.clone(),
        tcp_rules: parts.tcp_rules.clone(),
        policies: Arc::new(policies),
        refuse_all,
        proxy,
    }
}
