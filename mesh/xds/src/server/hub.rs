//! The resources, the connected clients, and what each of them still has to be told.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connection::{Before, Connection, ConnectionStatus};
use super::resource::Resource;
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
    fn connection(&self, _open: bool) {}
    /// A client said that it is of this version (`true`), or one that had said so is gone.
    fn identified(&self, _version: &str, _open: bool) {}
    /// A request of so many bytes came.
    fn received(&self, _bytes: usize) {}
    /// Changes waited so long until responses were made of them.
    fn queued(&self, _waited: Duration) {}
    /// A response was handed to a client.
    fn pushed(&self, _type_url: &str) {}
    /// A response of so many bytes was made, which took so long.
    fn written(&self, _type_url: &str, _bytes: usize, _took: Duration) {}
    /// The transport took all of a response, so long after its beginning.
    fn sent(&self, _took: Duration) {}
    /// A client was sent everything about a change, so long after the change was seen.
    fn converged(&self, _took: Duration) {}
    /// A client refused a response. The message is empty when it only repeats itself.
    fn rejected(&self, _type_url: &str, _node: &str, _message: &str) {}
    /// A client answered a response that is no longer the last one.
    fn stale(&self, _type_url: &str) {}
    /// A client was cut because it did not keep up.
    fn lagging(&self, _node: &str) {}
    /// A stream ended because of a mistake of ours.
    fn internal_error(&self) {}
}

/// An [`Observer`] that ignores everything.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// Joins one publisher and any number of clients.
pub struct Hub {
    pub(super) types: Box<[TypeSpec]>,
    options: HubOptions,
    pub(super) inner: RwLock<Inner>,
    ready: AtomicBool,
    closed: AtomicBool,
    next_id: AtomicU64,
    pub(super) throttle: Arc<Semaphore>,
    pub(super) observer: Box<dyn Observer>,
}

#[derive(Default)]
pub(super) struct Inner {
    /// By type index; views have none of their own.
    pub(super) collections: BTreeMap<usize, Collection>,
    connections: HashMap<u64, Arc<Connection>>,
    /// Version of the last publication.
    pub(super) version: Arc<str>,
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

    /// Ends the streams of clients that were told settings when they came, so that they come again and are told anew.
    pub fn renew(&self) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.connections.values().filter(|one| one.greeted).for_each(|one| one.outdate());
    }

    /// Ends one stream, by its number; the client may come again. Tells whether there is such a stream.
    pub fn disconnect(&self, id: u64) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.connections.get(&id).map(|one| one.outdate()).is_some()
    }

    /// Version of the last publication.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).version.clone()
    }

    /// What a client is sent of a type, as it is now.
    #[must_use]
    pub fn sent_to(&self, id: u64, type_url: &str) -> Vec<Arc<Resource>> {
        let (mut all, connection) = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let Some((index, spec)) = self.types.iter().enumerate().find(|(_, spec)| spec.url == type_url) else {
                return Vec::new();
            };
            let Some(collection) = self.collection(&inner, *spec, index) else { return Vec::new() };
            let all: Vec<_> = collection.all().cloned().collect();
            (all, inner.connections.get(&id).cloned().map(|connection| (index, connection)))
        };
        let Some((index, connection)) = connection else { return Vec::new() };
        let session = connection.session();
        let watch = session.watch(index);
        let has = |one: &Arc<Resource>| {
            watch.is_some_and(|watch| (watch.wildcard && one.audience.is_none()) || watch.sent.contains(&one.name))
        };
        all.retain(has);
        drop(session);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// As [`Self::publish_since`], of changes that were seen now.
    pub fn publish(&self, version: Arc<str>, changes: &[Change]) {
        self.publish_since(version, changes, Instant::now());
    }

    /// Makes changes visible, all at once, and tells every client that is concerned. The oldest was seen at `since`.
    pub fn publish_since(&self, version: Arc<str>, changes: &[Change], since: Instant) {
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
                connection.mark(*index, names, limit, since);
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
        let connections: Vec<_> = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            inner.connections.values().cloned().collect()
        };
        let mut all: Vec<_> = connections.iter().map(|connection| connection.status(|index| self.url(index))).collect();
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
    pub(super) fn connect(self: &Arc<Self>, peer: String, greeted: bool, now: SystemTime) -> Registration {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(id, peer, greeted, now));
        self.inner.write().unwrap_or_else(PoisonError::into_inner).connections.insert(id, connection.clone());
        self.observer.connection(true);
        Registration { hub: self.clone(), id, connection, version: None }
    }
}

/// A registered client; dropping it unregisters.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) hub: Arc<Hub>,
    pub(super) id: u64,
    pub(super) connection: Arc<Connection>,
    /// What the client says it is.
    version: Option<String>,
}

impl Registration {
    /// The client has said who it is.
    pub(super) fn identified(&mut self, node: &str, cluster: String, version: String) {
        self.hub.observer.identified(&version, true);
        self.version = Some(version.clone());
        self.connection.set_node(node, cluster, version);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.connections.remove(&self.id);
        drop(inner);
        self.hub.observer.connection(false);
        if let Some(version) = &self.version {
            self.hub.observer.identified(version, false);
        }
    }
}

/// A client may always have this many changed names waiting, whatever the number of resources.
const PENDING_NAMES_MIN: usize = 65_536;
