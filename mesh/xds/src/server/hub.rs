//! The resources, the connected clients, and what each of them still has to be told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::codec::Push;
use super::connection::{Before, Connection, ConnectionStatus};
use super::resource::Resource;
use super::session::{Ask, Peer, Session};
use super::store::{Backing, Collection, TypeSpec};

/// The resource of a name is now this, or gone.
#[derive(Debug, Clone)]
pub struct Change {
    /// Type URL; one that is [`Backing::Own`].
    pub type_url: &'static str,
    /// Primary name.
    pub name: Arc<str>,
    /// New content; none when removed.
    pub resource: Option<Arc<Resource>>,
}

/// How a hub behaves.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// Responses built and encoded at the same time, over all clients.
    pub push_throttle: usize,
    /// How long the answer for a type waits for the client to ask for what that type refers to ([`TypeSpec::after`]).
    pub hold: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { push_throttle: 100, hold: Duration::from_millis(200) }
    }
}

/// Is told what happens, for metrics. Calls are short and must not block.
pub trait Observer: Send + Sync + 'static {
    /// A stream was opened (`true`) or closed.
    fn connection(&self, open: bool);
    /// A response was handed to a client.
    fn pushed(&self, type_url: &str);
    /// A client refused a response.
    fn rejected(&self, type_url: &str, node: &str, message: &str);
    /// A client answered a response that is no longer the last one.
    fn stale(&self, type_url: &str);
    /// A client was cut because it did not keep up.
    fn lagging(&self, node: &str);
}

/// An [`Observer`] that ignores everything.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn connection(&self, _open: bool) {}
    fn pushed(&self, _type_url: &str) {}
    fn rejected(&self, _type_url: &str, _node: &str, _message: &str) {}
    fn stale(&self, _type_url: &str) {}
    fn lagging(&self, _node: &str) {}
}

/// Joins one publisher and any number of clients.
pub struct Hub {
    types: Box<[TypeSpec]>,
    options: HubOptions,
    inner: RwLock<Inner>,
    ready: AtomicBool,
    closed: AtomicBool,
    next_id: AtomicU64,
    pub(super) throttle: Arc<Semaphore>,
    pub(super) observer: Box<dyn Observer>,
}

#[derive(Default)]
struct Inner {
    /// By type index; views have none of their own.
    collections: BTreeMap<usize, Collection>,
    connections: HashMap<u64, Arc<Connection>>,
    /// Version of the last publication.
    version: Arc<str>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("types", &self.types).finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub for these types. Responses of one push go out in this order, except that removals go last, in reverse
    /// order: what is referred to comes before, and leaves after, what refers to it. What begins to have an effect only
    /// where it is referred to ([`Resource::referenced`]) goes with the removals of its type.
    #[must_use]
    pub fn new(types: &[TypeSpec], options: HubOptions, observer: Box<dyn Observer>) -> Arc<Self> {
        let own = types.iter().enumerate().filter(|(_, spec)| matches!(spec.backing, Backing::Own));
        let collections = own.map(|(index, _)| (index, Collection::default())).collect();
        Arc::new(Self {
            types: types.into(),
            options,
            inner: RwLock::new(Inner { collections, ..Inner::default() }),
            ready: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            throttle: Arc::new(Semaphore::new(options.push_throttle.max(1))),
            observer,
        })
    }

    /// Whether streams are accepted: nothing partial is ever sent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Accepts streams from now on, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Ends every stream, and accepts none any more: clients go elsewhere or come back later.
    pub fn close(&self) {
        self.set_ready(false);
        self.closed.store(true, Ordering::Release);
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.connections.values().for_each(|connection| connection.wake.notify_one());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Makes changes visible, all at once, and tells every client that is concerned.
    pub fn publish(&self, version: Arc<str>, changes: &[Change]) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.version = version;
        let mut touched: BTreeMap<usize, Vec<(Arc<str>, Before)>> = BTreeMap::new();
        for change in changes {
            let Some(index) = self.index(change.type_url) else { continue };
            let Some(collection) = inner.collections.get_mut(&index) else { continue };
            let before = match collection.get(&change.name) {
                None => Before::Absent,
                Some(old) if old.referenced => Before::Referenced,
                Some(_) => Before::Effective,
            };
            collection.set(&change.name, change.resource.clone());
            touched.entry(index).or_default().push((change.name.clone(), before));
        }
        let Inner { collections, connections, .. } = &*inner;
        for (index, names) in &touched {
            let limit = PENDING_NAMES_MIN + 2 * collections.get(index).map_or(0, Collection::len);
            for connection in connections.values() {
                connection.mark(*index, names.iter().cloned(), limit);
            }
        }
    }

    /// Resources of a type now published.
    #[must_use]
    pub fn resources(&self, type_url: &str) -> Vec<Arc<Resource>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let collection = self.index(type_url).and_then(|index| inner.collections.get(&index));
        collection.map(|collection| collection.all().cloned().collect()).unwrap_or_default()
    }

    /// Every connected client.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = inner.connections.values().map(|connection| connection.status()).collect();
        all.sort_by_key(|status| status.id);
        all
    }

    pub(super) fn options(&self) -> HubOptions {
        self.options
    }

    pub(super) fn index(&self, type_url: &str) -> Option<usize> {
        self.types.iter().position(|spec| spec.url == type_url)
    }

    pub(super) fn spec(&self, index: usize) -> Option<TypeSpec> {
        self.types.get(index).copied()
    }

    pub(super) fn url(&self, index: usize) -> &'static str {
        self.types.get(index).map_or("", |spec| spec.url)
    }

    /// Registers a client: from here on nothing that is published can be lost for it.
    pub(super) fn connect(self: &Arc<Self>, peer: String, now: SystemTime) -> Registration {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(id, peer, now));
        self.inner.write().unwrap_or_else(PoisonError::into_inner).connections.insert(id, connection.clone());
        self.observer.connection(true);
        Registration { hub: self.clone(), id, connection }
    }

    /// Everything pending for a client, as responses in the order in which they must be sent.
    pub(super) fn pending(&self, connection: &Connection, session: &mut Session, peer: &Peer) -> Vec<Push> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        self.pending_within(&inner, connection, session, peer)
    }

    /// The answer to a request, preceded by everything pending, so that the answer refers to nothing unsent.
    pub(super) fn answer(
        &self,
        connection: &Connection,
        session: &mut Session,
        peer: &Peer,
        type_index: usize,
        ask: Ask,
    ) -> Vec<Push> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut pushes = self.pending_within(&inner, connection, session, peer);
        let Some(spec) = self.spec(type_index) else { return pushes };
        let Some(collection) = self.collection(&inner, spec, type_index) else { return pushes };
        let Some(watch) = session.watch_mut(type_index) else { return pushes };
        let mut push = Push { version: inner.version.clone(), ..empty(spec, type_index) };
        match ask {
            Ask::Initial { versions, .. } if watch.wildcard => {
                let fresh = |one: &&Arc<Resource>| {
                    accepts(spec, one)
                        && (one.version.is_empty()
                            || versions.get(&*one.name).is_none_or(|have| **have != *one.version))
                };
                push.resources = collection.all().filter(fresh).cloned().collect();
                push.removed = versions.into_keys().filter(|name| !has(collection, spec, name)).collect();
            }
            Ask::Initial { versions, mut names } => {
                names.extend(versions.keys().cloned());
                names.sort_unstable();
                names.dedup();
                look_up(collection, spec, &names, &mut push);
                let local = peer.node_name.iter().flat_map(|node| collection.on_node(node));
                push.resources.extend(local.filter(|one| accepts(spec, one)).cloned());
                dedup(&mut push.resources);
                let known = |one: &Arc<Resource>| {
                    !one.version.is_empty() && versions.get(&*one.name).is_some_and(|have| **have == *one.version)
                };
                watch.names.extend(push.resources.iter().map(|one| one.name.clone()));
                push.resources.retain(|one| !known(one));
                watch.names.extend(names.iter().map(|name| Arc::from(name.as_str())));
            }
            Ask::Names(names) => {
                look_up(collection, spec, &names, &mut push);
                dedup(&mut push.resources);
                if !watch.wildcard {
                    watch.names.extend(names.iter().map(|name| Arc::from(name.as_str())));
                    watch.names.extend(push.resources.iter().map(|one| one.name.clone()));
                }
            }
        }
        push.resources.sort_by(|a, b| a.name.cmp(&b.name));
        push.removed.sort();
        watch.answered = true;
        pushes.push(push);
        pushes
    }

    fn pending_within(&self, inner: &Inner, connection: &Connection, session: &mut Session, peer: &Peer) -> Vec<Push> {
        let changed = connection.take();
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for (index, spec) in self.types.iter().enumerate() {
            let base = self.base(*spec, index);
            let Some(names) = changed.get(&base) else { continue };
            let Some(collection) = inner.collections.get(&base) else { continue };
            let Some(watch) = session.watch_mut(index).filter(|watch| watch.answered) else { continue };
            let mut push = Push { version: inner.version.clone(), ..empty(*spec, index) };
            let mut gone = Push { version: inner.version.clone(), ..empty(*spec, index) };
            for (name, before) in names {
                match collection.get(name).filter(|one| accepts(*spec, one)) {
                    Some(resource) if watch.wildcard || concerns(watch, resource, peer) => {
                        if !watch.wildcard {
                            watch.names.insert(name.clone());
                        }
                        // What narrows leaves its wide effect only after others name it; it goes with the removals.
                        let narrows = *before == Before::Effective && resource.referenced;
                        let when = if narrows { &mut gone } else { &mut push };
                        when.resources.push(resource.clone());
                    }
                    Some(_) => {}
                    // Views cannot tell what a removed name was; removing an unknown name is no error.
                    None if watch.wildcard || watch.names.remove(name) => gone.removed.push(name.to_string()),
                    None => {}
                }
            }
            upserts.push(push);
            removals.push(gone);
        }
        removals.reverse();
        join(upserts, removals)
    }

    fn base(&self, spec: TypeSpec, index: usize) -> usize {
        match spec.backing {
            Backing::Own => index,
            Backing::View { of, .. } => self.index(of).unwrap_or(index),
        }
    }

    fn collection<'a>(&self, inner: &'a Inner, spec: TypeSpec, index: usize) -> Option<&'a Collection> {
        inner.collections.get(&self.base(spec, index))
    }
}

/// A registered client; dropping it unregisters.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) hub: Arc<Hub>,
    pub(super) id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.connections.remove(&self.id);
        drop(inner);
        self.hub.observer.connection(false);
    }
}

fn empty(spec: TypeSpec, type_index: usize) -> Push {
    Push {
        spec,
        type_index,
        version: Arc::default(),
        nonce: String::new(),
        resources: Vec::new(),
        removed: Vec::new(),
        permit: None,
    }
}

/// Upserts in order, then removals; the last upsert and the first removal become one response when of one type.
fn join(mut upserts: Vec<Push>, removals: Vec<Push>) -> Vec<Push> {
    upserts.retain(|push| !push.is_empty());
    for gone in removals {
        match upserts.last_mut() {
            Some(last) if last.type_index == gone.type_index => {
                last.resources.extend(gone.resources);
                last.removed.extend(gone.removed);
            }
            _ => upserts.push(gone),
        }
    }
    upserts.retain(|push| !push.is_empty());
    upserts
}

fn accepts(spec: TypeSpec, resource: &Resource) -> bool {
    match spec.backing {
        Backing::Own => true,
        Backing::View { project, .. } => project(resource).is_some(),
    }
}

fn has(collection: &Collection, spec: TypeSpec, name: &str) -> bool {
    collection.get(name).is_some_and(|one| accepts(spec, one))
}

/// Finds what names stand for; names that stand for nothing are told as removed.
fn look_up(collection: &Collection, spec: TypeSpec, names: &[String], push: &mut Push) {
    for name in names {
        let mut found = collection.lookup(name);
        found.retain(|one| accepts(spec, one));
        if found.is_empty() {
            push.removed.push(name.clone());
        }
        push.resources.extend(found);
    }
}

fn dedup(resources: &mut Vec<Arc<Resource>>) {
    let mut seen = BTreeSet::new();
    resources.retain(|one| seen.insert(one.name.clone()));
}

/// Whether an on-demand client has to be told of a changed resource.
fn concerns(watch: &super::session::Watch, resource: &Resource, peer: &Peer) -> bool {
    let asked = |name: &Arc<str>| watch.names.contains(name);
    asked(&resource.name)
        || resource.aliases.iter().any(asked)
        || resource.groups.iter().any(asked)
        || (resource.node.is_some() && resource.node == peer.node_name)
}

/// A client may always have this many changed names waiting, whatever the number of resources.
const PENDING_NAMES_MIN: usize = 65_536;
