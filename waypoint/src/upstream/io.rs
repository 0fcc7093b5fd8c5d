//! A byte stream to an endpoint, whatever it runs over.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use mesh_hbone::H2Stream;
use mesh_hbone::read_ahead::ReadAhead;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::accounting::{Active, Open};
use super::sockets;

/// A connection to an endpoint. Counts as one of its pool's until it is dropped.
pub struct UpstreamIo {
    wire: Wire,
    /// Received before the stream was handed over.
    early: Bytes,
    local: Option<SocketAddr>,
    _open: Open,
    /// Of TCP connections, which count as load themselves.
    active: Option<Active>,
    limits: StreamLimits,
}

/// How long the policy lets a TCP connection live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Longest silence; `None`: as the proxy has it.
    pub idle: Option<Duration>,
    /// Longest life; `None`: no limit.
    pub age: Option<Duration>,
}

/// What it runs over.
pub(super) enum Wire {
    Tcp(TcpStream),
    Tunnel(H2Stream),
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
    TlsInTunnel(Box<TlsStream<H2Stream>>),
}

impl UpstreamIo {
    pub(super) fn new(wire: Wire, local: Option<SocketAddr>, open: Open) -> Self {
        Self { wire, early: Bytes::new(), local, _open: open, active: None, limits: StreamLimits::default() }
    }

    pub(super) fn with_active(mut self, active: Active) -> Self {
        self.active = Some(active);
        self
    }

    pub(super) fn with_limits(mut self, limits: StreamLimits) -> Self {
        self.limits = limits;
        self
    }

    pub(super) fn with_early(mut self, early: Bytes) -> Self {
        self.early = early;
        self
    }

    /// Our own address, where the connection is one of TCP's.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// How long it may live.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// The socket, where there is nothing between us and it.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.wire {
            Wire::Tcp(tcp) if self.early.is_empty() => Some(tcp),
            _ => None,
        }
    }

    /// Ends half-way what nobody waits for any more. What the endpoint has not got yet it may never get.
    pub(super) fn give_up(self) {
        if let Some(tcp) = self.socket() {
            sockets::end_by_reset(tcp, true);
        }
    }

    /// Ends what its client broke off. What the client sent before still arrives.
    pub(crate) fn break_off(self) {
        if let Some(tcp) = self.socket() {
            sockets::break_off(tcp);
        }
    }

    /// The socket below, where it is not shared. A stream of a tunnel that is dropped is reset anyway.
    fn socket(&self) -> Option<&TcpStream> {
        match &self.wire {
            Wire::Tcp(tcp) => Some(tcp),
            Wire::Tls(tls) => Some(tls.get_ref().0.get_ref()),
            Wire::Tunnel(_) | Wire::TlsInTunnel(_) => None,
        }
    }

    /// The tunnel, where there is nothing between us and it: it gives and takes bytes without copying them.
    pub fn tunnel(&mut self) -> Option<&mut H2Stream> {
        match &mut self.wire {
            Wire::Tunnel(tunnel) if self.early.is_empty() => Some(tunnel),
            _ => None,
        }
    }
}

macro_rules! on_wire {
    ($self:ident, $wire:ident => $call:expr) => {
        match &mut $self.get_mut().wire {
            Wire::Tcp($wire) => $call,
            Wire::Tunnel($wire) => $call,
            Wire::Tls($wire) => $call,
            Wire::TlsInTunnel($wire) => $call,
        }
    };
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let part = self.early.len().min(buf.remaining());
            buf.put_slice(self.early.get(..part).unwrap_or_default());
            self.early.advance(part);
            return Poll::Ready(Ok(()));
        }
        on_wire!(self, wire => Pin::new(wire).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_wire!(self, wire => Pin::new(wire).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, wire => Pin::new(wire).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.wire, Wire::Tcp(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => Pin::new(wire).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => Pin::new(wire).poll_shutdown(cx))
    }
}

impl fmt::Debug for UpstreamIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamIo").field("local", &self.local).finish_non_exhaustive()
    }
}
