//! The loop that accepts at one port and hands connections to the workers in turn: few connections that live long must not
//! all meet on one of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::addr::canonical;
use mesh_core::drain::DrainWatch;
use tokio::net::{TcpListener, TcpStream};

use super::{gateway, tunnel};
use crate::limits::{ACCEPT_PAUSE, STARTS_IN_A_ROW_MAX};
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
}

/// Accepts until the future is dropped. At the bound nothing is accepted; the kernel's queue fills.
pub(super) async fn run(listener: std::net::TcpListener, entrance: Entrance, workers: Arc<Workers>, drain: DrainWatch) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener cannot be watched");
            return;
        }
    };
    let places = workers.places();
    let (mut next, mut row) = (0, 0);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (tcp, peer) = match listener.accept().await.and_then(|(tcp, peer)| Ok((tcp.into_std()?, peer))) {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        next = (next + 1) % workers.count().max(1);
        let drain = drain.clone();
        let given = workers.spawn(next, move |worker| async move {
            let _place = place;
            let peer = canonical(peer);
            let ready = TcpStream::from_std(tcp).and_then(|tcp| Ok((canonical(tcp.local_addr()?), tcp)));
            let (local, tcp) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::debug!(%peer, %error, "connection was gone before it was served");
                    return;
                }
            };
            let accepted = Accepted { tcp, peer, local };
            match entrance {
                Entrance::Tunnels => tunnel::serve(worker, accepted, drain).await,
                Entrance::Listeners(port) => gateway::serve(worker, accepted, port, drain).await,
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
