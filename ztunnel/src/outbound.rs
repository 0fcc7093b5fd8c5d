//! Connections that a pod opens (port 15001): accept, identify, resolve, connect, relay, report.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request};
use mesh_hbone::baggage::BAGGAGE;
use mesh_hbone::forwarded::FORWARDED;
use mesh_hbone::traceparent::{self, TRACEPARENT};
use mesh_hbone::{Forwarded, H2Stream, PoolKey};
use mesh_sys::socket::original_dst;
use rand::Rng;
use tokio::net::TcpStream;

use crate::connections::{ConnectionInfo, Protocol};
use crate::copy::{Relay, TcpSide};
use crate::failure::Failure;
use crate::joined::{Joined, Work, in_stages};
use crate::pod::PodWorker;
use crate::pod::listen::Accepted;
use crate::report::{self, Direction, Peer, ResponseFlag};
use crate::route::{self, Outbound, Path, Source};
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
}

/// The way to the destination.
enum Upstream {
    Tunnel(H2Stream),
    Tcp(TcpStream),
}

/// One application connection from acceptance to its access-log line.
pub(crate) fn serve(worker: Rc<PodWorker>, accepted: Accepted) -> Work {
    in_stages(open(worker, accepted))
}

/// Everything up to the first byte.
async fn open(worker: Rc<PodWorker>, accepted: Accepted) -> Option<Work> {
    let report = &worker.shared.report;
    let socket = Some(report.socket_opened(Direction::Outbound));
    let resolved = match identify(&worker, accepted).await.and_then(|client| resolve(&worker, client)) {
        Ok(resolved) => resolved,
        Err(early) => {
            report.refused(Direction::Outbound, early.src, early.dst, &early.error);
            return None;
        }
    };
    let reported = report.opened(resolved.describe());
    let registered = worker.pod.live.register(resolved.info(), None);
    let upstream = match connect(&worker, &resolved).await {
        Ok(upstream) => upstream,
        Err(failure) => {
            reported.closed(failure.into());
            return None;
        }
    };
    let client = TcpSide::new(resolved.client.accepted.tcp);
    Some(match upstream {
        Upstream::Tunnel(stream) => {
            Joined { relay: Relay::new(client, stream), reported, registered, socket, worker }.into_work()
        }
        Upstream::Tcp(stream) => {
            Joined { relay: Relay::new(client, TcpSide::new(stream)), reported, registered, socket, worker }.into_work()
        }
    })
}

/// A connection refused before both ends were known.
struct Early {
    src: SocketAddr,
    dst: SocketAddr,
    error: String,
}

/// Whose connection is it, and where was it going?
async fn identify(worker: &PodWorker, accepted: Accepted) -> Result<Identified, Early> {
    let src = accepted.peer;
    let early = |dst, error: String| Early { src, dst, error };
    let original_dst =
        original_dst(&accepted.tcp).map_err(|e| early(src, format!("original destination cannot be read: {e}")))?;
    let Some(workload) = worker.await_workload().await else {
        let (namespace, name) = (&worker.pod.namespace, &worker.pod.name);
        let error = format!("workload {namespace}/{name} is not known to this proxy yet");
        return Err(early(original_dst, error));
    };
    Ok(Identified { accepted, original_dst, workload })
}

/// Where does it go now?
fn resolve(worker: &PodWorker, client: Identified) -> Result<Resolved, Early> {
    let snapshot = worker.shared.state.snapshot();
    let source = Source { workload: &client.workload, addr: client.accepted.peer };
    let mut pick = |bound: u64| rand::rng().random_range(0..bound);
    match route::outbound(&snapshot, &source, client.original_dst, &mut pick) {
        Ok(route) => Ok(Resolved { client, route }),
        Err(refusal) => Err(Early { src: client.accepted.peer, dst: client.original_dst, error: refusal.to_string() }),
    }
}

/// Opens the way to the destination.
async fn connect(worker: &PodWorker, resolved: &Resolved) -> Result<Upstream, Failure> {
    match &resolved.route.path {
        Path::Plain { dial } | Path::Passthrough { dial } => {
            Ok(Upstream::Tcp(worker.sockets.connect(*dial, None).await?))
        }
        Path::Hbone { dial, authority, expected } => {
            let key = PoolKey {
                source: resolved.client.workload.identity().clone(),
                expected: expected.clone(),
                upstream: *dial,
                source_ip: resolved.client.accepted.peer.ip(),
            };
            let request = resolved.connect_request(worker, authority)?;
            Ok(Upstream::Tunnel(worker.pool.open(&key, request).await?.stream))
        }
    }
}

impl Resolved {
    fn connect_request(&self, worker: &PodWorker, authority: &str) -> Result<Request<()>, Failure> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(())
            .map_err(|e| Failure::new(ResponseFlag::Connect, format!("authority {authority:?}: {e}")))?;
        let headers = request.headers_mut();
        if let Some(baggage) = worker.baggage(&self.client.workload) {
            headers.insert(BAGGAGE, baggage);
        }
        let host = self.route.service.as_ref().map(|service| &**service.hostname());
        if let Some(forwarded) = (Forwarded { client: self.client.accepted.peer, host }).encode() {
            headers.insert(FORWARDED, forwarded);
        }
        headers.insert(TRACEPARENT, traceparent::random());
        Ok(request)
    }

    fn describe(&self) -> report::ConnectionInfo {
        let (hbone_addr, mutual_tls) = match &self.route.path {
            Path::Hbone { authority, .. } => (Some(authority.clone()), true),
            Path::Plain { .. } | Path::Passthrough { .. } => (None, false),
        };
        // The handshake proves these identities, or there is no connection.
        let proven = |workload: &Workload| mutual_tls.then(|| workload.identity().clone());
        let destination = self.route.workload.clone();
        report::ConnectionInfo {
            direction: Direction::Outbound,
            src_addr: self.client.accepted.peer,
            dst_addr: self.route.path.dial(),
            hbone_addr,
            source: Peer {
                identity: proven(&self.client.workload),
                workload: Some(self.client.workload.clone()),
                baggage: None,
            },
            destination: Peer {
                identity: destination.as_deref().and_then(proven),
                workload: destination,
                baggage: None,
            },
            service: self.route.service.clone(),
            mutual_tls,
        }
    }

    fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            direction: Direction::Outbound,
            src: self.client.accepted.peer,
            original_dst: self.client.original_dst,
            actual_dst: self.route.path.dial(),
            protocol: match self.route.path {
                Path::Hbone { .. } => Protocol::Hbone,
                Path::Plain { .. } | Path::Passthrough { .. } => Protocol::Tcp,
            },
        }
    }
}
