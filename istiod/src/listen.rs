//! Listening sockets, and what a connection may cost before its peer has said who it is.

mod crowd;
pub(crate) mod guard;
pub(crate) mod hurry;
mod peer;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use peer::Peer;

use crowd::{Crowd, Entry, Ticket};

/// Binds `host:port`, or `:port` on every address of the machine.
///
/// # Errors
/// Naming the address.
pub async fn bind(addr: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("listening on {addr:?}: {error}"));
    let Some(port) = addr.strip_prefix(':') else {
        return TcpListener::bind(addr).await.map_err(named);
    };
    let port: u16 = port.parse().map_err(|_| io::Error::other(format!("{addr:?}: expected host:port or :port")))?;
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await.map_err(named),
    }
}

/// What the connections of one listener may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections.
    pub connections: usize,
    /// Those whose peer is not known yet, handshakes included.
    pub strangers: usize,
    /// Those of one address (of IPv6, of one /64).
    pub strangers_per_source: usize,
    /// Whether an address that has its share gives up its oldest connection for a new one. Otherwise the new one is
    /// closed.
    pub newest_first: bool,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a peer may stay unknown; for ever where its requests do not say who it is.
    pub patience: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 16_384,
            strangers: 1_024,
            strangers_per_source: 128,
            newest_first: false,
            handshake: Duration::from_secs(10),
            patience: Some(Duration::from_secs(30)),
        }
    }
}

impl Bounds {
    /// For a port that is open to everybody, where nobody ever becomes known. Whoever comes gets a place: the readiness
    /// probe too, whatever others of its address or of all addresses keep open.
    pub fn open() -> Self {
        Self {
            // More than strangers: who made room takes a moment to go.
            connections: 1_024,
            strangers: 256,
            strangers_per_source: 32,
            newest_first: true,
            patience: None,
            ..Self::default()
        }
    }
}

/// Keeps the bounds of one listener.
#[derive(Debug)]
pub(crate) struct Door {
    connections: Arc<Semaphore>,
    strangers: Mutex<Strangers>,
}

#[derive(Debug)]
struct Strangers {
    crowd: Crowd,
    evictions: HashMap<Ticket, Arc<Notify>>,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Held for as long as it is open.
    pub(crate) connection: OwnedSemaphorePermit,
    /// Held for as long as its peer is unknown.
    pub(crate) place: Place,
}

/// A stranger's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    source: IpAddr,
    ticket: Ticket,
    evicted: Arc<Notify>,
}

impl Door {
    /// Nobody has come yet.
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let crowd = Crowd::new(&bounds);
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(bounds.connections)),
            strangers: Mutex::new(Strangers { crowd, evictions: HashMap::new() }),
        })
    }

    /// Lets a connection in, or not: it is then to be closed, which costs next to nothing.
    pub(crate) fn admit(self: &Arc<Self>, addr: SocketAddr) -> Option<Admission> {
        let connection = self.connections.clone().try_acquire_owned().ok()?;
        let source = mesh_core::addr::source(addr.ip());
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Admitted { ticket, evicted } = strangers.crowd.enter(source) else { return None };
        if let Some(notify) = evicted.and_then(|ticket| strangers.evictions.remove(&ticket)) {
            notify.notify_one();
        }
        let evicted = Arc::new(Notify::new());
        strangers.evictions.insert(ticket, evicted.clone());
        drop(strangers);
        Some(Admission { connection, place: Place { door: self.clone(), source, ticket, evicted } })
    }
}

impl Place {
    /// Told when somebody else needs the place more.
    pub(crate) fn evicted(&self) -> Arc<Notify> {
        self.evicted.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut strangers = self.door.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.crowd.leave(self.source, self.ticket);
        strangers.evictions.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Bounds = Bounds {
        connections: 4,
        strangers: 3,
        strangers_per_source: 2,
        newest_first: false,
        handshake: Duration::from_secs(1),
        patience: None,
    };

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    #[tokio::test]
    async fn who_is_known_leaves_the_crowd_and_keeps_the_connection() {
        let door = Door::new(FEW);
        let mut open = Vec::new();
        for _ in 0..2 {
            let Admission { connection, place } = door.admit(addr(1)).unwrap();
            open.push((connection, Peer::new(addr(1), None, Some(place))));
        }
        assert!(door.admit(addr(1)).is_none(), "the share of one address");
        open[0].1.know();
        assert!(open[0].1.is_known());
        let third = door.admit(addr(1)).unwrap();
        let fourth = door.admit(addr(2)).unwrap();
        assert!(door.admit(addr(3)).is_none(), "all connections");
        drop((third, fourth));
        assert!(door.admit(addr(3)).is_some());
    }

    #[tokio::test]
    async fn a_crowd_makes_room_for_others() {
        let door = Door::new(FEW);
        let first = door.admit(addr(1)).unwrap();
        let _second = door.admit(addr(1)).unwrap();
        let _third = door.admit(addr(2)).unwrap();
        let _fourth = door.admit(addr(3)).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(1), {
            let evicted = first.place.evicted();
            async move { evicted.notified().await }
        })
        .await;
        assert!(told.is_ok(), "the oldest of the address with most is told");
    }
}
