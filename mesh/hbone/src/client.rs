//! The dialling side of a tunnel connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use mesh_identity::PeerChain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::early::FirstBytes;
use crate::error::{HboneError, OpenError};
use crate::keepalive::Keepalive;
use crate::settings::{
    CLIENT_MAX_HEADER_BYTES, EARLY_TRUST, HANDSHAKE_BUDGET, RESPONSE_BUDGET, Settings, UNREAD_FRAME_OVERHEAD_BYTES,
};
use crate::stream::H2Stream;

/// A handle on one HTTP/2 connection; [`Driver`] does its work. The connection ends when the handle and all streams are
/// dropped.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    active: AtomicUsize,
    ended: AtomicBool,
    last_used: std::sync::Mutex<Option<Instant>>,
    /// When the peer last showed that it serves requests.
    last_answer: std::sync::Mutex<Option<Instant>>,
}

/// A stream's place among those of its connection, freed on drop.
pub(crate) struct StreamPermit(Arc<State>);

/// How much a connection is used. Unlike [`Connection`] it does not keep it open.
#[derive(Clone)]
pub(crate) struct Usage(Arc<State>);

/// Must be polled for the connection to move. Resolves when it ended.
pub struct Driver<T: AsyncRead + AsyncWrite + Unpin> {
    h2: h2::client::Connection<T, Bytes>,
    keepalive: Keepalive,
    state: Arc<State>,
}

/// What a peer answered to a CONNECT that it accepted.
#[derive(Debug)]
pub struct Opened {
    /// The tunnelled connection.
    pub stream: H2Stream,
    /// Headers of the response, `baggage` of the destination among them.
    pub headers: HeaderMap,
    /// The server's certificates, where the pool tracks them.
    pub server: Option<Arc<PeerChain>>,
}

/// Exchanges prefaces and settings over `io`.
///
/// # Errors
/// The peer does not speak HTTP/2, or not in time.
pub async fn handshake<T>(io: T, settings: &Settings) -> Result<(Connection, Driver<T>), HboneError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(CLIENT_MAX_HEADER_BYTES)
        .enable_push(false)
        .initial_max_send_streams(settings.max_streams_per_connection)
        .data_frame_budget(UNREAD_FRAME_OVERHEAD_BYTES)
        .max_send_buffer_size(settings.stream_window as usize);
    let handshake = tokio::time::timeout(HANDSHAKE_BUDGET, builder.handshake(io));
    let (send, mut h2) = handshake.await.map_err(|_| HboneError::HandshakeTimeout(HANDSHAKE_BUDGET))??;
    let keepalive = Keepalive::new(h2.ping_pong());
    let state = Arc::new(State::default());
    Ok((Connection { send, state: state.clone() }, Driver { h2, keepalive, state }))
}

impl Connection {
    /// Takes a place for one stream if the connection is alive and has fewer than `max` (or than its peer allows).
    pub(crate) fn try_reserve(&mut self, max: usize) -> Option<StreamPermit> {
        let limit = max.min(self.send.current_max_send_streams());
        (self.is_usable() && self.active() < limit).then(|| self.reserve())
    }

    /// Takes a place whatever the limit; the request may have to wait in line.
    pub(crate) fn reserve(&self) -> StreamPermit {
        self.state.active.fetch_add(1, Ordering::Relaxed);
        StreamPermit(self.state.clone())
    }

    /// Whether new streams can be opened: neither broken nor told to go away.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.state.ended.load(Ordering::Relaxed) && !matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn active(&self) -> usize {
        self.state.active.load(Ordering::Relaxed)
    }

    /// A view on the connection's use that does not keep it open.
    pub(crate) fn usage(&self) -> Usage {
        Usage(self.state.clone())
    }

    /// Sends a CONNECT, with `early` bytes behind it as soon as there are some, and waits for the answer.
    ///
    /// # Errors
    /// [`OpenError`]; with [`Retry::Safe`] if the peer has certainly not acted on the request.
    pub(crate) async fn open<F>(
        &self,
        permit: StreamPermit,
        request: Request<()>,
        early: &mut FirstBytes<F>,
    ) -> Result<Opened, (OpenError, Retry)>
    where
        F: FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>,
    {
        let authority = request.uri().to_string();
        // Bytes that were taken for an earlier attempt must not get lost.
        let trusted = self.state.answered_lately() || !early.is_empty();
        let mut sent = false;
        let exchange = async {
            // Nothing is sent before the connection is ready, so a failure up to here is always safe to retry.
            let mut send = self.send.clone().ready().await.map_err(|e| (e, Retry::Safe))?;
            let (mut response, mut body) = send.send_request(request, false).map_err(|e| (e, Retry::Safe))?;
            let answered = poll_fn(|cx| {
                if trusted
                    && !sent
                    && let Poll::Ready(bytes) = early.poll(cx)
                {
                    sent = true;
                    // Few bytes: they may wait in line if the windows are used up. A stream that has ended answers so.
                    let _ = body.send_data(bytes, false);
                }
                Pin::new(&mut response).poll(cx)
            });
            let response = answered.await.map_err(|e| {
                let retry = retry_after(&e, sent);
                (e, retry)
            })?;
            Ok((response, body))
        };
        let answered = tokio::time::timeout(RESPONSE_BUDGET, exchange)
            .await
            .map_err(|_| (OpenError::TimedOut { authority: authority.clone(), budget: RESPONSE_BUDGET }, Retry::No))?;
        let (response, send) = answered.map_err(|(error, retry): (h2::Error, Retry)| {
            (OpenError::Broken { authority: authority.clone(), reason: error.to_string() }, retry)
        })?;
        self.state.answered();
        let (head, recv) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err((OpenError::Refused { status: head.status, authority }, Retry::No));
        }
        Ok(Opened { stream: H2Stream::new(send, recv, Some(permit)), headers: head.headers, server: None })
    }
}

impl Usage {
    /// Open streams, those reserved included.
    pub(crate) fn active(&self) -> usize {
        self.0.active.load(Ordering::Relaxed)
    }

    /// How long no stream has been open; zero while one is.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.active() > 0 {
            return Duration::ZERO;
        }
        self.0.last_used().map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(crate) fn is_of(&self, connection: &Connection) -> bool {
        Arc::ptr_eq(&self.0, &connection.state)
    }
}

/// Whether a failed request may be sent again on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The peer has not acted on it.
    Safe,
    /// The peer may have acted on it, or has decided.
    No,
}

/// If no byte of the application was sent ahead, a connection that broke may be replaced as well; else the destination
/// may have seen the bytes.
///
/// # Source
/// RFC 9113 section 8.7: GOAWAY with a lower stream id and REFUSED_STREAM mean that the request was not processed.
fn retry_after(error: &h2::Error, sent_ahead: bool) -> Retry {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if refused || error.is_go_away() || (error.is_io() && !sent_ahead) { Retry::Safe } else { Retry::No }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Result<(), HboneError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ended = match this.keepalive.poll_dead(cx) {
            Poll::Ready(dead) => Poll::Ready(Err(dead)),
            Poll::Pending => Pin::new(&mut this.h2).poll(cx).map_err(HboneError::from),
        };
        if ended.is_ready() {
            this.state.ended.store(true, Ordering::Relaxed);
        }
        ended
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Driver<T> {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// The peer has just answered.
    fn answered(&self) {
        *self.last_answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
    }

    /// A tunnel that was silent for longer may be dead without our knowing. Nothing is sent ahead on it, so that a
    /// request can be made again elsewhere.
    fn answered_lately(&self) -> bool {
        let last = *self.last_answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < EARLY_TRUST)
    }

    fn last_used(&self) -> Option<Instant> {
        *self.last_used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.last_used.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        }
    }
}
