//! HTTP/2 parameters of tunnels, with their limits.

use std::time::Duration;

/// Parameters of both sides. The defaults are those of the wire specification; peers can observe them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Flow-control window of one stream, bytes.
    pub stream_window: u32,
    /// Flow-control window of a connection, bytes. A multiple of the stream window: with equal sizes one stream that
    /// nobody reads would stall all the others.
    pub connection_window: u32,
    /// Largest frame we accept, bytes.
    pub frame_size: u32,
    /// Streams of one pooled connection; the peer may allow fewer.
    pub max_streams_per_connection: usize,
    /// An unused pooled connection is closed after this long.
    pub idle_release: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_size: 1 << 20,
            max_streams_per_connection: 100,
            idle_release: Duration::from_secs(300),
        }
    }
}

/// Streams that a server allows on one connection: twice what a well-behaved client opens.
pub const SERVER_MAX_STREAMS: u32 = 200;
/// Header bytes that a server accepts for one request.
pub const SERVER_MAX_HEADER_BYTES: u32 = 64 << 10;
/// Header bytes that a client accepts for one response.
pub const CLIENT_MAX_HEADER_BYTES: u32 = 16 << 10;
/// Bytes that a server buffers for one stream before its relay has to wait.
pub const SERVER_SEND_BUFFER_BYTES: usize = 400 << 10;
/// What small DATA frames that nobody has read yet may cost beyond their payload, in bytes, before the connection is
/// closed: about 32,000 frames. Relays take them out even while an application does not read, so that it does not end
/// its neighbours on the tunnel; what is left is those of streams that wait for their answer, and of hostile peers.
pub const UNREAD_FRAME_OVERHEAD_BYTES: usize = 8 << 20;
/// First ping after this long, the next this long after each answer.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Without an answer for this long the connection is dead.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// TLS and HTTP/2 handshakes together.
pub const HANDSHAKE_BUDGET: Duration = Duration::from_secs(10);
/// From the CONNECT request to its response: the far side's own connect (10 s), its waits for configuration (5 s) and
/// some slack.
pub const RESPONSE_BUDGET: Duration = Duration::from_secs(20);
/// Pooled connections of one pool, all keys together; past it, the least recently used idle one makes room.
pub const POOL_MAX_CONNECTIONS: usize = 4096;
/// Attempts to open one stream when pooled connections turn out to be dead.
pub const OPEN_ATTEMPTS_MAX: usize = 3;
/// Bytes are sent ahead of the answer only on a tunnel whose peer has answered a request within this time.
pub const EARLY_TRUST: Duration = Duration::from_secs(1);
