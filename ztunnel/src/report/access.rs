//! The access log: one line per connection, fields in a fixed order, absent when unknown. Lines are
//! put together by the log's writer thread.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mesh_telemetry::log::{self, ACCESS, Line, Record};
use tracing::Level;

use super::flow::{End, Flow};
use super::{Direction, Outcome};

/// A connection, for as long as something is to be told about it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) flow: Arc<Flow>,
    pub(super) src_addr: SocketAddr,
    pub(super) dst_addr: SocketAddr,
    pub(super) hbone_addr: Option<Box<str>>,
    pub(super) opened: Instant,
    /// Client to server. Only the connection's own thread adds.
    pub(super) received: AtomicU64,
    /// Server to client.
    pub(super) sent: AtomicU64,
    ended: OnceLock<Ended>,
}

/// How a connection ended.
#[derive(Debug)]
struct Ended {
    millis: u64,
    error: Option<Box<str>>,
}

impl Live {
    pub(super) fn new(
        flow: Arc<Flow>,
        src_addr: SocketAddr,
        dst_addr: SocketAddr,
        hbone_addr: Option<Box<str>>,
        opened: Instant,
    ) -> Self {
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { flow, src_addr, dst_addr, hbone_addr, opened, received, sent, ended: OnceLock::new() }
    }

    /// From the workload's point of view: what an outbound one sends is what the server receives.
    pub(super) fn sent_and_received(&self) -> (u64, u64) {
        let (received, sent) = (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed));
        match self.flow.direction {
            Direction::Outbound => (received, sent),
            Direction::Inbound => (sent, received),
        }
    }

    fn ends(&self, line: &mut Line<'_>) {
        let Flow { source, destination, service, direction, mutual_tls, .. } = &*self.flow;
        line.addr("src.addr", self.src_addr);
        line.known("src.workload", source.name());
        line.known("src.namespace", source.namespace());
        identity(line, "src.identity", source, *mutual_tls);
        line.known("src.cluster", source.cluster());
        line.addr("dst.addr", self.dst_addr);
        line.known("dst.hbone_addr", self.hbone_addr.as_deref());
        line.known("dst.service", service.as_ref().map(|service| &**service.hostname()));
        line.known("dst.workload", destination.name());
        line.known("dst.namespace", destination.namespace());
        identity(line, "dst.identity", destination, *mutual_tls);
        line.known("dst.cluster", destination.cluster());
        line.text("direction", direction.as_str());
    }
}

fn identity(line: &mut Line<'_>, name: &str, end: &End, mutual_tls: bool) {
    if let Some(identity) = end.identity.as_ref().filter(|_| mutual_tls) {
        line.shown(name, identity);
    }
}

impl Record for Live {
    fn fields(&self, line: &mut Line<'_>) {
        self.ends(line);
        let (sent, received) = self.sent_and_received();
        line.number("bytes_sent", sent);
        line.number("bytes_recv", received);
        if let Some(Ended { millis, error }) = self.ended.get() {
            line.millis("duration", *millis);
            line.known("error", error.as_deref());
        }
    }
}

/// A connection that has just been opened.
struct Opened(Arc<Live>);

impl Record for Opened {
    fn fields(&self, line: &mut Line<'_>) {
        self.0.ends(line);
    }
}

pub(super) fn opened(live: &Arc<Live>) {
    if tracing::enabled!(target: ACCESS, Level::DEBUG) {
        log::record(Level::DEBUG, ACCESS, "connection opened", Arc::new(Opened(Arc::clone(live))));
    }
}

pub(super) fn closed(live: Arc<Live>, duration: Duration, outcome: Outcome) {
    let (enabled, level, error) = match outcome {
        Outcome::Complete => (tracing::enabled!(target: ACCESS, Level::INFO), Level::INFO, None),
        Outcome::Failed { error, .. } => {
            (tracing::enabled!(target: ACCESS, Level::ERROR), Level::ERROR, Some(error.into_boxed_str()))
        }
    };
    if enabled {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // It ends once.
        let _ = live.ended.set(Ended { millis, error });
        log::record(level, ACCESS, "connection complete", live);
    }
}

/// A connection that was refused before both ends were known.
struct Refused {
    direction: Direction,
    src_addr: SocketAddr,
    dst_addr: SocketAddr,
    error: Box<str>,
}

impl Record for Refused {
    fn fields(&self, line: &mut Line<'_>) {
        line.addr("src.addr", self.src_addr);
        line.addr("dst.addr", self.dst_addr);
        line.text("direction", self.direction.as_str());
        line.text("error", &self.error);
    }
}

pub(super) fn refused(direction: Direction, src_addr: SocketAddr, dst_addr: SocketAddr, error: &str) {
    if tracing::enabled!(target: ACCESS, Level::WARN) {
        let refused = Refused { direction, src_addr, dst_addr, error: error.into() };
        log::record(Level::WARN, ACCESS, "connection failed", Arc::new(refused));
    }
}
