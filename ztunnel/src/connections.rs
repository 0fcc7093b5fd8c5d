//! The live connections of a pod: for display, and to end those that a change no longer allows.
//!
//! Each worker has a table of its own, so that workers do not wait for each other. Connections that nothing can tell
//! apart when they are judged share one [`Fate`]: a change is put to each fate once, a piece of a table at a time and
//! outside of its lock, however many connections there are.

mod packed;
pub(crate) mod slab;
mod subject;
mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mesh_identity::{Crl, PeerChain};
use tokio::sync::{Notify, watch};

use crate::report::Direction;
use packed::Packed;
use slab::Slab;

pub(crate) use subject::{Proof, Subject};
pub use verdict::Denial;
pub(crate) use verdict::{Law, revoked};

/// The live connections of one pod. Shared by its workers.
#[derive(Debug)]
pub struct PodConnections {
    tables: [Mutex<Table>; TABLES],
    /// Tells the workers to end tunnels that were dialled and are revoked.
    cuts: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    connections: Slab<Packed>,
    fates: Slab<Sharers>,
    by_subject: HashMap<Subject, usize>,
}

#[derive(Debug)]
struct Sharers {
    fate: Arc<Fate>,
    count: usize,
}

/// Who connects to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Arriving at the pod, or leaving it.
    pub direction: Direction,
    /// The client.
    pub src: SocketAddr,
    /// What the client dialled.
    pub original_dst: SocketAddr,
    /// What was dialled for it.
    pub actual_dst: SocketAddr,
    /// How it travels between proxies.
    pub protocol: Protocol,
}

/// How a connection travels between proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// In a tunnel.
    Hbone,
    /// As it is.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hbone => "HBONE",
            Self::Tcp => "TCP",
        })
    }
}

/// What connections with equal subjects have in common.
#[derive(Debug)]
struct Fate {
    subject: Subject,
    /// Why they must end.
    denial: OnceLock<Denial>,
    sealed: Notify,
}

/// A connection's place in the table; leaves it on drop.
#[derive(Debug)]
pub struct Registered {
    pod: Arc<PodConnections>,
    table: usize,
    /// Tunnels are not shown as connections.
    connection: Option<usize>,
    fate: Option<Shared>,
}

#[derive(Debug)]
struct Shared {
    fate: Arc<Fate>,
    index: usize,
}

impl Default for PodConnections {
    fn default() -> Self {
        Self { tables: Default::default(), cuts: watch::Sender::new(0) }
    }
}

impl PodConnections {
    /// Adds a connection. Inbound ones bring what is judged of them, and must be registered before they are judged: then
    /// no change can fall between the two.
    pub(crate) fn register(self: &Arc<Self>, info: ConnectionInfo, subject: Option<Subject>) -> Registered {
        self.enter(Some(info), subject)
    }

    /// Adds a tunnel, which may have no streams when it must end.
    pub(crate) fn register_tunnel(self: &Arc<Self>, proof: Arc<Proof>) -> Registered {
        self.enter(None, Some(Subject::tunnel(proof)))
    }

    fn enter(self: &Arc<Self>, info: Option<ConnectionInfo>, subject: Option<Subject>) -> Registered {
        let table = own_table();
        let (connection, fate) = {
            let mut table = self.table(table);
            (info.map(|info| table.connections.insert(Packed::from(info))), subject.map(|subject| table.share(subject)))
        };
        Registered { pod: self.clone(), table, connection, fate }
    }

    /// Puts every subject to `verdict`, and ends the connections that it denies. Tells how many.
    ///
    /// Others may run between two pieces of the work. What registers meanwhile is judged by itself.
    pub(crate) async fn judge(&self, mut verdict: impl FnMut(&Subject) -> Result<(), Denial>) -> usize {
        let mut ended = 0;
        for table in 0..TABLES {
            let mut next = Some(0);
            let mut denied = Vec::new();
            while let Some(from) = next {
                let piece: Vec<_>;
                (piece, next) = self.table(table).piece(from);
                // Who knows already why it must end is about to.
                for (fate, count) in piece.iter().filter(|(fate, _)| fate.denial.get().is_none()) {
                    if let Err(denial) = verdict(&fate.subject) {
                        denied.push((fate.clone(), denial, *count));
                    }
                }
                if !piece.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            // A tunnel that is cut takes its streams along, and these must know why by then: tunnels last, and nobody is
            // woken before all know. A tunnel's task may look by itself at any time.
            denied.sort_by_key(|(fate, ..)| fate.subject.connection.is_none());
            let mut told = Vec::with_capacity(denied.len());
            for (fate, denial, count) in denied {
                if fate.denial.set(denial).is_ok() {
                    ended += count;
                    told.push(fate);
                }
            }
            told.iter().for_each(|fate| fate.sealed.notify_waiters());
        }
        ended
    }

    /// Tells every worker to end the tunnels it has dialled to servers that are revoked. Call it after the connections in
    /// them were judged, so that these know why they end.
    pub(crate) fn cut_tunnels(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Changes whenever [`PodConnections::cut_tunnels`] is called.
    pub(crate) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    /// Live connections.
    #[must_use]
    pub fn list(&self) -> Vec<ConnectionInfo> {
        let of = |table: usize| self.table(table).connections.iter().map(ConnectionInfo::from).collect::<Vec<_>>();
        (0..TABLES).flat_map(of).collect()
    }

    fn table(&self, index: usize) -> MutexGuard<'_, Table> {
        // No code under these locks can panic between two changes that belong together.
        let table = self.tables.get(index % TABLES).expect("a remainder is below its divisor");
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn share(&mut self, subject: Subject) -> Shared {
        if let Some(index) = self.by_subject.get(&subject).copied()
            && let Some(sharers) = self.fates.get_mut(index)
            // Who comes after the verdict is judged anew.
            && sharers.fate.denial.get().is_none()
        {
            sharers.count += 1;
            return Shared { fate: sharers.fate.clone(), index };
        }
        let fate = Arc::new(Fate { subject: subject.clone(), denial: OnceLock::new(), sealed: Notify::new() });
        let index = self.fates.insert(Sharers { fate: fate.clone(), count: 1 });
        self.by_subject.insert(subject, index);
        Shared { fate, index }
    }

    fn leave(&mut self, shared: &Shared) {
        let Some(sharers) = self.fates.get_mut(shared.index) else { return };
        sharers.count -= 1;
        if sharers.count > 0 {
            return;
        }
        self.fates.remove(shared.index);
        // A later fate may have taken the name over.
        if self.by_subject.get(&shared.fate.subject) == Some(&shared.index) {
            self.by_subject.remove(&shared.fate.subject);
            if self.by_subject.capacity() > KEPT && self.by_subject.len() < self.by_subject.capacity() / 4 {
                self.by_subject.shrink_to(self.by_subject.len() * 2);
            }
        }
    }

    fn piece(&self, from: usize) -> (Vec<(Arc<Fate>, usize)>, Option<usize>) {
        let (piece, next) = self.fates.from(from, PIECE);
        let open = piece.filter(|sharers| sharers.fate.denial.get().is_none());
        (open.map(|sharers| (sharers.fate.clone(), sharers.count)).collect(), next)
    }
}

impl Registered {
    /// From now on the connection also ends when one of `servers` is revoked: those of the tunnels that it goes through.
    pub(crate) fn leaves_through(&mut self, servers: Vec<Arc<PeerChain>>, crl: Option<&Crl>) {
        if servers.is_empty() {
            return;
        }
        let subject = Subject { servers, ..Subject::default() };
        {
            let mut table = self.pod.table(self.table);
            if let Some(before) = self.fate.take() {
                table.leave(&before);
            }
            self.fate = Some(table.share(subject.clone()));
        }
        // The lists may have changed since the handshake.
        if let Some(revoked) = revoked(crl, &subject) {
            self.deny(Denial::Revoked { revoked });
        }
    }

    /// Ends it, and those that share its fate: what was found out about this one holds for all.
    pub(crate) fn deny(&self, denial: Denial) {
        if let Some(Shared { fate, .. }) = &self.fate
            && fate.denial.set(denial).is_ok()
        {
            fate.sealed.notify_waiters();
        }
    }

    /// Waits until the connection must end.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn denied(&self) -> Denial {
        let Some(Shared { fate, .. }) = &self.fate else { return std::future::pending().await };
        loop {
            // Counts as waiting from here on: a verdict between the look and the wait is not missed.
            let sealed = fate.sealed.notified();
            if let Some(denial) = fate.denial.get() {
                return denial.clone();
            }
            sealed.await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.pod.table(self.table);
        if let Some(connection) = self.connection {
            table.connections.remove(connection);
        }
        if let Some(shared) = &self.fate {
            table.leave(shared);
        }
    }
}

/// The table of this thread.
fn own_table() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % TABLES;
    }
    OWN.with(|own| *own)
}

/// Tables of a pod: enough that the workers of most machines have one each.
const TABLES: usize = 8;
/// Fates that are taken out of a table at a time.
const PIECE: usize = 512;
/// Room for subjects that is kept.
const KEPT: usize = 64;

#[cfg(test)]
mod tests;
