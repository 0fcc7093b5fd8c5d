//! The accepting side of a tunnel connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{FlowControl, Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use mesh_core::bucket::Bucket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::baggage::BAGGAGE;
use crate::error::HboneError;
use crate::guarded::{Guarded, Verdict};
use crate::hygiene::{Budget, Flood, Speaker};
use crate::keepalive::Keepalive;
use crate::settings::{
    HANDSHAKE_BUDGET, SERVER_MAX_HEADER_BYTES, SERVER_MAX_STREAMS, SERVER_SEND_BUFFER_BYTES, Settings,
    UNREAD_FRAME_OVERHEAD_BYTES,
};
use crate::stream::H2Stream;

/// What the library has found.
type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// One HTTP/2 connection from a client. Its streams live only while somebody calls [`ServerConnection::next`].
pub struct ServerConnection<T> {
    h2: h2::server::Connection<Guarded<T>, Bytes>,
    keepalive: Keepalive,
    verdict: Verdict,
    /// What is left of the requests that are no CONNECT.
    wrong: Bucket,
    began: Instant,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// Exchanges prefaces and settings.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, or not in time, or floods us.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, HboneError> {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.frame_size)
            .max_header_list_size(SERVER_MAX_HEADER_BYTES)
            .max_concurrent_streams(SERVER_MAX_STREAMS)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .max_local_error_reset_streams(Some(STREAM_ERRORS))
            .data_frame_budget(UNREAD_FRAME_OVERHEAD_BYTES)
            .max_send_buffer_size(SERVER_SEND_BUFFER_BYTES);
        let io = Guarded::server(io);
        let verdict = io.verdict();
        let mut handshake = builder.handshake(io);
        let handshake = poll_fn(|cx| match (Pin::new(&mut handshake).poll(cx), verdict.flood()) {
            (Poll::Pending, Some(flood)) => Poll::Ready(Err(flood.into())),
            (done, _) => done.map_err(HboneError::from),
        });
        let handshake = tokio::time::timeout(HANDSHAKE_BUDGET, handshake);
        let mut h2 = handshake.await.map_err(|_| HboneError::HandshakeTimeout(HANDSHAKE_BUDGET))??;
        let keepalive = Keepalive::new(h2.ping_pong());
        let wrong = Bucket::full(Budget::WrongRequest.allowance(Speaker::Tunnel));
        verdict.allow_requests(REQUESTS_AT_ONCE);
        Ok(Self { h2, keepalive, verdict, wrong, began: Instant::now() })
    }

    /// Drives the connection until the next request, or until it ends: `None` when it ended in an orderly way.
    ///
    /// # Errors
    /// The connection is dead, with all its streams.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<ConnectRequest, HboneError>> {
        poll_fn(|cx| {
            if let Poll::Ready(dead) = self.keepalive.poll_dead(cx) {
                return Poll::Ready(Some(Err(dead)));
            }
            let accepted = self.poll_accept(cx);
            let flood = match &accepted {
                Poll::Pending => self.verdict.flood(),
                Poll::Ready(Some(Ok((request, _)))) if request.method() != Method::CONNECT => self.count_wrong(),
                Poll::Ready(_) => None,
            };
            if let Some(flood) = flood {
                // Tells a peer that listens; what cannot be sent at once is not sent.
                self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = self.h2.poll_accept(cx);
                return Poll::Ready(Some(Err(flood.into())));
            }
            accepted.map(|accepted| Some(accepted?.map(ConnectRequest::new).map_err(HboneError::from)))
        })
        .await
    }

    /// The next request. No more are read while there is one that was read before.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, h2::Error>>> {
        loop {
            let accepted = self.h2.poll_accept(cx);
            if accepted.is_ready() || !self.verdict.is_shut() {
                return accepted;
            }
            // Ends: each time round hands out bytes, and those cost the task's turn.
            self.verdict.allow_requests(REQUESTS_AT_ONCE);
        }
    }

    /// Counts a request that no tunnel makes.
    fn count_wrong(&mut self) -> Option<Flood> {
        let (budget, began) = (Budget::WrongRequest, self.began);
        let allowance = budget.allowance(Speaker::Tunnel);
        let enough = self.wrong.take(allowance, || began.elapsed());
        (!enough).then_some(Flood::TooMany { budget, allowance })
    }

    /// Sends GOAWAY: no new streams; those open go on. [`ServerConnection::next`] ends with the last of them.
    pub fn graceful_shutdown(&mut self) {
        self.h2.graceful_shutdown();
    }

    /// Ends all streams and the connection with GOAWAY(NO_ERROR); call [`ServerConnection::next`] once more to send it.
    pub fn abrupt_shutdown(&mut self) {
        self.h2.abrupt_shutdown(Reason::NO_ERROR);
    }
}

/// What a stream's peer has sent and nobody has passed on yet.
#[derive(Debug)]
pub struct Unread(FlowControl);

impl Unread {
    /// Bytes of now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.used_capacity()
    }
}

/// A request that waits for its answer. Dropped unanswered, its stream is reset.
pub struct ConnectRequest {
    method: Method,
    authority: Option<String>,
    headers: HeaderMap,
    body: RecvStream,
    respond: SendResponse<Bytes>,
}

impl ConnectRequest {
    fn new((request, respond): Accepted) -> Self {
        let (head, body) = request.into_parts();
        Self {
            method: head.method,
            authority: head.uri.authority().map(|authority| authority.as_str().to_owned()),
            headers: head.headers,
            body,
            respond,
        }
    }

    /// Anything but CONNECT is an error of the peer.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Where the client wants to go, as written: `ip:port`, `[ip]:port`, `host:port` or nonsense.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Tells how much of the stream waits to be read, for as long as it lives. To be dropped with it: the stream is only
    /// reset when nobody has a hand on it any more.
    pub fn unread(&mut self) -> Unread {
        Unread(self.body.flow_control().clone())
    }

    /// Answers 200; `baggage` describes our workload.
    ///
    /// # Errors
    /// The client is gone.
    pub fn accept(mut self, baggage: Option<HeaderValue>) -> Result<H2Stream, HboneError> {
        let mut response = Response::new(());
        if let Some(baggage) = baggage {
            response.headers_mut().insert(BAGGAGE, baggage);
        }
        let send = self.respond.send_response(response, false)?;
        Ok(H2Stream::new(send, self.body, None))
    }

    /// Answers with an error; other streams of the connection are not affected. A client that is gone does not mind.
    pub fn reject(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        if let Err(error) = self.respond.send_response(response, true) {
            tracing::debug!(%error, %status, "client left before it was refused");
        }
    }

    /// Ready when the client has given up waiting.
    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(|_| ())
    }
}

impl std::fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("method", &self.method)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// Requests that are read before the first of them is looked at.
const REQUESTS_AT_ONCE: u32 = 8;
/// Streams that we reset and remember, so that frames of theirs which were under way are no error.
const REMEMBERED_RESETS: usize = 50;
/// Streams that the peer may reset before we have seen their requests.
const UNSEEN_RESETS: usize = 20;
/// Streams that we may have to reset for the peer's mistakes, over the life of a connection.
const STREAM_ERRORS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[tokio::test]
    async fn requests_are_looked_at_before_more_are_read_and_none_is_forgotten() {
        const REQUESTS: usize = 50;
        let (here, there) = tokio::io::duplex(1 << 20);
        let client = tokio::spawn(async move {
            let (mut send, connection) = h2::client::handshake(there).await.unwrap();
            let mut answers = Vec::new();
            for _ in 0..REQUESTS {
                let connect = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap();
                answers.push(send.send_request(connect, true).unwrap().0);
            }
            drop(send);
            let connection = tokio::spawn(connection);
            for answer in answers {
                assert_eq!(answer.await.unwrap().status(), StatusCode::FORBIDDEN);
            }
            connection.await.unwrap().unwrap();
        });
        let mut server = ServerConnection::handshake(here, &Settings::default()).await.unwrap();
        let mut seen = 0;
        let mut shut = 0;
        while let Some(request) = server.next().await {
            shut += usize::from(server.verdict.is_shut());
            request.unwrap().reject(StatusCode::FORBIDDEN);
            seen += 1;
        }
        client.await.unwrap();
        assert_eq!(seen, REQUESTS);
        assert!(shut >= REQUESTS / 2, "more was read while {} requests waited", REQUESTS - shut);
    }
}
