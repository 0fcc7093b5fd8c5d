//! A peer that takes tunnels: a proxy, waypoint or gateway on the other side.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response};
use rustls::server::Acceptor;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;

use crate::frames::{FrameLog, Tap};
use crate::net::Pod;
use crate::tunnel::Tunnel;
use crate::wait::{eventually, soon};

/// Listens on a tunnel port.
pub struct Server {
    streams: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    connections: Mutex<Vec<Connection>>,
    failures: Mutex<Vec<String>>,
    streams: mpsc::Sender<Incoming>,
    streams_max: Option<u32>,
}

/// What is known of one connection.
#[derive(Clone)]
pub struct Connection {
    /// The caller's end.
    pub peer: SocketAddr,
    /// Server name of the hello.
    pub server_name: Option<String>,
    /// Protocols that the client offers.
    pub alpn: Vec<Vec<u8>>,
    /// Cipher suites that the client offers.
    pub suites: Vec<CipherSuite>,
    /// Key exchange groups that the client offers.
    pub groups: Vec<NamedGroup>,
    /// Full, or resumed.
    pub kind: HandshakeKind,
    /// The caller's certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the caller sends.
    pub frames: FrameLog,
    orders: Arc<watch::Sender<Order>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    Goaway,
    Cut,
}

/// A request for a tunnel that has not been answered.
pub struct Incoming {
    /// Number of the connection, counted from 0.
    pub connection: usize,
    /// Method.
    pub method: Method,
    /// `:authority`.
    pub authority: String,
    /// Whether there is a `:scheme` or `:path`.
    pub classic: bool,
    /// Headers.
    pub headers: HeaderMap,
    body: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Server {
    /// Listens in a pod.
    #[must_use]
    pub fn listen(pod: &Pod, port: u16, tls: Arc<ServerConfig>) -> Self {
        Self::listen_with(pod, port, tls, None)
    }

    /// [`Server::listen`] with a limit on concurrent streams.
    #[must_use]
    pub fn listen_with(pod: &Pod, port: u16, tls: Arc<ServerConfig>, streams_max: Option<u32>) -> Self {
        let listener = pod.listen_any(port);
        let (streams, receiver) = mpsc::channel(1024);
        let shared = Shared { connections: Mutex::default(), failures: Mutex::default(), streams, streams_max };
        let shared = Arc::new(shared);
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Self { streams: tokio::sync::Mutex::new(receiver), shared, accepting }
    }

    /// The next request.
    pub async fn stream(&self) -> Incoming {
        let mut streams = self.streams.lock().await;
        let stream = tokio::time::timeout(crate::wait::SOON, streams.recv()).await;
        let stream = stream.unwrap_or_else(|_| panic!("no tunnel; failures so far: {:?}", self.failures()));
        stream.unwrap()
    }

    /// A request if one is there already.
    pub async fn try_stream(&self) -> Option<Incoming> {
        self.streams.lock().await.try_recv().ok()
    }

    /// All connections so far, ended ones too.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.connections.lock().unwrap().clone()
    }

    /// Reasons why connections failed before HTTP/2.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.shared.failures.lock().unwrap().clone()
    }

    /// Waits for the first such failure.
    pub async fn failure(&self) -> String {
        eventually("a handshake fails", async || self.failures().first().cloned()).await
    }

    /// Sends GOAWAY on a connection; its streams go on.
    pub fn goaway(&self, connection: usize) {
        self.connections()[connection].orders.send_replace(Order::Goaway);
    }

    /// Ends a connection.
    pub fn cut(&self, connection: usize) {
        self.connections()[connection].orders.send_replace(Order::Cut);
    }

    /// Stops; the port is free afterwards.
    pub async fn stop(&self) {
        self.accepting.abort();
        eventually("the listener is gone", async || self.accepting.is_finished().then_some(())).await;
        for connection in self.connections() {
            connection.orders.send_replace(Order::Cut);
        }
    }

    /// Answers every tunnel with 200 and returns each byte as it comes, until dropped.
    pub fn serve_copies(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let Some(server) = server.upgrade() else { return };
                let next = tokio::time::timeout(std::time::Duration::from_millis(200), async {
                    server.streams.lock().await.recv().await
                });
                let Ok(stream) = next.await else { continue };
                let Some(stream) = stream else { return };
                let (mut read, mut write) = tokio::io::split(stream.accept());
                tokio::spawn(async move {
                    let copied = tokio::io::copy(&mut read, &mut write).await;
                    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
                    copied
                });
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        for connection in self.connections() {
            connection.orders.send_replace(Order::Cut);
        }
    }
}

impl Incoming {
    /// A header's text; several lines are joined by `|`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        (!values.is_empty()).then(|| values.join("|"))
    }

    /// Answers 200.
    #[must_use]
    pub fn accept(self) -> Tunnel {
        self.accept_with(&[])
    }

    /// Answers 200 with headers.
    #[must_use]
    pub fn accept_with(mut self, headers: &[(&str, &str)]) -> Tunnel {
        let mut response = Response::builder().status(200);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let send = self.respond.send_response(response.body(()).unwrap(), false).unwrap();
        Tunnel::new(send, self.body)
    }

    /// Answers with another status and ends the stream.
    pub fn refuse(mut self, status: u16) {
        let response = Response::builder().status(status).body(()).unwrap();
        let _ = self.respond.send_response(response, true);
    }
}

async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, shared: Arc<Shared>) {
    while let Ok((tcp, peer)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), Arc::clone(&tls));
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            if let Err(error) = serve(tcp, peer, tls, &shared).await {
                shared.failures.lock().unwrap().push(error.to_string());
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    tls: Arc<ServerConfig>,
    shared: &Shared,
) -> io::Result<()> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let server_name = hello.server_name().map(str::to_owned);
    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let suites = hello.cipher_suites().to_vec();
    let groups = hello.named_groups().map(<[NamedGroup]>::to_vec).unwrap_or_default();
    let tls = start.into_stream(tls).await?;
    let session = tls.get_ref().1;
    let kind = session.handshake_kind().unwrap();
    let chain = session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let frames = FrameLog::of_client();
    let orders = Arc::new(watch::Sender::new(Order::Serve));
    let mut ordered = orders.subscribe();
    let known = Connection { peer, server_name, alpn, suites, groups, kind, chain, frames: frames.clone(), orders };
    let number = {
        let mut connections = shared.connections.lock().unwrap();
        connections.push(known);
        connections.len() - 1
    };
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    if let Some(max) = shared.streams_max {
        builder.max_concurrent_streams(max);
    }
    let mut http = builder.handshake(Tap::new(tls, frames)).await.map_err(io::Error::other)?;
    loop {
        tokio::select! {
            stream = http.accept() => match stream {
                Some(Ok((request, respond))) => {
                    let _ = shared.streams.send(incoming(number, request, respond)).await;
                }
                // The end of a connection that worked is no failure.
                Some(Err(_)) | None => return Ok(()),
            },
            _ = ordered.changed() => match *ordered.borrow_and_update() {
                Order::Serve => {}
                Order::Goaway => http.graceful_shutdown(),
                Order::Cut => return Ok(()),
            },
        }
    }
}

fn incoming(connection: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Incoming {
    let (parts, body) = request.into_parts();
    Incoming {
        connection,
        method: parts.method,
        authority: parts.uri.authority().map(ToString::to_string).unwrap_or_default(),
        classic: parts.uri.scheme().is_none() && parts.uri.path_and_query().is_none(),
        headers: parts.headers,
        body,
        respond,
    }
}

/// Serves the tunnel inside a tunnel: TLS and HTTP/2 once more; its first request and its connection.
pub async fn nested(outer: Tunnel, peer: SocketAddr, tls: Arc<ServerConfig>) -> (Incoming, Connection) {
    let (streams, mut receiver) = mpsc::channel(16);
    let shared = Shared { connections: Mutex::default(), failures: Mutex::default(), streams, streams_max: None };
    let shared = Arc::new(shared);
    let served = Arc::clone(&shared);
    tokio::spawn(async move {
        if let Err(error) = serve(outer, peer, tls, &served).await {
            served.failures.lock().unwrap().push(error.to_string());
        }
    });
    let first = soon("a request of the inner tunnel", receiver.recv()).await.expect("the inner tunnel opens");
    let connection = shared.connections.lock().unwrap()[0].clone();
    // Later requests find nobody: one inner connection serves one application connection.
    (first, connection)
}
