//! The access log: one event per connection, fields in a fixed order, absent when unknown.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_telemetry::log::ACCESS;

use super::{ConnectionInfo, Direction, Outcome, Peer};

/// What a connection amounted to.
pub(super) struct Totals {
    /// Client to server.
    pub(super) received: u64,
    /// Server to client.
    pub(super) sent: u64,
    pub(super) duration: Duration,
}

/// An access-log event with the fields of a connection, followed by those of the caller.
macro_rules! event {
    ($level:ident, $info:expr, $message:literal, { $($more:tt)* }) => {{
        let info: &ConnectionInfo = $info;
        let (source, destination) = (&info.source, &info.destination);
        tracing::$level!(
            target: ACCESS,
            {
                src.addr = %info.src_addr,
                src.workload = name(source),
                src.namespace = namespace(source),
                src.identity = source.identity.as_ref().map(tracing::field::display),
                src.cluster = cluster(source),
                dst.addr = %info.dst_addr,
                dst.hbone_addr = info.hbone_addr.as_deref(),
                dst.service = info.service.as_ref().map(|service| &**service.hostname()),
                dst.workload = name(destination),
                dst.namespace = namespace(destination),
                dst.identity = destination.identity.as_ref().map(tracing::field::display),
                dst.cluster = cluster(destination),
                direction = info.direction.as_str(),
                $($more)*
            },
            $message
        );
    }};
}

pub(super) fn opened(info: &ConnectionInfo) {
    event!(debug, info, "connection opened", {});
}

pub(super) fn closed(info: &ConnectionInfo, totals: &Totals, outcome: &Outcome) {
    // From the workload's point of view: what an outbound one sends is what the server receives.
    let (bytes_sent, bytes_recv) = match info.direction {
        Direction::Outbound => (totals.received, totals.sent),
        Direction::Inbound => (totals.sent, totals.received),
    };
    let duration = format_args!("{}ms", totals.duration.as_millis());
    match outcome {
        Outcome::Complete => {
            event!(info, info, "connection complete", { bytes_sent, bytes_recv, %duration });
        }
        Outcome::Failed { error, .. } => {
            event!(error, info, "connection complete", { bytes_sent, bytes_recv, %duration, error = error.as_str() });
        }
    }
}

pub(super) fn refused(direction: Direction, src: SocketAddr, dst: SocketAddr, error: &str) {
    let direction = direction.as_str();
    tracing::warn!(target: ACCESS, { src.addr = %src, dst.addr = %dst, direction, error }, "connection failed");
}

fn name(peer: &Peer) -> Option<&str> {
    match (&peer.workload, &peer.baggage) {
        (Some(workload), _) => Some(&*workload.name),
        (None, Some(baggage)) => baggage.workload_name.as_deref(),
        (None, None) => None,
    }
    .filter(|name| !name.is_empty())
}

fn namespace(peer: &Peer) -> Option<&str> {
    match (&peer.workload, &peer.baggage) {
        (Some(workload), _) => Some(&*workload.namespace),
        (None, Some(baggage)) => baggage.namespace.as_deref(),
        (None, None) => None,
    }
    .filter(|namespace| !namespace.is_empty())
}

fn cluster(peer: &Peer) -> Option<&str> {
    match (&peer.workload, &peer.baggage) {
        (Some(workload), _) => Some(&*workload.cluster_id),
        (None, Some(baggage)) => baggage.cluster_id.as_deref(),
        (None, None) => None,
    }
    .filter(|cluster| !cluster.is_empty())
}
