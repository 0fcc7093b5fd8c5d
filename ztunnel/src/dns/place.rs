//! Sockets towards name servers, made where the client is.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_sys::netns::NetNs;
use mesh_sys::socket::TcpConnectOptions;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::Instant;

use crate::limits::{LISTEN_BACKLOG, SOCKET_BATCH_MAX};

/// Where sockets are made, and their mark.
#[derive(Debug, Default)]
pub struct Place {
    /// `None`: the namespace of the process.
    netns: Option<Arc<NetNs>>,
    mark: Option<u32>,
    stash: Mutex<Stash>,
}

/// Unconnected datagram sockets, one list for each family. They hold no port.
#[derive(Debug, Default)]
struct Stash {
    v4: Vec<Socket>,
    v6: Vec<Socket>,
    refilled: Option<Instant>,
}

impl Place {
    /// Sockets of that namespace with that mark.
    #[must_use]
    pub fn new(netns: Option<Arc<NetNs>>, mark: Option<u32>) -> Self {
        Self { netns, mark, stash: Mutex::default() }
    }

    /// A socket that gets datagrams of `server` only, on a port that nobody can foresee.
    ///
    /// # Errors
    /// No socket can be made, or the server cannot be reached from here.
    pub(super) fn udp(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.datagram(server)?;
        socket.connect(&server.into())?;
        UdpSocket::from_std(socket.into())
    }

    /// A connection to `server`.
    ///
    /// # Errors
    /// As the system gives them.
    pub(super) async fn tcp(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let options = TcpConnectOptions { mark: self.mark, ..TcpConnectOptions::default() };
        let socket = self.run(server, || options.socket(server))??;
        TcpSocket::from_std_stream(socket.into()).connect(server).await
    }

    fn datagram(&self, server: SocketAddr) -> io::Result<Socket> {
        if self.netns.is_none() || is_own(server) {
            return self.make(server);
        }
        let mut stash = self.stash.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = stash.of(server).pop() {
            return Ok(socket);
        }
        // Entering a namespace costs more than making a socket, so a busy pod makes several at a time.
        let busy = stash.refilled.is_some_and(|at| at.elapsed() < REFILL_BUSY);
        stash.refilled = Some(Instant::now());
        let count = if busy { SOCKET_BATCH_MAX } else { 1 };
        let mut made = self.run(server, || (0..count).map(|_| self.make(server)).collect::<Vec<_>>())?.into_iter();
        let first = made.next().ok_or_else(|| io::Error::other("no socket was made"))?;
        // If one of the others failed, that is found out when it is needed.
        stash.of(server).extend(made.filter_map(Result::ok));
        first
    }

    fn make(&self, server: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), None)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }

    fn run<T>(&self, server: SocketAddr, work: impl FnOnce() -> T) -> io::Result<T> {
        match &self.netns {
            Some(netns) if !is_own(server) => netns.run(work),
            _ => Ok(work()),
        }
    }
}

impl Stash {
    fn of(&mut self, server: SocketAddr) -> &mut Vec<Socket> {
        if server.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// A name server on loopback is the process's neighbour; from within a pod the address means the pod itself.
fn is_own(server: SocketAddr) -> bool {
    server.ip().is_loopback()
}

/// The listening sockets of one pod.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: Vec<std::net::UdpSocket>,
    pub(super) tcp: Vec<std::net::TcpListener>,
}

impl Sockets {
    /// Binds every address for both transports in the calling thread's network namespace; IPv6 ones only where IPv6
    /// works. `reuse_port`: a second process may bind them, too.
    ///
    /// # Errors
    /// An address cannot be bound; names it.
    pub fn bind(addrs: &[SocketAddr], mark: Option<u32>, reuse_port: bool) -> Result<Self, (SocketAddr, io::Error)> {
        let ipv6 = addrs.iter().any(SocketAddr::is_ipv6) && mesh_sys::socket::ipv6_available();
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for addr in addrs.iter().filter(|addr| addr.is_ipv4() || ipv6) {
            let named = |error| (*addr, error);
            let udp = bind(*addr, Type::DGRAM, mark, reuse_port).map_err(named)?;
            // Asked for port 0, as tests do, both transports get the same one.
            let bound = udp.local_addr().map_err(named)?.as_socket().unwrap_or(*addr);
            let tcp = bind(bound, Type::STREAM, mark, reuse_port).map_err(named)?;
            tcp.listen(LISTEN_BACKLOG).map_err(named)?;
            sockets.udp.push(udp.into());
            sockets.tcp.push(tcp.into());
        }
        Ok(sockets)
    }

    /// Where queries are taken.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

fn bind(addr: SocketAddr, kind: Type, mark: Option<u32>, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Receives one datagram, if there is one, and hands it to `then` where it lies: messages are small and come one by one,
/// so that all sockets of a worker share the room for the largest.
pub(super) fn receive<T>(socket: &UdpSocket, then: impl FnOnce(&[u8], SocketAddr) -> T) -> io::Result<T> {
    DATAGRAM.with_borrow_mut(|room| {
        room.resize(DATAGRAM_BYTES_MAX, 0);
        let (length, from) = socket.try_recv_from(room)?;
        Ok(then(room.get(..length).unwrap_or_default(), from))
    })
}

thread_local! {
    static DATAGRAM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The largest datagram that IP carries.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Refills closer together than this count as busy.
const REFILL_BUSY: Duration = Duration::from_millis(100);
