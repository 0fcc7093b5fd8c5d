//! A client of the mesh: a node proxy that opens tunnels to the waypoint for its pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use mesh_core::Identity;
use mesh_hbone::{DialError, Dialer, H2Stream, OpenError, Pool, PoolKey, Settings, tls};
use mesh_identity::{CertSource as _, FakeCa, TlsPolicy, WorkloadCert};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_rustls::client::TlsStream;

use crate::frames::Client;
use crate::raw::Answer;

/// Opens tunnels as one identity.
#[derive(Clone)]
pub(crate) struct Tunnels {
    pool: Rc<Pool<Direct>>,
    key: PoolKey,
    cert: Arc<WorkloadCert>,
}

struct Direct(Arc<WorkloadCert>);

impl Dialer for Direct {
    type Io = TlsStream<TcpStream>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        let upstream = key.upstream;
        let tcp = TcpStream::connect(upstream)
            .await
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|error| DialError::Connect { upstream, source: Arc::new(error) })?;
        tls::connect(tcp, &self.0, &key.expected).await.map_err(|error| error.dialling(upstream))
    }
}

impl Tunnels {
    /// For a client that proves to be somebody of this mesh.
    pub(crate) async fn new() -> Self {
        let source: Identity = "spiffe://cluster.local/ns/ns1/sa/a".parse().unwrap();
        // The authority that the proxy uses too.
        let authority = FakeCa::new(Duration::from_secs(3600), TlsPolicy::default()).unwrap();
        let cert = Arc::new(authority.issue(source.clone()).await.unwrap());
        let expected = vec!["spiffe://cluster.local/ns/shop/sa/wp".parse().unwrap()];
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, 15008));
        let key = PoolKey { source, expected, upstream, source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        Self { pool: Rc::new(Pool::new(Direct(cert.clone()), Settings::default())), key, cert }
    }

    /// A connection to the waypoint on which frames are written by hand.
    pub(crate) async fn by_hand(&self) -> Client {
        let tcp = TcpStream::connect(self.key.upstream).await.unwrap();
        Client::over(tls::connect(tcp, &self.cert, &self.key.expected).await.unwrap()).await
    }

    /// Listens at `port`, and carries what comes to `authority`, each connection in a tunnel of its own: what a node
    /// proxy does for programs that know nothing of tunnels.
    pub(crate) async fn carry(port: u16, authority: &'static str) {
        let (listening, listens) = tokio::sync::oneshot::channel();
        // Tunnels stay on the thread where they began.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                let tunnels = Self::new().await;
                listening.send(()).unwrap();
                while let Ok((near, _)) = listener.accept().await {
                    tokio::task::spawn_local(tunnels.clone().connect(near, authority));
                }
            });
        });
        listens.await.unwrap();
    }

    async fn connect(self, mut near: TcpStream, authority: &str) {
        let _ = near.set_nodelay(true);
        if let Ok(mut far) = self.open(authority).await {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    }

    /// A tunnel to `authority`.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn open(&self, authority: &str) -> Result<H2Stream, OpenError> {
        let request = Request::builder().method(Method::CONNECT).uri(authority).body(()).unwrap();
        Ok(self.pool.open(&self.key, request).await?.stream)
    }

    /// The status with which a tunnel to `authority` is refused; none when it was accepted.
    pub(crate) async fn refused(&self, authority: &str) -> Option<StatusCode> {
        match self.open(authority).await {
            Err(OpenError::Refused { status, .. }) => Some(status),
            Err(error) => panic!("{authority}: {error}"),
            Ok(_) => None,
        }
    }

    /// Says `question` in a tunnel, if there is one, and listens for a moment.
    pub(crate) async fn ask_briefly(&self, authority: &str, question: &str) {
        let Ok(mut stream) = self.open(authority).await else { return };
        let _ = stream.write_all(question.as_bytes()).await;
        let _ = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut Vec::new())).await;
    }

    /// Says `question` in a tunnel and listens to the end.
    pub(crate) async fn ask(&self, authority: &str, question: &str) -> Answer {
        let mut stream = self.open(authority).await.unwrap_or_else(|error| panic!("{authority}: {error}"));
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        Answer::of(&answer, read.is_ok())
    }
}
