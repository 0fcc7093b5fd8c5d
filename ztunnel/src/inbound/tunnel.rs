//! One tunnel connection after TLS: HTTP/2, and a task for each stream.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_core::drain::{DrainMode, DrainWatch};
use mesh_hbone::{ConnectRequest, HboneError, ServerConnection};

use super::handshake::{Encrypted, Proven, TOO_MANY};
use super::stream::{self, Arrival};
use crate::connections::{Denial, Proof, Registered, Subject, revoked};
use crate::joined::{Work, in_stages};
use crate::limits::{FAREWELL_BUDGET, STARTS_IN_A_ROW_MAX};
use crate::pod::PodWorker;
use crate::pod::tunnels::Place;
use crate::report::{Direction, SocketGuard};

/// A tunnel and who is at its other end.
pub(super) struct Tunnel {
    pub(super) peer: SocketAddr,
    /// The pod's address, as the client dialled it.
    pub(super) local: SocketAddr,
    pub(super) identity: Option<Identity>,
    /// What the handshake has proven, for as long as it holds.
    pub(super) proof: Arc<Proof>,
    /// Ends the tunnel when it no longer does.
    watched: Registered,
    place: Place,
    _socket: SocketGuard,
}

type H2 = ServerConnection<Encrypted>;

/// What a tunnel brings next.
type Next = Option<Result<ConnectRequest, HboneError>>;

/// One tunnel from when its client is known to its last stream.
pub(crate) fn serve(worker: Rc<PodWorker>, proven: Box<Proven>, drain: DrainWatch) -> Work {
    in_stages(open(worker, proven, drain))
}

/// Everything up to the first stream.
async fn open(worker: Rc<PodWorker>, proven: Box<Proven>, drain: DrainWatch) -> Option<Work> {
    let Proven { mut stream, peer, local, identity, proof, place, socket } = *proven;
    let arrived = stream.get_mut().0.get_mut().arrive();
    let settings = place.share(&worker.pod.settings.hbone);
    let preface = async {
        arrived.map_err(|error| format!("connection cannot be taken over: {error}"))?;
        let h2 = ServerConnection::handshake(stream, &settings);
        h2.await.map_err(|error| format!("HTTP/2 handshake failed: {error}"))
    };
    let done = tokio::select! {
        done = preface => done,
        () = place.told_to_leave() => Err(TOO_MANY.to_owned()),
    };
    match done {
        Ok(h2) => {
            place.proven();
            let proof = Arc::new(proof);
            let watched = worker.pod.live.register_tunnel(proof.clone());
            // The lists may have changed since the handshake.
            if let Some(revoked) = revoked(worker.shared.crl.as_ref(), &Subject::tunnel(proof.clone())) {
                watched.deny(Denial::Revoked { revoked });
            }
            let tunnel = Rc::new(Tunnel { peer, local, identity, proof, watched, place, _socket: socket });
            Some(Box::pin(serve_streams(worker, h2, tunnel, drain)))
        }
        Err(error) => {
            worker.shared.report.refused(Direction::Inbound, peer, local, &error);
            None
        }
    }
}

/// Serves streams until the client is done, or the drain let the last one finish.
async fn serve_streams(worker: Rc<PodWorker>, mut h2: H2, tunnel: Rc<Tunnel>, mut drain: DrainWatch) {
    let mut draining = false;
    let mut row = 0;
    loop {
        let next = tokio::select! {
            // Dropped as it is, with all its streams: they have been told why.
            denial = tunnel.watched.denied() => {
                tracing::info!(peer = %tunnel.peer, reason = %denial, "tunnel was cut");
                return;
            }
            next = h2.next() => next,
            mode = drain.signaled(), if !draining => {
                if mode == DrainMode::Immediate {
                    // About to be cut, together with its streams: none of them must think that it was lost.
                    return std::future::pending().await;
                }
                draining = true;
                h2.graceful_shutdown();
                continue;
            }
            () = tunnel.place.told_to_leave() => {
                tracing::debug!(peer = %tunnel.peer, "idle tunnel makes room for another");
                // Boxed: few tunnels come here, and all would have to keep room for it.
                return Box::pin(say_farewell(&worker, &mut h2, &tunnel)).await;
            }
        };
        if begin(&worker, next, &tunnel).is_break() {
            return;
        }
        row += 1;
        if row >= STARTS_IN_A_ROW_MAX {
            row = 0;
            // Streams that were begun, and other tunnels, get on before more are begun; and other threads.
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    }
}

/// No new streams; one that was on its way goes on to its end. A client that does not answer is cut.
async fn say_farewell(worker: &Rc<PodWorker>, h2: &mut H2, tunnel: &Rc<Tunnel>) {
    h2.graceful_shutdown();
    loop {
        let last = async { while begin(worker, h2.next().await, tunnel).is_continue() {} };
        if tokio::time::timeout(FAREWELL_BUDGET, last).await.is_ok() || !tunnel.place.in_use() {
            return;
        }
    }
}

/// Starts the next stream; breaks when the tunnel has ended.
fn begin(worker: &Rc<PodWorker>, next: Next, tunnel: &Rc<Tunnel>) -> ControlFlow<()> {
    match next {
        Some(Ok(request)) => {
            let slot = worker.pod.slots.clone().try_acquire_owned().ok();
            let arrival = Arrival { tunnel: tunnel.clone(), request, full: slot.is_none() };
            let held = (slot, tunnel.place.stream());
            worker.tasks.spawn(stream::serve(worker.clone(), arrival), held);
            ControlFlow::Continue(())
        }
        Some(Err(error)) if error.is_misbehaviour() => {
            let error = format!("tunnel was closed: {error}");
            worker.shared.report.refused(Direction::Inbound, tunnel.peer, tunnel.local, &error);
            ControlFlow::Break(())
        }
        Some(Err(error)) => {
            tracing::debug!(peer = %tunnel.peer, %error, "tunnel lost");
            ControlFlow::Break(())
        }
        None => ControlFlow::Break(()),
    }
}
