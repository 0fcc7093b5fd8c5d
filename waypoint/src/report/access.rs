//! The access log: one line per request or connection, with the field names that collectors know. Lines are put together
//! by the log's writer thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::Identity;
use mesh_telemetry::log::{self, ACCESS, Line, Record};
use tracing::Level;

use super::local::Connection;
use super::{Flags, Request};
use crate::connection::PeerInfo;
use crate::limits::LOG_TEXT_BYTES_MAX;

/// What both kinds of lines tell.
struct Common {
    started: SystemTime,
    duration: Duration,
    flags: Flags,
    details: Box<str>,
    received: u64,
    sent: u64,
    upstream: Option<SocketAddr>,
    upstream_cluster: Box<str>,
    upstream_local: Option<SocketAddr>,
    transport_failure: Option<Box<str>>,
    local: Box<str>,
    remote: SocketAddr,
    server_name: Option<Arc<str>>,
    route: Box<str>,
    source: Option<Identity>,
    destination: Option<Identity>,
}

struct RequestLine {
    common: Common,
    method: Box<str>,
    path: Box<str>,
    protocol: &'static str,
    status: u16,
    grpc_status: Option<u32>,
    upstream_time: Option<Duration>,
    forwarded_for: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    request_id: Option<Box<str>>,
    authority: Box<str>,
    attempts: u32,
    denial: Option<Box<str>>,
}

/// Logs a request that has ended.
pub(super) fn request(request: &Request<'_>, failed: bool) {
    let level = if failed { Level::WARN } else { Level::INFO };
    if !enabled(level) {
        return;
    }
    let text = |text: &str| -> Box<str> { cut(text).into() };
    let optional = |value: Option<&str>| value.map(text);
    let log = &request.log;
    let common = Common {
        flags: request.flags,
        details: text(&request.details),
        received: log.body_received,
        sent: log.body_sent,
        upstream: log.upstream,
        upstream_cluster: text(log.cluster),
        upstream_local: log.upstream_local,
        transport_failure: optional(log.transport_failure),
        route: text(log.route),
        destination: request.destination.and_then(|end| end.identity.clone()),
        ..Common::of(request.peer, request.started, request.duration)
    };
    let line = RequestLine {
        common,
        method: text(log.method),
        path: text(log.path),
        protocol: log.protocol,
        status: request.status,
        grpc_status: request.grpc_status,
        upstream_time: log.upstream_time,
        forwarded_for: optional(log.forwarded_for),
        user_agent: optional(log.user_agent),
        request_id: optional(log.request_id),
        authority: text(log.authority),
        attempts: log.attempts,
        denial: optional(log.denial),
    };
    log::record(level, ACCESS, "request complete", Arc::new(line));
}

/// Logs a connection of bytes that has ended.
pub(super) fn connection(connection: &Connection, flags: Flags, details: &str) {
    let level = if flags.is_empty() { Level::INFO } else { Level::WARN };
    record(connection, (level, "connection complete"), flags, details);
}

/// Logs a connection of bytes that came to nothing, whatever its flags.
pub(super) fn refused(connection: &Connection, flags: Flags, details: &str) {
    record(connection, (Level::WARN, "connection failed"), flags, details);
}

fn record(connection: &Connection, (level, message): (Level, &'static str), flags: Flags, details: &str) {
    if !enabled(level) {
        return;
    }
    let opening = &connection.opening;
    let service = opening.service.as_ref();
    let common = Common {
        flags,
        details: cut(details).into(),
        received: connection.received,
        sent: connection.sent,
        upstream: opening.upstream,
        upstream_cluster: service.map_or("", |service| &*service.hostname).into(),
        transport_failure: opening.failure.as_deref().map(|text| cut(text).into()),
        route: cut(&opening.route).into(),
        destination: opening.destination.as_ref().and_then(|end| end.identity.clone()),
        ..Common::of(&opening.peer, connection.at, connection.duration())
    };
    log::record(level, ACCESS, message, Arc::new(common));
}

impl Common {
    fn of(peer: &PeerInfo, started: SystemTime, duration: Duration) -> Self {
        Self {
            started,
            duration,
            flags: Flags::NONE,
            details: Box::default(),
            received: 0,
            sent: 0,
            upstream: None,
            upstream_cluster: Box::default(),
            upstream_local: None,
            transport_failure: None,
            local: peer.destination.to_string().into(),
            remote: peer.source_address,
            server_name: peer.sni.clone().or_else(|| peer.tls.as_ref().and_then(|tls| tls.sni.clone())),
            route: Box::default(),
            source: peer.source_identity.clone(),
            destination: None,
        }
    }

    fn begin(&self, line: &mut Line<'_>) {
        let time = jiff::Timestamp::try_from(self.started).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        line.text("start_time", &format!("{time:.3}"));
        line.text("route_name", or_dash(&self.route));
    }

    fn rest(&self, line: &mut Line<'_>) {
        line.text("response_flags", &self.flags.to_string());
        line.text("response_code_details", or_dash(&self.details));
        line.number("bytes_received", self.received);
        line.number("bytes_sent", self.sent);
        line.number("duration", millis(self.duration));
        line.known("upstream_transport_failure_reason", self.transport_failure.as_deref());
        if let Some(upstream) = self.upstream {
            line.addr("upstream_host", upstream);
        }
        line.text("upstream_cluster", or_dash(&self.upstream_cluster));
        if let Some(local) = self.upstream_local {
            line.addr("upstream_local_address", local);
        }
        line.text("downstream_local_address", &self.local);
        line.addr("downstream_remote_address", self.remote);
        line.known("requested_server_name", self.server_name.as_deref());
        if let Some(source) = &self.source {
            line.shown("downstream_peer", source);
        }
        if let Some(destination) = &self.destination {
            line.shown("upstream_peer", destination);
        }
    }
}

impl Record for Common {
    fn fields(&self, line: &mut Line<'_>) {
        self.begin(line);
        self.rest(line);
    }
}

impl Record for RequestLine {
    fn fields(&self, line: &mut Line<'_>) {
        self.common.begin(line);
        line.text("method", or_dash(&self.method));
        line.text("path", or_dash(&self.path));
        line.text("protocol", or_dash(self.protocol));
        line.number("response_code", self.status.into());
        if let Some(status) = self.grpc_status {
            line.number("grpc_status", status.into());
        }
        if let Some(time) = self.upstream_time {
            line.number("upstream_service_time", millis(time));
        }
        line.known("x_forwarded_for", self.forwarded_for.as_deref());
        line.known("user_agent", self.user_agent.as_deref());
        line.known("request_id", self.request_id.as_deref());
        line.text("authority", or_dash(&self.authority));
        if self.attempts > 1 {
            line.number("attempts", self.attempts.into());
        }
        line.known("denial", self.denial.as_deref());
        self.common.rest(line);
    }
}

fn enabled(level: Level) -> bool {
    if level == Level::WARN {
        tracing::enabled!(target: ACCESS, Level::WARN)
    } else {
        tracing::enabled!(target: ACCESS, Level::INFO)
    }
}

/// Texts of clients have no bound of their own.
fn cut(text: &str) -> &str {
    let end = (0..=LOG_TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
