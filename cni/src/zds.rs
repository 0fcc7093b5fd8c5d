//! The agent's side of its conversation with node proxies: which pods to serve, each with its network namespace.
//!
//! ```text
//! proxy                         agent
//! connect, ZdsHello ----------> accept                      (listener)
//!         <-------------------- Add+fd | Keep per pod       (session: snapshot)
//! Ack ------------------------>
//!         <-------------------- SnapshotSent
//! Ack ------------------------>
//!         <-------------------- Add+fd | Del, any time later (session: updates)
//! Ack ------------------------>
//! ```
//!
//! One request is outstanding at a time and its Ack is known by its position only. Several proxies may be connected
//! while one replaces another: the newest gets new pods, all of them hear of pods that leave.

pub mod listener;
pub mod proxies;
pub mod session;

pub use listener::serve;
pub use proxies::Proxies;

use std::sync::Arc;
use std::time::Duration;

use mesh_sys::netns::NetNs;
use mesh_wire::zds::WorkloadInfo;

/// A pod that belongs to the mesh, as a snapshot carries it.
#[derive(Debug, Clone)]
pub struct PodEntry {
    /// UID of the pod.
    pub uid: String,
    /// Its name, namespace and service account.
    pub info: WorkloadInfo,
    /// Its network namespace; `None` when it could not be found: a running proxy keeps what it has.
    pub netns: Option<Arc<NetNs>>,
}

/// Where snapshots come from.
pub trait Snapshots: Send + Sync + 'static {
    /// Every pod that belongs to the mesh now.
    fn snapshot(&self) -> Vec<PodEntry>;
}

/// Why the node proxy does not serve a pod as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZdsError {
    /// No proxy is connected. Retry later.
    #[error("no node proxy is connected on this node (is ztunnel running?)")]
    NoProxy,
    /// The proxy answered with an error. Retry later.
    #[error("node proxy refused: {message}")]
    Refused {
        /// The proxy's words.
        message: String,
    },
    /// The proxy did not answer in time; the connection stays. Retry later.
    #[error("node proxy did not answer within {limit:?}")]
    NoAnswer {
        /// How long it had.
        limit: Duration,
    },
    /// The connection ended before the answer. Retry on the next connection.
    #[error("connection to the node proxy ended: {reason}")]
    Disconnected {
        /// What ended it.
        reason: String,
    },
    /// More requests wait than a healthy proxy leaves waiting. Retry later.
    #[error("node proxy has {limit} requests waiting")]
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
}

/// Time for each packet to be sent, and for its answer to come.
pub const PACKET_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the first packet of a proxy.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two accepted connections: a proxy in a crash loop must not keep the agent busy.
pub const ACCEPT_INTERVAL: Duration = Duration::from_millis(200);
/// Connections at once. Two are normal during an upgrade.
pub const CONNECTIONS_MAX: usize = 8;
/// Requests that may wait for one proxy.
pub const WAITING_MAX: usize = 256;
/// Size of the receivers' buffers on both sides, bytes.
pub const PACKET_BYTES_MAX: usize = 1024;
