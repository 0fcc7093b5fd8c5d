//! What the control plane said about routes and policies: immutable, replaced as a whole, read without a lock.
//!
//! ```text
//! L7 resources --> Feed: compile, stage until endpoints are known --> Snapshot (dispatch) + Chain (one per entry point)
//! ```
//!
//! A connection keeps a [`ChainHandle`]; each request takes the [`Chain`] of that moment from it and keeps it to its end.

mod chain;
mod compile;
mod direct;
mod dynamic;
mod feed;
mod handle;
mod index;
mod onward;
mod proxy;
mod secure;

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

pub use chain::{Backend, Chain, Entry, L4Rule, ListenerEntry, PortEntry, Protocol, TlsRule, Weighted};
pub use compile::BadResource;
pub use direct::DirectChains;
pub use dynamic::DynamicClusters;
pub use feed::Feed;
pub use handle::{ChainHandle, NoChain};
pub use index::{Listened, Plain, Secured, Snapshot, Socket};
pub use onward::BackendGuard;
pub use proxy::{Proxy, Role, Settings};
pub use secure::ServerTls;

/// The snapshot of now. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
}

impl Snapshots {
    /// Nothing is known yet: everything is refused.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner { current: ArcSwap::from_pointee(Snapshot::default()), changes: watch::Sender::new(0) }))
    }

    /// For a look; do not keep it over a wait.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.current.load()
    }

    /// To keep.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// Changes whenever there is another snapshot.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn publish(&self, next: Snapshot) {
        self.0.current.store(Arc::new(next));
        self.0.changes.send_modify(|version| *version += 1);
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
