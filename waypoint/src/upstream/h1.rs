//! HTTP/1.1: connections of one worker to one endpoint, one request at a time on each.
//!
//! No task belongs to a connection: whoever waits for the response does its work, so that a request costs one write, one
//! read and no switch of tasks. What happens on idle connections is found out when they are taken, and once a second.

mod connection;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::accounting::{Open, Pending, overflow};
use super::body::RequestBody;
use super::cluster::Cluster;
use super::connect::{Connector, Purpose};
use super::error::UpstreamError;
use super::host::{Host, HostState};
use super::io::UpstreamIo;
use crate::limits::{UPSTREAM_IDLE_MAX, UPSTREAM_WAITING_MAX};
use connection::{Connection, is_torn};

/// Connections to one endpoint.
pub(super) struct Pool {
    host: Arc<HostState>,
    /// The one used last is at the end, and is used first: the others can grow old.
    idle: RefCell<Vec<Idle>>,
    /// Idle, busy, and being made.
    open: Cell<u32>,
    waiting: RefCell<VecDeque<oneshot::Sender<Told>>>,
}

type Idle = Box<Connection>;

/// A connection in use. Dropped, it closes, and is reset if it was given up in the middle of a request.
pub(super) struct Lease {
    connection: Option<Box<Connection>>,
    pool: Rc<Pool>,
    cluster: std::sync::Weak<Cluster>,
    /// Shared with the body of the request while there is more of it to send.
    sending: Option<Rc<()>>,
    /// A request was begun.
    begun: bool,
}

/// What one that waits is told: here is a connection, or try again. If it has left, the next is told.
struct Told {
    lease: Option<Lease>,
    /// Until it was heard.
    pool: Option<Rc<Pool>>,
}

/// A connection that is being made counts already.
struct Making<'a>(Option<&'a Rc<Pool>>);

/// Why a request was not answered.
pub(super) struct Unanswered {
    pub(super) error: UpstreamError,
    /// Not a byte of it was written: it may be sent again elsewhere.
    pub(super) unsent: Option<Request<RequestBody>>,
}

impl Pool {
    pub(super) fn new(host: Arc<HostState>) -> Rc<Self> {
        Rc::new(Self { host, idle: RefCell::default(), open: Cell::new(0), waiting: RefCell::default() })
    }

    /// An idle connection, or a new one; waits for one where the limit is reached.
    pub(super) async fn acquire(
        self: &Rc<Self>,
        connector: &Connector,
        cluster: &Arc<Cluster>,
        host: &Host,
        purpose: &Purpose<'_>,
    ) -> Result<Lease, UpstreamError> {
        let by_host = cluster.policy.tls.as_ref().is_some_and(super::tls::ClientTls::is_by_host);
        let name = purpose.server_name.filter(|_| by_host);
        let mut pending = None;
        loop {
            if let Some(connection) = self.take_idle(name) {
                return Ok(self.lease(connection, cluster));
            }
            if pending.is_none() {
                pending = Some(Pending::new(&cluster.ledger)?);
            }
            // An endpoint without any connection gets one: it could wait for ever otherwise.
            let open = match self.open.get() {
                0 => Some(Open::anyway(&cluster.ledger)),
                _ => Open::within_limit(&cluster.ledger),
            };
            let Some(open) = open else {
                if self.is_crowded() {
                    cluster.ledger.stats.rq_pending_overflow.add();
                    return Err(overflow(&cluster.ledger, "number of waiting requests"));
                }
                // One that was made for another host is no use, and makes room when it closes.
                if let Some(mut lease) = self.wait().await.filter(|lease| lease.is_for(name)) {
                    lease.cluster = Arc::downgrade(cluster);
                    return Ok(lease);
                }
                continue;
            };
            return Box::pin(self.make(connector, cluster, host, purpose, open)).await;
        }
    }

    async fn make(
        self: &Rc<Self>,
        connector: &Connector,
        cluster: &Arc<Cluster>,
        host: &Host,
        purpose: &Purpose<'_>,
        open: Open,
    ) -> Result<Lease, UpstreamError> {
        let making = Making::new(self);
        let io = connector.connect(cluster, host, purpose, open).await?;
        let local = io.local();
        let (sender, driver) = http1::Builder::new()
            // Header fields: the library's own limit of 100 costs nothing, any other one an allocation per response.
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| UpstreamError::Connect { address: host.address(), reason: error.to_string().into() })?;
        let by_host = cluster.policy.tls.as_ref().is_some_and(super::tls::ClientTls::is_by_host);
        let connection = Connection {
            sender,
            driver,
            ended: false,
            torn: false,
            name: purpose.server_name.filter(|_| by_host).map(Arc::from),
            served: 0,
            // A header tells of one client only, and a gateway takes one request.
            reusable: cluster.policy.proxy_protocol.is_none()
                && !matches!(host.endpoint().transport, crate::endpoints::Transport::Nested { .. }),
            idle_since: cluster.shared.now(),
            made: cluster.shared.now(),
            local,
        };
        making.made();
        Ok(self.lease(Box::new(connection), cluster))
    }

    fn lease(self: &Rc<Self>, connection: Idle, cluster: &Arc<Cluster>) -> Lease {
        Lease {
            connection: Some(connection),
            pool: self.clone(),
            cluster: Arc::downgrade(cluster),
            sending: None,
            begun: false,
        }
    }

    fn take_idle(self: &Rc<Self>, name: Option<&str>) -> Option<Idle> {
        loop {
            let mut idle = self.idle.borrow_mut();
            let at = idle.iter().rposition(|connection| connection.name.as_deref() == name)?;
            let mut connection = idle.remove(at);
            drop(idle);
            if connection.is_free() {
                return Some(connection);
            }
            self.closed();
        }
    }

    /// As many wait as may.
    fn is_crowded(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= UPSTREAM_WAITING_MAX {
            // Those that have left are still in line.
            waiting.retain(|waiter| !waiter.is_closed());
        }
        waiting.len() >= UPSTREAM_WAITING_MAX
    }

    async fn wait(self: &Rc<Self>) -> Option<Lease> {
        // One that nobody can use now makes room for one that can be used.
        let useless = self.idle.borrow_mut().pop();
        if useless.is_some() {
            drop(useless);
            self.open.set(self.open.get().saturating_sub(1));
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        receiver.await.ok().and_then(Told::heard)
    }

    /// A connection of ours is no more.
    fn closed(self: &Rc<Self>) {
        self.open.set(self.open.get().saturating_sub(1));
        self.tell_next();
    }

    /// There may be room for another connection.
    fn tell_next(self: &Rc<Self>) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { return };
            match waiter.send(Told { lease: None, pool: Some(self.clone()) }) {
                Ok(()) => return,
                Err(told) => drop(told.heard()),
            }
        }
    }

    fn put(self: &Rc<Self>, connection: Idle) {
        let cluster = std::sync::Weak::new();
        let mut lease =
            Lease { connection: Some(connection), pool: self.clone(), cluster, sending: None, begun: false };
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { break };
            match waiter.send(Told { lease: Some(lease), pool: Some(self.clone()) }) {
                Ok(()) => return,
                Err(told) => match told.heard() {
                    Some(back) => lease = back,
                    None => return,
                },
            }
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < UPSTREAM_IDLE_MAX {
            idle.extend(lease.connection.take());
        }
        // One too many closes with its lease.
        drop(idle);
    }

    /// Closes what has been idle for too long, what the peer has closed, and everything idle when `all`. Tells how many
    /// were too long.
    pub(super) fn sweep(self: &Rc<Self>, now: Duration, idle_max: Duration, all: bool) -> u64 {
        let mut old = 0;
        let mut gone = 0;
        self.idle.borrow_mut().retain_mut(|connection| {
            let expired = now.saturating_sub(connection.idle_since) >= idle_max;
            old += u64::from(expired);
            let keep = !expired && !all && connection.is_free();
            gone += u32::from(!keep);
            keep
        });
        for _ in 0..gone {
            self.closed();
        }
        old
    }

    pub(super) fn is_unused(&self) -> bool {
        self.open.get() == 0
    }
}

impl Told {
    fn heard(mut self) -> Option<Lease> {
        self.pool = None;
        self.lease.take()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // A connection that is lost this way tells by itself.
        if let (Some(pool), None) = (self.pool.take(), &self.lease) {
            pool.tell_next();
        }
    }
}

impl<'a> Making<'a> {
    fn new(pool: &'a Rc<Pool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Some(pool))
    }

    fn made(mut self) {
        self.0 = None;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.0 {
            pool.closed();
        }
    }
}

impl Lease {
    /// Our own address.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.connection.as_ref().and_then(|connection| connection.local)
    }

    /// Whether it leads to this host, where those for different hosts differ.
    fn is_for(&self, name: Option<&str>) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.name.as_deref() == name)
    }

    /// Whether it has served requests before: it may have died of old age.
    pub(super) fn is_used(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.served > 0)
    }

    /// Whether the body of the request has not been sent to its end.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.as_ref().is_some_and(|token| Rc::strong_count(token) > 1)
    }

    /// Whether the connection has nothing more to do for anybody.
    pub(super) fn has_ended(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.ended)
    }

    pub(super) fn poll_driver(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.poll_driver(cx);
        }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Cancel safety
    /// The connection is reset.
    pub(super) async fn send(
        mut self,
        mut request: Request<RequestBody>,
        address: SocketAddr,
        requests_max: Option<u32>,
    ) -> Result<(Response<Incoming>, Self), Unanswered> {
        let Some(connection) = &mut self.connection else {
            let error = UpstreamError::Closed { address, reason: "no connection".into(), wrote_request: false };
            return Err(Unanswered { error, unsent: Some(request) });
        };
        connection.served += 1;
        if requests_max.is_some_and(|max| connection.served >= max) {
            connection.reusable = false;
            // What becomes something else is never used again anyway.
            if !request.headers().contains_key(UPGRADE) {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        self.sending = request.body_mut().track();
        self.begun = true;
        let mut answer = pin!(connection.sender.try_send_request(request));
        let answered = poll_fn(|cx| {
            connection.poll_driver(cx);
            answer.as_mut().poll(cx)
        });
        match answered.await {
            Ok(response) => Ok((response, self)),
            Err(mut failed) => {
                let unsent = failed.take_message();
                let error = failed.into_error();
                connection.torn |= is_torn(&error);
                let error = unanswered(address, &error, unsent.is_none());
                Err(Unanswered { error, unsent })
            }
        }
    }

    /// What runs on the connection from now on is not HTTP any more.
    pub(super) async fn upgrade(mut self) -> Option<UpstreamIo> {
        let mut connection = self.connection.take()?;
        self.pool.closed();
        if !connection.ended {
            let done = poll_fn(|cx| connection.driver.poll_without_shutdown(cx)).await;
            done.ok()?;
        }
        let parts = connection.driver.into_parts();
        Some(parts.io.into_inner().with_early(parts.read_buf))
    }

    /// Back to the pool, if another request may be sent on it.
    pub(super) fn give_back(mut self, cx: &mut Context<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.poll_driver(cx);
        let usable = !connection.ended && connection.sender.is_ready() && connection.reusable;
        let cluster = self.cluster.upgrade();
        let young = |cluster: &Arc<Cluster>| {
            let now = cluster.shared.now();
            connection.idle_since = now;
            cluster.policy.limits.connection_age.is_none_or(|age| now.saturating_sub(connection.made) < age)
        };
        let wanted = !self.pool.host.removed.load(Ordering::Relaxed);
        if usable && wanted && cluster.as_ref().is_some_and(young) {
            self.pool.put(connection);
        } else {
            drop(connection);
            self.pool.closed();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            if self.begun {
                connection.give_up();
            } else {
                drop(connection);
            }
            self.pool.closed();
        }
    }
}

/// As HTTP/1.1 has it: the path alone, and the authority as `host`.
pub(super) fn shape(request: &mut Request<RequestBody>) {
    *request.version_mut() = Version::HTTP_11;
    let uri = std::mem::take(request.uri_mut());
    let parts = uri.into_parts();
    if let Some(authority) = parts.authority
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes()))
    {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = parts.path_and_query.map(Uri::from).unwrap_or_default();
    // The library takes it that these have no body, and would leave it out.
    let bodiless = matches!(*request.method(), Method::GET | Method::HEAD);
    let body = request.body();
    let of_unknown_length = !body.is_end_stream() && body.size_hint().exact().is_none();
    if bodiless && of_unknown_length && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

pub(super) fn broken_body(address: SocketAddr, error: &hyper::Error) -> UpstreamError {
    unanswered(address, error, true)
}

fn unanswered(address: SocketAddr, error: &hyper::Error, wrote_request: bool) -> UpstreamError {
    let reason: Arc<str> = words(error).into();
    if is_torn(error) {
        return UpstreamError::Request { reason };
    }
    if error.is_parse() {
        return UpstreamError::Protocol { address, reason };
    }
    UpstreamError::Closed { address, reason, wrote_request }
}

/// The cause tells more than the error.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Bytes that are read ahead of who wants them, and the largest head of a response.
const READ_BUFFER_BYTES_MAX: usize = 128 << 10;
