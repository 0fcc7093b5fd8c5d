//! What the first bytes of a connection are, where nobody has declared it; and a stream that gives them back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::{DETECT_BYTES_MAX, READ_BYTES_MIN};

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// A request line of HTTP/1.0 or HTTP/1.1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Neither.
    Other,
    /// It may still become either.
    More,
}

/// Looks at the beginning of a connection. Pure.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let shared = bytes.len().min(PREFACE.len());
    if shared > 0 && bytes.get(..shared) == PREFACE.get(..shared) {
        return if shared == PREFACE.len() { Sniffed::Http2 } else { Sniffed::More };
    }
    let Some(space) = bytes.iter().take(METHOD_BYTES_MAX + 1).position(|byte| !is_token(*byte)) else {
        return if bytes.len() > METHOD_BYTES_MAX { Sniffed::Other } else { Sniffed::More };
    };
    if space == 0 || bytes.get(space) != Some(&b' ') {
        return Sniffed::Other;
    }
    match bytes.iter().take(DETECT_BYTES_MAX).position(|byte| *byte == b'\n') {
        None if bytes.len() >= DETECT_BYTES_MAX => Sniffed::Other,
        None => Sniffed::More,
        Some(end) => {
            let line = bytes.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if VERSIONS.iter().any(|version| line.ends_with(version)) { Sniffed::Http1 } else { Sniffed::Other }
        }
    }
}

/// Reads until it is clear what the bytes are, the stream ends, or nothing was clear for `budget` (none: for ever), and
/// gives the stream back with nothing taken from it.
///
/// # Errors
/// Reading failed.
pub async fn detect<T: AsyncRead + Unpin>(mut io: T, budget: Option<Duration>) -> io::Result<(Sniffed, Replay<T>)> {
    let mut first = BytesMut::new();
    let until = budget.map(|budget| Instant::now() + budget);
    let sniffed = loop {
        first.reserve(READ_BYTES_MIN);
        let reading = io.read_buf(&mut first);
        let read = match until {
            None => reading.await?,
            Some(until) => match tokio::time::timeout_at(until, reading).await {
                Ok(read) => read?,
                Err(_) => break Sniffed::Other,
            },
        };
        if read == 0 {
            break Sniffed::Other;
        }
        match sniff(&first) {
            Sniffed::More => {}
            sniffed => break sniffed,
        }
    };
    Ok((sniffed, Replay::new(first, io)))
}

/// A stream that begins with bytes that were read from it before.
pub struct Replay<T> {
    first: BytesMut,
    io: T,
}

impl<T> Replay<T> {
    /// Puts `first` before what `io` still has.
    pub fn new(first: BytesMut, io: T) -> Self {
        Self { first, io }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Replay<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, out);
        }
        let part = self.first.len().min(out.remaining());
        out.put_slice(self.first.get(..part).unwrap_or_default());
        self.first.advance(part);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Replay<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
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

/// A character of a method (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const VERSIONS: [&[u8]; 2] = [b" HTTP/1.1", b" HTTP/1.0"];
/// Longer words before the first space are no method.
const METHOD_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn waypoint_row_7_first_bytes_tell_http_from_everything_else() {
        let table: [(&[u8], Sniffed); 20] = [
            (b"", Sniffed::More),
            (b"G", Sniffed::More),
            (b"GET", Sniffed::More),
            (b"GET /", Sniffed::More),
            (b"GET / HTTP/1.1\r", Sniffed::More),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http1),
            (b"GET / HTTP/1.0\n", Sniffed::Http1),
            (b"M-SEARCH * HTTP/1.1\r\nHost: x\r\n\r\n", Sniffed::Http1),
            (b"GET / HTTP/1.2\r\n", Sniffed::Other),
            (b"GET /\r\n", Sniffed::Other),
            (b"EHLO mail.example\r\n", Sniffed::Other),
            (b"PRI * HTTP/2.0\r\n", Sniffed::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Sniffed::Http2),
            (b"PRI * HTTP/2.0\r\nX", Sniffed::Other),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Sniffed::Other),
            (b"\x16\x03\x01\x02\x00", Sniffed::Other),
            (b" GET / HTTP/1.1\r\n", Sniffed::Other),
            (b"GET\t/ HTTP/1.1\r\n", Sniffed::Other),
            (b"abcdefghijklmnopqrstuvwxyzabcdefghijklm", Sniffed::Other),
            (b"\x00\x00\x00\x10", Sniffed::Other),
        ];
        for (bytes, expected) in table {
            assert_eq!(sniff(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let long = [b"GET /".as_slice(), &vec![b'a'; DETECT_BYTES_MAX]].concat();
        assert_eq!(sniff(&long), Sniffed::Other);
        assert_eq!(sniff(&long[..DETECT_BYTES_MAX - 1]), Sniffed::More);
        // However much is read at once.
        assert_eq!(sniff(&[long.as_slice(), b" HTTP/1.1\r\n"].concat()), Sniffed::Other);
    }

    #[tokio::test]
    async fn nothing_is_taken_from_the_stream() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GE").await.unwrap();
        let found = tokio::spawn(detect(server, None));
        client.write_all(b"T /x HTTP/1.1\r\nhost: a\r\n\r\nbody").await.unwrap();
        client.shutdown().await.unwrap();
        let (sniffed, mut replay) = found.await.unwrap().unwrap();
        assert_eq!(sniffed, Sniffed::Http1);
        let mut all = String::new();
        replay.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET /x HTTP/1.1\r\nhost: a\r\n\r\nbody");
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_bytes() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET").await.unwrap();
        drop(client);
        let (sniffed, mut replay) = detect(server, None).await.unwrap();
        assert_eq!(sniffed, Sniffed::Other);
        let mut all = String::new();
        replay.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_for_long_speaks_no_http() {
        let (mut client, server) = tokio::io::duplex(64);
        let (sniffed, mut replay) = detect(server, Some(Duration::from_secs(5))).await.unwrap();
        assert_eq!(sniffed, Sniffed::Other);
        client.write_all(b"late").await.unwrap();
        drop(client);
        let mut all = String::new();
        replay.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "late");
    }
}
