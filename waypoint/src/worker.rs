//! What the connections of one worker thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::bucket::{Allowance, Bucket};

use crate::http::ReplayBudget;
use crate::overload::Hoards;
use crate::pace::Pace;
use crate::report::Local;
use crate::shared::Shared;
use crate::snapshot::{Backend, DirectChains, DynamicClusters};
use crate::tally::Tally;
use crate::upstream::{Cluster, WorkerUpstreams};

/// One per worker thread. Never leaves it, so nothing in it needs a lock.
pub struct Worker {
    /// Which of the workers.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Pools and balancers.
    pub upstreams: WorkerUpstreams,
    /// Metrics and the access log.
    pub report: Local,
    /// Chains of workloads that are called by address.
    pub direct_chains: DirectChains,
    /// What is kept of requests for further attempts.
    pub(crate) replays: Rc<ReplayBudget>,
    /// What holds back how much.
    pub(crate) hoards: Rc<Hoards>,
    dynamic: DynamicClusters,
    random: Cell<u64>,
    /// Of handshakes with clients.
    pub(crate) pace: Pace,
    /// Lines about connections that made room for others.
    pub(crate) crowded_out: Rc<Tally>,
    /// Lines about clients of tunnels that did not prove who they are.
    pub(crate) unproven: Rc<Tally>,
    /// What is left of explanations of denials.
    hints: RefCell<Bucket>,
    started: Instant,
}

impl Worker {
    /// Must be called on the worker's own thread.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            index,
            upstreams: WorkerUpstreams::new(&shared),
            report: Local::new(&shared.report),
            direct_chains: DirectChains::default(),
            replays: Rc::default(),
            hoards: Rc::default(),
            dynamic: DynamicClusters::default(),
            pace: Pace::new(),
            crowded_out: Tally::new("connections made room for others"),
            unproven: Tally::new("tunnels were refused"),
            random: Cell::new(rand::random()),
            hints: RefCell::new(Bucket::full(HINTS)),
            started: Instant::now(),
            shared,
        })
    }

    /// The pool for a request or connection to `host` (without its port). Most backends have one; those of a wildcard
    /// service have one for each host. `None`: the wildcard does not cover the host, so nobody may be called.
    #[must_use]
    pub fn cluster(&self, backend: &Backend, host: &str) -> Option<Arc<Cluster>> {
        if backend.config.dynamic_wildcard.is_empty() {
            return Some(backend.cluster.clone());
        }
        self.dynamic.get(backend, host, &self.shared.upstream)
    }

    /// Keeps what only this worker has up to date with the proxy's own settings.
    pub(crate) async fn follow(&self) {
        let mut changes = self.shared.snapshots.changes();
        let mut guards = self.shared.endpoints.guards_changes();
        loop {
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = guards.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let proxy = self.shared.snapshots.load().proxy.clone();
            if let Some(proxy) = proxy {
                self.direct_chains.refresh(&proxy, &self.shared.endpoints);
            }
        }
    }

    /// Whether there is time to find out what would have been allowed in place of what is denied. While denials come in
    /// floods there is not: it takes a look at every rule.
    #[must_use]
    pub fn may_explain(&self) -> bool {
        self.hints.borrow_mut().take(HINTS, || self.started.elapsed())
    }

    /// A random number. Good for balancing and sampling, not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Denials of one worker that are explained in full.
const HINTS: Allowance = Allowance { burst: 100, per_second: 20 };
