//! The control plane's port: TLS, HTTP/2, and the two services behind it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use mesh_sys::netns::NetNs;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::ads::Ads;
use crate::ca::Ca;
use crate::grpc;

/// A control plane that listens in some network namespace. Connections end when it is dropped.
pub struct Control {
    shared: Arc<Shared>,
    netns: NetNs,
    addr: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    ads: Ads,
    ca: Ca,
    tls: Mutex<Arc<ServerConfig>>,
    /// Server names that clients have asked for.
    names: Mutex<Vec<Option<String>>>,
    order: watch::Sender<(u64, Order)>,
}

/// What happens to all connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Nothing,
    /// GOAWAY: streams finish.
    Goaway,
    /// The TCP connection ends.
    Cut,
}

impl Control {
    /// Starts to listen.
    #[must_use]
    pub fn start(netns: &NetNs, addr: SocketAddr, tls: Arc<ServerConfig>, ads: Ads, ca: Ca) -> Self {
        let names = Mutex::default();
        let order = watch::Sender::new((0, Order::Nothing));
        let shared = Arc::new(Shared { ads, ca, tls: Mutex::new(tls), names, order });
        let control = Self { shared, netns: netns.try_clone().unwrap(), addr, accepting: Mutex::new(None) };
        control.listen();
        control
    }

    /// Listens again after [`Control::stop`].
    pub fn listen(&self) {
        let listener = self.netns.run(|| {
            let deadline = Instant::now() + STILL_HELD;
            loop {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                match socket.bind(self.addr).and_then(|()| socket.listen(64)) {
                    Ok(listener) => break listener,
                    Err(error) if error.kind() != ErrorKind::AddrInUse || Instant::now() >= deadline => {
                        panic!("{}: {error}", self.addr)
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let task = tokio::spawn(accept(listener.unwrap(), Arc::clone(&self.shared)));
        if let Some(old) = self.accepting.lock().unwrap().replace(task) {
            old.abort();
        }
    }

    /// Refuses new connections and cuts those that are open.
    pub async fn stop(&self) {
        let task = self.accepting.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        self.cut();
    }

    /// Cuts the open connections.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Announces on the open connections that they are about to end.
    pub fn goaway(&self) {
        self.order(Order::Goaway);
    }

    /// New connections get this certificate.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *self.shared.tls.lock().unwrap() = tls;
    }

    /// Server names that the clients of each connection have asked for.
    #[must_use]
    pub fn server_names(&self) -> Vec<Option<String>> {
        self.shared.names.lock().unwrap().clone()
    }

    fn order(&self, order: Order) {
        self.shared.order.send_modify(|last| *last = (last.0 + 1, order));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let orders = shared.order.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Clients may go away at any time: tests look at what they did before.
            let _ = connection(tcp, shared, orders).await;
        });
    }
}

async fn connection(
    tcp: TcpStream,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<(u64, Order)>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(shared.tls.lock().unwrap().clone());
    let tls = acceptor.accept(tcp).await?;
    shared.names.lock().unwrap().push(tls.get_ref().1.server_name().map(str::to_owned));
    let mut http = h2::server::Builder::new().initial_window_size(1 << 20).handshake(tls).await?;
    loop {
        tokio::select! {
            stream = http.accept() => {
                let Some(stream) = stream else { return Ok(()) };
                let (request, respond) = stream?;
                tokio::spawn(serve(request, respond, Arc::clone(&shared)));
            }
            changed = orders.changed() => {
                changed?;
                match orders.borrow_and_update().1 {
                    Order::Nothing => {}
                    Order::Goaway => http.graceful_shutdown(),
                    Order::Cut => return Ok(()),
                }
            }
        }
    }
}

async fn serve(request: Request<RecvStream>, respond: SendResponse<Bytes>, shared: Arc<Shared>) {
    match request.uri().path() {
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources" => {
            shared.ads.serve(request, respond).await;
        }
        "/istio.v1.auth.IstioCertificateService/CreateCertificate" => shared.ca.serve(request, respond).await,
        _ => grpc::refuse(respond, 12, "no such method"),
    }
}

/// A process that another test starts has the descriptors of this one until its own program begins: a listener that was
/// closed here may still be open there.
const STILL_HELD: Duration = Duration::from_secs(5);
