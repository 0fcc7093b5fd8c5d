//! The way from a connection to the configuration that is in force.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use mesh_route::host_table::HostTable;
use tokio::sync::watch;

use super::Chain;

/// The way to the configuration of an entry point, whatever it is at the moment. Cheap to clone.
///
/// Most connections have one chain. A port that several HTTP listeners share has one for each host, so the chain is known
/// only when a request is: [`ChainHandle::for_host`].
#[derive(Clone)]
pub struct ChainHandle(Way);

#[derive(Clone)]
enum Way {
    One(Arc<Cell>),
    ByHost { hosts: Arc<Hosts>, sni: Option<Arc<str>> },
}

struct Cell {
    chain: ArcSwapOption<Chain>,
    changes: watch::Sender<u64>,
}

/// The chains of one port by host name. Replaced as a whole when a listener comes or goes.
pub(super) struct Hosts {
    table: ArcSwap<HostTable<ChainHandle>>,
    changes: watch::Sender<u64>,
}

/// Why no chain is for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChain {
    /// The entry point is gone: take nothing new.
    Gone,
    /// No listener of the port is for this host.
    NoHost,
    /// The host is another listener's than the one whose certificate was shown.
    Misdirected,
}

impl ChainHandle {
    /// A handle on a chain that may be replaced.
    #[must_use]
    pub fn new(chain: Arc<Chain>) -> Self {
        Self(Way::One(Arc::new(Cell { chain: ArcSwapOption::new(Some(chain)), changes: watch::Sender::new(0) })))
    }

    /// A handle on the chains of a port. `sni` is the name whose certificate was shown.
    pub(super) fn by_host(hosts: Arc<Hosts>, sni: Option<Arc<str>>) -> Self {
        Self(Way::ByHost { hosts, sni })
    }

    /// The configuration in force, to keep for a request. `None`: the entry point is gone, or it is not known yet which it
    /// is because no host is.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Chain>> {
        match &self.0 {
            Way::One(cell) => cell.chain.load_full(),
            Way::ByHost { hosts, sni } => {
                let table = hosts.table.load();
                table.find(sni.as_deref().unwrap_or_default()).and_then(Self::current)
            }
        }
    }

    /// The configuration for a request to this host (with or without a port), to keep for as long as the request.
    ///
    /// # Errors
    /// [`NoChain`]: nothing serves it.
    pub fn for_host(&self, authority: &str) -> Result<Arc<Chain>, NoChain> {
        match &self.0 {
            Way::One(cell) => cell.chain.load_full().ok_or(NoChain::Gone),
            Way::ByHost { hosts, sni } => {
                let table = hosts.table.load();
                let found = table.find(authority).ok_or(NoChain::NoHost)?;
                if let Some(sni) = sni
                    && !table.find(sni).is_some_and(|shown| shown.is_same(found))
                {
                    return Err(NoChain::Misdirected);
                }
                found.current().ok_or(NoChain::Gone)
            }
        }
    }

    /// The handle of the one chain that serves requests to this host now. `None`: nothing does.
    #[must_use]
    pub fn of_host(&self, authority: &str) -> Option<Self> {
        match &self.0 {
            Way::One(_) => Some(self.clone()),
            Way::ByHost { hosts, .. } => hosts.table.load().find(authority).cloned(),
        }
    }

    /// For a look at a handle that has one chain; do not keep it over a wait.
    #[must_use]
    pub fn load(&self) -> Option<Guard<Option<Arc<Chain>>>> {
        match &self.0 {
            Way::One(cell) => Some(cell.chain.load()),
            Way::ByHost { .. } => None,
        }
    }

    /// Changes whenever there is another chain, or none any more.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Way::One(cell) => cell.changes.subscribe(),
            Way::ByHost { hosts, .. } => hosts.changes.subscribe(),
        }
    }

    /// Whether anybody else has a copy.
    pub(super) fn is_shared(&self) -> bool {
        match &self.0 {
            Way::One(cell) => Arc::strong_count(cell) > 1,
            Way::ByHost { hosts, .. } => Arc::strong_count(hosts) > 1,
        }
    }

    pub(super) fn publish(&self, chain: Option<Arc<Chain>>) {
        if let Way::One(cell) = &self.0 {
            cell.chain.store(chain);
            cell.changes.send_modify(|version| *version += 1);
        }
    }

    /// As the control plane would.
    #[cfg(test)]
    pub(crate) fn publish_for_test(&self, chain: Arc<Chain>) {
        self.publish(Some(chain));
    }

    fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Way::One(one), Way::One(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Hosts {
    pub(super) fn new(table: HostTable<ChainHandle>) -> Self {
        Self { table: ArcSwap::from_pointee(table), changes: watch::Sender::new(0) }
    }

    pub(super) fn publish(&self, table: HostTable<ChainHandle>) {
        self.table.store(Arc::new(table));
        self.changes.send_modify(|version| *version += 1);
    }
}

impl fmt::Debug for ChainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChainHandle").field(&self.current().map(|chain| chain.name.clone())).finish()
    }
}
