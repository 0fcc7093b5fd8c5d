//! Bytes between the two ends of a connection: two independent directions, each closed by itself. Buffers grow with
//! traffic, and are given back when a direction rests.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::limits::{READ_BYTES_MAX, READ_BYTES_MIN};

/// A connection between a client and a server.
pub(super) struct Relay<C, S> {
    client: C,
    server: S,
    to_server: Direction,
    to_client: Direction,
    idle: Pin<Box<Sleep>>,
    idle_budget: Duration,
    /// Bytes when the timer was set.
    seen: u64,
}

/// Why a relay ended before both sides were done.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// Nothing moved for too long.
    #[error("nothing moved")]
    Idle,
    /// The client's side failed.
    #[error("client: {0}")]
    Client(io::Error),
    /// The server's side failed.
    #[error("server: {0}")]
    Server(io::Error),
}

/// What a direction failed at.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

#[derive(Default)]
struct Direction {
    buffer: BytesMut,
    size: usize,
    moved: u64,
    source_done: bool,
    done: bool,
    unflushed: bool,
}

impl<C, S> Relay<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Joins two open ends.
    pub(super) fn new(client: C, server: S, idle_budget: Duration) -> Self {
        let idle = Box::pin(tokio::time::sleep(idle_budget));
        let direction = || Direction { size: READ_BYTES_MIN, ..Direction::default() };
        Self { client, server, to_server: direction(), to_client: direction(), idle, idle_budget, seen: 0 }
    }

    /// Bytes to the server, and to the client.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.to_server.moved, self.to_client.moved)
    }

    /// The server's side, of a connection that has ended.
    pub(super) fn into_server(self) -> S {
        self.server
    }

    /// Copies until both directions have ended.
    ///
    /// # Errors
    /// [`RelayError`]: the connection is over.
    ///
    /// # Cancel safety
    /// Cancel-safe: goes on where it was.
    pub(super) async fn run(&mut self) -> Result<(), RelayError> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let up = self.to_server.poll(cx, &mut self.client, &mut self.server);
        if let Poll::Ready(Err(broken)) = up {
            return Poll::Ready(Err(match broken {
                Broken::Source(error) => RelayError::Client(error),
                Broken::Sink(error) => RelayError::Server(error),
            }));
        }
        let down = self.to_client.poll(cx, &mut self.server, &mut self.client);
        if let Poll::Ready(Err(broken)) = down {
            return Poll::Ready(Err(match broken {
                Broken::Source(error) => RelayError::Server(error),
                Broken::Sink(error) => RelayError::Client(error),
            }));
        }
        if self.to_server.done && self.to_client.done {
            return Poll::Ready(Ok(()));
        }
        self.poll_idle(cx)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        loop {
            ready!(self.idle.as_mut().poll(cx));
            let moved = self.to_server.moved + self.to_client.moved;
            if moved == self.seen {
                return Poll::Ready(Err(RelayError::Idle));
            }
            // The timer is only set again when it rings: bytes pass without touching it.
            self.seen = moved;
            self.idle.as_mut().reset(Instant::now() + self.idle_budget);
        }
    }
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, &self.buffer)).map_err(Broken::Sink)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into())));
                }
                self.buffer.advance(written);
                self.moved += written as u64;
                self.unflushed = true;
            }
            if self.source_done {
                ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                self.done = true;
                self.buffer = BytesMut::new();
                return Poll::Ready(Ok(()));
            }
            self.buffer.reserve(self.size);
            match tokio_util::io::poll_read_buf(Pin::new(&mut *source), cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.source_done = true,
                Poll::Ready(Ok(read)) if read >= self.size => self.size = (self.size * 4).min(READ_BYTES_MAX),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Source(error))),
                Poll::Pending => {
                    // At rest: nothing is held.
                    self.buffer = BytesMut::new();
                    self.size = READ_BYTES_MIN;
                    if self.unflushed {
                        ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(Broken::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, near) = duplex(1 << 10);
        let (far, mut server) = duplex(1 << 10);
        let relay = tokio::spawn(async move {
            let mut relay = Relay::new(near, far, Duration::from_secs(60));
            relay.run().await.map(|()| relay.moved())
        });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        let answer = vec![7; 300_000];
        let writing = tokio::spawn(async move {
            server.write_all(&answer).await.unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert_eq!(received.len(), 300_000);
        assert_eq!(relay.await.unwrap().unwrap(), (8, 300_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_moves_is_closed_and_others_are_not() {
        let (mut client, near) = duplex(1 << 10);
        let (far, mut server) = duplex(1 << 10);
        let relay = tokio::spawn(async move { Relay::new(near, far, Duration::from_secs(10)).run().await });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert!(!relay.is_finished());
        assert!(matches!(relay.await.unwrap(), Err(RelayError::Idle)));
    }
}
