//! Passes messages on to name servers, unchanged, and brings back what they answer, unchanged.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::time::{Instant, sleep_until};

use super::answer::Transport;
use super::message::Request;
use super::name_servers::NameServers;
use super::place::{Place, receive};
use crate::limits::{DNS_ATTEMPT_PAUSE, DNS_QUERY_BUDGET, DNS_RETRY_PAUSE};

/// Name servers as they are reached from one place.
#[derive(Debug)]
pub struct Upstream {
    servers: NameServers,
    place: Place,
}

/// Why a message was not answered by a name server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// There is nobody to ask.
    #[error("no name server is configured")]
    NoServer,
    /// Nobody answered. Asking again may help.
    #[error("none of {servers} name servers answered within {DNS_QUERY_BUDGET:?}")]
    TimedOut {
        /// How many there are.
        servers: usize,
    },
    /// Nobody could be asked. Asking again may help.
    #[error("name server {server} cannot be asked: {source}")]
    Failed {
        /// The last that was tried.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Upstream {
    /// Asks `servers` from `place`.
    #[must_use]
    pub fn new(servers: NameServers, place: Place) -> Self {
        Self { servers, place }
    }

    /// The answer of the first name server that gives one. They are asked in order, the next one as well when one takes
    /// long; the message goes out over the transport that it came on.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    ///
    /// # Cancel safety
    /// Cancel-safe; the question is given up.
    pub async fn ask(&self, request: &Request, transport: Transport) -> Result<Vec<u8>, UpstreamError> {
        let servers = self.servers.current();
        match transport {
            // A datagram may get lost, and a name server that restarts refuses for a moment.
            Transport::Udp => first_answer(&servers, ROUNDS_MAX, |server| self.ask_udp(request, server)).await,
            Transport::Tcp => first_answer(&servers, 1, |server| self.ask_tcp(request, server)).await,
        }
    }

    async fn ask_udp(&self, request: &Request, server: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = self.place.udp(server)?;
        socket.send(request.bytes()).await?;
        loop {
            // A refusal is no datagram: it shows as an error only.
            if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
                let error = socket.take_error()?;
                return Err(error.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()));
            }
            let answer = receive(&socket, |bytes, _| request.is_answered_by(bytes).then(|| bytes.to_vec()));
            match answer {
                Ok(Some(answer)) => return Ok(answer),
                // Not meant for us: a late answer to another question, or a forgery.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask_tcp(&self, request: &Request, server: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = self.place.tcp(server).await?;
        stream.write_all(&framed(request.bytes())?).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await?;
            if request.is_answered_by(&answer) {
                return Ok(answer);
            }
        }
    }
}

/// A message after its length, as it goes over a connection.
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("message is longer than 65,535 bytes"))?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    Ok(framed)
}

/// Tries each server in turn, for so many rounds; earlier tries go on while later ones begin.
async fn first_answer<F>(
    servers: &[SocketAddr],
    rounds: usize,
    ask: impl Fn(SocketAddr) -> F,
) -> Result<Vec<u8>, UpstreamError>
where
    F: Future<Output = io::Result<Vec<u8>>>,
{
    let begun = Instant::now();
    let mut turns = (0..rounds).flat_map(|_| servers.iter().copied()).fuse().peekable();
    let mut tries = FuturesUnordered::new();
    let mut next_try = begun;
    let mut failures = 0_usize;
    let mut last = UpstreamError::NoServer;
    loop {
        if tries.is_empty() && turns.peek().is_none() {
            return Err(last);
        }
        tokio::select! {
            Some((server, answered)) = tries.next(), if !tries.is_empty() => match answered {
                Ok(answer) => return Ok(answer),
                Err(source) => {
                    last = UpstreamError::Failed { server, source };
                    failures += 1;
                    // All have failed: a moment later they may not.
                    let pause = if failures.is_multiple_of(servers.len()) { DNS_RETRY_PAUSE } else { NO_PAUSE };
                    next_try = Instant::now() + pause;
                }
            },
            () = sleep_until(next_try), if turns.peek().is_some() => {
                if let Some(server) = turns.next() {
                    let trying = ask(server);
                    tries.push(async move { (server, trying.await) });
                }
                next_try = Instant::now() + DNS_ATTEMPT_PAUSE;
            }
            () = sleep_until(begun + DNS_QUERY_BUDGET) => {
                return Err(UpstreamError::TimedOut { servers: servers.len() });
            }
        }
    }
}

const NO_PAUSE: std::time::Duration = std::time::Duration::ZERO;
/// With a pause after each, the budget ends before the rounds do.
const ROUNDS_MAX: usize = 16;

#[cfg(test)]
mod tests;
