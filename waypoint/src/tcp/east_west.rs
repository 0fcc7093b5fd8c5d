//! Tunnels from other networks: the outer one ends here, the inner one is handed on as it is. Who is called is decided by
//! the outer request alone, and only services that are served by name are.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use mesh_core::drain::DrainWatch;
use mesh_hbone::ConnectRequest;
use tokio::net::TcpStream;

use super::relay::{Relay, RelayError};
use crate::connection::{Destination, PeerInfo};
use crate::endpoints::{Endpoint, Transport};
use crate::limits::{HAND_ON_BUDGET, TCP_IDLE_BUDGET};
use crate::report::{Flags, Opening};
use crate::snapshot::{Backend, Chain};
use crate::upstream::break_off;
use crate::worker::Worker;

/// One inner tunnel.
pub(crate) async fn hand_on(worker: &Rc<Worker>, request: ConnectRequest, peer: Rc<PeerInfo>, drain: DrainWatch) {
    let served = match &peer.destination {
        // An address means nothing in another network.
        Destination::Address(_) => None,
        Destination::Name(..) => worker.shared.snapshots.load().find(&peer.destination),
    };
    let Some(chain) = served.and_then(|handle| handle.current()) else {
        return refuse(worker, request, &peer, StatusCode::NOT_FOUND, "service is not served by this gateway");
    };
    if let Some(reason) = chain.refuse_all.clone() {
        return refuse(worker, request, &peer, StatusCode::FORBIDDEN, &reason);
    }
    let backend = backend(&chain, through_waypoint(request.headers()));
    let Some(endpoint) = backend.and_then(|backend| pick(backend, worker.random())) else {
        return refuse(worker, request, &peer, StatusCode::SERVICE_UNAVAILABLE, "no endpoint takes tunnels");
    };
    let Transport::Hbone { proxy, .. } = endpoint.transport else { return };
    let connecting = tokio::time::timeout(HAND_ON_BUDGET, TcpStream::connect(proxy));
    let upstream = match connecting.await {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(error)) => {
            return refuse(worker, request, &peer, StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        }
        Err(_) => return refuse(worker, request, &peer, StatusCode::SERVICE_UNAVAILABLE, "connecting took too long"),
    };
    // Small frames must not wait for one another.
    let _ = upstream.set_nodelay(true);
    let opening = Opening {
        peer,
        service: chain.service().cloned(),
        destination: Some(endpoint.end.clone()),
        upstream: Some(proxy),
        route: Arc::default(),
        failure: None,
    };
    match request.accept(None) {
        Ok(stream) => carry(worker, Relay::new(stream, upstream, TCP_IDLE_BUDGET), opening, drain).await,
        Err(error) => {
            tracing::debug!(%error, "client left before its tunnel was accepted");
            break_off(&upstream);
        }
    }
}

async fn carry<C>(worker: &Worker, mut relay: Relay<C, TcpStream>, opening: Opening, mut drain: DrainWatch)
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = worker.report.connection(opening);
    let mut last = (0, 0);
    let ended = loop {
        tokio::select! {
            ended = relay.run() => break Some(ended),
            () = drain.cut() => break None,
            () = tokio::time::sleep(REPORT_PAUSE) => super::note(&mut connection, relay.moved(), &mut last),
        }
    };
    super::note(&mut connection, relay.moved(), &mut last);
    let flags = match &ended {
        Some(Ok(())) => Flags::NONE,
        Some(Err(_)) => Flags::UC,
        None => Flags::LR,
    };
    worker.report.closed(&connection, flags, "");
    if let Some(Err(RelayError::Client(_))) = ended {
        break_off(&relay.into_server());
    }
}

/// What the header says about who sends it: a waypoint has applied the service's policies already.
fn through_waypoint(headers: &http::HeaderMap) -> bool {
    headers.get(SOURCE).is_none_or(|value| value != "waypoint")
}

fn backend(chain: &Chain, through_waypoint: bool) -> Option<&Backend> {
    let fitting = chain.backends.iter().find(|backend| backend.config.via_waypoint == through_waypoint);
    fitting.or(chain.default_backend.and_then(|index| chain.backend(index)))
}

fn pick(backend: &Backend, random: u64) -> Option<Endpoint> {
    let set = backend.view.load();
    let usable: Vec<_> = set
        .list
        .iter()
        .filter(|one| one.healthy && one.weight > 0 && matches!(one.transport, Transport::Hbone { .. }))
        .collect();
    let total: u64 = usable.iter().map(|one| u64::from(one.weight)).sum();
    let mut point = random.checked_rem(total)?;
    for one in usable {
        if point < u64::from(one.weight) {
            return Some(one.clone());
        }
        point -= u64::from(one.weight);
    }
    None
}

fn refuse(worker: &Worker, request: ConnectRequest, peer: &Rc<PeerInfo>, status: StatusCode, reason: &str) {
    worker.report.refused(Opening::nowhere(peer.clone(), reason), Flags::NR, "no_filter_chain");
    request.reject(status);
}

/// Which kind of proxy sends an outer request.
const SOURCE: HeaderName = HeaderName::from_static("x-istio-source");
/// How often bytes are counted while they flow.
const REPORT_PAUSE: Duration = Duration::from_secs(5);
