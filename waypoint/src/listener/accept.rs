//! The loop that accepts at one port and hands connections to the workers in turn: few connections that live long must not
//! all meet on one of them.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::addr::canonical;
use mesh_core::drain::DrainWatch;
use tokio::net::{TcpListener, TcpStream};

use super::{gateway, tunnel};
use crate::limits::{ACCEPT_PAUSE, LISTENER_UNPROVEN_OF_SOURCE_MAX, STARTS_IN_A_ROW_MAX, UNPROVEN_OF_SOURCE_MAX};
use crate::overload::Overload;
use crate::places::Place;
use crate::workers::Workers;

/// What comes in at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Tunnels.
    Tunnels,
    /// Whatever the listeners on this port take.
    Listeners(u16),
}

/// A connection as it was accepted.
pub(crate) struct Accepted {
    /// On its worker.
    pub(crate) tcp: TcpStream,
    /// Canonical.
    pub(crate) peer: SocketAddr,
    /// Canonical.
    pub(crate) local: SocketAddr,
    /// Held until its end.
    pub(crate) place: Rc<Place>,
}

/// Accepts until the future is dropped. While memory runs out nothing is accepted; the kernel's queue fills.
pub(super) async fn run(
    listener: std::net::TcpListener,
    entrance: Entrance,
    overload: Arc<Overload>,
    workers: Arc<Workers>,
    drain: DrainWatch,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener cannot be watched");
            return;
        }
    };
    let places = workers.places();
    let unproven_max = match entrance {
        Entrance::Tunnels => UNPROVEN_OF_SOURCE_MAX,
        Entrance::Listeners(_) => LISTENER_UNPROVEN_OF_SOURCE_MAX,
    };
    let (mut next, mut row) = (0, 0);
    loop {
        overload.may_accept().await;
        let (tcp, peer) = match listener.accept().await.and_then(|(tcp, peer)| Ok((tcp.into_std()?, peer))) {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(place) = places.enter(peer.ip(), unproven_max) else {
            tracing::debug!(%peer, "connection was closed: there are too many");
            continue;
        };
        next = (next + 1) % workers.count().max(1);
        let drain = drain.clone();
        let given = workers.spawn(next, move |worker| async move {
            let place = Rc::new(place);
            let peer = canonical(peer);
            let ready = TcpStream::from_std(tcp).and_then(|tcp| Ok((canonical(tcp.local_addr()?), tcp)));
            let (local, tcp) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::debug!(%peer, %error, "connection was gone before it was served");
                    return;
                }
            };
            let crowded_out = worker.crowded_out.clone();
            let accepted = Accepted { tcp, peer, local, place: place.clone() };
            let served = async {
                match entrance {
                    Entrance::Tunnels => tunnel::serve(worker, accepted, drain).await,
                    Entrance::Listeners(port) => gateway::serve(worker, accepted, port, drain).await,
                }
            };
            tokio::select! {
                () = served => {}
                () = place.lost() => {
                    if crowded_out.has_line() {
                        tracing::info!(%peer, %local, "connection was cut: it made room for others");
                    }
                }
            }
        });
        if given.await.is_err() {
            return;
        }
        row += 1;
        if row >= STARTS_IN_A_ROW_MAX {
            row = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// A connection that vanished before it was accepted is no reason to wait; a lack of descriptors or memory is.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "accept failed, pausing");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
