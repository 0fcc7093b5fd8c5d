//! Connections that a pod opens (port 15001): accept, identify, resolve, connect, relay, report.

mod request;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use http::HeaderMap;
use mesh_core::Identity;
use mesh_hbone::{Baggage, DialError, FirstBytes, H2Stream, NestedDriver, OpenError, PoolKey, nested};
use mesh_identity::PeerChain;
use mesh_sys::socket::original_dst;
use rand::Rng;
use tokio::net::TcpStream;

use crate::connections::{ConnectionInfo, Protocol};
use crate::copy::{Relay, TcpSide, early};
use crate::failure::Failure;
use crate::joined::{Joined, Work, in_stages};
use crate::pod::PodWorker;
use crate::pod::listen::Accepted;
use crate::report::{self, Direction, Peer};
use crate::route::{self, Hop, Outbound, Path, Source};
use crate::state::Workload;

/// An application connection and whose it is.
struct Identified {
    accepted: Accepted,
    original_dst: SocketAddr,
    workload: Arc<Workload>,
}

/// An identified connection and where it goes.
struct Resolved {
    client: Identified,
    route: Outbound,
    /// The address of the next hop.
    dial: SocketAddr,
}

/// The way to the destination.
struct Upstream {
    transport: Transport,
    /// The servers of its tunnels, where they may be revoked.
    servers: Vec<Arc<PeerChain>>,
    /// Who answered, where only the answer tells.
    answered: Option<Peer>,
}

enum Transport {
    /// With the number of bytes that the application has sent through it already.
    Tunnel(H2Stream, u64),
    /// A tunnel inside a tunnel, and what keeps it moving.
    Nested(H2Stream, NestedDriver),
    Tcp(TcpStream),
}

/// One captured connection from acceptance to its access-log line.
pub(crate) fn serve(worker: Rc<PodWorker>, accepted: Accepted) -> Work {
    in_stages(async move {
        match original_dst(&accepted.tcp) {
            Ok(dst) => open(worker, accepted, dst).await,
            Err(error) => {
                let error = format!("original destination cannot be read: {error}");
                worker.shared.report.refused(Direction::Outbound, accepted.peer, accepted.peer, &error);
                None
            }
        }
    })
}

/// A connection of the pod to `dst` from acceptance to its access-log line, however it came to this proxy.
pub(crate) fn serve_to(worker: Rc<PodWorker>, accepted: Accepted, dst: SocketAddr) -> Work {
    in_stages(open(worker, accepted, dst))
}

/// Everything up to the first byte.
async fn open(worker: Rc<PodWorker>, accepted: Accepted, dst: SocketAddr) -> Option<Work> {
    let report = &worker.shared.report;
    let socket = Some(report.socket_opened(Direction::Outbound));
    let resolved = async { resolve(&worker, identify(&worker, accepted, dst).await?).await };
    let resolved = match resolved.await {
        Ok(resolved) => resolved,
        Err(early) => {
            report.refused(Direction::Outbound, early.src, early.dst, &early.error);
            return None;
        }
    };
    // On another network, who serves the connection is known when it has answered, and is reported then.
    let known = resolved.route.hop != Hop::Gateway;
    let reported = known.then(|| report.opened(resolved.describe(None)));
    let mut registered = worker.pod.live.register(resolved.info(), None);
    let (transport, reported) = match connect(&worker, &resolved).await {
        Ok(Upstream { transport, servers, answered }) => {
            registered.leaves_through(servers, worker.shared.crl.as_ref());
            (transport, reported.unwrap_or_else(|| report.opened(resolved.describe(answered))))
        }
        Err(failure) => {
            reported.unwrap_or_else(|| report.opened(resolved.describe(None))).closed(failure.into());
            return None;
        }
    };
    let client = TcpSide::new(resolved.client.accepted.tcp);
    Some(match transport {
        Transport::Tunnel(stream, early) => {
            let relay = Relay::new(client, stream).after_early(early);
            Joined { relay, reported, registered, socket, worker }.into_work()
        }
        Transport::Nested(stream, driver) => {
            let kept = worker.clone();
            let relay = Relay::new(client, stream);
            with_driver(Joined { relay, reported, registered, socket, worker }.into_work(), driver, kept)
        }
        Transport::Tcp(stream) => {
            Joined { relay: Relay::new(client, TcpSide::new(stream)), reported, registered, socket, worker }.into_work()
        }
    })
}

/// Relays while the inner tunnel is driven, then lets that end in an orderly way. The outer one lives as long as
/// `worker`.
fn with_driver(relay: Work, driver: NestedDriver, worker: Rc<PodWorker>) -> Work {
    Box::pin(async move {
        let ((), ended) = tokio::join!(relay, driver);
        if let Err(error) = ended {
            tracing::debug!(%error, "inner tunnel lost");
        }
        drop(worker);
    })
}

/// A connection refused before both ends were known.
struct Early {
    src: SocketAddr,
    dst: SocketAddr,
    error: String,
}

/// Whose connection is it?
async fn identify(worker: &PodWorker, accepted: Accepted, original_dst: SocketAddr) -> Result<Identified, Early> {
    match worker.await_workload().await {
        Some(workload) => Ok(Identified { accepted, original_dst, workload }),
        None => {
            let (namespace, name) = (&worker.pod.namespace, &worker.pod.name);
            let error = format!("workload {namespace}/{name} is not known to this proxy yet");
            Err(Early { src: accepted.peer, dst: original_dst, error })
        }
    }
}

/// Where does it go now?
async fn resolve(worker: &PodWorker, client: Identified) -> Result<Resolved, Early> {
    let early = |error: String| Early { src: client.accepted.peer, dst: client.original_dst, error };
    let source = Source { workload: &client.workload, addr: client.accepted.peer };
    let learned = worker.learn(|snapshot| route::needs(snapshot, &source, client.original_dst)).await;
    learned.map_err(|error| early(error.to_string()))?;
    let mut route = decide(worker, &client).map_err(|refusal| early(refusal.to_string()))?;
    if let Some((host, families)) = route.path.lookup() {
        let ip = worker.look_up(&client.workload, host, families).await.map_err(early)?;
        route.path = route.path.at(ip);
    }
    match route.path.addr() {
        Some(dial) => Ok(Resolved { client, route, dial }),
        None => Err(early("no address was found for the destination".to_owned())),
    }
}

fn decide(worker: &PodWorker, client: &Identified) -> Result<Outbound, route::Refusal> {
    let snapshot = worker.shared.state.snapshot();
    let source = Source { workload: &client.workload, addr: client.accepted.peer };
    let mut pick = |bound: u64| rand::rng().random_range(0..bound);
    route::outbound(&snapshot, &source, client.original_dst, &mut pick)
}

/// Opens the way to the destination.
async fn connect(worker: &PodWorker, resolved: &Resolved) -> Result<Upstream, Failure> {
    let (transport, server) = match &resolved.route.path {
        Path::Plain { .. } | Path::Passthrough { .. } => {
            (Transport::Tcp(worker.sockets.connect(resolved.dial, None).await?), None)
        }
        Path::Hbone { authority, expected, .. } => {
            let request = resolved.request(worker, authority)?;
            let client = &resolved.client.accepted.tcp;
            let mut first = FirstBytes::new(|cx: &mut Context<'_>| early::poll_first(client, cx));
            let opened = worker.pool.open_with(&resolved.key(expected), request, &mut first).await?;
            (Transport::Tunnel(opened.stream, first.len()), opened.server)
        }
        Path::DoubleHbone { .. } => return Box::pin(connect_across(worker, resolved)).await,
    };
    Ok(Upstream { transport, servers: server.into_iter().collect(), answered: None })
}

/// Opens a stream to the gateway of another network, and a tunnel to the destination inside it.
async fn connect_across(worker: &PodWorker, resolved: &Resolved) -> Result<Upstream, Failure> {
    let Path::DoubleHbone { authority, outer, inner, .. } = &resolved.route.path else {
        return Err(Failure::new(report::ResponseFlag::Connect, "destination is not on another network"));
    };
    let request = resolved.request(worker, authority)?;
    let asked = resolved.request_across(worker, &request)?;
    let outer = worker.pool.open(&resolved.key(outer), request).await?;
    let identity = resolved.client.workload.identity();
    let cert = worker.shared.certs.fetch(identity).await;
    let cert = cert.map_err(|e| OpenError::Dial(DialError::Certificate(e)))?;
    let nested = nested::open(outer.stream, &cert, inner, asked, &worker.pod.settings.hbone).await?;
    let answered = resolved.answered(&nested.headers, nested.peer);
    let servers = outer.server.into_iter().chain(nested.server).collect();
    Ok(Upstream { transport: Transport::Nested(nested.stream, nested.driver), servers, answered })
}

impl Resolved {
    fn key(&self, expected: &[Identity]) -> PoolKey {
        PoolKey {
            source: self.client.workload.identity().clone(),
            expected: expected.to_vec(),
            upstream: self.dial,
            source_ip: self.client.accepted.peer.ip(),
        }
    }

    /// The destination behind a gateway, as it describes and proves itself; without a description, the gateway is
    /// reported.
    fn answered(&self, headers: &HeaderMap, identity: Option<Identity>) -> Option<Peer> {
        let baggage = Baggage::decode(headers)?;
        Some(Peer { workload: None, baggage: Some(baggage.into()), identity })
    }

    fn describe(&self, answered: Option<Peer>) -> report::ConnectionInfo {
        let mutual_tls = self.route.path.is_tunnel();
        // The handshake proves these identities, or there is no connection.
        let proven = |workload: &Workload| mutual_tls.then(|| workload.identity().clone());
        let next_hop = || Peer {
            identity: self.route.workload.as_deref().and_then(proven),
            workload: self.route.workload.clone(),
            baggage: None,
        };
        report::ConnectionInfo {
            direction: Direction::Outbound,
            src_addr: self.client.accepted.peer,
            dst_addr: self.dial,
            hbone_addr: self.route.path.authority().map(ToString::to_string),
            source: Peer {
                identity: proven(&self.client.workload),
                workload: Some(self.client.workload.clone()),
                baggage: None,
            },
            destination: answered.unwrap_or_else(next_hop),
            service: self.route.service.clone(),
            mutual_tls,
        }
    }

    fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            direction: Direction::Outbound,
            src: self.client.accepted.peer,
            original_dst: self.client.original_dst,
            actual_dst: self.dial,
            protocol: if self.route.path.is_tunnel() { Protocol::Hbone } else { Protocol::Tcp },
        }
    }
}
