//! Outgoing TCP connections, made inside a pod's network namespace, and tunnels on top of them.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_hbone::read_ahead::ReadAhead;
use mesh_hbone::settings::HANDSHAKE_BUDGET;
use mesh_hbone::{DialError, Dialer, PoolKey, tls};
use mesh_identity::{CertManager, Crl, PeerChain, Reporter, Revoked};
use mesh_sys::netns::NetNs;
use mesh_sys::socket::{Keepalive, TcpConnectOptions, connect_at_once, spoof_source};
use socket2::Socket;
use tokio::net::TcpStream;

use crate::config::OriginalSource;
use crate::limits::{CONNECT_BUDGET, SOCKET_BATCH_MAX};

/// Why a TCP connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No answer. The destination is down, or something on the way drops packets.
    #[error("connecting to {remote} took longer than {budget:?}")]
    TimedOut {
        /// Where to.
        remote: SocketAddr,
        /// How long was waited.
        budget: Duration,
    },
    /// Refused, unreachable, or no socket could be made.
    #[error("connecting to {remote} failed: {source}")]
    Io {
        /// Where to.
        remote: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The client's address cannot be presented, and must be (`ENABLE_ORIG_SRC=true`).
    #[error("source address {wanted} cannot be presented to {remote}: {source}")]
    Source {
        /// Where to.
        remote: SocketAddr,
        /// The address to present.
        wanted: IpAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes connections from within one pod. One for each pod and worker.
pub struct Sockets {
    netns: Arc<NetNs>,
    options: TcpConnectOptions,
    original_source: OriginalSource,
    stashes: RefCell<Stashes>,
}

#[derive(Default)]
struct Stashes {
    v4: Stash,
    v6: Stash,
}

/// Unconnected sockets of one family. Entering a namespace costs more than making a socket, so a busy pod makes several
/// at a time.
#[derive(Default)]
struct Stash {
    sockets: Vec<Socket>,
    refilled: Option<Instant>,
    batch: usize,
}

impl Sockets {
    /// Nothing is made yet.
    #[must_use]
    pub fn new(
        netns: Arc<NetNs>,
        mark: Option<u32>,
        keepalive: Option<Keepalive>,
        original_source: OriginalSource,
    ) -> Self {
        let options = TcpConnectOptions { mark, source: None, keepalive };
        Self { netns, options, original_source, stashes: RefCell::default() }
    }

    /// Connects to `remote`, presenting `source` if it is given, configured and of another host.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Cancel-safe; the attempt is given up.
    pub async fn connect(&self, remote: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
        match tokio::time::timeout(CONNECT_BUDGET, self.attempt(remote, source)).await {
            Ok(done) => done,
            Err(_) => Err(ConnectError::TimedOut { remote, budget: CONNECT_BUDGET }),
        }
    }

    async fn attempt(&self, remote: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
        let failed = |source| ConnectError::Io { remote, source };
        let socket = self.socket(remote).map_err(failed)?;
        let presented = match source {
            Some(wanted) => self.present(&socket, wanted, remote)?,
            None => None,
        };
        let connected = finish(socket, remote).await;
        match (connected, presented) {
            // The port is chosen on connecting, so this is when the address turns out not to be had.
            (Err(source), Some(wanted)) if source.kind() == io::ErrorKind::AddrNotAvailable => {
                self.unpresentable(wanted, remote, source)?;
                let socket = self.socket(remote).map_err(failed)?;
                finish(socket, remote).await.map_err(failed)
            }
            (connected, _) => connected.map_err(failed),
        }
    }

    /// Binds to the client's address if that is wanted, possible and of another host; returns the address then.
    fn present(&self, socket: &Socket, wanted: IpAddr, remote: SocketAddr) -> Result<Option<IpAddr>, ConnectError> {
        let same_family = wanted.is_ipv4() == remote.is_ipv4();
        if self.original_source == OriginalSource::Off || wanted == remote.ip() || !same_family {
            return Ok(None);
        }
        match spoof_source(socket, wanted) {
            Ok(()) => Ok(Some(wanted)),
            Err(error) => self.unpresentable(wanted, remote, error).map(|()| None),
        }
    }

    /// The application will see the proxy's address instead, unless it must not.
    fn unpresentable(&self, wanted: IpAddr, remote: SocketAddr, error: io::Error) -> Result<(), ConnectError> {
        if self.original_source == OriginalSource::Require {
            return Err(ConnectError::Source { remote, wanted, source: error });
        }
        tracing::warn!(%error, source = %wanted, %remote, "client address cannot be presented");
        Ok(())
    }

    fn socket(&self, remote: SocketAddr) -> io::Result<Socket> {
        let mut stashes = self.stashes.borrow_mut();
        let stash = if remote.is_ipv4() { &mut stashes.v4 } else { &mut stashes.v6 };
        if let Some(socket) = stash.sockets.pop() {
            return Ok(socket);
        }
        let wanted = stash.next_batch();
        let made = self.netns.run(|| (0..wanted).map(|_| self.options.socket(remote)).collect::<Vec<_>>())?;
        let mut sockets = made.into_iter();
        // The first one must be good; if the others failed, that is found out when they are needed.
        let first = sockets.next().ok_or_else(|| io::Error::other("no socket was made"))?;
        stash.sockets.extend(sockets.filter_map(Result::ok));
        first
    }
}

/// Connects; within one host without waiting for an event.
async fn finish(socket: Socket, remote: SocketAddr) -> io::Result<TcpStream> {
    let connected = connect_at_once(&socket, remote)?;
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

impl Stash {
    /// Doubles while refills come quickly, else starts again at one.
    fn next_batch(&mut self) -> usize {
        let busy = self.refilled.is_some_and(|at| at.elapsed() < REFILL_BUSY);
        self.batch = if busy { (self.batch * 2).min(SOCKET_BATCH_MAX) } else { 1 };
        self.refilled = Some(Instant::now());
        self.batch
    }
}

/// Dials tunnels for the pool: our certificate, a TCP connection from within the pod, mutual TLS.
pub struct HboneDialer {
    sockets: Rc<Sockets>,
    certs: CertManager,
    crl: Option<Crl>,
}

impl HboneDialer {
    /// A dialler for one pod and worker.
    #[must_use]
    pub fn new(sockets: Rc<Sockets>, certs: CertManager) -> Self {
        Self { sockets, certs, crl: None }
    }

    /// Keeps servers in mind that may be revoked later.
    #[must_use]
    pub fn with_crl(mut self, crl: Option<Crl>) -> Self {
        self.crl = crl;
        self
    }
}

impl Dialer for HboneDialer {
    type Io = tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        let upstream = key.upstream;
        let cert = self.certs.fetch(&key.source).await.map_err(DialError::Certificate)?;
        let tcp = self.sockets.connect(upstream, None).await.map_err(|error| match error {
            ConnectError::TimedOut { remote, budget } => DialError::TimedOut { upstream: remote, budget },
            ConnectError::Io { remote, source } | ConnectError::Source { remote, source, .. } => {
                DialError::Connect { upstream: remote, source: Arc::new(source) }
            }
        })?;
        let handshake = tls::connect(ReadAhead::new(tcp), &cert, &key.expected);
        match tokio::time::timeout(HANDSHAKE_BUDGET, handshake).await {
            Ok(done) => done.map_err(|e| e.dialling(upstream)),
            Err(_) => Err(DialError::Tls { upstream, reason: format!("no answer within {HANDSHAKE_BUDGET:?}") }),
        }
    }

    fn track(&self, io: &Self::Io) -> Option<Arc<PeerChain>> {
        self.crl.as_ref()?.track(Reporter::Source, tls::presented(io))
    }

    fn revoked(&self, server: &PeerChain) -> Option<Revoked> {
        self.crl.as_ref()?.revoked(server)
    }
}

/// Refills closer together than this count as busy.
const REFILL_BUSY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(original_source: OriginalSource) -> Sockets {
        let netns = Arc::new(NetNs::current().unwrap());
        Sockets::new(netns, None, Some(Keepalive::default()), original_source)
    }

    #[tokio::test]
    async fn a_refused_connection_names_its_destination() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        drop(listener);
        let error = sockets(OriginalSource::Try).connect(remote, None).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("connecting to {remote} failed: ")), "{error}");
    }

    #[tokio::test]
    async fn the_own_destination_address_is_never_spoofed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let required = sockets(OriginalSource::Require);
        let stream = required.connect(remote, Some(remote.ip())).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_client_address_that_cannot_be_presented_is_left_out_unless_it_is_required() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let foreign: IpAddr = "192.0.2.1".parse().unwrap();
        let unprivileged = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(sockets(OriginalSource::Try).unpresentable(foreign, remote, unprivileged()).is_ok());
        let refused = sockets(OriginalSource::Require).unpresentable(foreign, remote, unprivileged()).unwrap_err();
        assert!(refused.to_string().starts_with(&format!("source address {foreign} cannot be presented to {remote}")));
        // Off: not even tried.
        sockets(OriginalSource::Off).connect(remote, Some(foreign)).await.unwrap();
        // IPv6 cannot be presented to an IPv4 application.
        sockets(OriginalSource::Require).connect(remote, Some("fd00::5".parse().unwrap())).await.unwrap();
    }

    #[test]
    fn a_busy_pod_makes_several_sockets_at_a_time() {
        let mut stash = Stash::default();
        let batches: Vec<_> = (0..6).map(|_| stash.next_batch()).collect();
        assert_eq!(batches, [1, 2, 4, 8, 8, 8]);
        stash.refilled = Instant::now().checked_sub(Duration::from_secs(1));
        assert_eq!(stash.next_batch(), 1);
    }
}
