//! Serves HTTP on a listener: handshakes, versions of HTTP, and the life of each connection.
//!
//! ```text
//!  accept -> handshake -> stranger --authenticated--> known --age, drain--> closing -> closed
//!     |          |            |                         |                                ^
//!     +----------+------------+--- crowded out, too slow, too many frames ---------------+
//!                                                       +--- certificate ended, revoked --+
//! ```

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mesh_core::drain::DrainWatch;
use mesh_core::identity::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::auth::certificate::{self, ClientCertificates, Shown};
use crate::listen::guard::Guard;
use crate::listen::hurry::Hurried;
use crate::listen::{Admission, Bounds, Door, Peer};
use crate::wait::until;

/// One port. Handlers find `Arc<Peer>` and `ConnectInfo<SocketAddr>` among the extensions of a request.
#[derive(Debug)]
pub struct HttpServer {
    /// For the log.
    pub name: &'static str,
    /// Where connections come from.
    pub listener: TcpListener,
    /// TLS in front; none in plain text. Its protocols (ALPN) decide what is spoken: HTTP/1.1 unless `h2`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Judges certificates again for as long as connections are open; the handshake is the affair of `tls`.
    pub clients: Option<Arc<ClientCertificates>>,
    /// Whether plain text, which has no ALPN, is HTTP/2.
    pub plain_http2: bool,
    /// What connections may cost.
    pub bounds: Bounds,
    /// Pings on idle HTTP/2 connections, and how long an answer may take. HTTP/1.1 has no pings: its clients may take
    /// nothing of what is written to them for as long as that.
    pub keepalive: (Duration, Duration),
    /// Connections are closed in an orderly way after about this time, so that clients spread over replicas.
    pub max_age: Option<Duration>,
    /// What is served.
    pub router: Router,
}

impl HttpServer {
    /// A port for probes, scrapers and people: HTTP/1.1 in plain text, open to everybody. Nobody keeps the others out, and
    /// nobody stays.
    pub fn open(name: &'static str, listener: TcpListener, router: Router) -> Self {
        Self {
            name,
            listener,
            tls: None,
            clients: None,
            plain_http2: false,
            bounds: Bounds::open(),
            keepalive: (WRITE_WAIT, WRITE_WAIT),
            max_age: Some(OPEN_AGE),
            router,
        }
    }

    /// Serves until the drain starts, then until every connection has ended; the drain waits for that.
    pub async fn run(self, mut drain: DrainWatch) {
        let Self { name, listener, tls, clients, plain_http2, bounds, keepalive, max_age, router } = self;
        let door = Door::new(bounds);
        let acceptor = tls.map(TlsAcceptor::from);
        let port = Arc::new(Port { name, acceptor, clients, plain_http2, bounds, keepalive, max_age, router });
        loop {
            let accepted = tokio::select! {
                _ = drain.signaled() => break,
                accepted = listener.accept() => accepted,
            };
            let (tcp, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, name, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(admission) = door.admit(addr) else {
                tracing::debug!(%addr, name, "too many connections, this one is closed");
                continue;
            };
            // A panic ends the connection and not the process.
            tokio::spawn(port.clone().connection(tcp, addr, admission, drain.clone()));
        }
    }
}

/// What connections of a port share.
struct Port {
    name: &'static str,
    acceptor: Option<TlsAcceptor>,
    clients: Option<Arc<ClientCertificates>>,
    plain_http2: bool,
    bounds: Bounds,
    keepalive: (Duration, Duration),
    max_age: Option<Duration>,
    router: Router,
}

impl Port {
    async fn connection(self: Arc<Self>, tcp: TcpStream, addr: SocketAddr, admission: Admission, drain: DrainWatch) {
        // A peer that vanishes is found by keepalive; a failure to set this costs only time.
        let _ = tcp.set_nodelay(true);
        let Admission { connection: _open, place } = admission;
        let evicted = place.evicted();
        let Some(acceptor) = &self.acceptor else {
            let peer = Peer::new(addr, None, Some(place));
            return self.serve(tcp, peer, &evicted, self.plain_http2, self.life(None, drain)).await;
        };
        let handshake = tokio::time::timeout(self.bounds.handshake, acceptor.accept(tcp));
        let tls = tokio::select! {
            handshake = handshake => match handshake {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(%addr, %error, name = self.name, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%addr, name = self.name, "TLS handshake took too long"),
            },
            () = evicted.notified() => return tracing::debug!(%addr, name = self.name, "crowded out in its handshake"),
        };
        let session = tls.get_ref().1;
        let chain = session.peer_certificates();
        let identity: Option<Identity> = chain.and_then(certificate::identity);
        let shown = self.clients.as_ref().zip(chain).map(|(clients, chain)| Shown::new(clients.clone(), chain));
        let http2 = session.alpn_protocol() == Some(b"h2");
        let peer = Peer::new(addr, identity, Some(place));
        self.serve(tls, peer, &evicted, http2, self.life(shown, drain)).await;
    }

    fn life(&self, shown: Option<Shown>, drain: DrainWatch) -> Life {
        Life::new(self.bounds.patience, self.max_age, shown, drain)
    }

    async fn serve<T>(&self, io: T, peer: Arc<Peer>, evicted: &Notify, http2: bool, life: Life)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone().layer(Extension(peer.clone())).layer(Extension(ConnectInfo(peer.addr())));
        let service = TowerToHyperService::new(router);
        let builder = self.builder(http2);
        let ended = if http2 {
            let io = TokioIo::new(Guard::new(io, peer.clone()));
            let connection = builder.serve_connection(io, service);
            life.follow(connection, |one| one.graceful_shutdown(), &peer, evicted).await
        } else {
            let io = TokioIo::new(Hurried::new(io, self.keepalive.1));
            let connection = builder.serve_connection(io, service);
            life.follow(connection, |one| one.graceful_shutdown(), &peer, evicted).await
        };
        if let Err(reason) = ended {
            tracing::debug!(addr = %peer.addr(), name = self.name, reason, "connection ended");
        }
    }

    fn builder(&self, http2: bool) -> auto::Builder<TokioExecutor> {
        let builder = auto::Builder::new(TokioExecutor::new());
        // No guessing of the version: a client that says nothing at all would have no deadline.
        if !http2 {
            let mut builder = builder.http1_only();
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ).max_buf_size(HEADER_BYTES_MAX);
            return builder;
        }
        let (interval, timeout) = self.keepalive;
        let mut builder = builder.http2_only();
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX);
        builder
    }
}

/// When a connection has to end.
struct Life {
    stranger_until: Option<Instant>,
    close_at: Option<Instant>,
    shown: Option<Shown>,
    drain: DrainWatch,
}

impl Life {
    fn new(patience: Option<Duration>, max_age: Option<Duration>, shown: Option<Shown>, drain: DrainWatch) -> Self {
        let now = Instant::now();
        // Jitter, so that proxies which came together do not leave together.
        let age = max_age.map(|age| age.mul_f64(rand::random_range(AGE_JITTER)));
        Self { stranger_until: patience.map(|time| now + time), close_at: age.map(|age| now + age), shown, drain }
    }

    /// Drives a connection to its end; says why it was cut, if it was.
    async fn follow<C, E>(
        self,
        connection: C,
        close: impl Fn(Pin<&mut C>),
        peer: &Peer,
        evicted: &Notify,
    ) -> Result<(), String>
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let Self { stranger_until, close_at, shown, mut drain } = self;
        let mut refused = pin!(refused(shown));
        let mut cut = drain.clone();
        let mut connection = pin!(connection);
        let mut closing: Option<Instant> = None;
        loop {
            let stranger = !peer.is_known();
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
                () = evicted.notified(), if stranger => return Err("crowded out".to_owned()),
                () = until(stranger_until), if stranger => return Err("did not say who it is".to_owned()),
                reason = refused.as_mut() => {
                    let identity = peer.identity().map(ToString::to_string);
                    tracing::info!(addr = %peer.addr(), identity, %reason, "connection cut: its certificate no longer counts");
                    return Err(reason.to_string());
                }
                () = peer.became_known.notified(), if stranger => {}
                () = until(close_at), if closing.is_none() => {
                    close(connection.as_mut());
                    closing = Some(Instant::now() + AGE_GRACE);
                }
                _ = drain.signaled(), if closing.is_none() => {
                    close(connection.as_mut());
                    // The drain itself decides how long this may take.
                    closing = Some(Instant::now() + DRAIN_MAX);
                }
                () = until(closing), if closing.is_some() => return Err("did not end in time".to_owned()),
                () = cut.cut(), if closing.is_some() => return Err("cut by the drain".to_owned()),
            }
        }
    }
}

/// Waits until the certificate that was shown does not count any more.
async fn refused(shown: Option<Shown>) -> rustls::Error {
    match shown {
        Some(shown) => shown.refused().await,
        None => std::future::pending().await,
    }
}

/// After a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client of an open port may take nothing of an answer.
const WRITE_WAIT: Duration = Duration::from_secs(20);
/// Age of a connection to an open port: time for the largest page over a slow line.
const OPEN_AGE: Duration = Duration::from_secs(300);
/// How long the head of an HTTP/1.1 request may take.
const HEADER_READ: Duration = Duration::from_secs(5);
/// Head of an HTTP/1.1 request.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Streams on one connection: an intermediary may join the proxies of a cluster. Strangers have far fewer.
const STREAMS_MAX: u32 = 10_000;
/// Headers of one request, uncompressed: a token of 16 KiB and room for the rest.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Bytes of a body that a peer may send before anybody reads it.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Of all bodies of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes of a response that are made before the peer has taken those before them. With a thousand proxies that come at
/// once, this is what each of them costs until it has everything.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that the peer reset before we saw them.
const UNSEEN_RESETS_MAX: usize = 32;
/// Streams that we reset because of the peer's mistakes.
const LOCAL_RESETS_MAX: usize = 128;
/// How far ages are spread.
const AGE_JITTER: std::ops::Range<f64> = 0.9..1.1;
/// How long streams may go on after their connection's age is over.
const AGE_GRACE: Duration = Duration::from_secs(10);
/// Longer than any drain.
const DRAIN_MAX: Duration = Duration::from_secs(3600);
