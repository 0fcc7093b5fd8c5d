//! One tunnel connection: mutual TLS, HTTP/2, and a task for each stream. Nothing of a stream flows before it is known who
//! serves what it asks for.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use mesh_core::Identity;
use mesh_core::addr;
use mesh_core::drain::{DrainMode, DrainWatch};
use mesh_hbone::read_ahead::ReadAhead;
use mesh_hbone::{ConnectRequest, HboneError, ServerConnection, Settings, Turns, tls};
use mesh_identity::{PeerChain, Reporter};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::accept::Accepted;
use crate::connection::{ConnectionContext, Destination, PeerInfo};
use crate::detect::{self, Sniffed};
use crate::dispatch::{self, Served};
use crate::limits::{
    CUT_BUDGET, HANDSHAKE_BUDGET, HELLO_BUDGET, STARTS_IN_A_ROW_MAX, TUNNEL_STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES,
};
use crate::overload::Level;
use crate::pace::Pace;
use crate::places::Place;
use crate::report::{Flags, Opening};
use crate::snapshot::{Chain, ChainHandle, Protocol, Role};
use crate::worker::Worker;
use crate::{http as requests, tcp};

/// A tunnel and who is at its other end.
struct Tunnel {
    accepted: Ends,
    identity: Option<Identity>,
    /// Where its certificates are tracked.
    chain: Option<Arc<PeerChain>>,
}

struct Ends {
    peer: std::net::SocketAddr,
    local: std::net::SocketAddr,
}

type H2 = ServerConnection<TlsStream<ReadAhead<TcpStream>>>;

/// One tunnel from acceptance to its last stream.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted, drain: DrainWatch) {
    let Accepted { tcp, peer, local, place } = accepted;
    match handshake(&worker, tcp, peer.ip(), &place).await {
        Ok((h2, identity, chain)) => {
            place.proven();
            let tunnel = Tunnel { accepted: Ends { peer, local }, identity, chain };
            Box::pin(serve_streams(worker, h2, Rc::new(tunnel), drain)).await;
        }
        Err(reason) if worker.unproven.has_line() => tracing::info!(%peer, %local, reason, "tunnel refused"),
        Err(_) => {}
    }
}

/// Parameters of tunnels, of clients and to endpoints: many applications share each, and some read slowly.
pub(crate) fn tunnel_settings() -> Settings {
    Settings {
        stream_window: TUNNEL_STREAM_WINDOW_BYTES,
        connection_window: TUNNEL_WINDOW_BYTES,
        ..Settings::default()
    }
}

/// Goes through a handshake when its turn comes, at the worker's pace. Who does not go on loses the turn to those who wait.
pub(super) async fn in_turn<T>(
    turns: &Turns,
    pace: &Pace,
    peer: IpAddr,
    handshake: Pin<Box<impl Future<Output = T>>>,
) -> Result<T, String> {
    let source = addr::source(peer);
    let taking = async {
        let turn = turns.take(source).await;
        tokio::select! {
            biased;
            done = pace.run(source, handshake) => Ok(done),
            () = turn.lost() => Err("TLS handshake was cut: the client did not go on while others waited".to_owned()),
        }
    };
    let late = |_| Err(format!("TLS handshake took longer than {HANDSHAKE_BUDGET:?}"));
    tokio::time::timeout(HANDSHAKE_BUDGET, taking).await.unwrap_or_else(late)
}

type Proven = (H2, Option<Identity>, Option<Arc<PeerChain>>);

/// Proves who we are and learns who the client is.
async fn handshake(worker: &Worker, tcp: TcpStream, peer: IpAddr, place: &Place) -> Result<Proven, String> {
    let shared = &worker.shared;
    // A client that says nothing costs a socket, not a signature.
    let greeted = tokio::time::timeout(HELLO_BUDGET, tls::greet(ReadAhead::new(tcp)))
        .await
        .map_err(|_| format!("TLS hello took longer than {HELLO_BUDGET:?}"))?
        .map_err(|error| format!("TLS handshake failed: {error}"))?;
    let proxy = shared.snapshots.load().proxy.clone().ok_or("nothing is known yet of what this proxy serves")?;
    let config = shared.own.accepting(&proxy.settings.trust_domains).await.map_err(|error| error.to_string())?;
    let accepting = in_turn(&shared.tunnel_turns, &worker.pace, peer, Box::pin(greeted.accept(config)));
    let accepted = accepting.await?.map_err(|error| format!("TLS handshake failed: {error}"))?;
    let crl = shared.crl.as_ref();
    let chain = crl.and_then(|crl| crl.track(Reporter::Destination, accepted.presented()));
    let window = shared.overload.tunnel_window(place.of_source);
    let settings = Settings { connection_window: window, ..tunnel_settings() };
    let h2 = ServerConnection::handshake(accepted.stream, &settings)
        .await
        .map_err(|error| format!("HTTP/2 handshake failed: {error}"))?;
    Ok((h2, accepted.peer, chain))
}

/// Serves streams until the client is done, or the drain let the last one finish.
async fn serve_streams(worker: Rc<Worker>, mut h2: H2, tunnel: Rc<Tunnel>, mut drain: DrainWatch) {
    let mut draining = false;
    let mut row = 0;
    let mut cutting = drain.clone();
    let revoked = revoked(&worker, &tunnel);
    tokio::pin!(revoked);
    loop {
        let next = tokio::select! {
            () = &mut revoked => {
                tracing::info!(peer = %tunnel.accepted.peer, "tunnel was cut: its client's certificate was taken back");
                return;
            }
            next = h2.next() => next,
            mode = drain.signaled(), if !draining => {
                draining = true;
                if mode == DrainMode::Immediate {
                    return cut(h2).await;
                }
                h2.graceful_shutdown();
                continue;
            }
            () = cutting.cut(), if draining => return cut(h2).await,
        };
        if begin(&worker, next, &tunnel, &drain).is_break() {
            return;
        }
        row += 1;
        if row >= STARTS_IN_A_ROW_MAX {
            row = 0;
            // Streams that were begun, and other tunnels, get on before more are begun.
            tokio::task::yield_now().await;
        }
    }
}

async fn cut(mut h2: H2) {
    h2.abrupt_shutdown();
    let _ = tokio::time::timeout(CUT_BUDGET, async { while h2.next().await.is_some_and(|next| next.is_ok()) {} }).await;
}

/// Returns when a certificate of the client is taken back.
async fn revoked(worker: &Worker, tunnel: &Tunnel) {
    let (Some(crl), Some(chain)) = (&worker.shared.crl, &tunnel.chain) else {
        return std::future::pending().await;
    };
    let mut generation = crl.generation();
    while crl.revoked(chain).is_none() {
        if generation.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Starts the next stream; breaks when the tunnel has ended.
fn begin(
    worker: &Rc<Worker>,
    next: Option<Result<ConnectRequest, HboneError>>,
    tunnel: &Rc<Tunnel>,
    drain: &DrainWatch,
) -> ControlFlow<()> {
    match next {
        Some(Ok(request)) => {
            let stream = Stream { worker: worker.clone(), tunnel: tunnel.clone(), drain: drain.clone() };
            tokio::task::spawn_local(stream.serve(request));
            ControlFlow::Continue(())
        }
        Some(Err(error)) if error.is_misbehaviour() => {
            tracing::info!(peer = %tunnel.accepted.peer, %error, "tunnel was closed");
            ControlFlow::Break(())
        }
        Some(Err(error)) => {
            tracing::debug!(peer = %tunnel.accepted.peer, %error, "tunnel lost");
            ControlFlow::Break(())
        }
        None => ControlFlow::Break(()),
    }
}

/// One stream of a tunnel.
struct Stream {
    worker: Rc<Worker>,
    tunnel: Rc<Tunnel>,
    drain: DrainWatch,
}

/// How a stream is refused.
struct Denied {
    status: StatusCode,
    flags: Flags,
    details: &'static str,
}

impl Denied {
    const NOWHERE: Self = Self::with(StatusCode::NOT_FOUND);
    const OVERLOAD: Self = Self { status: StatusCode::SERVICE_UNAVAILABLE, flags: Flags::OM, details: "overload" };

    /// Nobody here serves what was asked for.
    const fn with(status: StatusCode) -> Self {
        Self { status, flags: Flags::NR, details: "no_filter_chain" }
    }
}

impl Stream {
    /// Until its end, or until memory runs out and it holds back most.
    async fn serve(self, mut request: ConnectRequest) {
        if self.worker.shared.overload.level() == Level::Over {
            return self.refuse(request, None, Denied::OVERLOAD, "memory runs out");
        }
        let unread = request.unread();
        let hoard = self.worker.hoards.enter(move || unread.bytes() as u64);
        let peer = self.tunnel.accepted.peer;
        tokio::select! {
            biased;
            () = hoard.cut() => tracing::info!(%peer, "stream was cut: nobody reads what its client sends, and memory runs out"),
            () = self.answer(request) => {}
        }
    }

    async fn answer(self, request: ConnectRequest) {
        // Anything but CONNECT is asked of nobody here.
        if request.method() != Method::CONNECT {
            return self.refuse(request, None, Denied::NOWHERE, "method is not CONNECT");
        }
        let destination = match dispatch::parse(request.authority()) {
            Ok(destination) => destination,
            Err(refusal) => return self.refuse(request, None, Denied::with(refusal.status()), &refusal.to_string()),
        };
        let east_west =
            self.worker.shared.snapshots.load().proxy.as_ref().is_some_and(|proxy| proxy.role == Role::EastWest);
        if east_west {
            let peer = self.peer(&request, destination);
            return tcp::hand_on(&self.worker, request, peer, self.drain.clone()).await;
        }
        match dispatch::dispatch(&self.worker.shared, &destination).await {
            Ok(served) => self.enter(request, destination, served).await,
            Err(refusal) => {
                self.refuse(request, Some(destination), Denied::with(refusal.status()), &refusal.to_string())
            }
        }
    }

    async fn enter(self, request: ConnectRequest, destination: Destination, served: Served) {
        let handle = match served {
            Served::Port(handle) => handle,
            Served::Workload(peer, address) => match self.worker.direct(&peer, address) {
                Ok(handle) => handle,
                Err(reason) => {
                    return self.refuse(
                        request,
                        Some(destination),
                        Denied::with(StatusCode::SERVICE_UNAVAILABLE),
                        &reason,
                    );
                }
            },
        };
        let Some(chain) = handle.current() else {
            return self.refuse(request, Some(destination), Denied::NOWHERE, "service is gone");
        };
        let peer = self.peer(&request, destination);
        let context = |protocol| ConnectionContext {
            worker: self.worker.clone(),
            chain: handle.clone(),
            peer: peer.clone(),
            protocol,
            drain: self.drain.clone(),
        };
        match chain.protocol {
            Protocol::Tcp => tcp::serve_tunnel(request, context(Protocol::Tcp), &chain).await,
            Protocol::Tls => {
                if let Some(stream) = accept(request, &peer) {
                    tcp::serve_tls(stream, context(Protocol::Tls)).await;
                }
            }
            Protocol::Detect => {
                if let Some(stream) = accept(request, &peer) {
                    sniffed(stream, detection_timeout(&chain), &context).await;
                }
            }
            protocol => {
                if let Some(stream) = accept(request, &peer) {
                    requests::serve(stream, context(protocol)).await;
                }
            }
        }
    }

    fn peer(&self, request: &ConnectRequest, destination: Destination) -> Rc<PeerInfo> {
        let identity = self.tunnel.identity.as_ref();
        Rc::new(PeerInfo {
            source_identity: identity.cloned(),
            source_address: self.tunnel.accepted.peer,
            destination,
            local_identity: Some(self.worker.shared.own.identity().clone()),
            via_hbone: true,
            tls: None,
            sni: None,
            source: self.worker.report.source(identity, request.headers()),
        })
    }

    fn refuse(&self, request: ConnectRequest, destination: Option<Destination>, denied: Denied, reason: &str) {
        let Tunnel { accepted, identity, .. } = &*self.tunnel;
        let peer = PeerInfo {
            source_identity: identity.clone(),
            source_address: accepted.peer,
            destination: destination.unwrap_or(Destination::Address(accepted.local)),
            local_identity: Some(self.worker.shared.own.identity().clone()),
            via_hbone: true,
            tls: None,
            sni: None,
            source: self.worker.report.source(identity.as_ref(), &HeaderMap::new()),
        };
        self.worker.report.refused(Opening::nowhere(Rc::new(peer), reason), denied.flags, denied.details);
        request.reject(denied.status);
    }
}

fn accept(request: ConnectRequest, peer: &PeerInfo) -> Option<mesh_hbone::H2Stream> {
    match request.accept(None) {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(peer = %peer.source_address, %error, "client left before its tunnel was accepted");
            None
        }
    }
}

/// Serves a connection as what its first bytes are. Nothing is written before the client has said something.
pub(super) async fn sniffed<T>(io: T, timeout: Option<Duration>, context: &impl Fn(Protocol) -> ConnectionContext)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let silent = context(Protocol::Tcp);
    let detected = tokio::select! {
        biased;
        detected = detect::detect(io, timeout) => detected,
        () = silent.nothing_said() => return,
    };
    drop(silent);
    match detected {
        Ok((Sniffed::Http1 | Sniffed::Http2, io)) => requests::serve(io, context(Protocol::Http)).await,
        Ok((_, io)) => tcp::serve(io, context(Protocol::Tcp)).await,
        Err(error) => {
            let peer = context(Protocol::Tcp).peer;
            tracing::debug!(peer = %peer.source_address, %error, "connection was lost before it said anything");
        }
    }
}

fn detection_timeout(chain: &Chain) -> Option<Duration> {
    chain.proxy.settings.detection_timeout
}

impl Worker {
    /// The chain of a workload that is called by address, kept while the workload and the proxy stay as they are.
    fn direct(&self, peer: &crate::endpoints::Peer, address: std::net::SocketAddr) -> Result<ChainHandle, String> {
        let proxy = self.shared.snapshots.load().proxy.clone().ok_or("nothing is known yet")?;
        self.direct_chains.get(peer, address, &proxy, &self.shared.upstream)
    }
}
