//! Places for connections of clients: who holds one, and who must give it up.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::addr;
use tokio::sync::Notify;

use crate::crowd::{Bounds, Crowd, Entered, Ticket};
use crate::limits::{CROWDED, UNPROVEN_MAX, WORKER_CONNECTIONS_MAX};

/// All places of the process. Shared by its workers.
#[derive(Debug)]
pub(crate) struct Places {
    crowd: Mutex<Crowd<Arc<Notify>>>,
}

/// The place of one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    source: IpAddr,
    ticket: Ticket,
    leave: Arc<Notify>,
    /// Connections of the same source when this one came, with it.
    pub(crate) of_source: usize,
}

impl Places {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let all = WORKER_CONNECTIONS_MAX.saturating_mul(workers);
        let bounds = Bounds { all, unproven: UNPROVEN_MAX };
        Arc::new(Self { crowd: Mutex::new(Crowd::new(bounds)) })
    }

    /// A place for a connection from `ip`, of whose connections so many may have proven nothing. `None`: all are taken, and
    /// nobody has more of them.
    pub(crate) fn enter(self: &Arc<Self>, ip: IpAddr, unproven_max: usize) -> Option<Place> {
        let (source, leave) = (addr::source(ip), Arc::new(Notify::new()));
        let Entered { ticket, of_source, evicted } = self.crowd().enter(source, unproven_max, leave.clone())?;
        if let Some(bell) = evicted {
            bell.notify_one();
        }
        Some(Place { places: self.clone(), source, ticket, leave, of_source })
    }

    /// Cuts connections of the source with most, if they are many, and tells how many.
    pub(crate) fn thin_out(&self) -> usize {
        let cut = self.crowd().thin_out(CROWDED);
        cut.iter().for_each(|bell| bell.notify_one());
        cut.len()
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd<Arc<Notify>>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The client is no stranger any more.
    pub(crate) fn proven(&self) {
        self.places.crowd().proven(self.source, self.ticket);
    }

    /// Waits until the connection must make room for others.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn lost(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.crowd().leave(self.source, self.ticket);
    }
}
