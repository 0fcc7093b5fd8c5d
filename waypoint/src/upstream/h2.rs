//! HTTP/2: connections of one worker to one endpoint, many requests at a time on each.
//!
//! One task a connection moves frames. A request costs none, unless its body goes on after the response has begun.

mod receive;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::header::HOST;
use http::{Request, Response, Version};
use mesh_hbone::settings::UNREAD_FRAME_OVERHEAD_BYTES;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::accounting::{Open, Pending, overflow};
use super::body::RequestBody;
use super::cluster::Cluster;
use super::connect::{Connector, Purpose};
use super::error::UpstreamError;
use super::h1::Unanswered;
use super::host::{Host, HostState};
use super::io::UpstreamIo;
use crate::limits::UPSTREAM_WAITING_MAX;
pub(super) use receive::Receiving;
use upload::{Upload, UploadError};

/// Connections to one endpoint.
pub(super) struct Pool {
    host: Arc<HostState>,
    connections: RefCell<Vec<Rc<Connection>>>,
    dialing: Cell<bool>,
    /// A connection was made, or failed, or has room again.
    changed: Notify,
    /// Requests that wait for that.
    waiting: Cell<usize>,
}

/// A request that waits for a change.
struct Waiting<'a>(&'a Pool);

struct Connection {
    /// Never sends itself: requests do, with copies.
    send: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
    name: Option<Arc<str>>,
    reusable: bool,
    made: Duration,
    served: Cell<u32>,
    served_max: Option<u32>,
    local: Option<SocketAddr>,
}

struct State {
    active: Cell<usize>,
    ended: Cell<bool>,
    idle_since: Cell<Instant>,
}

/// A request's place on a connection, free again when it is dropped.
pub(super) struct Place {
    connection: Rc<Connection>,
    pool: Rc<Pool>,
}

impl Pool {
    pub(super) fn new(host: Arc<HostState>) -> Rc<Self> {
        Rc::new(Self {
            host,
            connections: RefCell::default(),
            dialing: Cell::new(false),
            changed: Notify::new(),
            waiting: Cell::new(0),
        })
    }

    /// A place on the connection that has least to do, or on a new one.
    pub(super) async fn acquire(
        self: &Rc<Self>,
        connector: &Connector,
        cluster: &Arc<Cluster>,
        host: &Host,
        purpose: &Purpose<'_>,
        drivers: &RefCell<JoinSet<()>>,
    ) -> Result<Place, UpstreamError> {
        let by_host = cluster.policy.tls.as_ref().is_some_and(super::tls::ClientTls::is_by_host);
        let name = purpose.server_name.filter(|_| by_host);
        let mut pending = None;
        loop {
            if let Some(place) = self.least_busy(cluster, name) {
                return Ok(place);
            }
            if pending.is_none() {
                pending = Some(Pending::new(&cluster.ledger)?);
            }
            if self.dialing.get() {
                self.wait(cluster).await?;
                continue;
            }
            let open = match self.connections.borrow().len() {
                0 => Some(Open::anyway(&cluster.ledger)),
                _ => Open::within_limit(&cluster.ledger),
            };
            let Some(open) = open else {
                self.wait(cluster).await?;
                continue;
            };
            return Box::pin(self.make(connector, cluster, host, purpose, open, drivers)).await;
        }
    }

    /// Waits for something to change.
    async fn wait(&self, cluster: &Cluster) -> Result<(), UpstreamError> {
        if self.waiting.get() >= UPSTREAM_WAITING_MAX {
            cluster.ledger.stats.rq_pending_overflow.add();
            return Err(overflow(&cluster.ledger, "number of waiting requests"));
        }
        let _waiting = Waiting::new(self);
        self.changed.notified().await;
        Ok(())
    }

    /// Tells one that waits, or all where not everybody can use every connection.
    fn tell(&self) {
        if self.connections.borrow().iter().any(|connection| connection.name.is_some()) {
            self.changed.notify_waiters();
        } else {
            self.changed.notify_one();
        }
    }

    async fn make(
        self: &Rc<Self>,
        connector: &Connector,
        cluster: &Arc<Cluster>,
        host: &Host,
        purpose: &Purpose<'_>,
        open: Open,
        drivers: &RefCell<JoinSet<()>>,
    ) -> Result<Place, UpstreamError> {
        let _turn = Turn::new(self);
        let io = connector.connect(cluster, host, purpose, open).await?;
        let local = io.local();
        let (send, connection) = handshake(io).await.map_err(|error| UpstreamError::Connect {
            address: host.address(),
            reason: format!("HTTP/2 error: {error}").into(),
        })?;
        let state =
            Rc::new(State { active: Cell::new(0), ended: Cell::new(false), idle_since: Cell::new(Instant::now()) });
        let keepalive = cluster.policy.limits.http2_keepalive;
        let mut drivers = drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(drive(connection, keepalive, state.clone(), Rc::downgrade(self)));
        let by_host = cluster.policy.tls.as_ref().is_some_and(super::tls::ClientTls::is_by_host);
        let connection = Rc::new(Connection {
            send: RefCell::new(send),
            state,
            name: purpose.server_name.filter(|_| by_host).map(Arc::from),
            reusable: cluster.policy.proxy_protocol.is_none()
                && !matches!(host.endpoint().transport, crate::endpoints::Transport::Nested { .. }),
            made: cluster.shared.now(),
            served: Cell::new(0),
            served_max: cluster.policy.limits.requests_per_connection,
            local,
        });
        self.connections.borrow_mut().push(connection.clone());
        Ok(Place::new(connection, self))
    }

    fn least_busy(self: &Rc<Self>, cluster: &Cluster, name: Option<&str>) -> Option<Place> {
        let limits = &cluster.policy.limits;
        let connections = self.connections.borrow();
        let fits = |connection: &&Rc<Connection>| {
            let most = limits.streams_per_connection.unwrap_or(usize::MAX).min(STREAMS_MAX);
            let most = connection.streams_max().min(most);
            let worn = connection.is_worn();
            let fresh = connection.reusable || connection.served.get() == 0;
            !worn && fresh && connection.name.as_deref() == name && connection.state.active.get() < most
        };
        let alive = connections.iter().filter(|connection| connection.is_alive());
        let found = alive.filter(fits).min_by_key(|connection| connection.state.active.get())?;
        Some(Place::new(found.clone(), self))
    }

    /// Lets go of what is broken, worn, or has been idle for too long; of everything idle when `all`. A connection that
    /// is let go of ends with its last stream. Tells how many were idle for too long.
    pub(super) fn sweep(&self, cluster: &Cluster, now: Duration, all: bool) -> u64 {
        let limits = &cluster.policy.limits;
        let mut old = 0;
        self.connections.borrow_mut().retain(|connection| {
            let idle = connection.state.active.get() == 0;
            let expired = idle && connection.state.idle_since.get().elapsed() >= limits.http_idle;
            old += u64::from(expired);
            let worn = connection.is_worn()
                || limits.connection_age.is_some_and(|age| now.saturating_sub(connection.made) >= age);
            let unwanted = expired || worn || (all && idle);
            !unwanted && connection.is_alive()
        });
        old
    }

    pub(super) fn is_unused(&self) -> bool {
        self.connections.borrow().is_empty() && !self.dialing.get()
    }
}

impl Connection {
    /// Has served as many requests as it may.
    fn is_worn(&self) -> bool {
        self.served_max.is_some_and(|max| self.served.get() >= max)
    }

    /// As the peer says.
    fn streams_max(&self) -> usize {
        self.send.borrow().current_max_send_streams()
    }

    /// Neither broken nor told to go away.
    fn is_alive(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.state.ended.get() && !matches!(self.send.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

impl Place {
    fn new(connection: Rc<Connection>, pool: &Rc<Pool>) -> Self {
        connection.state.active.set(connection.state.active.get() + 1);
        connection.served.set(connection.served.get().saturating_add(1));
        Self { connection, pool: pool.clone() }
    }

    /// Our own address.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    /// Whether it has served requests before.
    pub(super) fn is_used(&self) -> bool {
        self.connection.served.get() > 1
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Cancel safety
    /// The stream is reset.
    pub(super) async fn send(
        self,
        request: Request<RequestBody>,
        address: SocketAddr,
        drivers: &RefCell<JoinSet<()>>,
    ) -> Result<Response<Receiving>, Unanswered> {
        let mut send = self.connection.send.borrow().clone();
        if let Err(error) = poll_fn(|cx| send.poll_ready(cx)).await {
            let error = UpstreamError::Closed { address, reason: error.to_string().into(), wrote_request: false };
            return Err(Unanswered { error, unsent: Some(request) });
        }
        let (head, body) = request.into_parts();
        let ends = http_body::Body::is_end_stream(&body);
        let failed = |error: h2::Error| Unanswered { error: unanswered(address, &error), unsent: None };
        // Refused by the library: nothing was written.
        let refused = |error: h2::Error| {
            let error = match unanswered(address, &error) {
                UpstreamError::Closed { address, reason, .. } => {
                    UpstreamError::Closed { address, reason, wrote_request: false }
                }
                other => other,
            };
            Unanswered { error, unsent: None }
        };
        let (response, stream) = send.send_request(Request::from_parts(head, ()), ends).map_err(refused)?;
        let mut response = pin!(response);
        let mut upload = (!ends).then(|| Upload::new(body, stream));
        let answered = poll_fn(|cx| {
            if let Some(running) = &mut upload
                && let Poll::Ready(done) = Pin::new(running).poll(cx)
            {
                upload = None;
                if let Err(UploadError(error)) = done {
                    let reason = error.to_string().into();
                    return Poll::Ready(Err(Unanswered { error: UpstreamError::Request { reason }, unsent: None }));
                }
            }
            response.as_mut().poll(cx).map_err(failed)
        });
        let response = answered.await?;
        let rest = upload.map(|upload| {
            drivers.borrow_mut().spawn_local(async move {
                // The client is told by the end of its response.
                let _ = upload.await;
            })
        });
        Ok(response.map(|stream| Receiving::new(stream, rest, self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.active.set(state.active.get().saturating_sub(1));
        if state.active.get() == 0 {
            state.idle_since.set(Instant::now());
            let connection = &self.connection;
            if self.pool.host.removed.load(Ordering::Relaxed) || !connection.reusable || connection.is_worn() {
                let mut connections = self.pool.connections.borrow_mut();
                connections.retain(|connection| !Rc::ptr_eq(connection, &self.connection));
            }
        }
        self.pool.tell();
    }
}

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// The right to dial, given back on drop.
struct Turn<'a>(&'a Pool);

impl<'a> Turn<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.dialing.set(true);
        Self(pool)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(false);
        self.0.changed.notify_waiters();
    }
}

type Http2 = h2::client::Connection<UpstreamIo, Bytes>;

async fn handshake(io: UpstreamIo) -> Result<(SendRequest<Bytes>, Http2), h2::Error> {
    h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(RESPONSE_HEADER_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .data_frame_budget(UNREAD_FRAME_OVERHEAD_BYTES)
        .enable_push(false)
        .handshake(io)
        .await
}

async fn drive(
    mut connection: Http2,
    keepalive: Option<(Duration, Duration)>,
    state: Rc<State>,
    pool: std::rc::Weak<Pool>,
) {
    drive_to_end(&mut connection, keepalive).await;
    state.ended.set(true);
    // Makes room under the limit before those that wait for it look.
    drop(connection);
    if let Some(pool) = pool.upgrade() {
        pool.connections.borrow_mut().retain(|connection| !connection.state.ended.get());
        pool.changed.notify_waiters();
    }
}

async fn drive_to_end(connection: &mut Http2, keepalive: Option<(Duration, Duration)>) {
    let mut pings = match keepalive {
        Some((interval, timeout)) => connection.ping_pong().map(|pings| Pings::new(pings, interval, timeout)),
        None => None,
    };
    let ended = poll_fn(|cx| {
        if let Some(pings) = &mut pings
            && pings.poll_dead(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        Pin::new(&mut *connection).poll(cx).map(Some)
    });
    match ended.await {
        Some(Err(error)) => tracing::debug!(%error, "upstream connection lost"),
        Some(Ok(())) => {}
        None => tracing::debug!("upstream does not answer pings"),
    }
}

/// Finds out whether the peer is still there.
struct Pings {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    timeout: Duration,
    waiting: bool,
}

impl Pings {
    fn new(pings: PingPong, interval: Duration, timeout: Duration) -> Self {
        Self { pings, timer: Box::pin(tokio::time::sleep(interval)), interval, timeout, waiting: false }
    }

    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting && self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // One that cannot be sent means that the connection ends by itself.
            if self.waiting || self.pings.send_ping(Ping::opaque()).is_err() {
                return if self.waiting { Poll::Ready(()) } else { Poll::Pending };
            }
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.timeout);
        }
    }
}

/// As HTTP/2 has it: the authority is in the URL.
pub(super) fn shape(request: &mut Request<RequestBody>) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
}

/// # Source
/// RFC 9113 section 8.7: GOAWAY with a lower stream id and REFUSED_STREAM mean that the request was not processed.
pub(super) fn unanswered(address: SocketAddr, error: &h2::Error) -> UpstreamError {
    let reason: Arc<str> = error.to_string().into();
    if error.is_go_away() && error.is_remote() {
        return UpstreamError::Reset { address, reason, refused: true };
    }
    if error.is_reset() && error.is_remote() {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        return UpstreamError::Reset { address, reason, refused };
    }
    if error.is_io() {
        return UpstreamError::Closed { address, reason, wrote_request: true };
    }
    UpstreamError::Protocol { address, reason }
}

/// What a stream may send before its reader takes it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// As much as all streams together may send: those that nobody reads do not stall the others.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// Requests at once on one connection, however many the peer would take.
const STREAMS_MAX: usize = 100;
/// Fewer headers and copies for large bodies.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Header bytes of a response.
const RESPONSE_HEADER_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Until the peer says how many it takes.
const STREAMS_BEFORE_SETTINGS: usize = 100;
