//! A byte stream whose incoming HTTP/2 frames are counted. What no use of the port explains ends the connection.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mesh_hbone::frames::{Frames, Kind};
use mesh_hbone::hygiene::Hygiene;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Peer;

/// Sits between HTTP/2 and TLS.
pub(crate) struct Guard<T> {
    io: T,
    frames: Frames,
    hygiene: Hygiene,
    since: Instant,
    peer: Arc<Peer>,
    /// Requests that a stranger sent.
    requests: u32,
}

impl<T> Guard<T> {
    pub(crate) fn new(io: T, peer: Arc<Peer>) -> Self {
        let (frames, hygiene) = (Frames::after_preface(), Hygiene::new());
        Self { io, frames, hygiene, since: Instant::now(), peer, requests: 0 }
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { frames, hygiene, since, peer, requests, .. } = self;
        frames.feed(bytes, |frame| {
            if frame.kind == Kind::Headers && !peer.is_known() {
                *requests += 1;
                if *requests > STRANGER_REQUESTS_MAX {
                    return Err(io::Error::other("too many requests of one who did not say who it is"));
                }
            }
            hygiene.received(frame, || since.elapsed()).map_err(io::Error::other)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
        let counted = this.count(out.filled().get(before..).unwrap_or_default());
        if counted.is_err() {
            out.set_filled(before);
        }
        Poll::Ready(counted)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.hygiene.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.hygiene.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A node proxy starts with one stream and at most eight certificate requests.
const STRANGER_REQUESTS_MAX: u32 = 16;
