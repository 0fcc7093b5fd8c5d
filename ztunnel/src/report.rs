//! What is told about connections: metrics, one access-log line each, and a record of each denial.
//!
//! A connection is reported through a [`Connection`], made once both ends are known; a connection
//! refused before that changes no counter and is only logged, see [`Report::refused`].

mod access;
mod denial;
mod flow;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mesh_core::Identity;
use mesh_telemetry::metrics::{Counter, Family, Gauge, Registry};

pub use denial::Denial;
use flow::{Flow, Flows};

use crate::state::{Service, Workload};

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
}

impl ResponseFlag {
    const ALL: [Self; 6] = [
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
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
        }
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
#[derive(Clone, Debug)]
pub struct Report {
    flows: Arc<Flows>,
    sockets: Family<Vec<(&'static str, &'static str)>, Gauge>,
    denials: Arc<denial::Denials>,
    policy_at_info: bool,
}

impl Report {
    /// Registers the metrics. `policy_at_info`: log policy decisions at info rather than debug.
    #[must_use]
    pub fn new(registry: &Registry, policy_at_info: bool) -> Self {
        let sockets = Family::default();
        registry.register("istio_tcp_sockets_open", "Accepted sockets that are open", sockets.clone());
        Self {
            flows: Arc::new(Flows::new(registry)),
            sockets,
            denials: Arc::new(denial::Denials::new(registry)),
            policy_at_info,
        }
    }

    /// Counts a connection as opened and follows it to its end.
    #[must_use]
    pub fn opened(&self, info: ConnectionInfo) -> Connection {
        let flow = self.flows.of(&info);
        flow.opened.inc();
        access::opened(&info);
        Connection {
            received: flow.received.clone(),
            sent: flow.sent.clone(),
            flow,
            info,
            started: Instant::now(),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            outcome: None,
        }
    }

    /// Logs a connection that was refused before both ends were known.
    pub fn refused(&self, direction: Direction, src: SocketAddr, dst: SocketAddr, error: &str) {
        access::refused(direction, src, dst, error);
    }

    /// Counts an accepted socket for as long as the guard lives.
    #[must_use]
    pub fn socket_opened(&self, direction: Direction) -> SocketGuard {
        let gauge = self.sockets.get_or_create_owned(&vec![("reporter", direction.reporter())]);
        gauge.inc();
        SocketGuard(gauge)
    }

    /// Records a denial: who, to whom, which rule, and the nearest change that would allow it.
    pub fn denied(&self, denial: &Denial<'_>) {
        self.denials.record(denial);
    }

    /// Logs what policies said about a connection, dry-run notes included.
    pub fn verdict(&self, verdict: &mesh_policy::Verdict) {
        denial::log_verdict(verdict, self.policy_at_info);
    }
}

/// A connection that is counted as open. Dropping it without an outcome reports that it was cut.
#[derive(Debug)]
pub struct Connection {
    info: ConnectionInfo,
    flow: Arc<Flow>,
    received: Counter,
    sent: Counter,
    started: Instant,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    outcome: Option<Outcome>,
}

impl Connection {
    /// Counts bytes that went from client to server.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
        self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that went from server to client.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was said about the connection when it was opened.
    #[must_use]
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Ends the report: one access-log line, counters closed and, after an error, failed.
    pub fn closed(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let cut = || Outcome::Failed { flag: ResponseFlag::Connect, error: CLOSED_BY_DRAIN.to_owned() };
        let outcome = self.outcome.take().unwrap_or_else(cut);
        self.flow.ended(&outcome);
        let totals = access::Totals {
            received: self.bytes_received.load(Ordering::Relaxed),
            sent: self.bytes_sent.load(Ordering::Relaxed),
            duration: self.started.elapsed(),
        };
        access::closed(&self.info, &totals, &outcome);
    }
}

/// Keeps a socket counted as open.
#[derive(Debug)]
pub struct SocketGuard(Gauge);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Reported for a connection whose task went away.
const CLOSED_BY_DRAIN: &str = "connection closed by drain";

#[cfg(test)]
mod tests;
