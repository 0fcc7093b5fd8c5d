//! What will be told about a request when it has ended, gathered while it runs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use mesh_route::Table;
use tokio::time::Instant;

use super::connection::{Active, Connection};
use super::messages::Messages;
use crate::report::{self, End, Flags, RequestLog, Service};
use crate::snapshot::Chain;

/// One request. Reports when it is finished, or when it is dropped before: then its client has left.
pub(crate) struct Record {
    pub(crate) connection: Rc<Connection>,
    _active: Active,
    pub(crate) chain: Option<Arc<Chain>>,
    pub(crate) started: Instant,
    started_at: SystemTime,
    method: Method,
    target: PathAndQuery,
    version: Version,
    head_bytes: u64,
    authority: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    pub(crate) grpc: bool,
    pub(crate) grpc_status: Option<u32>,
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    /// The table that was in force, and the rule in it.
    pub(crate) rule: Option<(Arc<Table>, usize)>,
    /// The backend that was chosen.
    pub(crate) backend: Option<usize>,
    /// The endpoint that was chosen last.
    pub(crate) destination: Option<Arc<End>>,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) transport_failure: Option<String>,
    pub(crate) denial: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) upstream_time: Option<Duration>,
    pub(crate) body_received: u64,
    pub(crate) messages_received: u64,
    pub(crate) response_head_bytes: u64,
    pub(crate) body_sent: u64,
    pub(crate) messages_sent: Option<Messages>,
    reported: bool,
}

impl Record {
    /// At the beginning: as the client sent it.
    pub(crate) fn new<B>(
        connection: Rc<Connection>,
        chain: Option<Arc<Chain>>,
        request: &http::Request<B>,
    ) -> Box<Self> {
        let headers = request.headers();
        let of = |name: &HeaderName| headers.get(name).cloned();
        let target = request.uri().path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Box::new(Self {
            _active: connection.begin(),
            connection,
            chain,
            started: Instant::now(),
            started_at: SystemTime::now(),
            method: request.method().clone(),
            head_bytes: head_bytes(headers) + target.as_str().len() as u64 + request.method().as_str().len() as u64,
            target,
            version: request.version(),
            authority: of(&HOST),
            user_agent: of(&USER_AGENT),
            request_id: of(&X_REQUEST_ID),
            forwarded_for: of(&X_FORWARDED_FOR),
            grpc: false,
            grpc_status: None,
            status: 0,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            rule: None,
            backend: None,
            destination: None,
            upstream: None,
            transport_failure: None,
            denial: None,
            attempts: 0,
            upstream_time: None,
            body_received: 0,
            messages_received: 0,
            response_head_bytes: 0,
            body_sent: 0,
            messages_sent: None,
            reported: false,
        })
    }

    /// Host, target and id as every stage sees them.
    pub(crate) fn seen(&mut self, headers: &HeaderMap, target: &PathAndQuery, request_id: &HeaderName) {
        self.target = target.clone();
        self.authority = headers.get(HOST).cloned();
        self.request_id = headers.get(request_id).cloned();
    }

    /// When it came.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Which version of HTTP the client speaks.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The head of the response.
    pub(crate) fn response(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        self.response_head_bytes = head_bytes(headers) + STATUS_LINE_BYTES;
        if self.grpc {
            self.messages_sent = Some(Messages::default());
            self.grpc_status_of(headers);
        }
    }

    /// Takes the status from headers or trailers.
    pub(crate) fn grpc_status_of(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(super::local::GRPC_STATUS) {
            self.grpc_status = status.to_str().ok().and_then(|status| status.parse().ok());
        }
    }

    /// It has ended as it should.
    pub(crate) fn finish(&mut self) {
        self.report();
    }

    /// It has ended early.
    pub(crate) fn cut(&mut self, flags: Flags, details: impl Into<Cow<'static, str>>) {
        self.flags |= flags;
        self.details = details.into();
        self.report();
    }

    fn report(&mut self) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let connection = self.connection.clone();
        let worker = &connection.context.worker;
        let mut route = String::new();
        if worker.report.logs(self.status >= 400 || !self.flags.is_empty())
            && let Some(rule) = self.rule.as_ref().and_then(|(table, index)| table.rules().get(*index))
        {
            // Writing to a text does not fail.
            let _ = write!(route, "{}", rule.origin);
        }
        worker.report.request(&report::Request {
            peer: &connection.context.peer,
            service: self.service(),
            destination: self.destination.as_ref(),
            started: self.started_at,
            duration: self.started.elapsed(),
            status: self.status,
            grpc: self.grpc,
            grpc_status: self.grpc_status,
            flags: self.flags,
            details: Cow::Borrowed(&self.details),
            request_bytes: self.head_bytes + self.body_received,
            response_bytes: self.response_head_bytes + self.body_sent,
            request_messages: self.messages_received,
            response_messages: self.messages_sent.as_ref().map_or(0, Messages::count),
            log: self.log(&route),
        });
    }

    fn log<'a>(&'a self, route: &'a str) -> RequestLog<'a> {
        RequestLog {
            method: self.method.as_str(),
            path: self.target.as_str(),
            protocol: protocol(self.version),
            authority: text(self.authority.as_ref()).unwrap_or_default(),
            user_agent: text(self.user_agent.as_ref()),
            request_id: text(self.request_id.as_ref()),
            forwarded_for: text(self.forwarded_for.as_ref()),
            body_received: self.body_received,
            body_sent: self.body_sent,
            upstream_time: self.upstream_time,
            upstream: self.upstream,
            upstream_local: None,
            cluster: self.cluster(),
            route,
            transport_failure: self.transport_failure.as_deref(),
            attempts: self.attempts,
            denial: self.denial.as_deref(),
        }
    }

    /// The one that was routed to, or the one that was called.
    fn service(&self) -> Option<&Arc<Service>> {
        let chain = self.chain.as_ref()?;
        let routed = self.backend.and_then(|index| chain.backend(index)).map(|backend| &backend.service);
        routed.or_else(|| chain.service())
    }

    /// Name of the pool that was chosen.
    pub(crate) fn cluster(&self) -> &str {
        let backend = self.backend.and_then(|index| self.chain.as_ref()?.backend(index));
        backend.map_or("", |backend| backend.cluster.name())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.reported {
            self.connection.given_up();
            self.cut(Flags::DC, "downstream_remote_disconnect");
        }
    }
}

/// A request that never became one: the server has answered it by itself.
pub(crate) fn report_malformed(connection: &Rc<Connection>, status: u16, detail: &str) {
    let version = if connection.is_http2() { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut request = http::Request::new(());
    *request.version_mut() = version;
    let mut record = Record::new(connection.clone(), connection.context.chain.current(), &request);
    record.status = status;
    let codec = if connection.is_http2() { "http2.protocol_error" } else { "http1.codec_error" };
    record.cut(Flags::DPE, format!("{codec}|{detail}"));
}

/// As the access log writes it.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

/// As HTTP/1 would write them.
fn head_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + FIELD_BYTES) as u64).sum()
}

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Colon, space and line end.
const FIELD_BYTES: usize = 4;
/// `HTTP/1.1 200 OK` and both line ends.
const STATUS_LINE_BYTES: u64 = 19;
