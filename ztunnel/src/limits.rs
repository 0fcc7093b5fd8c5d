//! Bounds of the data path. Each is per pod unless it says otherwise, so that one pod cannot starve another.

use std::time::Duration;

use mesh_core::bucket::Allowance;

/// Application connections of one pod at once, both directions together. At the bound the pod's listeners stop
/// accepting until one ends; other pods do not notice.
pub const POD_CONNECTIONS_MAX: usize = 32_768;
/// Tunnel connections of one pod at once, accepted on 15008. At the bound the one that was idle for longest is closed.
pub const POD_TUNNELS_MAX: usize = 8_192;
/// Those of them from one address: at the bound it makes room for itself.
pub const POD_TUNNELS_OF_SOURCE_MAX: usize = 1_024;
/// Tunnels of a pod, and those of them from one address, of which each has all the window that is configured. A client
/// opens one for each of its workers and each hundred connections.
pub const POD_TUNNELS_FEW: usize = 64;
/// See [`POD_TUNNELS_FEW`].
pub const POD_TUNNELS_FEW_OF_SOURCE: usize = 4;
/// Tunnels of a pod, and those of them from one address, that still have a megabyte each.
pub const POD_TUNNELS_MANY: usize = 1_024;
/// See [`POD_TUNNELS_MANY`].
pub const POD_TUNNELS_MANY_OF_SOURCE: usize = 64;
/// TLS handshakes of one pod under way at once; each costs a signature.
pub const POD_HANDSHAKES_MAX: usize = 256;
/// Those of them with one client address, so that one client cannot take every turn.
pub const SOURCE_HANDSHAKES_MAX: usize = 32;
/// A turn at a handshake is safe for this long; after it, it goes to another client if one waits and has fewer turns.
pub const TURN_GRACE: Duration = Duration::from_secs(1);
/// As long for a client with several turns while one without any waits. Longer than a round trip within a region.
pub const TURN_GRACE_NEWCOMER: Duration = Duration::from_millis(250);
/// Accepted tunnel connections of one pod whose client has not proven who it is. Past it, the oldest is closed. Each may
/// cost 64 KB: the longest hello.
pub const POD_UNPROVEN_MAX: usize = 1_024;
/// From the accept to the last byte of the client's hello.
pub const HELLO_BUDGET: Duration = Duration::from_secs(5);
/// Connections that one thread accepts for one pod on one port. Faster ones wait in the kernel's queue, at the cost of
/// this pod alone.
pub const POD_ACCEPTS: Allowance = Allowance { burst: 2_000, per_second: 5_000 };
/// Connections accepted, and streams of one tunnel begun, before other tasks of the thread get on.
pub const STARTS_IN_A_ROW_MAX: u32 = 8;
/// How long a listener that hands over takes connections whose handshakes were under way. Longer than a round trip
/// with one loss of the client's last packet on a link within the cluster.
pub const HANDOVER: Duration = Duration::from_millis(300);
/// TLS accept after the hello, including the wait for a turn and what the client takes for its part.
pub const HANDSHAKE_BUDGET: Duration = Duration::from_secs(10);
/// TCP connect to an application, another proxy or any other destination.
pub const CONNECT_BUDGET: Duration = Duration::from_secs(10);
/// What a SOCKS client may take to say where it wants to go, including the lookup of a name.
pub const SOCKS_BUDGET: Duration = Duration::from_secs(10);
/// Finding an address for a destination that the control plane knows by name only.
pub const LOOKUP_BUDGET: Duration = Duration::from_secs(10);
/// How long a connection waits for the control plane to say what a name or address is, with on-demand discovery.
pub const LEARN_BUDGET: Duration = Duration::from_secs(5);
/// Questions that follow from answers: address, its waypoint, the waypoint's gateway, and one to spare.
pub const LEARN_ROUNDS_MAX: usize = 4;
/// Pause after an accept that failed for lack of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait for accept at one port, for each worker.
pub const LISTEN_BACKLOG: i32 = 128;
/// Bytes of the first read of a connection, and of every read of a quiet one.
pub const READ_BYTES_MIN: usize = 1 << 10;
/// Bytes of one read of a busy connection.
pub const READ_BYTES_MAX: usize = 256 << 10;
/// Bytes that one direction holds back while its writer is slow; one tunnelled read may come on top.
pub const PENDING_BYTES_MAX: usize = 256 << 10;
/// After one side of a connection was lost, for the other to take some of what it had said before.
pub const LAST_WORDS_BUDGET: Duration = Duration::from_secs(10);
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
/// DNS queries of one pod that wait for a name server. Beyond it datagrams are dropped, as a busy network would.
pub const DNS_FORWARDED_MAX: usize = 512;
/// Connections with DNS queries of one pod at once. At the bound no more are accepted until one ends.
pub const DNS_CONNECTIONS_MAX: usize = 64;
/// DNS queries under way on one connection; the rest waits to be read.
pub const DNS_PIPELINED_MAX: usize = 16;
/// DNS datagrams of one pod handled before others on the worker have their turn.
pub const DNS_TURN_MAX: usize = 32;
/// How long a DNS query may take in all: as long as a client waits by default.
pub const DNS_QUERY_BUDGET: Duration = Duration::from_secs(5);
/// A name server that has not answered by then is not asked alone any more.
pub const DNS_ATTEMPT_PAUSE: Duration = Duration::from_secs(2);
/// Pause when every name server has refused.
pub const DNS_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A connection without a DNS query for so long is closed.
pub const DNS_IDLE_BUDGET: Duration = Duration::from_secs(10);
/// Name servers that are used of a list.
pub const DNS_SERVERS_MAX: usize = 8;
/// How often the list of name servers may be looked at for changes.
pub const DNS_RELOAD_PAUSE: Duration = Duration::from_secs(5);
/// Names of workloads that the process remembers, with each family for itself.
pub const RESOLVER_CACHE_MAX: usize = 4096;
/// Names that the process itself asks for at once; all pods together.
pub const RESOLVER_QUERIES_MAX: usize = 256;
/// Bytes of an application that are sent ahead, before the destination has accepted the connection.
pub const EARLY_BYTES_MAX: usize = 4 << 10;
