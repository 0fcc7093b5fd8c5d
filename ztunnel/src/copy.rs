//! Bytes between the two sides of a connection: two independent directions, each closed by itself.
//!
//! All state is in one plain struct, [`Relay`]: what was counted can be read when the relay is stopped half-way, and
//! nothing keeps a buffer while nothing flows.

mod direction;
pub(crate) mod early;
mod side;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use direction::Direction;
pub use side::{Side, TcpSide};

use crate::limits::LAST_WORDS_BUDGET;
use crate::report;

/// A connection between a client side and a server side.
pub struct Relay<C, S> {
    client: C,
    server: S,
    to_server: Direction,
    to_client: Direction,
    /// What [`Meter`] knows already, to and from the server.
    metered: (u64, u64),
    /// From the first failure; only then there is a timer.
    last_words: Option<Box<LastWords>>,
}

/// Is told about bytes while they flow, so that long connections show in the metrics before they end.
pub trait Meter {
    /// So many more bytes went to the server, and to the client.
    fn moved(&self, to_server: u64, to_client: u64);
}

impl Meter for report::Connection {
    fn moved(&self, to_server: u64, to_client: u64) {
        if to_server > 0 {
            self.received(to_server);
        }
        if to_client > 0 {
            self.sent(to_client);
        }
    }
}

impl<C: Side, S: Side> Relay<C, S> {
    /// Joins two open sides.
    pub fn new(client: C, server: S) -> Self {
        Self {
            client,
            server,
            to_server: Direction::default(),
            to_client: Direction::default(),
            metered: (0, 0),
            last_words: None,
        }
    }

    /// Counts bytes that went to the server before the relay began.
    #[must_use]
    pub fn after_early(mut self, bytes: u64) -> Self {
        self.to_server.begin_at(bytes);
        self
    }

    /// Copies until both directions have ended. A direction that ends, well or not, closes the writer it feeds.
    ///
    /// # Errors
    /// The first failure that is not just the way connections end (reset, broken pipe, unexpected end).
    ///
    /// # Cancel safety
    /// Cancel-safe: goes on where it was.
    pub async fn run(&mut self, meter: &impl Meter) -> io::Result<()> {
        poll_fn(|cx| {
            let ended = self.poll(cx);
            let moved = (self.to_server.written(), self.to_client.written());
            meter.moved(moved.0 - self.metered.0, moved.1 - self.metered.1);
            self.metered = moved;
            ended
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut up = self.to_server.poll(cx, &mut self.client, &mut self.server, self.to_client.ended_well());
        if self.to_server.source_lost() {
            self.to_client.abandon();
        }
        let mut down = self.to_client.poll(cx, &mut self.server, &mut self.client, self.to_server.ended_well());
        if self.to_client.source_lost() && up.is_pending() {
            self.to_server.abandon();
            up = self.to_server.poll(cx, &mut self.client, &mut self.server, false);
        }
        if (up.is_pending() || down.is_pending()) && self.poll_too_late(cx).is_ready() {
            self.to_server.abandon();
            self.to_client.abandon();
            up = self.to_server.poll(cx, &mut self.client, &mut self.server, false);
            down = self.to_client.poll(cx, &mut self.server, &mut self.client, false);
        }
        if up.is_pending() || down.is_pending() {
            return Poll::Pending;
        }
        let failures = [self.to_server.take_failure(), self.to_client.take_failure()];
        Poll::Ready(failures.into_iter().flatten().find(|error| !is_ordinary_end(error)).map_or(Ok(()), Err))
    }
}

impl<C, S> Relay<C, S> {
    /// Ready when one direction has failed and the other has not moved for a while: a peer that breaks its connections
    /// must not leave the halves of them behind for as long as an application does not read.
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.to_server.has_failed() && !self.to_client.has_failed() {
            return Poll::Pending;
        }
        let moved = self.to_server.written() + self.to_client.written();
        let timer = || Box::new(LastWords { timer: Box::pin(tokio::time::sleep(LAST_WORDS_BUDGET)), moved });
        let words = self.last_words.get_or_insert_with(timer);
        if words.moved != moved {
            words.moved = moved;
            words.timer.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS_BUDGET);
        }
        words.timer.as_mut().poll(cx)
    }
}

/// What is left to be said on a broken connection.
struct LastWords {
    timer: Pin<Box<tokio::time::Sleep>>,
    /// Bytes when the timer was set.
    moved: u64,
}

/// Peers end connections in these ways every day.
fn is_ordinary_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), NotConnected | UnexpectedEof | ConnectionReset | BrokenPipe)
}

#[cfg(test)]
mod tests;
