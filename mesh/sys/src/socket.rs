//! Socket options of the data path: marks, transparent binds, original destinations, keep-alive.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// How a listener is made.
#[derive(Debug, Clone)]
pub struct TcpListenOptions {
    /// Where to listen. An IPv6 wildcard also takes IPv4 unless `v6_only`.
    pub addr: SocketAddr,
    /// Lets several listeners of one user share the port.
    pub reuse_port: bool,
    /// Lets connections keep a local address that is not of this host (IP_TRANSPARENT).
    pub transparent: bool,
    /// Packet mark of the listener and, by inheritance, of what it accepts.
    pub mark: Option<u32>,
    /// Connections that wait for accept.
    pub backlog: i32,
    /// An IPv6 listener that takes no IPv4.
    pub v6_only: bool,
    /// Inherited by accepted connections, which saves a system call for each.
    pub keepalive: Option<Keepalive>,
}

impl TcpListenOptions {
    /// Plain options for `addr`: backlog 128, nothing else.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, reuse_port: false, transparent: false, mark: None, backlog: 128, v6_only: false, keepalive: None }
    }

    /// A bound, listening, non-blocking socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// As `socket`, `setsockopt`, `bind` and `listen` give them.
    pub fn bind(&self) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM.nonblocking(), None)?;
        if self.addr.is_ipv6() {
            socket.set_only_v6(self.v6_only)?;
        }
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if self.transparent {
            set_transparent(&socket, self.addr.ip())?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = &self.keepalive {
            keepalive.apply(&socket)?;
        }
        socket.bind(&self.addr.into())?;
        socket.listen(self.backlog)?;
        Ok(socket.into())
    }
}

/// How an outgoing connection is made.
#[derive(Debug, Clone, Default)]
pub struct TcpConnectOptions {
    /// Packet mark.
    pub mark: Option<u32>,
    /// Source address to present, even one that is not of this host (needs CAP_NET_ADMIN or CAP_NET_RAW).
    pub source: Option<IpAddr>,
    /// Keep-alive of the connection.
    pub keepalive: Option<Keepalive>,
}

impl TcpConnectOptions {
    /// An unconnected, non-blocking socket for `remote` in the calling thread's network namespace.
    ///
    /// # Errors
    /// As `socket`, `setsockopt` and `bind` give them.
    pub fn socket(&self, remote: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(keepalive) = &self.keepalive {
            keepalive.apply(&socket)?;
        }
        if let Some(source) = self.source {
            spoof_source(&socket, source)?;
        }
        Ok(socket)
    }
}

/// Binds an unconnected socket to a source address that need not be of this host. The socket stays in the network
/// namespace it was made in; the calling thread may be in another.
///
/// # Errors
/// Without CAP_NET_ADMIN or CAP_NET_RAW in the socket's namespace, or when the address family differs.
pub fn spoof_source(socket: &Socket, source: IpAddr) -> io::Result<()> {
    // Includes what IP_FREEBIND allows.
    set_transparent(socket, source)?;
    bind_address(socket, source)
}

/// Binds to an address and leaves the port to `connect`, which can use one again that leads elsewhere: a port that is
/// chosen before the destination is known is taken from all destinations, and runs out.
fn bind_address(socket: &Socket, source: IpAddr) -> io::Result<()> {
    // For IPv6, too. A kernel without it (before 4.2) gives a port at once, which works as well.
    if let Err(error) = nix::sys::socket::setsockopt(socket, IpBindAddressNoPort, &true) {
        tracing::debug!(%error, "source port is chosen before the destination");
    }
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Begins to connect a non-blocking socket; true if it is connected already, as it is within one host. If not, the
/// socket becomes writable when the attempt has ended.
///
/// # Errors
/// As `connect` gives them.
pub fn connect_at_once(socket: &Socket, remote: SocketAddr) -> io::Result<bool> {
    let remote = remote.into();
    // Within one host the handshake is over before the first call returns, which does not tell; the second one does.
    for _ in 0..2 {
        match socket.connect(&remote) {
            Ok(()) => return Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EALREADY) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(false)
}

/// TCP keep-alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub retries: u32,
    /// Data that stays unacknowledged for as long as all probes would take ends the connection, too (TCP_USER_TIMEOUT).
    pub user_timeout: bool,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { time: Duration::from_secs(180), interval: Duration::from_secs(180), retries: 9, user_timeout: false }
    }
}

impl Keepalive {
    fn apply(&self, socket: &Socket) -> io::Result<()> {
        let settings = TcpKeepalive::new().with_time(self.time).with_interval(self.interval).with_retries(self.retries);
        socket.set_tcp_keepalive(&settings)?;
        if self.user_timeout {
            socket.set_tcp_user_timeout(Some(self.time + self.interval * self.retries))?;
        }
        Ok(())
    }
}

/// Turns Nagle's algorithm off.
///
/// # Errors
/// As `setsockopt` gives them.
pub fn set_nodelay(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

/// Sets the packet mark of a socket.
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
}

/// Makes the close of a connection a reset, or an orderly end again. A reset tells the peer at once and leaves no port
/// behind that waits for stragglers; what was not sent yet is lost.
///
/// # Errors
/// As `setsockopt` gives them.
pub fn set_reset_on_close(socket: &impl AsFd, reset: bool) -> io::Result<()> {
    SockRef::from(socket).set_linger(reset.then_some(Duration::ZERO))
}

/// Bytes that were written to a TCP connection and that the peer's system has not confirmed yet; an end that was written
/// counts as one.
///
/// # Errors
/// As `ioctl` gives them.
#[allow(unsafe_code)] // SIOCOUTQ has no wrapper in socket2 or nix
pub fn unconfirmed_bytes(socket: &impl AsFd) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: tcp(7), SIOCOUTQ (the same number as TIOCOUTQ): the kernel writes one c_int to the address that is passed.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    nix::errno::Errno::result(done)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Where a redirected connection was going, canonical; the local address of one that was not redirected.
///
/// # Errors
/// When the socket is not a connected TCP socket.
pub fn original_dst(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let found = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).or_else(|_| socket.local_addr())?;
    let addr =
        found.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "socket is not an IP socket"))?;
    Ok(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

/// Whether the calling thread's network namespace has a working IPv6 loopback.
#[must_use]
pub fn ipv6_available() -> bool {
    std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok()
}

/// The wildcard address that takes both families where IPv6 works, else IPv4 only.
#[must_use]
pub fn wildcard(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn set_transparent(socket: &Socket, addr: IpAddr) -> io::Result<()> {
    match addr {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => set_ipv6_transparent(socket),
    }
}

#[allow(unsafe_code)] // IPV6_TRANSPARENT has no setter in socket2 or nix
fn set_ipv6_transparent(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(2): the option value is a c_int on this frame and its exact size is passed.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_not_redirected_reports_its_local_address() {
        let listener = TcpListenOptions::new("127.0.0.1:0".parse().unwrap()).bind().unwrap();
        let addr = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(original_dst(&client).unwrap(), client.local_addr().unwrap());
    }

    #[test]
    fn a_source_address_takes_no_port_before_the_destination_is_known() {
        for ip in ["127.0.0.1", "::1"] {
            let any = SocketAddr::new(ip.parse().unwrap(), 0);
            let Ok(listener) = std::net::TcpListener::bind(any) else {
                assert!(!ipv6_available() && any.is_ipv6());
                continue;
            };
            let remote = listener.local_addr().unwrap();
            let socket = TcpConnectOptions::default().socket(remote).unwrap();
            bind_address(&socket, any.ip()).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap(), any);
            socket.set_nonblocking(false).unwrap();
            socket.connect(&remote.into()).unwrap();
            let local = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(listener.accept().unwrap().1, local);
            assert!(local.ip() == any.ip() && local.port() != 0);
        }
    }

    #[test]
    fn a_connection_within_the_host_is_there_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let socket = TcpConnectOptions::default().socket(remote).unwrap();
        assert!(connect_at_once(&socket, remote).unwrap());
        assert_eq!(listener.accept().unwrap().1, socket.local_addr().unwrap().as_socket().unwrap());
        drop(listener);
        let socket = TcpConnectOptions::default().socket(remote).unwrap();
        assert_eq!(connect_at_once(&socket, remote).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn two_listeners_share_a_port_only_when_asked_to() {
        let mut options = TcpListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.reuse_port = true;
        let first = options.bind().unwrap();
        options.addr = first.local_addr().unwrap();
        let second = options.bind();
        assert!(second.is_ok());
        options.reuse_port = false;
        assert!(options.bind().is_err());
    }

    #[test]
    fn what_the_peer_has_not_confirmed_is_counted_and_a_close_may_be_a_reset() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for reset in [true, false] {
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"heard").unwrap();
            let mut heard = [0; 5];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(unconfirmed_bytes(&client).unwrap(), 0);
            set_reset_on_close(&client, true).unwrap();
            set_reset_on_close(&client, reset).unwrap();
            drop(client);
            let end = server.read(&mut heard).map_err(|error| error.kind());
            assert_eq!(end, if reset { Err(io::ErrorKind::ConnectionReset) } else { Ok(0) });
        }
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        // Nobody reads: what the peer's system does not take stays here.
        while client.write(&[0; 64 << 10]).is_ok() {}
        assert!(unconfirmed_bytes(&client).unwrap() > 0);
    }

    #[test]
    fn keepalive_is_inherited_from_the_listener() {
        let mut options = TcpListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.keepalive = Some(Keepalive::default());
        let listener = options.bind().unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(SockRef::from(&accepted).keepalive().unwrap());
        assert!(accepted.nodelay().unwrap());
    }
}
