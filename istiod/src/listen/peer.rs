//! The other end of one connection, as handlers see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::identity::Identity;
use tokio::sync::Notify;

use super::Place;

/// Who is at the other end. Handlers find it among the extensions of a request, as `Arc<Peer>`.
#[derive(Debug)]
pub struct Peer {
    addr: SocketAddr,
    identity: Option<Identity>,
    known: AtomicBool,
    /// Told once the peer is known.
    pub(crate) became_known: Notify,
    /// Held while it is a stranger.
    place: Mutex<Option<Place>>,
}

impl Peer {
    /// A stranger at this address, who proved an identity by certificate or did not.
    pub(crate) fn new(addr: SocketAddr, identity: Option<Identity>, place: Option<Place>) -> Arc<Self> {
        let known = AtomicBool::new(false);
        Arc::new(Self { addr, identity, known, became_known: Notify::new(), place: Mutex::new(place) })
    }

    /// Where it comes from.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The identity of its verified certificate.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Somebody vouches for it: the bounds for strangers hold no longer.
    pub fn know(&self) {
        if !self.known.swap(true, Ordering::AcqRel) {
            drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.became_known.notify_one();
        }
    }

    /// Whether somebody vouched for it.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }
}
