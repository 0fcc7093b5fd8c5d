//! What the relay needs of a connection's end: a TCP socket or a tunnel stream.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mesh_hbone::H2Stream;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio_util::io::poll_read_buf;

use crate::limits::{READ_BYTES_MAX, READ_BYTES_MIN, WRITE_PIECES_MAX};

/// One end of a relayed connection. Used by one task only.
pub trait Side {
    /// The next bytes, `None` at the end of data. An end with windows of its own lets the other side send more only
    /// after [`Side::passed_on`].
    ///
    /// # Errors
    /// The end failed; nothing more will come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Takes what has come already, though it cannot be written yet, where that is cheaper to keep in `pending` than in
    /// the end itself. Tells how many bytes that were.
    fn poll_hoard(&mut self, _cx: &mut Context<'_>, _pending: &mut VecDeque<Bytes>) -> usize {
        0
    }

    /// So many of the bytes that were read here have been written.
    fn passed_on(&mut self, _bytes: usize) {}

    /// Writes some of `pending`, which is not empty, and takes it out of there. Tells how many bytes that were.
    ///
    /// # Errors
    /// The end takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>, pending: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>>;

    /// Says that no more will be written. If this is `last`, all was read as well and the end is about to be dropped.
    ///
    /// # Errors
    /// The end failed before.
    fn poll_finish(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<io::Result<()>>;

    /// Ready if the end is known to take no more, even though nothing was written. Ends that cannot know stay pending.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;
}

/// A TCP socket with its read buffer, which exists only while bytes keep coming.
pub struct TcpSide {
    stream: TcpStream,
    pub(super) buffer: BytesMut,
    /// Bytes that the next read asks for: grows when reads are filled, shrinks when they stay small.
    read_size: usize,
}

impl TcpSide {
    /// Takes a connected socket.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new(), read_size: READ_BYTES_MIN }
    }

    fn resize(&mut self, count: usize) {
        if count >= self.read_size {
            self.read_size = (self.read_size * 4).min(READ_BYTES_MAX);
        } else if count < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(READ_BYTES_MIN);
        }
    }
}

impl Side for TcpSide {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.stream.poll_read_ready(cx)?.is_pending() {
                self.buffer = BytesMut::new();
                return Poll::Pending;
            }
            // Takes back the memory of earlier reads that have been written meanwhile.
            self.buffer.reserve(self.read_size);
            let mut window = BufMut::limit(&mut self.buffer, self.read_size);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut window)? {
                Poll::Ready(0) => {
                    self.buffer = BytesMut::new();
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(count) => {
                    self.resize(count);
                    return Poll::Ready(Ok(Some(self.buffer.split().freeze())));
                }
                // Readiness was stale; the next round finds that out and frees the buffer.
                Poll::Pending => {}
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pending: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let written = match pending.len() {
            1 => ready!(stream.poll_write(cx, pending.front().map_or(&[], |bytes| bytes)))?,
            _ => {
                let mut pieces = [IoSlice::new(&[]); WRITE_PIECES_MAX];
                let mut count = 0;
                for (piece, bytes) in pieces.iter_mut().zip(pending.iter()) {
                    *piece = IoSlice::new(bytes);
                    count += 1;
                }
                ready!(stream.poll_write_vectored(cx, pieces.get(..count).unwrap_or_default()))?
            }
        };
        advance(pending, written);
        Poll::Ready(Ok(written))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<io::Result<()>> {
        // Closing a socket that has nothing left to read says the same.
        if last { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }

    fn poll_refused(&mut self, _cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

impl Side for H2Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_held(cx)
    }

    fn poll_hoard(&mut self, cx: &mut Context<'_>, pending: &mut VecDeque<Bytes>) -> usize {
        let (mut taken, mut frames) = (0, 0);
        while let Poll::Ready(bytes) = Self::poll_hoard(self, cx) {
            frames += 1;
            taken += bytes.len();
            push(pending, bytes);
            if frames % FRAMES_PER_UNIT == 0 && poll_pay(cx).is_pending() {
                break;
            }
        }
        taken
    }

    fn passed_on(&mut self, bytes: usize) {
        Self::passed_on(self, bytes);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pending: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let wanted = pending.iter().map(Bytes::len).sum();
        let mut allowed = ready!(self.poll_capacity(cx, wanted))?;
        let mut written = 0;
        while allowed > 0
            && let Some(front) = pending.front_mut()
        {
            let part = front.split_to(front.len().min(allowed));
            if front.is_empty() {
                pending.pop_front();
            }
            allowed -= part.len();
            written += part.len();
            self.send(part)?;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>, _last: bool) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_reset(cx)
    }
}

/// Adds `bytes` to what is pending: small pieces become one, so that a write takes many of them and each costs little
/// more than its bytes.
pub(super) fn push(pending: &mut VecDeque<Bytes>, bytes: Bytes) {
    if bytes.len() >= SMALL_BYTES {
        return pending.push_back(bytes);
    }
    // Nothing to be written would never have been written.
    if bytes.is_empty() {
        return;
    }
    let Some(last) = pending.pop_back() else {
        return pending.push_back(bytes);
    };
    if last.len() + bytes.len() > MERGED_BYTES_MAX {
        pending.extend([last, bytes]);
        return;
    }
    // Only a piece that was merged before is ours alone; what the library hands out is part of something larger.
    let mut merged = match last.try_into_mut() {
        Ok(merged) => merged,
        Err(shared) if shared.len() >= SMALL_BYTES => {
            pending.extend([shared, bytes]);
            return;
        }
        Err(shared) => BytesMut::from(&*shared),
    };
    merged.extend_from_slice(&bytes);
    pending.push_back(merged.freeze());
}

/// Small frames cost the task's share of its thread, as reads and writes of a socket do.
pub(super) fn poll_pay(cx: &mut Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

fn advance(pending: &mut VecDeque<Bytes>, mut written: usize) {
    while written > 0
        && let Some(front) = pending.front_mut()
    {
        let part = front.len().min(written);
        front.advance(part);
        written -= part;
        if front.is_empty() {
            pending.pop_front();
        }
    }
}

/// Pieces below this are worth a copy: they would cost more to keep, and to write, than their bytes do.
pub(super) const SMALL_BYTES: usize = 256;
/// Largest piece that is made of small ones.
const MERGED_BYTES_MAX: usize = 16 << 10;
/// So many small frames cost one unit of a task's turn; it has 128 of them.
pub(super) const FRAMES_PER_UNIT: usize = 4;
