//! What it takes to know a tunnel's client: TLS with the pod's certificate. Runs on an acceptor.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use mesh_core::Identity;
use mesh_core::addr::canonical;
use mesh_hbone::read_ahead::ReadAhead;
use mesh_hbone::tls;
use mesh_identity::Reporter;
use mesh_sys::roaming::Roaming;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::connections::Proof;
use crate::limits::{HANDSHAKE_BUDGET, HELLO_BUDGET};
use crate::pod::acceptor::PodAcceptor;
use crate::pod::listen::Accepted;
use crate::pod::tunnels::Place;
use crate::report::{Direction, SocketGuard};

/// A tunnel's encrypted stream.
pub(crate) type Encrypted = TlsStream<ReadAhead<Roaming>>;

/// A tunnel whose two ends know each other, on its way to a worker.
pub(crate) struct Proven {
    /// Not known to any event queue.
    pub(super) stream: Encrypted,
    pub(super) peer: SocketAddr,
    /// The pod's address, as the client dialled it.
    pub(super) local: SocketAddr,
    pub(super) identity: Option<Identity>,
    pub(super) proof: Proof,
    pub(super) place: Place,
    pub(super) socket: SocketGuard,
}

/// From acceptance until a worker has it.
pub(crate) async fn serve(acceptor: Rc<PodAcceptor>, accepted: Accepted, place: Place) {
    let report = &acceptor.shared.report;
    let socket = report.socket_opened(Direction::Inbound);
    let peer = accepted.peer;
    let local = match accepted.tcp.local_addr() {
        Ok(local) => canonical(local),
        Err(error) => return tracing::debug!(%peer, %error, "tunnel was gone before it was accepted"),
    };
    let done = tokio::select! {
        done = behind_others(handshake(&acceptor, accepted.tcp, peer.ip())) => done,
        () = place.told_to_leave() => Err(TOO_MANY.to_owned()),
    };
    match done {
        Ok((stream, identity, proof)) => {
            acceptor.pass_on(Proven { stream, peer, local, identity, proof, place, socket }).await;
        }
        Err(error) => report.refused(Direction::Inbound, peer, local, &error),
    }
}

/// Gives up the processor after each step of `work`. An acceptor with many clients would keep it until its slice ends,
/// and a worker that wakes up there meanwhile has to wait for that, whatever the priorities are.
async fn behind_others<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let step = work.as_mut().poll(cx);
        std::thread::yield_now();
        step
    })
    .await
}

/// Proves who we are and learns who the client is.
async fn handshake(
    acceptor: &PodAcceptor,
    tcp: TcpStream,
    peer: IpAddr,
) -> Result<(Encrypted, Option<Identity>, Proof), String> {
    let PodAcceptor { pod, shared, pace, .. } = acceptor;
    let Some(workload) = pod.await_workload(shared).await else {
        return Err(format!("workload {}/{} is not known to this proxy yet", pod.namespace, pod.name));
    };
    let cert = shared.certs.fetch(workload.identity()).await.map_err(|e| e.to_string())?;
    // A client that says nothing costs a socket, not a turn.
    let greeted = tokio::time::timeout(HELLO_BUDGET, tls::greet(ReadAhead::new(Roaming::new(tcp))))
        .await
        .map_err(|_| format!("TLS hello took longer than {HELLO_BUDGET:?}"))?
        .map_err(|e| format!("TLS handshake failed: {}", e.reason))?;
    let accepting = async {
        // The turn ends with TLS: what follows costs little, and the client may take its time for it.
        let turn = pod.handshakes.take(peer).await;
        tokio::select! {
            accepted = pace.run(greeted.accept(cert.server_config())) => {
                accepted.map_err(|e| format!("TLS handshake failed: {}", e.reason))
            }
            () = turn.lost() => Err("TLS handshake was cut: the client did not go on while others waited".to_owned()),
        }
    };
    let accepted = tokio::time::timeout(HANDSHAKE_BUDGET, accepting)
        .await
        .map_err(|_| format!("TLS handshake took longer than {HANDSHAKE_BUDGET:?}"))??;
    let client = shared.crl.as_ref().and_then(|crl| crl.track(Reporter::Destination, accepted.presented()));
    let (mut stream, identity) = (accepted.stream, accepted.peer);
    let leaving = stream.get_mut().0.get_mut().leave();
    leaving.map_err(|error| format!("connection cannot be handed to a worker: {error}"))?;
    Ok((stream, identity, Proof { own: workload.identity().clone(), client }))
}

/// Why a client goes that is not proven yet.
pub(super) const TOO_MANY: &str = "handshake was cut: the pod, or the client, has too many tunnels";
