//! The connected proxies, oldest first, and the requests that wait for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use mesh_sys::netns::NetNs;
use mesh_telemetry::metrics::Gauge;
use mesh_wire::zds::WorkloadInfo;
use tokio::sync::{mpsc, oneshot, watch};

use super::session::Request;
use super::{CONNECTIONS_MAX, PACKET_TIMEOUT, WAITING_MAX, ZdsError};

/// Talks to whichever proxies are connected. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Proxies {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// In order of arrival.
    connections: Mutex<Connections>,
    /// How many are connected; also wakes those who wait for a proxy.
    count: watch::Sender<usize>,
    connected: Gauge,
}

#[derive(Debug, Default)]
struct Connections {
    next_id: u64,
    open: Vec<Connection>,
}

#[derive(Debug, Clone)]
struct Connection {
    id: u64,
    requests: mpsc::Sender<Command>,
}

/// A request on its way to one connection, and where its answer goes.
#[derive(Debug)]
pub struct Command {
    /// What to ask.
    pub request: Request,
    /// Takes the answer; nobody may be waiting any more.
    pub answer: oneshot::Sender<Result<(), ZdsError>>,
}

impl Proxies {
    /// No proxy yet. `connected` is kept at the number of connections.
    #[must_use]
    pub fn new(connected: Gauge) -> Self {
        let connections = Mutex::default();
        Self { shared: Arc::new(Shared { connections, count: watch::channel(0).0, connected }) }
    }

    /// Asks the newest proxy to serve a pod and waits until it does.
    ///
    /// # Errors
    /// See [`ZdsError`]; all of them are worth a retry.
    pub async fn add(&self, uid: String, info: WorkloadInfo, netns: Arc<NetNs>) -> Result<(), ZdsError> {
        let newest = self.lock().open.last().cloned().ok_or(ZdsError::NoProxy)?;
        newest.call(Request::Add { uid, info, netns }).await
    }

    /// Tells all proxies that a pod has left and waits for all of them.
    ///
    /// # Errors
    /// The first error of any proxy; the others were told all the same.
    pub async fn delete(&self, uid: &str) -> Result<(), ZdsError> {
        let all = self.lock().open.clone();
        let calls = all.iter().map(|proxy| proxy.call(Request::Delete { uid: uid.to_owned() }));
        // A proxy that is gone serves nobody.
        let failed = |result: &Result<(), ZdsError>| !matches!(result, Ok(()) | Err(ZdsError::Disconnected { .. }));
        join_all(calls).await.into_iter().find(failed).unwrap_or(Ok(()))
    }

    /// Number of connected proxies.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().open.len()
    }

    /// Follows the number of connected proxies.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<usize> {
        self.shared.count.subscribe()
    }

    /// Adds a connection as the newest; `None` when there are too many. Requests arrive at the receiver from now on.
    pub(super) fn join(&self) -> Option<(Membership, mpsc::Receiver<Command>)> {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        let mut connections = self.lock();
        if connections.open.len() >= CONNECTIONS_MAX {
            return None;
        }
        connections.next_id += 1;
        let id = connections.next_id;
        connections.open.push(Connection { id, requests });
        self.publish(&connections);
        Some((Membership { id, proxies: self.clone() }, receiver))
    }

    fn publish(&self, connections: &Connections) {
        let count = connections.open.len();
        self.shared.connected.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.shared.count.send_replace(count);
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    async fn call(&self, request: Request) -> Result<(), ZdsError> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Command { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ZdsError::Overloaded { limit: WAITING_MAX },
            mpsc::error::TrySendError::Closed(_) => gone(),
        })?;
        match tokio::time::timeout(CALL_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(ZdsError::NoAnswer { limit: CALL_TIMEOUT }),
        }
    }
}

/// Keeps a connection in the list; dropping it takes the connection out.
#[derive(Debug)]
pub(super) struct Membership {
    id: u64,
    proxies: Proxies,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut connections = self.proxies.lock();
        connections.open.retain(|connection| connection.id != self.id);
        self.proxies.publish(&connections);
    }
}

fn gone() -> ZdsError {
    ZdsError::Disconnected { reason: "connection ended before the answer".to_owned() }
}

/// A request may have to wait for a snapshot or for others; its own answer then still has its full time.
const CALL_TIMEOUT: Duration = PACKET_TIMEOUT.saturating_mul(2);
