//! One end of a tunnelled connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::StreamPermit;

/// A CONNECT stream after its 200: bytes both ways, each direction closed by itself. Owned by one relay.
///
/// Dropping it before both directions are closed resets the stream with CANCEL.
///
/// | peer did | we see |
/// |---|---|
/// | END_STREAM | end of data |
/// | RST_STREAM(NO_ERROR or CANCEL) | reading: end of data; writing: broken pipe |
/// | RST_STREAM(STREAM_CLOSED) | reading: connection reset; writing: broken pipe |
/// | RST_STREAM(other), connection lost | connection reset |
pub struct H2Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received and not yet handed out; only used by [`AsyncRead`], so that others do not pay for it.
    leftover: Option<Box<Bytes>>,
    /// Bytes handed out for which the peer has no credit yet.
    held: u32,
    read_ended: bool,
    write_ended: bool,
    /// Frees the pooled connection's slot when the stream is dropped.
    _permit: Option<StreamPermit>,
}

impl H2Stream {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, permit: Option<StreamPermit>) -> Self {
        Self { send, recv, leftover: None, held: 0, read_ended: false, write_ended: false, _permit: permit }
    }

    /// The next bytes from the peer, `None` at the end of data. The peer may send that many more at once: credit is
    /// given back on reading. Who may have to keep the bytes for long uses [`H2Stream::poll_held`].
    ///
    /// # Errors
    /// `ConnectionReset`, see the table at [`H2Stream`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let bytes = ready!(self.poll_held(cx))?;
        self.passed_on(bytes.as_ref().map_or(0, Bytes::len));
        Poll::Ready(Ok(bytes))
    }

    /// As [`H2Stream::poll_data`], but the peer may send more only after [`H2Stream::passed_on`]: all that has been read
    /// and not passed on is never more than the stream's window, nor that of all its tunnel's streams more than the
    /// tunnel's.
    ///
    /// # Errors
    /// As [`H2Stream::poll_data`].
    pub fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(bytes) = self.leftover.take() {
            return Poll::Ready(Ok(Some(*bytes)));
        }
        while !self.read_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.held = self.held.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    return Poll::Ready(Ok(Some(bytes)));
                }
                None => self.read_ended = true,
                Some(Err(error)) => {
                    self.read_ended = true;
                    if !matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL)) || !error.is_reset() {
                        return Poll::Ready(Err(reset(&error)));
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// As [`H2Stream::poll_held`], for whoever cannot pass anything on now, but keeps small frames better than the
    /// library does, which pays some 300 bytes for each. The end and errors are left for that.
    pub fn poll_hoard(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        while !self.read_ended && self.leftover.is_none() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.held = self.held.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    return Poll::Ready(bytes);
                }
                // The library says so again.
                Some(Err(_)) | None => break,
            }
        }
        Poll::Pending
    }

    /// So many of the bytes read with [`H2Stream::poll_held`] are kept no longer.
    pub fn passed_on(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.held);
        self.held -= bytes;
        if bytes > 0 {
            // Fails only if more were released than received.
            let _ = self.recv.flow_control().release_capacity(bytes as usize);
        }
    }

    /// Waits until some of `wanted` bytes may be sent and tells how many.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset`, see the table at [`H2Stream`].
    pub fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.send.reserve_capacity(wanted);
        loop {
            let free = self.send.capacity();
            if free > 0 {
                return Poll::Ready(Ok(free.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(self.write_error(&error))),
                None => return Poll::Ready(Err(self.closed_for_writing(cx))),
            }
        }
    }

    /// Queues `bytes`; call with at most what [`H2Stream::poll_capacity`] allowed, or they are buffered.
    ///
    /// # Errors
    /// As for [`H2Stream::poll_capacity`].
    pub fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send.send_data(bytes, false).map_err(|error| self.write_error(&error))
    }

    /// Ends our direction with END_STREAM; the other one stays open. Harmless when repeated.
    ///
    /// # Errors
    /// As for [`H2Stream::poll_capacity`]; a peer that reset with NO_ERROR has had enough, which is no error.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.write_ended {
            return Ok(());
        }
        self.write_ended = true;
        let Err(error) = self.send.send_data(Bytes::new(), true) else {
            return Ok(());
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.send.poll_reset(&mut cx) {
            Poll::Ready(Ok(Reason::NO_ERROR)) => Ok(()),
            _ => Err(self.write_error(&error)),
        }
    }

    /// Ready when the peer has reset the stream: what we write goes nowhere any more.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.write_ended {
            return Poll::Pending;
        }
        match ready!(self.send.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(write_error_of(Some(reason))),
            Err(error) => Poll::Ready(self.write_error(&error)),
        }
    }

    /// Aborts both directions: RST_STREAM(CANCEL).
    pub fn abort(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    fn closed_for_writing(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => write_error_of(Some(reason)),
            Poll::Ready(Err(error)) => self.write_error(&error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }

    fn write_error(&self, error: &h2::Error) -> io::Error {
        // Anything but a reset means that the stream's state forbids writing: somebody closed it before.
        if error.is_reset() || error.is_go_away() || error.is_io() {
            return write_error_of(error.reason());
        }
        io::ErrorKind::BrokenPipe.into()
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut bytes) = ready!(self.poll_data(cx))? else {
            return Poll::Ready(Ok(()));
        };
        let part = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes.split_to(part));
        self.leftover = (!bytes.is_empty()).then(|| Box::new(bytes));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let allowed = ready!(self.poll_capacity(cx, buf.len()))?;
        let mut part = buf;
        let bytes = part.copy_to_bytes(allowed.min(buf.len()));
        let sent = bytes.len();
        self.send(bytes)?;
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver writes by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

impl std::fmt::Debug for H2Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Stream")
            .field("id", &self.recv.stream_id())
            .field("read_ended", &self.read_ended)
            .field("write_ended", &self.write_ended)
            .finish_non_exhaustive()
    }
}

fn reset(error: &h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}

fn write_error_of(reason: Option<Reason>) -> io::Error {
    match reason {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::BrokenPipe.into(),
        Some(other) => io::Error::new(io::ErrorKind::ConnectionReset, format!("stream reset by peer: {other}")),
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
