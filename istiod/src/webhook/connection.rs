//! Clients: how many, how long, and how much they may send that is no review.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::drain::DrainWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Webhook;
use super::body::CONNECTION_UNITS;
use crate::listen::{Bounds, Door};

/// Times that tests shorten.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection without a request is closed after this time. API servers open a new one when they need it.
    pub idle: Duration,
    /// The head of an HTTP/1 request must come within this time.
    pub head: Duration,
    /// A connection is closed after this time, so that API servers spread over replicas.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), head: Duration::from_secs(5), age: Duration::from_secs(600) }
    }
}

/// Serves connections until the drain starts, then lets running reviews finish.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    webhook: Arc<Webhook>,
    limits: Limits,
    mut drain: DrainWatch,
) {
    let (door, acceptor) = (Door::new(BOUNDS), TlsAcceptor::from(Arc::new(tls)));
    loop {
        let accepted = tokio::select! {
            _ = drain.signaled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a webhook connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admission) = door.admit(peer) else {
            tracing::debug!(%peer, "webhook connection refused: too many are open");
            continue;
        };
        let connection = Connection { webhook: webhook.clone(), meter: Arc::default(), limits, drain: drain.clone() };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let evicted = admission.place.evicted();
            let served = async {
                match tokio::time::timeout(BOUNDS.handshake, acceptor.accept(tcp)).await {
                    Ok(Ok(tls)) => connection.run(tls).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            };
            tokio::select! {
                () = served => {}
                () = evicted.notified() => tracing::debug!(%peer, "webhook connection cut: another source needs the place"),
            }
            drop(admission);
        });
    }
}

/// What one client has sent, and is waiting for.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Bytes that it may still send besides bodies; bodies give back what they took.
    credit: AtomicI64,
    /// Requests without answer yet.
    running: AtomicU32,
    /// Milliseconds after `since` of the last request's begin or end.
    active_ms: AtomicU32,
    /// What its bodies may take without asking.
    bodies: Arc<Semaphore>,
    since: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            credit: AtomicI64::new(CREDIT_BYTES),
            running: AtomicU32::new(0),
            active_ms: AtomicU32::new(0),
            bodies: Arc::new(Semaphore::new(CONNECTION_UNITS)),
            since: Instant::now(),
        }
    }
}

impl Meter {
    /// Part of a body arrived where it was wanted.
    pub(crate) fn delivered(&self, bytes: usize) {
        self.credit.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn bodies(&self) -> Arc<Semaphore> {
        self.bodies.clone()
    }

    fn received(&self, bytes: usize) {
        self.credit.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.credit.load(Ordering::Relaxed) < 0
    }

    fn began(&self) -> bool {
        self.touch();
        self.running.fetch_add(1, Ordering::Relaxed) < REQUESTS_MAX
    }

    fn ended(&self, answered: bool) {
        if answered {
            // Heads and frames of an honest request fit into this.
            self.credit.fetch_add(REQUEST_BYTES, Ordering::Relaxed);
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let now = u32::try_from(self.since.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.active_ms.store(now, Ordering::Relaxed);
    }

    /// When the connection is to be closed, unless something happens.
    fn deadline(&self, limits: Limits) -> Instant {
        let end = self.since + limits.age;
        if self.running.load(Ordering::Relaxed) > 0 {
            return end;
        }
        end.min(self.since + Duration::from_millis(self.active_ms.load(Ordering::Relaxed).into()) + limits.idle)
    }
}

/// One client.
struct Connection {
    webhook: Arc<Webhook>,
    meter: Arc<Meter>,
    limits: Limits,
    drain: DrainWatch,
}

impl Connection {
    async fn run(self, tls: TlsStream<TcpStream>) {
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(Metered { io: tls, meter: self.meter.clone() });
        let (webhook, meter) = (self.webhook.clone(), self.meter.clone());
        let service = service_fn(move |request| handle(webhook.clone(), meter.clone(), request));
        if is_http2 {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEAD_BYTES_MAX)
                .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
                .max_local_error_reset_streams(ERRORS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .max_send_buf_size(SEND_BUFFER_BYTES);
            self.drive(builder.serve_connection(io, service), |connection| connection.graceful_shutdown()).await;
        } else {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.head)
                .max_buf_size(HTTP1_BUFFER_BYTES)
                .half_close(false);
            self.drive(builder.serve_connection(io, service), |connection| connection.graceful_shutdown()).await;
        }
    }

    /// Runs a connection to its end, which comes when it is idle, old, or the process stops.
    async fn drive<C, E>(mut self, connection: C, shut_down: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let mut connection = std::pin::pin!(connection);
        loop {
            let deadline = self.meter.deadline(self.limits);
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "webhook connection ended");
                    }
                    return;
                }
                _ = self.drain.signaled() => break,
                () = tokio::time::sleep_until(deadline) => if self.meter.deadline(self.limits) <= Instant::now() { break },
            }
        }
        shut_down(connection.as_mut());
        let _ = tokio::time::timeout(GRACE, connection).await;
    }
}

async fn handle(
    webhook: Arc<Webhook>,
    meter: Arc<Meter>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let mut running = Running { meter: meter.clone(), answered: false };
    let response = if meter.began() {
        webhook.answer(request, &meter).await
    } else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    };
    running.answered = response.status() == StatusCode::OK;
    Ok(response)
}

/// A request that is running; one that its client takes back ends here too.
struct Running {
    meter: Arc<Meter>,
    answered: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.meter.ended(self.answered);
    }
}

/// Counts what a client sends; one that has spent its credit is cut.
struct Metered<T> {
    io: T,
    meter: Arc<Meter>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.is_spent() {
            return Poll::Ready(Err(io::Error::other("the client sent too much that is no review")));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        self.meter.received(out.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// API servers do not show who they are: every client stays a stranger. A cluster has few of them.
const BOUNDS: Bounds = Bounds {
    connections: 288,
    strangers: 256,
    strangers_per_source: 64,
    newest_first: false,
    handshake: Duration::from_secs(5),
    patience: None,
};
/// After a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests at the same time on one connection. Clients take 100 for granted before they have been told.
const STREAMS_MAX: u32 = 100;
/// As [`STREAMS_MAX`], with those that were reset and are still being ended.
const REQUESTS_MAX: u32 = 200;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Bytes that HTTP/1 buffers, the head included.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Streams that were reset before they were looked at; more end the connection.
const RESETS_PENDING_MAX: usize = 16;
/// Streams that were reset for a mistake of the client; more end the connection.
const ERRORS_MAX: usize = 64;
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Bytes a client may send that are not part of a body which is wanted: frames, heads, refused bodies. Covers a full
/// window that is still on its way.
const CREDIT_BYTES: i64 = 3 << 20;
/// What an answered request adds to that.
const REQUEST_BYTES: i64 = 4 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What running requests get when a connection is to end.
const GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn credit_is_for_what_is_no_body() {
        let meter = Meter::default();
        let all = usize::try_from(CREDIT_BYTES).unwrap();
        for _ in 0..10 {
            meter.received(all);
            meter.delivered(all);
        }
        assert!(!meter.is_spent(), "bodies that are wanted are free");
        meter.received(all);
        assert!(!meter.is_spent());
        meter.received(1);
        assert!(meter.is_spent());
        meter.began();
        meter.ended(true);
        assert!(!meter.is_spent(), "an answered request earns some");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_and_old_connections_end() {
        let (meter, limits) = (Meter::default(), Limits::default());
        assert_eq!(meter.deadline(limits), meter.since + limits.idle);
        tokio::time::advance(Duration::from_secs(30)).await;
        meter.began();
        assert_eq!(meter.deadline(limits), meter.since + limits.age, "not while a request runs");
        meter.ended(true);
        assert_eq!(meter.deadline(limits), meter.since + Duration::from_secs(30) + limits.idle);
    }
}
