//! A byte stream to an endpoint: TCP or a tunnel, then the PROXY header, then TLS.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderValue, Method, Request};
use mesh_core::Identity;
use mesh_hbone::error::OpenError;
use mesh_hbone::forwarded::FORWARDED_NETWORK;
use mesh_hbone::read_ahead::ReadAhead;
use mesh_hbone::settings::HANDSHAKE_BUDGET;
use mesh_hbone::{DialError, Dialer, H2Stream, NestedError, Pool, PoolKey, Settings, nested, tls};
use mesh_identity::{PeerChain, Reporter, Revoked};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::accounting::Open;
use super::cluster::Cluster;
use super::error::UpstreamError;
use super::host::Host;
use super::io::{UpstreamIo, Wire};
use super::names::Names;
use super::proxy_protocol;
use super::random::Random;
use super::shared::UpstreamShared;
use super::sockets;
use super::tls::Inside;
use crate::endpoints::Transport;
use crate::listener::tunnel_settings;

/// Makes the connections of one worker. Tunnels are shared by everything that the worker sends.
pub(super) struct Connector {
    shared: Arc<UpstreamShared>,
    tunnels: OnceCell<Pool<TunnelDialer>>,
    /// Inner tunnels.
    drivers: RefCell<JoinSet<()>>,
    names: Names,
    random: Random,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) inside: Inside,
    /// For TLS.
    pub(super) server_name: Option<&'a str>,
    /// For PROXY headers.
    pub(super) source: Option<SocketAddr>,
    pub(super) destination: Option<SocketAddr>,
}

/// Why there is no stream. In words that name no address of ours.
type Reason = String;

impl Connector {
    pub(super) fn new(shared: Arc<UpstreamShared>, seed: u64) -> Self {
        Self {
            shared,
            tunnels: OnceCell::new(),
            drivers: RefCell::default(),
            names: Names::default(),
            random: Random::new(seed),
        }
    }

    /// Connects to `host`, all layers within the time that the policy gives.
    pub(super) async fn connect(
        &self,
        cluster: &Cluster,
        host: &Host,
        purpose: &Purpose<'_>,
        open: Open,
    ) -> Result<UpstreamIo, UpstreamError> {
        let address = host.address();
        let budget = cluster.policy.limits.connect.unwrap_or(self.shared.defaults().connect);
        let connecting = self.layers(cluster, host, purpose);
        let failed = match tokio::time::timeout(budget, Box::pin(connecting)).await {
            Ok(Ok((wire, local))) => {
                open.made();
                return Ok(UpstreamIo::new(wire, local, open));
            }
            Ok(Err(reason)) => UpstreamError::Connect { address, reason: reason.into() },
            Err(_) => {
                cluster.ledger.stats.cx_connect_timeout.add();
                UpstreamError::ConnectTimeout { address, budget }
            }
        };
        cluster.ledger.stats.cx_connect_fail.add();
        tracing::debug!(cluster = %cluster.name(), %address, error = %failed, "no connection");
        Err(failed)
    }

    async fn layers(
        &self,
        cluster: &Cluster,
        host: &Host,
        purpose: &Purpose<'_>,
    ) -> Result<(Wire, Option<SocketAddr>), Reason> {
        let policy = &cluster.policy;
        let header = policy.proxy_protocol.map(|version| {
            proxy_protocol::header(version, purpose.source, purpose.destination.or(Some(host.address())))
        });
        match &host.endpoint().transport {
            Transport::Plain => {
                let remote = self.names.resolve(host.endpoint(), policy.by_client, &self.random).await?;
                let mut tcp = sockets::connect(remote, policy.limits.tcp_keepalive.clone()).await.map_err(words)?;
                let local = tcp.local_addr().ok();
                preface(&mut tcp, header).await?;
                let wire = match &policy.tls {
                    None => Wire::Tcp(tcp),
                    Some(_) => {
                        // Dropped in the middle of the handshake.
                        sockets::end_by_reset(&tcp, true);
                        let done = |tcp: &ReadAhead<TcpStream>| sockets::end_by_reset(tcp.get_ref(), false);
                        Wire::Tls(Box::new(encrypt(cluster, purpose, ReadAhead::new(tcp), done).await?))
                    }
                };
                Ok((wire, local))
            }
            transport => {
                let mut tunnel = self.tunnel(cluster, host, transport).await?;
                preface(&mut tunnel, header).await?;
                let wire = match &policy.tls {
                    None => Wire::Tunnel(tunnel),
                    Some(_) => Wire::TlsInTunnel(Box::new(encrypt(cluster, purpose, tunnel, |_| ()).await?)),
                };
                Ok((wire, None))
            }
        }
    }

    async fn tunnel(&self, cluster: &Cluster, host: &Host, transport: &Transport) -> Result<H2Stream, Reason> {
        match transport {
            Transport::Plain => Err("no tunnel leads there".to_owned()),
            Transport::Hbone { proxy, expected } => {
                let request = connect_request(&host.address().to_string())?;
                let opened = self.tunnels().open(&self.key(*proxy, expected), request).await;
                opened.map(|opened| opened.stream).map_err(|error| open_words(&error))
            }
            Transport::Nested { gateway, gateway_expected, authority, expected } => {
                let mut outer = connect_request(authority)?;
                outer.headers_mut().insert("x-istio-source", HeaderValue::from_static("waypoint"));
                let opened = self.tunnels().open(&self.key(*gateway, gateway_expected), outer).await;
                let outer = opened.map_err(|error| open_words(&error))?.stream;
                let mut inner = connect_request(authority)?;
                let network = HeaderValue::from_str(&cluster.shared.place().network);
                inner.headers_mut().insert(FORWARDED_NETWORK, network.unwrap_or(HeaderValue::from_static("")));
                let cert = self.shared.own.certificate().await.map_err(words)?;
                let settings = self.tunnel_settings();
                let nested = nested::open(outer, &cert, expected, inner, &settings).await;
                let nested = nested.map_err(|error| nested_words(&error))?;
                self.drive(nested.driver);
                Ok(nested.stream)
            }
        }
    }

    fn drive(&self, driver: mesh_hbone::NestedDriver) {
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "inner tunnel lost");
            }
        });
    }

    /// Ends tunnels to servers that were revoked meanwhile.
    pub(super) fn cut_revoked(&self) -> usize {
        self.tunnels.get().map_or(0, Pool::cut_revoked)
    }

    fn tunnels(&self) -> &Pool<TunnelDialer> {
        let dialer = || TunnelDialer { shared: self.shared.clone() };
        self.tunnels.get_or_init(|| Pool::new(dialer(), self.tunnel_settings()))
    }

    fn tunnel_settings(&self) -> Settings {
        Settings { idle_release: self.shared.defaults().tunnel_idle, ..tunnel_settings() }
    }

    fn key(&self, upstream: SocketAddr, expected: &[Identity]) -> PoolKey {
        // Endpoints see the proxy, not its clients: all clients share tunnels.
        let source_ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        PoolKey { source: self.shared.own.identity().clone(), expected: expected.to_vec(), upstream, source_ip }
    }
}

/// Makes the TLS connections that tunnels run over.
struct TunnelDialer {
    shared: Arc<UpstreamShared>,
}

impl Dialer for TunnelDialer {
    type Io = TlsStream<ReadAhead<TcpStream>>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        let upstream = key.upstream;
        let cert = self.shared.own.certificate().await.map_err(DialError::Certificate)?;
        let tcp = sockets::connect(upstream, Some(mesh_sys::socket::Keepalive::default()))
            .await
            .map_err(|source| DialError::Connect { upstream, source: Arc::new(source) })?;
        let handshake = tls::connect(ReadAhead::new(tcp), &cert, &key.expected);
        match tokio::time::timeout(HANDSHAKE_BUDGET, handshake).await {
            Ok(done) => done.map_err(|error| error.dialling(upstream)),
            Err(_) => Err(DialError::Tls { upstream, reason: format!("no answer within {HANDSHAKE_BUDGET:?}") }),
        }
    }

    fn track(&self, io: &Self::Io) -> Option<Arc<PeerChain>> {
        self.shared.crl.as_ref()?.track(Reporter::Source, tls::presented(io))
    }

    fn revoked(&self, server: &PeerChain) -> Option<Revoked> {
        self.shared.crl.as_ref()?.revoked(server)
    }
}

async fn preface(stream: &mut (impl AsyncWrite + Unpin), header: Option<Vec<u8>>) -> Result<(), Reason> {
    let Some(header) = header else { return Ok(()) };
    stream.write_all(&header).await.map_err(words)?;
    stream.flush().await.map_err(words)
}

/// Goes through a handshake; `done` gets the stream below when that has ended, well or not.
async fn encrypt<T>(
    cluster: &Cluster,
    purpose: &Purpose<'_>,
    stream: T,
    done: impl FnOnce(&T),
) -> Result<TlsStream<T>, Reason>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let tls = cluster.policy.tls.as_ref().ok_or_else(|| "TLS is not configured".to_owned())?;
    let name = tls.name(purpose.server_name).ok_or_else(|| "TLS error: there is no name to ask for".to_owned())?;
    let connector = TlsConnector::from(tls.config(purpose.inside));
    let stream = match connector.connect(name, stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            // The endpoint gets to read our alert.
            done(&stream);
            return Err(format!("TLS error: {error}"));
        }
    };
    done(stream.get_ref().0);
    let agreed = stream.get_ref().1.alpn_protocol();
    if purpose.inside == Inside::Http2 && agreed != Some(b"h2") {
        return Err("TLS error: the endpoint does not offer HTTP/2".to_owned());
    }
    Ok(stream)
}

fn connect_request(authority: &str) -> Result<Request<()>, Reason> {
    Request::builder().method(Method::CONNECT).uri(authority).body(()).map_err(words)
}

fn words(error: impl ToString) -> Reason {
    error.to_string()
}

fn io_words(error: &io::Error) -> Reason {
    error.to_string()
}

fn open_words(error: &OpenError) -> Reason {
    match error {
        OpenError::Refused { status, .. } => {
            let meaning = match status.as_u16() {
                400 => "the destination does not serve that address",
                401 => "refused by policy at the destination",
                503 => "the destination cannot reach the application",
                _ => "unexpected",
            };
            format!("tunnel refused with status {}: {meaning}", status.as_u16())
        }
        OpenError::TimedOut { budget, .. } => format!("tunnel was not answered within {budget:?}"),
        OpenError::Broken { reason, .. } => format!("tunnel broke: {reason}"),
        OpenError::Dial(error) => dial_words(error),
        _ => error.to_string(),
    }
}

fn dial_words(error: &DialError) -> Reason {
    match error {
        DialError::Connect { source, .. } => io_words(source),
        DialError::TimedOut { budget, .. } => format!("no answer within {budget:?}"),
        DialError::Tls { reason, .. } | DialError::Revoked { reason, .. } => format!("TLS error: {reason}"),
        DialError::Http2 { reason, .. } => format!("HTTP/2 error: {reason}"),
        _ => error.to_string(),
    }
}

fn nested_words(error: &NestedError) -> Reason {
    match error {
        NestedError::Open(error) => open_words(error),
        NestedError::Tls { reason, .. } | NestedError::Revoked { reason, .. } => {
            format!("TLS error behind the gateway: {reason}")
        }
        _ => error.to_string(),
    }
}
