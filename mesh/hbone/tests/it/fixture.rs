//! Servers that behave as told, and dialers that count.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use mesh_core::Identity;
use mesh_hbone::read_ahead::ReadAhead;
use mesh_hbone::{ConnectRequest, DialError, Dialer, H2Stream, Pool, PoolKey, ServerConnection, Settings, tls};
use mesh_identity::testing::TestCa;
use mesh_identity::{PeerChain, Revoked, WorkloadCert};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};

/// Runs a test on one thread, as a worker does.
pub(crate) async fn local<F: Future<Output = ()>>(test: F) {
    LocalSet::new().run_until(test).await;
}

pub(crate) fn client_id() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

pub(crate) fn server_id() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

pub(crate) fn connect_to(authority: &str) -> Request<()> {
    Request::builder().method(Method::CONNECT).uri(authority).body(()).unwrap()
}

/// A TLS server on loopback, and a dialer with the right certificate for it.
pub(crate) struct TlsServer {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Rc<Cell<usize>>,
    /// Tells every connection to send GOAWAY.
    pub(crate) go_away: Rc<Notify>,
    pub(crate) ca: Rc<TestCa>,
}

impl TlsServer {
    /// Calls `handler` for each request.
    pub(crate) async fn start<F, H>(handler: H) -> Self
    where
        H: Fn(ConnectRequest) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            addr: listener.local_addr().unwrap(),
            connections: Rc::default(),
            go_away: Rc::default(),
            ca: Rc::new(TestCa::new()),
        };
        let cert = server.ca.issue(&server_id());
        let (connections, go_away, handler) = (server.connections.clone(), server.go_away.clone(), Rc::new(handler));
        spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (cert, go_away, handler) = (cert.clone(), go_away.clone(), handler.clone());
                connections.set(connections.get() + 1);
                spawn_local(async move {
                    let accepted = tls::accept(ReadAhead::new(tcp), cert.server_config()).await.unwrap();
                    assert_eq!(accepted.peer, Some(client_id()));
                    serve(accepted.stream, go_away, handler).await;
                });
            }
        });
        server
    }

    pub(crate) fn dialer(&self) -> TlsDialer {
        TlsDialer {
            cert: self.ca.issue(&client_id()),
            dials: Rc::default(),
            running: Rc::default(),
            revoking: Rc::default(),
        }
    }

    pub(crate) fn pool(&self) -> Pool<TlsDialer> {
        Pool::new(self.dialer(), Settings::default())
    }

    pub(crate) fn key(&self) -> PoolKey {
        PoolKey {
            source: client_id(),
            expected: vec![server_id()],
            upstream: self.addr,
            source_ip: "10.1.0.5".parse().unwrap(),
        }
    }
}

pub(crate) async fn serve<T, F, H>(io: T, go_away: Rc<Notify>, handler: Rc<H>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    H: Fn(ConnectRequest) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut connection = ServerConnection::handshake(io, &Settings::default()).await.unwrap();
    loop {
        tokio::select! {
            request = connection.next() => match request {
                Some(Ok(request)) => { spawn_local(handler(request)); }
                Some(Err(_)) | None => return,
            },
            () = go_away.notified() => connection.graceful_shutdown(),
        }
    }
}

pub(crate) struct TlsDialer {
    cert: Arc<WorkloadCert>,
    pub(crate) dials: Rc<Cell<usize>>,
    running: Rc<Cell<usize>>,
    /// Says that every server it has dialled is revoked.
    pub(crate) revoking: Rc<Cell<bool>>,
}

impl Dialer for TlsDialer {
    type Io = tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        self.dials.set(self.dials.get() + 1);
        self.running.set(self.running.get() + 1);
        assert_eq!(self.running.get(), 1, "one dial at a time per key");
        let dialed = async {
            let tcp = TcpStream::connect(key.upstream)
                .await
                .map_err(|e| DialError::Connect { upstream: key.upstream, source: Arc::new(e) })?;
            tls::connect(ReadAhead::new(tcp), &self.cert, &key.expected)
                .await
                .map_err(|e| DialError::Tls { upstream: key.upstream, reason: e.reason })
        }
        .await;
        self.running.set(self.running.get() - 1);
        dialed
    }

    fn track(&self, io: &Self::Io) -> Option<Arc<PeerChain>> {
        PeerChain::of(tls::presented(io).unwrap()).ok().map(Arc::new)
    }

    fn revoked(&self, _: &PeerChain) -> Option<Revoked> {
        self.revoking.get().then(|| Revoked { serial: "01".into(), depth: 0 })
    }
}

/// A dialer whose connections are pipes; the test gets their other ends.
pub(crate) struct PipeDialer {
    pub(crate) dials: Rc<Cell<usize>>,
    /// Fails that many dials first.
    pub(crate) failing: Rc<Cell<usize>>,
    /// Each dial waits for a permit.
    pub(crate) gate: Rc<tokio::sync::Semaphore>,
    far_ends: RefCell<mpsc::Sender<DuplexStream>>,
}

impl PipeDialer {
    pub(crate) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (far_ends, receiver) = mpsc::channel(1000);
        let dialer = Self {
            dials: Rc::default(),
            failing: Rc::default(),
            gate: Rc::new(tokio::sync::Semaphore::new(1000)),
            far_ends: RefCell::new(far_ends),
        };
        (dialer, receiver)
    }
}

impl Dialer for PipeDialer {
    type Io = DuplexStream;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        self.dials.set(self.dials.get() + 1);
        self.gate.acquire().await.unwrap().forget();
        if self.failing.get() > 0 {
            self.failing.set(self.failing.get() - 1);
            return Err(DialError::TimedOut { upstream: key.upstream, budget: std::time::Duration::from_secs(10) });
        }
        let (near, far) = tokio::io::duplex(64 << 10);
        self.far_ends.borrow().try_send(far).unwrap();
        Ok(near)
    }
}

pub(crate) fn pipe_key() -> PoolKey {
    PoolKey {
        source: client_id(),
        expected: vec![server_id()],
        upstream: "10.1.0.77:15008".parse().unwrap(),
        source_ip: "10.1.0.5".parse().unwrap(),
    }
}

/// Accepts and sends back what comes.
pub(crate) async fn echo(request: ConnectRequest) {
    let stream = request.accept(None).unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Refuses `/deny`-like authorities (port 401), echoes the rest.
pub(crate) async fn echo_or_deny(request: ConnectRequest) {
    if request.authority().is_some_and(|authority| authority.ends_with(":401")) {
        return request.reject(StatusCode::UNAUTHORIZED);
    }
    echo(request).await;
}

pub(crate) async fn say(stream: &mut H2Stream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}
