//! Fewer, larger reads below TLS while data flows; no buffer while it does not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Wraps a socket whose reader (rustls) asks for a few kilobytes at a time.
///
/// As long as the socket has less than the reader asks for, reads pass straight through. A read that was filled to the
/// brim means that more is waiting: the next one takes up to [`READ_AHEAD_BYTES`] at once and serves the reader from
/// memory, which is given back as soon as the socket runs dry.
pub struct ReadAhead<T> {
    inner: T,
    buffer: BytesMut,
    more_expected: bool,
}

impl<T> ReadAhead<T> {
    /// Starts without a buffer.
    pub fn new(inner: T) -> Self {
        Self { inner, buffer: BytesMut::new(), more_expected: false }
    }

    /// The socket.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The socket. What was read ahead stays here.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() {
            if !this.more_expected || out.remaining() >= READ_AHEAD_BYTES {
                let before = out.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, out))?;
                this.more_expected = out.filled().len() > before && out.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
        let part = this.buffer.len().min(out.remaining());
        out.put_slice(this.buffer.get(..part).unwrap_or_default());
        this.buffer.advance(part);
        if this.buffer.is_empty() && !this.more_expected {
            this.buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> ReadAhead<T> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.clear();
        self.buffer.reserve(READ_AHEAD_BYTES);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.buffer);
        match read {
            Poll::Ready(Ok(count)) => {
                self.more_expected = count >= READ_AHEAD_BYTES / 2;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.buffer = BytesMut::new();
                self.more_expected = false;
                Poll::Pending
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Bytes of one large read: about eight TLS records.
const READ_AHEAD_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn small_reads_are_served_in_order_from_few_large_ones() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
        writer.write_all(&sent).await.unwrap();
        drop(writer);
        let mut reader = ReadAhead::new(reader);
        let mut received = Vec::new();
        let mut piece = vec![0; 4096];
        loop {
            let count = reader.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&piece[..count]);
        }
        assert!(received == sent);
        assert_eq!(reader.buffer.capacity(), 0, "no buffer is kept at the end");
    }

    #[tokio::test]
    async fn an_idle_stream_holds_no_buffer() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut reader = ReadAhead::new(reader);
        writer.write_all(&[7; 8192]).await.unwrap();
        let mut piece = vec![0; 4096];
        reader.read_exact(&mut piece).await.unwrap();
        reader.read_exact(&mut piece).await.unwrap();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), reader.read(&mut piece)).await;
        assert!(waiting.is_err());
        assert_eq!(reader.buffer.capacity(), 0);
    }
}
