//! One stream of a tunnel: check, resolve, authorize, connect, accept, relay, report.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use mesh_core::NetworkAddr;
use mesh_hbone::forwarded::{self, FORWARDED_NETWORK};
use mesh_hbone::{Baggage, ConnectRequest, H2Stream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::authorize::{Question, authorize};
use super::tunnel::Tunnel;
use crate::connections::{ConnectionInfo, Protocol, Registered};
use crate::copy::{Relay, TcpSide};
use crate::failure::Failure;
use crate::joined::{Joined, Work, in_stages};
use crate::limits::CONNECT_BUDGET;
use crate::pod::PodWorker;
use crate::proxy_protocol::Header;
use crate::report::{self, BaggagePeer, Direction, Peer, ResponseFlag};
use crate::route::{self, InboundRefusal, InboundTarget};
use crate::state::{Snapshot, Workload};

/// A request and the tunnel it came through.
pub(super) struct Arrival {
    pub(super) tunnel: Rc<Tunnel>,
    pub(super) request: ConnectRequest,
    /// The pod is at its bound of connections.
    pub(super) full: bool,
}

/// A request that makes sense here.
struct Resolved {
    authority: String,
    workload: Arc<Workload>,
    target: InboundTarget,
    source: Peer,
    service: Option<Arc<crate::state::Service>>,
}

/// Why a stream is refused before both ends are known.
struct Early {
    status: StatusCode,
    error: String,
}

impl From<InboundRefusal> for Early {
    fn from(refusal: InboundRefusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Self { status, error: refusal.reason }
    }
}

/// One stream from its request to its access-log line.
pub(super) fn serve(worker: Rc<PodWorker>, arrival: Arrival) -> Work {
    in_stages(open(worker, arrival))
}

/// Everything up to the first byte.
async fn open(worker: Rc<PodWorker>, arrival: Arrival) -> Option<Work> {
    let Arrival { tunnel, request, full } = arrival;
    let authority = request.authority().and_then(|text| text.parse::<SocketAddr>().ok());
    worker.learn_arriving(tunnel.peer.ip(), authority.map(|addr| addr.ip())).await;
    let resolved = match check(&request, full).and_then(|()| resolve(&worker, &tunnel, &request)) {
        Ok(resolved) => resolved,
        Err(early) => {
            worker.shared.report.refused(Direction::Inbound, tunnel.peer, tunnel.local, &early.error);
            request.reject(early.status);
            return None;
        }
    };
    let reported = worker.shared.report.opened(resolved.describe(&tunnel));
    match accept(&worker, &tunnel, &resolved, request).await {
        Ok(Opened { stream, application, registered }) => {
            let relay = Relay::new(stream, TcpSide::new(application));
            Some(Joined { relay, reported, registered, socket: None, worker }.into_work())
        }
        Err(failure) => {
            reported.closed(failure.into());
            None
        }
    }
}

/// Is it a request that any proxy would serve?
fn check(request: &ConnectRequest, full: bool) -> Result<(), Early> {
    if request.method() != Method::CONNECT {
        let error = format!("method {} is not CONNECT", request.method());
        return Err(Early { status: StatusCode::BAD_REQUEST, error });
    }
    if full {
        let error = "pod has too many connections".to_owned();
        return Err(Early { status: StatusCode::SERVICE_UNAVAILABLE, error });
    }
    Ok(())
}

/// Which application of this pod is meant, and who asks?
fn resolve(worker: &PodWorker, tunnel: &Tunnel, request: &ConnectRequest) -> Result<Resolved, Early> {
    let bad = |error: &str| Early { status: StatusCode::BAD_REQUEST, error: error.to_owned() };
    let authority = request.authority().ok_or_else(|| bad("request has no authority"))?;
    route::check_authority(authority)?;
    let Some(workload) = worker.pod.workload(&worker.shared) else {
        let error = format!("workload {}/{} is not known to this proxy", worker.pod.namespace, worker.pod.name);
        return Err(Early { status: StatusCode::SERVICE_UNAVAILABLE, error });
    };
    let snapshot = worker.shared.state.snapshot();
    let target = route::inbound(&snapshot, &workload, authority, tunnel.local)?;
    let host = forwarded::host(request.headers());
    let service = target
        .service
        .clone()
        .or_else(|| route::destination_service(&snapshot, &workload, target.addr.port(), host.as_deref()));
    let believe = worker.pod.settings.response_baggage;
    let source = source_of(&snapshot, tunnel, request.headers(), believe);
    Ok(Resolved { authority: authority.to_owned(), workload, target, source, service })
}

/// A stream that may go on, with its application.
struct Opened {
    stream: H2Stream,
    application: TcpStream,
    registered: Registered,
}

/// Asks policies, connects to the application, and only then says 200.
async fn accept(
    worker: &PodWorker,
    tunnel: &Tunnel,
    resolved: &Resolved,
    mut request: ConnectRequest,
) -> Result<Opened, Failure> {
    let question = Question {
        info: resolved.info(tunnel),
        identity: tunnel.identity.clone(),
        proof: Some(tunnel.proof.clone()),
        destination: resolved.target.addr,
        source: resolved.source.workload.as_ref(),
        workload: &resolved.workload,
    };
    let registered = match authorize(worker, question).await {
        Ok(registered) => registered,
        Err(denied) => {
            request.reject(StatusCode::UNAUTHORIZED);
            return Err(denied);
        }
    };
    let source = resolved.target.keep_source.then(|| tunnel.peer.ip());
    let connecting = worker.sockets.connect(resolved.target.addr, source);
    let connected = tokio::select! {
        // A denial must not lose a draw against an application that answers.
        biased;
        denial = registered.denied() => {
            request.reject(StatusCode::UNAUTHORIZED);
            return Err(denial.into());
        }
        () = poll_fn(|cx| request.poll_cancelled(cx)) => {
            return Err(Failure::new(ResponseFlag::Connect, "client gave up before the application was reached"));
        }
        connected = connecting => connected,
    };
    match connected {
        Ok(mut application) => {
            let describe = worker.pod.settings.response_baggage;
            let baggage = if describe { worker.baggage(&resolved.workload) } else { None };
            let gone = |e| Failure::new(ResponseFlag::Connect, format!("client left before it was accepted: {e}"));
            let stream = request.accept(baggage).map_err(gone)?;
            if let Some(destination) = resolved.target.announce {
                let header = Header { source: tunnel.peer, destination, identity: tunnel.identity.as_ref() };
                announce(&mut application, &header).await?;
            }
            Ok(Opened { stream, application, registered })
        }
        Err(error) => {
            request.reject(StatusCode::SERVICE_UNAVAILABLE);
            Err(error.into())
        }
    }
}

/// Tells the application of the connection, before any byte of it.
async fn announce(application: &mut TcpStream, header: &Header<'_>) -> Result<(), Failure> {
    let failed = |e: String| Failure::new(ResponseFlag::Connect, format!("PROXY header was not taken: {e}"));
    // A fresh socket has room for it, so this waits for nothing.
    match tokio::time::timeout(CONNECT_BUDGET, application.write_all(&header.encode())).await {
        Ok(written) => written.map_err(|e| failed(e.to_string())),
        Err(_) => Err(failed(format!("no room within {CONNECT_BUDGET:?}"))),
    }
}

/// For metrics and logs only: the record by address, unless the request came through a gateway of another network; then
/// what it says of itself.
fn source_of(snapshot: &Snapshot, tunnel: &Tunnel, headers: &HeaderMap, believe: bool) -> Peer {
    let network = &snapshot.local.network;
    let from_elsewhere =
        headers.get(FORWARDED_NETWORK).is_some_and(|other| !other.as_bytes().eq_ignore_ascii_case(network.as_bytes()));
    let workload = if from_elsewhere {
        None
    } else {
        snapshot.workload_by_ip(&NetworkAddr::new(network.clone(), tunnel.peer.ip())).cloned()
    };
    let baggage = if believe && workload.is_none() { Baggage::decode(headers) } else { None };
    Peer { workload, baggage: baggage.map(Into::into), identity: tunnel.identity.clone() }
}

impl From<Baggage> for BaggagePeer {
    fn from(baggage: Baggage) -> Self {
        Self {
            workload_name: baggage.workload,
            namespace: baggage.namespace,
            canonical_name: baggage.service,
            canonical_revision: baggage.revision,
            cluster_id: baggage.cluster,
            region: baggage.region,
            zone: baggage.zone,
        }
    }
}

impl Resolved {
    fn describe(&self, tunnel: &Tunnel) -> report::ConnectionInfo {
        report::ConnectionInfo {
            direction: Direction::Inbound,
            src_addr: tunnel.peer,
            dst_addr: tunnel.local,
            hbone_addr: Some(self.authority.clone()),
            source: self.source.clone(),
            destination: Peer {
                identity: Some(self.workload.identity().clone()),
                workload: Some(self.workload.clone()),
                baggage: None,
            },
            service: self.service.clone(),
            mutual_tls: true,
        }
    }

    fn info(&self, tunnel: &Tunnel) -> ConnectionInfo {
        ConnectionInfo {
            direction: Direction::Inbound,
            src: tunnel.peer,
            original_dst: original_dst(&self.authority, tunnel.local),
            actual_dst: self.target.addr,
            protocol: Protocol::Hbone,
        }
    }
}

/// What the client dialled, as far as the authority tells.
fn original_dst(authority: &str, local: SocketAddr) -> SocketAddr {
    authority.parse().unwrap_or(local)
}
