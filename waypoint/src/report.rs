//! What is told about traffic: metrics with bounded labels, and the access log.
//!
//! Each worker counts in its own table ([`Local`]) of series that all workers share ([`Report`]): a lookup without a
//! lock, then atomics.

mod access;
mod ends;
mod export;
mod flags;
mod labels;
mod local;
mod series;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use ends::{End, Service};
pub use flags::Flags;
pub use local::{Connection, Local, Opening};
pub use series::{Logged, Report, Reporter, UnknownLogged};

use crate::connection::PeerInfo;

/// A request that has ended, as its client saw it. Borrowed: it is only read while it is reported.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who called whom.
    pub peer: &'a PeerInfo,
    /// The service that was called or routed to.
    pub service: Option<&'a Arc<Service>>,
    /// The endpoint that was picked last.
    pub destination: Option<&'a Arc<End>>,
    /// When it began.
    pub started: SystemTime,
    /// First byte of the request to the last of the response.
    pub duration: Duration,
    /// Status of the response; 0: the client left before.
    pub status: u16,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// Of trailers or headers.
    pub grpc_status: Option<u32>,
    /// What went wrong.
    pub flags: Flags,
    /// `via_upstream`, or why not.
    pub details: Cow<'a, str>,
    /// Received from the client, headers included.
    pub request_bytes: u64,
    /// Sent to the client, headers included.
    pub response_bytes: u64,
    /// gRPC messages.
    pub request_messages: u64,
    /// gRPC messages.
    pub response_messages: u64,
    /// For the access log.
    pub log: RequestLog<'a>,
}

/// What only the access log tells.
#[derive(Debug, Clone, Default)]
pub struct RequestLog<'a> {
    /// Method.
    pub method: &'a str,
    /// As every stage sees it, query included; as it was sent where the request was refused for it.
    pub path: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// Host of the request.
    pub authority: &'a str,
    /// `user-agent`.
    pub user_agent: Option<&'a str>,
    /// `x-request-id`.
    pub request_id: Option<&'a str>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<&'a str>,
    /// Bytes of the request's body.
    pub body_received: u64,
    /// Bytes of the response's body.
    pub body_sent: u64,
    /// From the request's last byte to the response's first, as the upstream needs it.
    pub upstream_time: Option<Duration>,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
    /// Our own address towards it.
    pub upstream_local: Option<SocketAddr>,
    /// Which backend: `outbound|80|v1|reviews.default.svc.cluster.local`.
    pub cluster: &'a str,
    /// Which rule.
    pub route: &'a str,
    /// What the transport to the upstream failed with.
    pub transport_failure: Option<&'a str>,
    /// How often it was sent upstream.
    pub attempts: u32,
    /// Who was denied by what, and what would have been allowed.
    pub denial: Option<&'a str>,
}

#[cfg(test)]
mod tests;
