//! Bounds of the data path, each with its reason.

use std::time::Duration;

/// Connections at once for each worker, all listeners together. At the bound one that has proven nothing makes room, else
/// one of the address with most; a newcomer of that address itself is closed.
pub const WORKER_CONNECTIONS_MAX: usize = 65_536;
/// Connections at once that have proven or said nothing yet, all listeners together. At the bound the oldest of the
/// address with most makes room.
pub const UNPROVEN_MAX: usize = 8_192;
/// Those of them with tunnels from one address. At the bound it makes room for itself.
pub const UNPROVEN_OF_SOURCE_MAX: usize = 1_024;
/// The same at the listeners of gateways, where a balancer may have one address for all that come back at once.
pub const LISTENER_UNPROVEN_OF_SOURCE_MAX: usize = 4_096;
/// TLS handshakes of tunnels under way at once, for each worker; each costs a signature.
pub const HANDSHAKES_MAX: usize = 256;
/// Those of them with one address, whatever the number of workers, so that one client cannot take every turn.
pub const HANDSHAKES_OF_SOURCE_MAX: usize = 32;
/// The same at the listeners of gateways, for each worker: many clients may come from the address of one balancer.
pub const LISTENER_HANDSHAKES_OF_SOURCE_MAX: usize = 128;
/// A turn at a handshake is safe for this long; after it, it goes to another client if one waits and has fewer turns.
pub const TURN_GRACE: Duration = Duration::from_secs(1);
/// As long for a client with several turns while one without any waits. Longer than a round trip within a region.
pub const TURN_GRACE_NEWCOMER: Duration = Duration::from_millis(250);
/// How often the memory of the process is looked at, while less than half of it is used and above that.
pub const MEMORY_LOOK: Duration = Duration::from_millis(250);
/// See [`MEMORY_LOOK`].
pub const MEMORY_LOOK_BUSY: Duration = Duration::from_millis(50);
/// A worker that was told to make room for so long, and has not, is not waited for any more before the others are told
/// again.
pub const ROOM_BUDGET: Duration = Duration::from_secs(1);
/// What is held back of one stream or connection is worth cutting it for, when memory runs out.
pub const HOARD_BYTES_MIN: u64 = 64 << 10;
/// Connections of one address that are left alone when memory is about to end.
pub const CROWDED: usize = 16;
/// Connections that wait for accept at one port, for each worker.
pub const LISTEN_BACKLOG: i32 = 1_024;
/// Pause after an accept that failed for lack of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted, and streams of one tunnel begun, before other tasks of the worker get on.
pub const STARTS_IN_A_ROW_MAX: u32 = 8;
/// Work items that wait for a worker thread, per worker.
pub const WORKER_QUEUE_MAX: usize = 1_024;
/// From the accept to the last byte of the client's hello.
pub const HELLO_BUDGET: Duration = Duration::from_secs(5);
/// TLS accept, including what the client takes for its part.
pub const HANDSHAKE_BUDGET: Duration = Duration::from_secs(15);
/// Bytes of a TLS hello that are read in search of the server name; post-quantum hellos have about 1.8 KB.
pub const HELLO_BYTES_MAX: usize = 16 << 10;
/// Bytes that are read to tell HTTP from others.
pub const DETECT_BYTES_MAX: usize = 16 << 10;
/// A PROXY header of version 1; one of version 2 may have as much in extensions.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 << 10;
/// From the accept to the end of a PROXY header.
pub const PROXY_HEADER_BUDGET: Duration = Duration::from_secs(5);
/// How long a changed route waits for the endpoints of services that it newly names.
pub const STAGING_BUDGET: Duration = Duration::from_secs(2);
/// Finding a workload that is called by its address.
pub const LEARN_BUDGET: Duration = Duration::from_secs(2);
/// Workloads called by address whose chains are kept.
pub const DIRECT_CHAINS_MAX: usize = 4_096;
/// Bytes of the first read of a connection, and of every read of a quiet one.
pub const READ_BYTES_MIN: usize = 1 << 10;
/// Bytes of one read of a busy connection.
pub const READ_BYTES_MAX: usize = 64 << 10;
/// A TCP connection on which nothing moves is closed.
pub const TCP_IDLE_BUDGET: Duration = Duration::from_secs(3_600);
/// How long connections that are cut may take to notice.
pub const CUT_BUDGET: Duration = Duration::from_secs(2);
/// Series of metrics in all. Past it, new ones are counted under `unknown` ends.
pub const SERIES_MAX: usize = 20_000;
/// A series on which nothing is counted goes.
pub const SERIES_IDLE: Duration = Duration::from_secs(3_600);
/// Bytes of one text in the access log; longer ones are cut.
pub const LOG_TEXT_BYTES_MAX: usize = 2_048;
/// Attempts of a TCP connection to reach an endpoint.
pub const TCP_CONNECT_ATTEMPTS_MAX: usize = 3;
/// Bytes of the header section of a request.
pub const REQUEST_HEAD_BYTES_MAX: usize = 60 << 10;
/// Header fields of a request.
pub const REQUEST_FIELDS_MAX: usize = 100;
/// From the first byte of a header section to its last.
pub const REQUEST_HEAD_BUDGET: Duration = Duration::from_secs(60);
/// Requests at once on one HTTP/2 connection of a client.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// What a client may send on one HTTP/2 stream before we have read it.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// What a client may send on one HTTP/2 connection before we have read it: as much as 64 streams that nobody reads.
/// Where memory is limited, the more connections there are the less each new one has, down to the window of one stream.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What the other end may send on one stream of a tunnel before we have read it.
pub const TUNNEL_STREAM_WINDOW_BYTES: u32 = 320 << 10;
/// What the other end may send on one tunnel before we have read it: as much as all of its 100 streams may have, so that
/// those that nobody reads never stall the others. For the first [`TUNNELS_FEW`] of one address.
pub const TUNNEL_WINDOW_BYTES: u32 = 32 << 20;
/// A client opens one tunnel for each of its workers and each hundred connections.
pub const TUNNELS_FEW: usize = 4;
/// Tunnels of one address that still have a megabyte each; the others have the window of one stream.
pub const TUNNELS_MANY: usize = 64;
/// See [`TUNNELS_MANY`].
pub const TUNNEL_WINDOW_MANY_BYTES: u32 = 1 << 20;
/// What one HTTP/2 stream of a client may have waiting to be sent. A client that reads nothing has one for each stream.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 64 << 10;
/// A client's HTTP connection without requests is closed.
pub const HTTP_IDLE_BUDGET: Duration = Duration::from_secs(3_600);
/// Bytes of a request that are kept for another attempt; past it there is none.
pub const REPLAY_BYTES_MAX: usize = 1 << 20;
/// Bytes of all requests of one worker that are kept for other attempts; past it there are none.
pub const WORKER_REPLAY_BYTES_MAX: usize = 64 << 20;
/// Bytes of a request that wait for one mirror; past it the mirror is given up.
pub const MIRROR_BYTES_MAX: usize = 256 << 10;
/// Mirrored requests of one worker under way at once; past it requests are not mirrored.
pub const WORKER_MIRRORS_MAX: usize = 1_024;
/// How long a mirrored request may take where its route sets no timeout.
pub const MIRROR_BUDGET: Duration = Duration::from_secs(60);
/// Bytes of interim responses (early hints) that wait to be sent.
pub const INTERIM_BYTES_MAX: usize = 16 << 10;
/// How long a request body is held back for the upstream's 100 (Continue).
pub const CONTINUE_BUDGET: Duration = Duration::from_secs(1);
/// How long a connection stays open for reading after its last answer, so that the client gets to see it.
pub const LINGER_BUDGET: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile.
pub const LINGER_BYTES_MAX: usize = 256 << 10;
/// Bytes of a request on HTTP/2 that is answered already: one that announces more is reset at once.
pub const UNREAD_BYTES_MAX: u64 = 64 << 10;
/// HTTP/1 connections that are drained are closed when they are quiet for so long.
pub const DRAIN_IDLE_BUDGET: Duration = Duration::from_secs(2);
/// HTTP/2 streams that a client may reset before their requests were looked at.
pub const HTTP2_UNSEEN_RESETS_MAX: usize = 20;
/// HTTP/2 streams that we may have to reset for a client's mistakes, over the life of its connection.
pub const HTTP2_STREAM_ERRORS_MAX: usize = 100;
/// Pause before a port that could not be opened is tried again.
pub const BIND_RETRY: Duration = Duration::from_secs(1);
/// Requests of an HTTP/2 connection, after one that its client gave up, before which it is looked whether they are given
/// up, too. A look costs a turn of the worker, a connection to an endpoint for nothing far more.
pub const WARY_REQUESTS: u32 = 100;
/// Names that one worker looks up at once; further ones wait for their turn.
pub const LOOKUPS_MAX: usize = 16;
/// Names whose addresses a worker remembers.
pub const NAMES_MAX: usize = 1_024;
/// How long it does.
pub const NAMES_KEPT: Duration = Duration::from_secs(5);
/// Hosts of wildcard services that a worker keeps pools for.
pub const DYNAMIC_HOSTS_MAX: usize = 1_024;
/// Connecting to the endpoint of a tunnel that is handed on.
pub const HAND_ON_BUDGET: Duration = Duration::from_secs(10);
/// Idle HTTP/1.1 connections of one worker to one endpoint that are kept; more of them close.
pub const UPSTREAM_IDLE_MAX: usize = 1_024;
/// Requests of one worker that wait for a connection to one endpoint, whatever the policy allows.
pub const UPSTREAM_WAITING_MAX: usize = 16_384;
/// Dumps of the configuration that are made at once, each with up to some tens of megabytes; further ones wait.
pub const DUMPS_AT_ONCE_MAX: usize = 1;
