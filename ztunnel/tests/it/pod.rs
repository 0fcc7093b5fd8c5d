//! A pod: a network namespace with an interface, optionally with the redirection of an enrolled one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use mesh_sys::netns::NetNs;
use mesh_sys::route::{Family, LocalPolicyRoute};
use mesh_sys::socket::TcpConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) netns: Arc<NetNs>,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    /// Lives in the namespace so that `ip` can name it.
    holder: Child,
}

impl Pod {
    pub(crate) fn new(name: &'static str, v4: &str, v6: &str) -> Self {
        let netns = Arc::new(NetNs::create().unwrap());
        let holder = netns.run(|| Command::new("sleep").arg("600").stdout(Stdio::null()).spawn()).unwrap().unwrap();
        Self { name, netns, v4: v4.parse().unwrap(), v6: v6.parse().unwrap(), holder }
    }

    /// Joins two pods by a cable.
    pub(crate) fn join(&self, other: &Self) {
        let peer = other.holder.id().to_string();
        self.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &peer]);
        for pod in [self, other] {
            pod.ip(&["addr", "add", &format!("{}/24", pod.v4), "dev", "eth0"]);
            pod.ip(&["addr", "add", &format!("{}/64", pod.v6), "dev", "eth0", "nodad"]);
            pod.ip(&["link", "set", "eth0", "up"]);
            pod.ip(&["route", "add", "default", "dev", "eth0"]);
            pod.ip(&["-6", "route", "add", "default", "dev", "eth0"]);
        }
    }

    /// A cable to another pod, beside those that it has.
    pub(crate) fn cable(&self, other: &Self, own: &str, others: &str) {
        let peer = other.holder.id().to_string();
        self.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", &peer]);
        for (pod, device, addr) in [(self, "eth0", own), (other, "eth1", others)] {
            pod.ip(&["addr", "add", &format!("{addr}/24"), "dev", device]);
            pod.ip(&["link", "set", device, "up"]);
        }
    }

    /// One more address of the pod's interface.
    pub(crate) fn add_address(&self, ip: IpAddr) {
        self.ip(&["addr", "add", &format!("{ip}/32"), "dev", "eth0"]);
    }

    fn ip(&self, args: &[&str]) {
        let output = self.netns.run(|| Command::new("ip").args(args).output()).unwrap().unwrap();
        assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts the rules of an enrolled pod in place.
    pub(crate) fn redirect(&self) {
        let route = LocalPolicyRoute { mark: 0x111, mask: 0xfff, table: 100, priority: 32764 };
        self.netns
            .run(|| {
                mesh_sys::nft::apply(RULES).unwrap();
                route.add(Family::V4).unwrap();
                route.add(Family::V6).unwrap();
            })
            .unwrap();
    }

    pub(crate) fn listen(&self, addr: SocketAddr) -> TcpListener {
        let listener = self.netns.run(|| std::net::TcpListener::bind(addr)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// Connects as an application of the pod does.
    pub(crate) async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.netns.run(|| TcpConnectOptions::default().socket(addr))??;
        TcpSocket::from_std_stream(socket.into()).connect(addr).await
    }

    /// Sends `question`, closes that direction, and returns all that comes back.
    pub(crate) async fn ask(&self, addr: SocketAddr, question: &str) -> io::Result<String> {
        let mut stream = self.connect(addr).await?;
        stream.write_all(question.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Serves an application that sends back what it gets, at once.
    pub(crate) fn serve_lines(&self, port: u16) {
        let listener = self.listen(SocketAddr::new("::".parse().unwrap(), port));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
    }

    /// Serves an application that answers `<address of the client> said <question>` once the client has finished.
    pub(crate) fn serve_echo(&self, port: u16) {
        let listener = self.listen(SocketAddr::new("::".parse().unwrap(), port));
        tokio::spawn(async move {
            loop {
                let (mut stream, peer) = listener.accept().await.unwrap();
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
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What the node agent installs, without DNS capture and probes.
const RULES: &str = "
table inet nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
        ip6 daddr != ::1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
    }
    chain output {
        type nat hook output priority -100;
        meta l4proto tcp meta mark & 0xfff == 0x111 accept
        oifname lo ip daddr != 127.0.0.1 accept
        oifname lo ip6 daddr != ::1 accept
        ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
        ip6 daddr != ::1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
    }
}
table inet mangle {
    chain prerouting {
        type filter hook prerouting priority -150;
        meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111
    }
    chain output {
        type route hook output priority -150;
        ct mark & 0xfff == 0x111 meta mark set ct mark
    }
}
";
