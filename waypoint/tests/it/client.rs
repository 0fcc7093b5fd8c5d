//! A client of the mesh: a node proxy that opens tunnels to the waypoint for its pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use mesh_core::Identity;
use mesh_hbone::{DialError, Dialer, H2Stream, OpenError, Pool, PoolKey, Settings, tls};
use mesh_identity::{CertSource as _, WorkloadCert};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::endpoint::authority;
use crate::world::HBONE_PORT;

/// Opens tunnels as one identity.
pub(crate) struct Client {
    cert: Arc<WorkloadCert>,
    pool: Pool<Direct>,
    key: PoolKey,
}

/// Whom it proves to be, and from which address.
struct Direct(Arc<WorkloadCert>, IpAddr);

impl Dialer for Direct {
    type Io = TlsStream<TcpStream>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        let upstream = key.upstream;
        let tcp = connect(self.1, upstream)
            .await
            .map_err(|error| DialError::Connect { upstream, source: Arc::new(error) })?;
        tls::connect(tcp, &self.0, &key.expected).await.map_err(|error| error.dialling(upstream))
    }
}

impl Client {
    /// A client that proves to be `identity`.
    pub(crate) async fn new(identity: &str) -> Self {
        Self::at(identity, Ipv4Addr::LOCALHOST).await
    }

    /// [`Client::new`] at another address of the loopback.
    pub(crate) async fn at(identity: &str, address: Ipv4Addr) -> Self {
        let source: Identity = identity.parse().unwrap();
        let cert = Arc::new(authority().issue(source.clone()).await.unwrap());
        let expected = vec!["spiffe://cluster.local/ns/shop/sa/wp".parse().unwrap()];
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, HBONE_PORT));
        let key = PoolKey { source, expected, upstream, source_ip: IpAddr::V4(address) };
        Self { cert: cert.clone(), pool: Pool::new(Direct(cert, IpAddr::V4(address)), Settings::default()), key }
    }

    /// What it proves to be itself with.
    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        self.cert.leaf()
    }

    /// Opens a tunnel to `authority`.
    pub(crate) async fn open(&self, authority: &str) -> Result<H2Stream, OpenError> {
        self.open_with(authority, &[]).await
    }

    /// [`Client::open`] with further headers.
    pub(crate) async fn open_with(&self, authority: &str, headers: &[(&str, &str)]) -> Result<H2Stream, OpenError> {
        let mut request = Request::builder().method(Method::CONNECT).uri(authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(self.pool.open(&self.key, request.body(()).unwrap()).await?.stream)
    }

    /// The status with which a tunnel to `authority` is refused.
    pub(crate) async fn refused(&self, authority: &str) -> StatusCode {
        match self.open(authority).await {
            Err(OpenError::Refused { status, .. }) => status,
            Err(error) => panic!("{authority}: {error}"),
            Ok(_) => panic!("{authority} was accepted"),
        }
    }

    /// Sends `question` through a tunnel, ends it, and yields all of the answer.
    pub(crate) async fn ask(&self, authority: &str, question: &str) -> String {
        let stream = self.open(authority).await.unwrap_or_else(|error| panic!("{authority}: {error}"));
        exchange(stream, question).await
    }

    /// [`Client::ask`], whatever comes of it.
    pub(crate) async fn ask_quietly(&self, authority: &str, question: &str) -> String {
        let Ok(mut stream) = self.open(authority).await else { return String::new() };
        let mut answer = String::new();
        if stream.write_all(question.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
            let _ = stream.read_to_string(&mut answer).await;
        }
        answer
    }

    /// One HTTP/1.1 request through a tunnel.
    pub(crate) async fn get(&self, authority: &str, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n{headers}\r\n");
        self.ask_open(authority, &request).await
    }

    /// Like [`Client::ask`], with the client's direction left open.
    pub(crate) async fn ask_open(&self, authority: &str, question: &str) -> String {
        let mut stream = self.open(authority).await.unwrap_or_else(|error| panic!("{authority}: {error}"));
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

/// Connects from one address to another.
pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Says everything, ends, and listens to the end.
pub(crate) async fn exchange<T>(mut stream: T, question: &str) -> String
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(question.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
