//! A stream whose bytes come in pieces: what readers of streams must not notice.

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::runtime::Runtime;

/// Gives its bytes in pieces of one length, after a first one of another; nothing is ever waited for.
pub(crate) struct Pieces<'a> {
    rest: &'a [u8],
    first: usize,
    length: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(bytes: &'a [u8], first: usize, length: usize) -> Self {
        Self { rest: bytes, first, length: length.max(1) }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = match std::mem::take(&mut self.first) {
            0 => self.length,
            first => first,
        };
        let (piece, rest) = self.rest.split_at(piece.min(out.remaining()).min(self.rest.len()));
        out.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// First pieces and lengths to read `bytes` with: whole, byte by byte, and cut once at many places.
pub(crate) fn cuts(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let step = bytes.len() / CUTS_MAX + 1;
    let single = (bytes.len() <= SINGLE_BYTES_MAX).then_some((0, 1));
    let once = (step..bytes.len()).step_by(step).map(|first| (first, usize::MAX));
    [(0, usize::MAX), (0, 7), (1, 600)].into_iter().chain(single).chain(once)
}

/// What a reader of a stream says, on a clock that stands still.
pub(crate) fn now<T>(reading: impl Future<Output = T>) -> T {
    RUNTIME.block_on(reading)
}

/// All that a stream still has.
pub(crate) async fn rest(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("pieces are read without fail");
    all
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O")
});

const CUTS_MAX: usize = 48;
/// Longer ones would take too long to read byte by byte.
const SINGLE_BYTES_MAX: usize = 1 << 11;
