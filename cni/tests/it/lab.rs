//! Two network namespaces joined by a wire, and sockets in them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use mesh_sys::netns::NetNs;

/// Whether this process may do what the test needs. An ordinary user's process starts itself again inside namespaces
/// of its own, runs the named test there, and the outer test only checks that it passed.
pub(crate) fn privileged(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() && NetNs::create().is_ok() {
        if std::env::var_os(INSIDE).is_some() {
            mesh_sys::netns::loopback_up().unwrap();
        }
        return true;
    }
    assert!(std::env::var_os(INSIDE).is_none(), "no namespaces even as root of a user namespace");
    let inner = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (package util-linux) is needed to run this test without root");
    let text = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && text.contains("1 passed"), "inside a user namespace:\n{text}");
    false
}

const INSIDE: &str = "CNI_TEST_INSIDE_USER_NAMESPACE";

/// A pod and the rest of the world. Addresses: pod 10.9.0.2, fd09::2; world 10.9.0.1, fd09::1, which is also the pod's
/// default gateway.
pub(crate) struct Lab {
    pub(crate) pod: NetNs,
    pub(crate) world: NetNs,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let (pod, world) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let peer = path(&pod);
        ip(&world, &format!("link add w0 type veth peer name eth0 netns {peer}"));
        for (netns, dev, last) in [(&world, "w0", 1), (&pod, "eth0", 2)] {
            ip(netns, &format!("addr add 10.9.0.{last}/24 dev {dev}"));
            ip(netns, &format!("addr add fd09::{last}/64 dev {dev} nodad"));
            ip(netns, &format!("link set {dev} up"));
        }
        ip(&pod, "route add default via 10.9.0.1");
        ip(&pod, "-6 route add default via fd09::1");
        Self { pod, world }
    }
}

/// A path under which other processes can open the namespace.
pub(crate) fn path(netns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

pub(crate) fn ip(netns: &NetNs, args: &str) {
    let output = netns.run(|| Command::new("ip").args(args.split(' ')).output().unwrap()).unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn listen(netns: &NetNs, addr: &str) -> TcpListener {
    netns.run(|| TcpListener::bind(addr).unwrap()).unwrap()
}

/// Accepts one connection within a deadline.
pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return (stream, peer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(std::time::Instant::now() < until, "nobody connected to {}", listener.local_addr().unwrap());
                std::thread::yield_now();
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

pub(crate) fn connect(netns: &NetNs, addr: &str) -> std::io::Result<TcpStream> {
    let addr: SocketAddr = addr.parse().unwrap();
    let stream = netns.run(|| TcpStream::connect_timeout(&addr, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects as the node proxy does: marked, and where wanted with somebody else's address.
pub(crate) fn connect_as_proxy(netns: &NetNs, addr: &str, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let addr: SocketAddr = addr.parse().unwrap();
    let options = mesh_sys::socket::TcpConnectOptions { mark: Some(0x539), source, keepalive: None };
    netns
        .run(|| {
            let socket = options.socket(addr)?;
            socket.set_nonblocking(false)?;
            socket.connect_timeout(&addr.into(), PATIENCE)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
        .unwrap()
}

/// Both ends hear each other.
pub(crate) fn talk(a: &mut TcpStream, b: &mut TcpStream) {
    for (from, to) in [(true, false), (false, true)] {
        assert_ne!(from, to);
        let (from, to) = if from { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        from.write_all(b"ping").unwrap();
        let mut buffer = [0; 4];
        to.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ping");
    }
}

/// Generous: machines under test are slow, and a passing test never waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
