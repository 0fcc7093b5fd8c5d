//! Pods: network namespaces on one switch, enrolled or not.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use mesh_core::Identity;
use mesh_sys::netns::NetNs;
use mesh_sys::process::work_in_background;
use mesh_sys::route::{Family, LocalPolicyRoute};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// What joins the pods: a bridge in a namespace of its own.
#[derive(Debug)]
pub struct Switch {
    netns: NetNs,
}

/// A network namespace with an address.
#[derive(Debug)]
pub struct Pod {
    /// Name, and service account.
    pub name: String,
    /// Its namespace, for processes and sockets.
    pub netns: Arc<NetNs>,
    /// Its address.
    pub ip: IpAddr,
    /// Its applications end when this is dropped.
    applications: Mutex<Option<oneshot::Sender<()>>>,
}

impl Switch {
    /// An empty one.
    ///
    /// # Errors
    /// Without privilege, or without `ip`.
    pub fn new() -> Result<Self> {
        let switch = Self { netns: NetNs::create()? };
        ip(&switch.netns, &["link", "add", "br0", "type", "bridge"])?;
        ip(&switch.netns, &["link", "set", "br0", "up"])?;
        Ok(switch)
    }

    /// A pod `10.1.HIGH.LOW`.
    ///
    /// # Errors
    /// As [`Switch::new`].
    pub fn pod(&self, name: &str, [high, low]: [u8; 2]) -> Result<Pod> {
        let netns = NetNs::create()?;
        // The descriptor's path names the namespace for `ip`, which needs no process in it then.
        let there = format!("/proc/{}/fd/{}", std::process::id(), netns_fd(&netns));
        let port = format!("p{high}-{low}");
        ip(&self.netns, &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &there])?;
        ip(&self.netns, &["link", "set", &port, "master", "br0", "up"])?;
        let ip_address = Ipv4Addr::new(10, 1, high, low).into();
        let (name, netns) = (name.to_owned(), Arc::new(netns));
        let pod = Pod { name, netns, ip: ip_address, applications: Mutex::default() };
        pod.add_address(pod.ip)?;
        ip(&pod.netns, &["link", "set", "eth0", "up"])?;
        ip(&pod.netns, &["route", "add", "default", "dev", "eth0"])?;
        Ok(pod)
    }
}

impl Pod {
    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let text = format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{}", self.name);
        text.parse().expect("names of test pods are plain words")
    }

    /// One more address.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn add_address(&self, address: IpAddr) -> Result<()> {
        ip(&self.netns, &["addr", "add", &format!("{address}/16"), "dev", "eth0"])
    }

    /// The rules of an enrolled pod.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn redirect(&self) -> Result<()> {
        let route = LocalPolicyRoute { mark: 0x111, mask: 0xfff, table: 100, priority: 32764 };
        self.netns.run(|| {
            mesh_sys::nft::apply(RULES).context("rules")?;
            route.add(Family::V4)?;
            route.add(Family::V6)?;
            Ok(())
        })?
    }

    /// A socket's way into the pod: connects from it, as an application does; `from` is the local address, if it matters.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn connect(&self, to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
        let socket = self.netns.run(|| {
            let socket = TcpSocket::new_v4()?;
            socket.set_nodelay(true)?;
            if let Some(from) = from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            Ok::<_, std::io::Error>(socket)
        })??;
        socket.connect(to).await
    }

    /// Runs what `work` makes on a thread that lives in the pod, on a runtime of its own.
    pub fn spawn<F, T>(&self, work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<T>>
    where
        F: Future<Output = Result<T>>,
        T: Send + 'static,
    {
        let netns = self.netns.clone();
        std::thread::spawn(move || {
            netns.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, work())
        })
    }

    /// Serves applications in the pod for as long as it lives: an echo, one that only talks, one that does not
    /// listen.
    ///
    /// # Errors
    /// A port is taken.
    pub fn serve(&self) -> Result<()> {
        self.serve_after(|| Ok(()))
    }

    /// [`Pod::serve`], on processors that nobody else wants: what the applications of a pod under attack take of the
    /// machine is for the node to bound, not for the proxy.
    ///
    /// # Errors
    /// As [`Pod::serve`].
    pub fn serve_in_background(&self) -> Result<()> {
        self.serve_after(work_in_background)
    }

    /// `first` runs on the applications' thread.
    fn serve_after(&self, first: fn() -> std::io::Result<()>) -> Result<()> {
        let (ready, bound) = std::sync::mpsc::sync_channel(1);
        let (lives, ended) = oneshot::channel::<()>();
        *self.applications.lock().unwrap_or_else(PoisonError::into_inner) = Some(lives);
        drop(self.spawn(move || async move {
            first()?;
            let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
            let listen = |port| {
                let socket = TcpSocket::new_v4()?;
                // Accepted connections inherit it: what is not read must not fill the machine's memory.
                socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(any, port))?;
                socket.listen(1024)
            };
            let listeners = (listen(ECHO_PORT)?, listen(TALK_PORT)?, listen(DEAF_PORT)?);
            ready.send(())?;
            let (echoes, talkers, deaf) = listeners;
            let serve = async { tokio::join!(each(echoes, echo), each(talkers, talk), each(deaf, ignore)) };
            tokio::select! {
                _ = serve => {}
                _ = ended => {}
            }
            anyhow::Ok(())
        }));
        bound.recv().with_context(|| format!("an application of {} has not started", self.name))
    }
}

async fn each<F: Future<Output = ()> + 'static>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            spawn_local(serve(stream));
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn talk(mut stream: TcpStream) {
    let piece = vec![7; 16 << 10];
    while stream.write_all(&piece).await.is_ok() {}
}

async fn ignore(stream: TcpStream) {
    // Until the other side is gone; what it sends stays where it is.
    let _ = stream.ready(tokio::io::Interest::ERROR).await;
}

/// Runs `ip ARGS` in a namespace.
///
/// # Errors
/// What it said.
pub fn ip(netns: &NetNs, args: &[&str]) -> Result<()> {
    let output = netns.run(|| Command::new("ip").args(args).output())?.context("ip(8) is needed")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn netns_fd(netns: &NetNs) -> i32 {
    use std::os::fd::AsFd;
    netns.as_fd().as_raw_fd()
}

const SEND_BUFFER_BYTES: u32 = 32 << 10;
/// Kubernetes namespace of every pod.
pub const NAMESPACE: &str = "shop";
/// Sends back what it gets.
pub const ECHO_PORT: u16 = 8080;
/// Sends for ever.
pub const TALK_PORT: u16 = 8081;
/// Accepts and does not read.
pub const DEAF_PORT: u16 = 8082;

const RULES: &str = include_str!("pod.nft");
