//! Bounds of the data path. Each is per pod unless it says otherwise, so that one pod cannot starve another.

use std::time::Duration;

/// Application connections of one pod at once, both directions together. At the bound the pod's listeners stop
/// accepting until one ends; other pods do not notice.
pub const POD_CONNECTIONS_MAX: usize = 32_768;
/// Tunnel connections of one pod at once, accepted on 15008. At the bound the one that was idle for longest is closed.
pub const POD_TUNNELS_MAX: usize = 8_192;
/// TLS handshakes of one pod under way at once; each costs a signature.
pub const POD_HANDSHAKES_MAX: usize = 256;
/// Those of them with one client address, so that one client cannot take every turn.
pub const SOURCE_HANDSHAKES_MAX: usize = 32;
/// TLS accept from the first byte, including the wait for a turn and what the client takes for its part.
pub const HANDSHAKE_BUDGET: Duration = Duration::from_secs(10);
/// TCP connect to an application, another proxy or any other destination.
pub const CONNECT_BUDGET: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for lack of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait for accept, per listener.
pub const LISTEN_BACKLOG: i32 = 128;
/// Bytes of the first read of a connection, and of every read of a quiet one.
pub const READ_BYTES_MIN: usize = 1 << 10;
/// Bytes of one read of a busy connection.
pub const READ_BYTES_MAX: usize = 256 << 10;
/// Bytes that one direction holds back while its writer is slow; one tunnelled read may come on top.
pub const PENDING_BYTES_MAX: usize = 256 << 10;
/// Pieces that one write takes at most (IOV_MAX is 1024).
pub const WRITE_PIECES_MAX: usize = 64;
/// Sockets made in one visit to a pod's network namespace, while connections come quickly.
pub const SOCKET_BATCH_MAX: usize = 8;
/// Work items that wait for a worker thread, per worker.
pub const WORKER_QUEUE_MAX: usize = 1024;
/// How long a tunnel that is told to leave may take for its farewell.
pub const FAREWELL_BUDGET: Duration = Duration::from_secs(2);
/// How long connections that are cut may take to notice.
pub const CUT_BUDGET: Duration = Duration::from_secs(2);
