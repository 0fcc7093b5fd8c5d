//! The network: pods are network namespaces on one bridge; applications are sockets made inside them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_sys::netns::NetNs;
use mesh_sys::socket::TcpConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// A bridge that joins pods.
pub struct Hub {
    netns: NetNs,
    ports: AtomicUsize,
}

/// One network namespace with an interface on the bridge.
#[derive(Clone)]
pub struct Pod {
    /// Name of the pod and of its service account.
    pub name: String,
    /// Its namespace in the sense of the API.
    pub namespace: String,
    /// Unique id, as the node agent knows it.
    pub uid: String,
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// IPv4 address.
    pub v4: IpAddr,
    /// IPv6 address.
    pub v6: IpAddr,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A bridge without pods.
    #[must_use]
    pub fn new() -> Self {
        let netns = NetNs::create().unwrap();
        ip(&netns, "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n");
        Self { netns, ports: AtomicUsize::new(0) }
    }

    /// A pod with an address of 10.0.0.0/8 and its IPv6 twin.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str, v4: &str) -> Pod {
        let netns = Arc::new(NetNs::create().unwrap());
        let v4: IpAddr = v4.parse().unwrap();
        let IpAddr::V4(four) = v4 else { panic!("an IPv4 address is expected: {v4}") };
        let [_, b, c, d] = four.octets().map(u16::from);
        let v6: IpAddr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, b, c, d).into();
        let port = self.ports.fetch_add(1, Ordering::SeqCst);
        let target = path_of(&netns);
        ip(
            &self.netns,
            &format!(
                "link add v{port} type veth peer name eth0 netns {target}\nlink set v{port} master br0\nlink set v{port} up\n"
            ),
        );
        ip(
            &netns,
            &format!(
                "addr add {v4}/8 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
                 route add default dev eth0\nroute add ::/0 dev eth0\n"
            ),
        );
        Pod { name: name.into(), namespace: namespace.into(), uid: format!("uid-of-{name}"), netns, v4, v6 }
    }
}

impl Pod {
    /// Gives the pod one more address.
    pub fn add_address(&self, cidr: &str) {
        ip(&self.netns, &format!("addr add {cidr} dev eth0 {}\n", if cidr.contains(':') { "nodad" } else { "" }));
    }

    /// The SPIFFE identity of the pod's service account.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.name)
    }

    /// A port of the pod's IPv4 address.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4, port)
    }

    /// A listener in the pod.
    #[must_use]
    pub fn listen(&self, addr: SocketAddr) -> TcpListener {
        let listener = self.netns.run(|| std::net::TcpListener::bind(addr)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// A listener on all addresses of the pod.
    #[must_use]
    pub fn listen_any(&self, port: u16) -> TcpListener {
        self.listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }

    /// A UDP socket in the pod.
    #[must_use]
    pub fn udp(&self, addr: SocketAddr) -> UdpSocket {
        let socket = self.netns.run(|| std::net::UdpSocket::bind(addr)).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }

    /// Connects as an application of the pod does.
    ///
    /// # Errors
    /// As `connect` gives them.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.connect_with(&TcpConnectOptions::default(), addr).await
    }

    /// Connects as the node proxy does: past the redirection.
    ///
    /// # Errors
    /// As `connect` gives them.
    pub async fn connect_marked(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.connect_with(&TcpConnectOptions { mark: Some(0x539), ..Default::default() }, addr).await
    }

    async fn connect_with(&self, options: &TcpConnectOptions, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.netns.run(|| options.socket(addr))??;
        TcpSocket::from_std_stream(socket.into()).connect(addr).await
    }

    /// Sends `question`, closes that direction, and returns all that comes back.
    ///
    /// # Errors
    /// As the connection gives them.
    pub async fn ask(&self, addr: SocketAddr, question: &str) -> io::Result<String> {
        let mut stream = self.connect(addr).await?;
        stream.write_all(question.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Serves an application that answers `<client address> said <question>` once the client has finished.
    pub fn serve_echo(&self, port: u16) {
        let listener = self.listen_any(port);
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, peer)) = listener.accept().await else { return };
                tokio::spawn(async move {
                    let mut question = String::new();
                    stream.read_to_string(&mut question).await?;
                    let answer = format!("{} said {question}", peer.ip().to_canonical());
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await
                });
            }
        });
    }

    /// Serves an application that returns each byte as it comes.
    pub fn serve_copies(&self, port: u16) {
        let listener = self.listen_any(port);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
    }
}

/// Runs several `ip` commands, one a line, inside a namespace.
fn ip(netns: &NetNs, batch: &str) {
    let output = netns
        .run(|| {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            io::Write::write_all(&mut child.stdin.take().unwrap(), batch.as_bytes())?;
            child.wait_with_output()
        })
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "ip {batch}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path_of(netns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}
