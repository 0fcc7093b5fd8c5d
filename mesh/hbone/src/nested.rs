//! A tunnel inside a stream of another tunnel: how a destination on another network is reached through its gateway.
//!
//! The gateway ends the outer tunnel and passes the bytes of its stream on. The inner one is between this proxy and the
//! destination: TLS with the identities of both, HTTP/2 with a single stream. It serves one connection and is not pooled.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request};
use mesh_core::Identity;
use mesh_identity::{PeerChain, Reporter, WorkloadCert, peer_identity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::client::TlsStream;

use crate::client::{self, Driver, Usage};
use crate::early;
use crate::error::{HboneError, OpenError};
use crate::settings::{HANDSHAKE_BUDGET, Settings};
use crate::stream::H2Stream;
use crate::tls::{self, TlsError};

/// Why there is no inner tunnel. The outer one is fine.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NestedError {
    /// TLS failed: wrong identity, untrusted chain, or the gateway found nobody to pass the bytes on to. Never retried.
    #[error("TLS with {authority} behind the gateway failed: {reason}")]
    Tls {
        /// What was asked for.
        authority: String,
        /// The verifier's or the peer's words.
        reason: String,
    },
    /// A certificate of the destination was taken back by its issuer. Never retried.
    #[error("TLS with {authority} behind the gateway failed: {reason}")]
    Revoked {
        /// What was asked for.
        authority: String,
        /// Which one.
        reason: String,
    },
    /// The peer speaks TLS but not HTTP/2.
    #[error("HTTP/2 with {authority} behind the gateway failed: {reason}")]
    Http2 {
        /// What was asked for.
        authority: String,
        /// What the library said.
        reason: String,
    },
    /// The destination refused, or left.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl NestedError {
    fn of_tls(authority: String, error: TlsError) -> Self {
        match error {
            TlsError { reason, revoked: true } => Self::Revoked { authority, reason },
            TlsError { reason, revoked: false } => Self::Tls { authority, reason },
        }
    }
}

/// An accepted connection behind a gateway.
pub struct Nested {
    /// The tunnelled connection.
    pub stream: H2Stream,
    /// Headers of the destination's response, its `baggage` among them.
    pub headers: HeaderMap,
    /// Who the destination proved to be.
    pub peer: Option<Identity>,
    /// The destination's certificates, where they may be taken back.
    pub server: Option<Arc<PeerChain>>,
    /// Does the inner tunnel's work.
    pub driver: NestedDriver,
}

/// Must be polled for the inner tunnel to move. Once the stream is dropped, says farewell to the peer (GOAWAY, end of
/// TLS, end of the outer stream), waits for its answer, and resolves. Dropping it cuts the connection.
pub struct NestedDriver {
    h2: Pin<Box<Driver<TlsStream<Outer>>>>,
    usage: Usage,
    /// Runs from the end of the stream.
    farewell: Option<Pin<Box<Sleep>>>,
}

/// Opens a tunnel to `request`'s authority inside `outer`; the destination must prove one of `expected`.
///
/// # Errors
/// [`NestedError`]. The outer stream is given up.
///
/// # Cancel safety
/// Cancel-safe; the outer stream is reset.
pub async fn open(
    outer: H2Stream,
    cert: &WorkloadCert,
    expected: &[Identity],
    request: Request<()>,
    settings: &Settings,
) -> Result<Nested, NestedError> {
    let authority = || request.uri().to_string();
    let handshake = tls::connect(Outer { stream: outer, closing: false }, cert, expected);
    let tls = match tokio::time::timeout(HANDSHAKE_BUDGET, handshake).await {
        Ok(done) => done.map_err(|e| NestedError::of_tls(authority(), e))?,
        Err(_) => {
            let reason = format!("no answer within {HANDSHAKE_BUDGET:?}");
            return Err(NestedError::Tls { authority: authority(), reason });
        }
    };
    let presented = tls::presented(&tls);
    let peer = presented.and_then(peer_identity);
    let server = cert.crl().and_then(|crl| crl.track(Reporter::Source, presented));
    let (connection, h2) = client::handshake(tls, settings)
        .await
        .map_err(|e| NestedError::Http2 { authority: authority(), reason: e.to_string() })?;
    let mut driver = NestedDriver { h2: Box::pin(h2), usage: connection.usage(), farewell: None };
    let authority = authority();
    let (permit, mut early) = (connection.reserve(), early::nothing());
    let opened = tokio::select! {
        // The answer may be the last thing that the peer says.
        biased;
        opened = connection.open(permit, request, &mut early) => opened.map_err(|(error, _)| error)?,
        ended = &mut driver => {
            let reason = ended.err().map_or_else(|| "peer closed it".to_owned(), |error| error.to_string());
            return Err(OpenError::Broken { authority, reason }.into());
        }
    };
    // Without the handle the connection ends with its only stream.
    Ok(Nested { stream: opened.stream, headers: opened.headers, peer, server, driver })
}

impl Future for NestedDriver {
    type Output = Result<(), HboneError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(ended) = this.h2.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if this.usage.active() > 0 {
            return Poll::Pending;
        }
        let farewell = this.farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL_BUDGET)));
        farewell.as_mut().poll(cx).map(Ok)
    }
}

impl std::fmt::Debug for Nested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nested").field("stream", &self.stream).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The outer stream as the wire of the inner tunnel. Closing it takes until the other end has closed it, too: to drop it
/// before would reset it, and a gateway may throw away what it has not passed on then.
struct Outer {
    stream: H2Stream,
    closing: bool,
}

impl AsyncRead for Outer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Outer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.closing {
            this.closing = true;
            this.stream.finish()?;
        }
        while ready!(this.stream.poll_data(cx))?.is_some() {}
        Poll::Ready(Ok(()))
    }
}

/// How long the end of an inner tunnel may take once its connection is over.
const FAREWELL_BUDGET: Duration = Duration::from_secs(2);
