//! A peer that opens tunnels.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::frames::{FrameLog, Tap};
use crate::net::Pod;
use crate::pki::Credentials;
use crate::tls::{self, Negotiation};
use crate::tunnel::Tunnel;
use crate::wait::soon;

/// One connection to a proxy.
pub struct Client {
    requests: SendRequest<Bytes>,
    /// What the proxy sends.
    pub frames: FrameLog,
    /// The proxy's certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// TLS as it was negotiated.
    pub version: rustls::ProtocolVersion,
    /// The own end of the TCP connection.
    pub local: SocketAddr,
}

/// The proxy's answer to one request.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The HEADERS frame ended the stream.
    pub ended: bool,
    /// The stream.
    pub tunnel: Tunnel,
}

impl Client {
    /// Connects from a pod to the tunnel port of a proxy.
    ///
    /// # Errors
    /// What TCP, TLS or HTTP/2 said.
    pub async fn connect(from: &Pod, to: SocketAddr, own: &Credentials) -> io::Result<Self> {
        Self::connect_with(from, to, Some(own), &Negotiation::default()).await
    }

    /// [`Client::connect`] with other TLS settings, or without a certificate.
    ///
    /// # Errors
    /// What TCP, TLS or HTTP/2 said.
    pub async fn connect_with(
        from: &Pod,
        to: SocketAddr,
        own: Option<&Credentials>,
        how: &Negotiation,
    ) -> io::Result<Self> {
        let tcp = soon("the proxy's port takes a connection", from.connect_marked(to)).await?;
        let local = tcp.local_addr()?;
        Self::over(tcp, to, local, own, how).await
    }

    /// The handshakes on an open connection.
    ///
    /// # Errors
    /// What TLS or HTTP/2 said.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
        to: SocketAddr,
        local: SocketAddr,
        own: Option<&Credentials>,
        how: &Negotiation,
    ) -> io::Result<Self> {
        let (config, seen) = tls::client(own, how);
        let name = match how.server_name {
            Some(name) => ServerName::try_from(name).unwrap(),
            None => ServerName::IpAddress(to.ip().into()),
        };
        let tls = soon("the TLS handshake ends", TlsConnector::from(config).connect(name, stream)).await?;
        let session = tls.get_ref().1;
        let version = session.protocol_version().unwrap();
        if !how.alpn.is_empty() {
            assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]), "the proxy chooses h2");
        }
        let frames = FrameLog::default();
        let tapped = Tap::new(tls, frames.clone());
        let (requests, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(tapped)
            .await
            .map_err(io::Error::other)?;
        // A refused client certificate shows only once the server has answered.
        let first = std::future::poll_fn(|cx| {
            if !frames.all().is_empty() {
                return std::task::Poll::Ready(Ok(()));
            }
            let polled = std::pin::Pin::new(&mut connection).poll(cx);
            if !frames.all().is_empty() {
                return std::task::Poll::Ready(Ok(()));
            }
            polled.map(|ended| ended.and_then(|()| Err(h2::Reason::NO_ERROR.into())))
        });
        soon("the proxy speaks HTTP/2 or closes", first).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { requests, frames, chain: seen.all(), version, local })
    }

    /// Sends CONNECT and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(&self, authority: &str) -> Result<Answer, h2::Error> {
        self.open_with(authority, &[]).await
    }

    /// [`Client::open`] with more headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn open_with(&self, authority: &str, headers: &[(&str, &str)]) -> Result<Answer, h2::Error> {
        let mut request = Request::builder().method(Method::CONNECT).uri(authority.parse::<Uri>().unwrap());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(()).unwrap()).await
    }

    /// Sends any request and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn request(&self, request: Request<()>) -> Result<Answer, h2::Error> {
        self.send(request, false).await
    }

    /// CONNECT whose own direction is over with the request.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn open_ended(&self, authority: &str) -> Result<Answer, h2::Error> {
        let request = Request::builder().method(Method::CONNECT).uri(authority.parse::<Uri>().unwrap());
        self.send(request.body(()).unwrap(), true).await
    }

    async fn send(&self, request: Request<()>, end: bool) -> Result<Answer, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, send) = requests.send_request(request, end)?;
        let response = soon("an answer to the request", response).await?;
        let (parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        Ok(Answer { status: parts.status, headers: parts.headers, ended, tunnel: Tunnel::new(send, body) })
    }

    /// The status of CONNECT.
    ///
    /// # Panics
    /// When there is none.
    pub async fn status(&self, authority: &str) -> u16 {
        self.open(authority).await.unwrap().status.as_u16()
    }
}
