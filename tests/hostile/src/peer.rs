//! A peer that writes frames by hand, after a handshake like any other.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::Identity;
use mesh_hbone::tls;
use mesh_identity::WorkloadCert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

/// Everything that it takes to reach the pod under attack, from a thread that lives in the attacker's pod.
#[derive(Debug, Clone)]
pub struct Attack {
    /// Port 15008 of the pod.
    pub upstream: SocketAddr,
    /// Whom to expect there.
    pub expected: Identity,
    /// A valid certificate: a hostile peer need not be a stranger.
    pub cert: Arc<WorkloadCert>,
    /// Addresses to come from.
    pub crowd: Vec<IpAddr>,
}

/// A connection after TLS.
pub struct Peer {
    stream: TlsStream<TcpStream>,
}

impl Attack {
    /// Connects from the `nth` address of the crowd, round and round.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn tcp(&self, nth: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        // Many short connections: the port must be free again at once.
        socket.set_zero_linger()?;
        if let Some(from) = self.crowd.get(nth % self.crowd.len().max(1)) {
            socket.bind(SocketAddr::new(*from, 0))?;
        }
        let connecting = socket.connect(self.upstream);
        tokio::time::timeout(CONNECT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// The proxy does not want to, or not in time.
    pub async fn peer(&self, nth: usize) -> io::Result<Peer> {
        let tcp = self.tcp(nth).await?;
        let connecting = tls::connect(tcp, &self.cert, std::slice::from_ref(&self.expected));
        let connected = tokio::time::timeout(CONNECT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?;
        Ok(Peer { stream: connected.map_err(|error| io::Error::other(error.reason))? })
    }

    /// [`Attack::peer`] that has sent its preface and `settings`.
    ///
    /// # Errors
    /// As [`Attack::peer`].
    pub async fn opened(&self, nth: usize, settings: &[(u16, u32)]) -> io::Result<Peer> {
        let mut peer = self.peer(nth).await?;
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        // With the acknowledgement of what the proxy says first: its windows count from then on.
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &payload), &frame(SETTINGS, ACK, 0, &[])].concat();
        peer.send(&opening).await?;
        Ok(peer)
    }
}

impl Peer {
    /// Sends all of it and throws away what the proxy says meanwhile, so that neither waits for the other.
    ///
    /// # Errors
    /// The proxy has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        let mut waste = vec![0; 16 << 10];
        let write = async {
            writing.write_all(bytes).await?;
            writing.flush().await
        };
        let read = async {
            loop {
                if reading.read(&mut waste).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        tokio::select! {
            written = write => written,
            ended = read => ended,
        }
    }

    /// Sends all of it and reads nothing.
    ///
    /// # Errors
    /// The proxy has closed the connection.
    pub async fn send_only(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame of the proxy: type and payload. Pings are answered and not shown.
    ///
    /// # Errors
    /// The proxy has closed the connection, or says nothing.
    pub async fn next_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            let read = self.read_frame();
            let (kind, flags, payload) =
                tokio::time::timeout(CONNECT, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
            if kind == PING && flags & ACK == 0 {
                self.send_only(&frame(PING, ACK, 0, &payload)).await?;
            } else {
                return Ok((kind, payload));
            }
        }
    }

    async fn read_frame(&mut self) -> io::Result<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok((kind, flags, payload))
    }
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes: Vec<u8> = length.into_iter().skip(1).collect();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HEADERS of a CONNECT to `authority`, with `more` header bytes after it.
#[must_use]
pub fn connect(stream: u32, authority: &str, more: &[u8]) -> Vec<u8> {
    let length = u8::try_from(authority.len()).unwrap_or(127);
    let block = [&b"\x02\x07CONNECT\x01"[..], &[length], authority.as_bytes(), more].concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame type.
pub const DATA: u8 = 0;
/// Frame type.
pub const HEADERS: u8 = 1;
/// Frame type.
pub const PRIORITY: u8 = 2;
/// Frame type.
pub const RESET: u8 = 3;
/// Frame type.
pub const SETTINGS: u8 = 4;
/// Frame type.
pub const PING: u8 = 6;
/// Frame type.
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type.
pub const CONTINUATION: u8 = 9;
/// Frame type.
pub const GO_AWAY: u8 = 7;
/// Flag of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// Flag of DATA.
pub const PADDED: u8 = 8;
/// A setting: bytes that may be sent on a stream at first.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
const CONNECT: Duration = Duration::from_secs(5);
