//! A pair of ends between which connections are opened, known by the very records that describe
//! them: what is the same for all those connections is kept once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_core::Identity;

use super::series::Counts;
use super::{BaggagePeer, ConnectionInfo, Direction, Peer};
use crate::state::{Service, Snapshot, Workload};

/// Belongs to one worker: nobody else counts here.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) direction: Direction,
    pub(super) mutual_tls: bool,
    pub(super) source: End,
    pub(super) destination: End,
    pub(super) service: Option<Arc<Service>>,
    pub(super) counts: Arc<Counts>,
    /// When a connection was last opened, in seconds of the report's clock.
    used_s: AtomicU32,
}

/// One end; as [`Peer`], but smaller.
#[derive(Debug)]
pub(super) struct End {
    pub(super) workload: Option<Arc<Workload>>,
    /// Only where there is no record.
    pub(super) baggage: Option<Box<BaggagePeer>>,
    pub(super) identity: Option<Identity>,
}

impl Flow {
    pub(super) fn new(info: ConnectionInfo) -> Self {
        Self {
            direction: info.direction,
            mutual_tls: info.mutual_tls,
            source: End::new(info.source),
            destination: End::new(info.destination),
            service: info.service,
            counts: Arc::default(),
            used_s: AtomicU32::new(0),
        }
    }

    /// Whether a connection is between these very ends. A record that was replaced is another end, so that an update
    /// shows at once.
    pub(super) fn is_of(&self, info: &ConnectionInfo) -> bool {
        self.direction == info.direction
            && self.mutual_tls == info.mutual_tls
            && self.source.is(&info.source)
            && self.destination.is(&info.destination)
            && same(self.service.as_ref(), info.service.as_ref())
    }

    /// Whether the control plane still says of both ends and of the service what it said when the flow was made. If not,
    /// no connection will be of this flow any more.
    pub(super) fn is_current(&self, snapshot: &Snapshot) -> bool {
        let current_end = |end: &End| {
            end.workload.as_ref().is_none_or(|workload| same(snapshot.workload_by_uid(&workload.uid), Some(workload)))
        };
        let service = self.service.as_ref();
        current_end(&self.source)
            && current_end(&self.destination)
            && service.is_none_or(|service| same(snapshot.service_by_key(&service.key), Some(service)))
    }

    pub(super) fn touch(&self, now_s: u32) {
        self.used_s.store(now_s, Ordering::Relaxed);
    }

    pub(super) fn used_s(&self) -> u32 {
        self.used_s.load(Ordering::Relaxed)
    }
}

impl End {
    pub(super) fn new(peer: Peer) -> Self {
        let baggage = if peer.workload.is_none() { peer.baggage.map(Box::new) } else { None };
        Self { workload: peer.workload, baggage, identity: peer.identity }
    }

    fn is(&self, peer: &Peer) -> bool {
        same(self.workload.as_ref(), peer.workload.as_ref())
            && self.identity == peer.identity
            && (self.workload.is_some() || self.baggage.as_deref() == peer.baggage.as_ref())
    }

    /// Pod name.
    pub(super) fn name(&self) -> Option<&str> {
        match (&self.workload, &self.baggage) {
            (Some(workload), _) => Some(&*workload.name),
            (None, Some(baggage)) => baggage.workload_name.as_deref(),
            (None, None) => None,
        }
        .filter(|name| !name.is_empty())
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        match (&self.workload, &self.baggage) {
            (Some(workload), _) => Some(&*workload.namespace),
            (None, Some(baggage)) => baggage.namespace.as_deref(),
            (None, None) => None,
        }
        .filter(|namespace| !namespace.is_empty())
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        match (&self.workload, &self.baggage) {
            (Some(workload), _) => Some(&*workload.cluster_id),
            (None, Some(baggage)) => baggage.cluster_id.as_deref(),
            (None, None) => None,
        }
        .filter(|cluster| !cluster.is_empty())
    }
}

/// Finds the flow of a connection in a table; two flows may share a number, see [`Flow::is_of`].
pub(super) fn number_of(info: &ConnectionInfo, hasher: &impl BuildHasher) -> u64 {
    let mut state = hasher.build_hasher();
    (info.direction, info.mutual_tls, address(info.service.as_ref())).hash(&mut state);
    for peer in [&info.source, &info.destination] {
        address(peer.workload.as_ref()).hash(&mut state);
        // A record stands for its identity and its description.
        if peer.workload.is_none() {
            (&peer.identity, &peer.baggage).hash(&mut state);
        }
    }
    state.finish()
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    address(one) == address(other)
}

fn address<T>(object: Option<&Arc<T>>) -> usize {
    object.map_or(0, |object| Arc::as_ptr(object).addr())
}
