//! The byte stream under an HTTP/1 server: bytes of the client pass [`Strict`] before the parser sees them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::strict::{Fault, Strict, Verdict};
use crate::limits::{INTERIM_BYTES_MAX, REQUEST_HEAD_BUDGET};

/// Sits between the HTTP/1 server and the stream.
///
/// A request that [`Strict`] refuses reaches the parser up to the byte before the fault and then with bytes that no parser
/// takes, so that the parser answers it with 400 in its turn, after the answers to the requests before it, and closes.
pub(crate) struct Guard<IO> {
    io: IO,
    strict: Strict,
    /// Read from the stream and not passed on.
    ahead: Bytes,
    poison: &'static [u8],
    /// Runs while a head has begun and not ended.
    late: Option<Pin<Box<Sleep>>>,
    watch: Rc<Watch>,
}

/// What requests want to know of their connection, and what they tell it.
#[derive(Default)]
pub(crate) struct Watch {
    fault: Cell<Option<Fault>>,
    /// A request waits for the answer to its upgrade: nothing after it is read before that.
    holding: Cell<bool>,
    /// Everything that the server wrote has left.
    flushed: Cell<bool>,
    /// Goes out before whatever the server writes next.
    interim: RefCell<BytesMut>,
}

impl<IO> Guard<IO> {
    /// `ahead` comes before what is read from `io`.
    pub(crate) fn new(io: IO, ahead: Bytes) -> (Self, Rc<Watch>) {
        let watch = Rc::new(Watch::default());
        watch.flushed.set(true);
        let guard = Self { io, strict: Strict::new(), ahead, poison: &[], late: None, watch: watch.clone() };
        (guard, watch)
    }

    /// After an upgrade: the stream, and what was read from it already.
    pub(crate) fn into_parts(self) -> (IO, Bytes) {
        (self.io, self.ahead)
    }

    /// Looks at what was read, and cuts off what may not be passed on.
    fn judge(&mut self, out: &mut ReadBuf<'_>, before: usize) {
        let new = out.filled().get(before..).unwrap_or_default();
        match self.strict.feed(new) {
            Verdict::Fine => self.time_head(),
            Verdict::HoldAfter(passed) => {
                let (_, kept) = new.split_at(passed);
                if !kept.is_empty() {
                    let rest = std::mem::take(&mut self.ahead);
                    self.ahead = [kept, &rest].concat().into();
                }
                out.set_filled(before + passed);
                self.late = None;
                self.watch.holding.set(true);
            }
            Verdict::Bad(passed, fault) => self.refuse(out, before + passed, fault),
        }
    }

    fn refuse(&mut self, out: &mut ReadBuf<'_>, filled: usize, fault: Fault) {
        self.watch.fault.set(Some(fault));
        self.poison = POISON;
        out.set_filled(filled);
        self.put_poison(out);
    }

    fn put_poison(&mut self, out: &mut ReadBuf<'_>) {
        let (now, later) = self.poison.split_at(self.poison.len().min(out.remaining()));
        out.put_slice(now);
        self.poison = later;
    }

    /// A head must not take for ever. A client that sends nothing at all is for the idle timeout.
    fn time_head(&mut self) {
        if !self.strict.in_head() {
            self.late = None;
        } else if self.late.is_none() {
            self.late = Some(Box::pin(sleep(REQUEST_HEAD_BUDGET)));
        }
    }

    /// Whether the head at hand has taken too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.late.as_mut().is_some_and(|late| late.as_mut().poll(cx).is_ready())
    }
}

impl Watch {
    /// Why a request of this connection was refused.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Whether bytes wait for the answer to an upgrade.
    pub(crate) fn is_holding(&self) -> bool {
        self.holding.get()
    }

    /// Sends an interim response ahead of the response. Only between responses, or it is left out: it is nothing that a
    /// client relies on.
    pub(crate) fn interim(&self, response: &[u8]) -> bool {
        let fits = self.interim.borrow().len() + response.len() <= INTERIM_BYTES_MAX;
        let ready = self.flushed.get() && fits;
        if ready {
            self.interim.borrow_mut().extend_from_slice(response);
        }
        ready
    }
}

impl<IO: AsyncWrite + Unpin> Guard<IO> {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interim = self.watch.interim.borrow_mut();
        while !interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> Guard<IO> {
    /// Reads what waits for the answer to an upgrade, and sees the end of the stream. Ready is only that.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < HELD_BYTES_MAX {
            let mut piece = [0; 512];
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead = [&self.ahead, read.filled()].concat().into();
        }
        // Whoever says so much goes on after the answer.
        Poll::Pending
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guard<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.fault.get().is_some() {
            if this.poison.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            this.put_poison(out);
            return Poll::Ready(Ok(()));
        }
        if this.watch.is_holding() {
            // Whoever answers takes the stream, or ends it. Meanwhile the client may leave.
            return this.poll_held(cx);
        }
        let before = out.filled().len();
        if this.is_late(cx) {
            if this.strict.is_blank() {
                // There is no request that an answer would be for.
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.refuse(out, before, Fault::Slow);
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
        } else {
            let now = this.ahead.split_to(this.ahead.len().min(out.remaining()));
            out.put_slice(&now);
        }
        this.judge(out, before);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guard<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_interim(cx))?;
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.watch.flushed.set(false);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_interim(cx))?;
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        this.watch.flushed.set(false);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_interim(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.watch.flushed.set(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What a client may say before its upgrade is granted.
const HELD_BYTES_MAX: usize = 8 << 10;
/// In a request line, a name or a value it is an error for every parser; the end makes parsers look that wait for it.
const POISON: &[u8] = b"\0\r\n\r\n";

#[cfg(test)]
mod tests;
