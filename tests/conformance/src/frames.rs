//! HTTP/2 frames as they arrive, seen below the HTTP/2 library.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wait::eventually;

/// One received frame. The payload of DATA frames is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// RFC 9113 section 6.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
    /// Bytes of the payload.
    pub len: usize,
    /// The payload.
    pub payload: Vec<u8>,
}

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
pub const FLAG_1: u8 = 1;

impl Frame {
    /// The payload's number at `at`.
    #[must_use]
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The frames that one side of a connection has sent so far.
#[derive(Clone, Default)]
pub struct FrameLog(Arc<Mutex<Parser>>);

#[derive(Default)]
struct Parser {
    skip: usize,
    buffer: Vec<u8>,
    frames: Vec<Frame>,
    ended: bool,
    /// Who listened in is gone: a server ends on GOAWAY without reading the end of the connection.
    deaf: bool,
}

impl FrameLog {
    /// For what a client sends: starts with the preface.
    #[must_use]
    pub fn of_client() -> Self {
        let log = Self::default();
        log.0.lock().unwrap().skip = PREFACE_BYTES;
        log
    }

    /// All frames so far.
    #[must_use]
    pub fn all(&self) -> Vec<Frame> {
        self.0.lock().unwrap().frames.clone()
    }

    /// The values of the first SETTINGS frame, in their order.
    pub async fn settings(&self) -> Vec<(u16, u32)> {
        let frame = self.wait("SETTINGS", |frame| frame.kind == SETTINGS && frame.flags & FLAG_1 == 0).await;
        let pair =
            |six: &[u8]| (u16::from_be_bytes([six[0], six[1]]), u32::from_be_bytes(six[2..6].try_into().unwrap()));
        frame.payload.chunks_exact(6).map(pair).collect()
    }

    /// The first frame that satisfies `wanted`.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        eventually(what, async || self.all().into_iter().find(|frame| wanted(frame))).await
    }

    /// Whether the sender has closed the connection, or said goodbye and was then not listened to any longer.
    #[must_use]
    pub fn ended(&self) -> bool {
        let parser = self.0.lock().unwrap();
        parser.ended || (parser.deaf && parser.frames.iter().any(|frame| frame.kind == GOAWAY))
    }

    /// Waits until the sender has closed the connection.
    pub async fn wait_end(&self) {
        eventually("the connection is closed", async || self.ended().then_some(())).await;
    }

    fn push(&self, bytes: &[u8]) {
        let mut parser = self.0.lock().unwrap();
        if bytes.is_empty() {
            parser.ended = true;
        }
        parser.buffer.extend_from_slice(bytes);
        let skipped = parser.skip.min(parser.buffer.len());
        parser.buffer.drain(..skipped);
        parser.skip -= skipped;
        while let Some((frame, len)) = parse(&parser.buffer) {
            parser.buffer.drain(..len);
            parser.frames.push(frame);
        }
    }
}

fn parse(buffer: &[u8]) -> Option<(Frame, usize)> {
    let header = buffer.get(..9)?;
    let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let payload = buffer.get(9..9 + len)?;
    let kind = header[3];
    let stream = u32::from_be_bytes(header[5..9].try_into().unwrap()) & 0x7fff_ffff;
    let payload = if kind == DATA { Vec::new() } else { payload.to_vec() };
    Some((Frame { kind, flags: header[4], stream, len, payload }, 9 + len))
}

/// A connection whose received bytes are also read by a [`FrameLog`].
pub struct Tap<S> {
    inner: S,
    log: FrameLog,
}

impl<S> Tap<S> {
    /// Listens in on `inner`.
    pub fn new(inner: S, log: FrameLog) -> Self {
        Self { inner, log }
    }
}

impl<S> Drop for Tap<S> {
    fn drop(&mut self) {
        if let Ok(mut parser) = self.log.0.lock() {
            parser.deaf = true;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => self.log.push(&buf.filled()[before..]),
            Poll::Ready(Err(_)) => self.log.push(&[]),
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

const PREFACE_BYTES: usize = 24;
