//! What is told about connections: metrics, one access-log line each, and a record of each denial.
//!
//! A connection is reported through a [`Connection`], made once both ends are known; a connection
//! refused before that changes no counter and is only logged, see [`Report::refused`].

mod access;
mod denial;
mod export;
mod flow;
mod labels;
mod local;
pub mod runtime;
mod series;
mod view;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::Identity;
use mesh_policy::Verdict;
use mesh_telemetry::metrics::Registry;

use access::Live;
pub use denial::{Cause, Denial};
use labels::Lookup;
use local::Local;
use series::{SERIES_MAX, Table};
pub use view::CONNECTIONS_SHOWN_MAX;

use crate::state::{Service, Snapshot, State, Workload};

/// Which side of a tunnel this proxy is on for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To a pod of this node.
    Inbound,
    /// From a pod of this node.
    Outbound,
}

impl Direction {
    /// As the access log has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }
}

/// Why a connection ended early, as dashboards know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResponseFlag {
    /// Refused or ended by policy.
    Deny,
    /// The next hop could not be reached or refused the tunnel; also everything unclassified.
    Connect,
    /// The TLS handshake with the next hop failed.
    TlsFailure,
    /// HTTP/2 could not be set up with the next hop.
    H2HandshakeFailure,
    /// The next hop's HBONE port did not answer: probably blocked by a NetworkPolicy.
    NetworkPolicy,
    /// The workload's own certificate could not be had.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl ResponseFlag {
    const ALL: [Self; 7] = [
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
    ];

    /// Value of the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }

    /// Position in [`Self::ALL`].
    fn index(self) -> usize {
        self as usize
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended as they should.
    Complete,
    /// Something went wrong.
    Failed {
        /// For metrics.
        flag: ResponseFlag,
        /// For the log.
        error: String,
    },
}

/// What is known of a peer that the control plane did not describe, from its baggage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BaggagePeer {
    /// Name of its owner.
    pub workload_name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// `service.name`.
    pub canonical_name: Option<String>,
    /// `service.version`.
    pub canonical_revision: Option<String>,
    /// Its cluster.
    pub cluster_id: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// One end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// As the control plane describes it; wins over `baggage`.
    pub workload: Option<Arc<Workload>>,
    /// As it describes itself.
    pub baggage: Option<BaggagePeer>,
    /// Proven by mutual TLS on this hop.
    pub identity: Option<Identity>,
}

/// Everything that is known of a connection when it is first reported.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Which side this proxy is on.
    pub direction: Direction,
    /// The client's address.
    pub src_addr: SocketAddr,
    /// Outbound: the address that is dialled. Inbound: the pod's address and port 15008, or the
    /// application's for plaintext.
    pub dst_addr: SocketAddr,
    /// `:authority` of the tunnel, if there is one.
    pub hbone_addr: Option<String>,
    /// The client.
    pub source: Peer,
    /// The server, or the waypoint on the way to it.
    pub destination: Peer,
    /// The service that is meant.
    pub service: Option<Arc<Service>>,
    /// Whether this hop is encrypted and both ends proved who they are.
    pub mutual_tls: bool,
}

/// Metrics and logs of the data path. Cheap to clone.
///
/// What happens once per connection takes no lock that workers share and formats no text: workers
/// count by themselves and are summed up when metrics are scraped; the words of a log line are found
/// by the log's own thread.
#[derive(Clone, Debug)]
pub struct Report {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Tells the reports of one process apart.
    id: u64,
    started: Instant,
    policy_at_info: bool,
    table: Table,
    /// One per thread that reports.
    locals: Mutex<Vec<Arc<Local>>>,
    /// For threads that are just ending.
    common: Arc<Local>,
    lookups: Mutex<HashMap<Lookup, u64>>,
}

impl Report {
    /// Registers the metrics. `policy_at_info`: log policy decisions at info rather than debug.
    #[must_use]
    pub fn new(registry: &Registry, policy_at_info: bool) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let common = Arc::new(Local::default());
        let inner = Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started: Instant::now(),
            policy_at_info,
            table: Table::new(SERIES_MAX),
            locals: Mutex::new(vec![Arc::clone(&common)]),
            common,
            lookups: Mutex::default(),
        });
        registry.register_collector(Box::new(export::Exporter(Arc::clone(&inner))));
        Self { inner }
    }

    /// Counts a connection as opened and follows it to its end.
    #[must_use]
    pub fn opened(&self, mut info: ConnectionInfo) -> Connection {
        let (local, now) = (self.inner.local(), Instant::now());
        let (src, dst) = (info.src_addr, info.dst_addr);
        let hbone = info.hbone_addr.take().map(String::into_boxed_str);
        let flow = local.flow(info, &self.inner.table, self.inner.started, now);
        series::add(&flow.counts.opened, 1);
        let live = Arc::new(Live::new(flow, src, dst, hbone, now));
        access::opened(&live);
        let slot = local.add(&live);
        Connection { live, local, slot, ended: false, stays: PhantomData }
    }

    /// Logs a connection that was refused before both ends were known.
    pub fn refused(&self, direction: Direction, src: SocketAddr, dst: SocketAddr, error: &str) {
        access::refused(direction, src, dst, error);
    }

    /// Counts an accepted socket for as long as the guard lives.
    #[must_use]
    pub fn socket_opened(&self, direction: Direction) -> SocketGuard {
        let local = self.inner.local();
        local.sockets(direction).fetch_add(1, Ordering::Relaxed);
        SocketGuard { local, direction }
    }

    /// Counts a denial, and records it unless its workload has caused many: who, to whom, which rule, and the nearest
    /// change that would allow it.
    pub fn denied(&self, denial: &Denial<'_>) {
        let local = self.inner.local();
        if let Some(count) = local.denials.get(denial.cause.kind() as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let admitted = local.lock().budgets.admit(denial.destination, Instant::now());
        match admitted {
            Some(left_out) => denial::record(denial, left_out),
            None => drop(local.denials_left_out.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Logs what policies said about a connection, dry-run notes included.
    pub fn verdict(&self, connection: &mesh_policy::Connection, verdict: &Verdict) {
        denial::log_verdict(connection, verdict, self.inner.policy_at_info);
    }

    /// Counts that the host name of a workload was looked up for a connection of `source`.
    pub fn looked_up(&self, source: &Workload, hostname: &str) {
        let labels = Lookup::new(source, hostname);
        let mut lookups = self.inner.lookups();
        if lookups.len() < LOOKUPS_MAX || lookups.contains_key(&labels) {
            *lookups.entry(labels).or_default() += 1;
        }
    }

    /// Forgets what is no longer used, and sums up denials that were left out of the log; never ends. For a task of
    /// the control runtime. `state` tells which workloads there still are.
    pub async fn keep_house(self, state: State) {
        let every = |period| {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let (mut summaries, mut sweeps) = (every(denial::SUMMARY_INTERVAL), every(SWEEP_INTERVAL));
        loop {
            tokio::select! {
                _ = summaries.tick() => self.summarise(),
                _ = sweeps.tick() => {
                    self.inner.sweep(&state.snapshot(), Instant::now());
                    self.settle();
                }
            }
        }
    }

    /// On a thread that ends at once, see [`Table::settle`]; rarely, as series are seldom new.
    fn settle(&self) {
        if !self.inner.table.is_unsettled() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let settle = move || {
            inner.table.settle();
        };
        if let Err(error) = std::thread::Builder::new().name("settle".to_owned()).spawn(settle) {
            tracing::debug!(%error, "labels stay where workers put them");
        }
    }

    fn summarise(&self) {
        let mut by_workload: HashMap<Arc<str>, (Arc<Workload>, u64)> = HashMap::new();
        for local in self.inner.locals() {
            for (workload, left_out) in local.lock().budgets.take_left_out() {
                by_workload.entry(Arc::clone(&workload.uid)).or_insert((workload, 0)).1 += left_out;
            }
        }
        for (workload, left_out) in by_workload.into_values() {
            denial::summary(&workload, left_out);
        }
    }
}

impl Inner {
    /// What this thread keeps for itself.
    fn local(&self) -> Arc<Local> {
        let new = || {
            let local = Arc::new(Local::default());
            locked(&self.locals).push(Arc::clone(&local));
            local
        };
        local::of_this_thread(self.id, new).unwrap_or_else(|| Arc::clone(&self.common))
    }

    fn locals(&self) -> Vec<Arc<Local>> {
        locked(&self.locals).clone()
    }

    fn lookups(&self) -> MutexGuard<'_, HashMap<Lookup, u64>> {
        locked(&self.lookups)
    }

    fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        for local in self.locals() {
            local.sweep(snapshot, self.started, now);
        }
        self.table.sweep(snapshot, now);
    }
}

/// A connection that is counted as open. Dropping it without an outcome reports that it was cut. It
/// stays on the thread that opened it, which alone counts its bytes.
#[derive(Debug)]
pub struct Connection {
    live: Arc<Live>,
    local: Arc<Local>,
    /// Place in the thread's table of live connections.
    slot: u32,
    ended: bool,
    stays: PhantomData<std::rc::Rc<()>>,
}

impl Connection {
    /// Counts bytes that went from client to server.
    pub fn received(&self, bytes: u64) {
        series::add(&self.live.flow.counts.received, bytes);
        series::add(&self.live.received, bytes);
    }

    /// Counts bytes that went from server to client.
    pub fn sent(&self, bytes: u64) {
        series::add(&self.live.flow.counts.sent, bytes);
        series::add(&self.live.sent, bytes);
    }

    /// Ends the report: one access-log line, counters closed and, after an error, failed.
    pub fn closed(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.local.remove(self.slot);
        self.live.flow.counts.ended(&outcome);
        access::closed(Arc::clone(&self.live), self.live.opened.elapsed(), outcome);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Outcome::Failed { flag: ResponseFlag::Connect, error: CLOSED_BY_DRAIN.to_owned() });
        }
    }
}

/// Keeps a socket counted as open.
#[derive(Debug)]
pub struct SocketGuard {
    local: Arc<Local>,
    direction: Direction,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.local.sockets(self.direction).fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often what is no longer used is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Pairs of a source and a host name that are counted apart; further ones are not counted.
const LOOKUPS_MAX: usize = 4096;
/// Reported for a connection whose task went away.
const CLOSED_BY_DRAIN: &str = "connection closed by drain";

#[cfg(test)]
mod tests;
