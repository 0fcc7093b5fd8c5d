//! HBONE: a TCP connection inside an HTTP/2 CONNECT stream inside mutual TLS.
//!
//! Server and client side over any byte stream, a connection pool, the headers that describe the two ends, and
//! [`H2Stream`], the tunnel's end as the relay sees it.
//!
//! # Source
//! RFC 9113 section 8.5 (CONNECT) and the headers of Istio's ambient mode.

pub mod baggage;
pub mod client;
mod early;
pub mod error;
pub mod forwarded;
pub mod frames;
pub mod guarded;
pub mod hygiene;
mod keepalive;
pub mod nested;
pub mod pool;
pub mod read_ahead;
pub mod server;
pub mod settings;
pub mod steps;
pub mod stream;
pub mod tls;
pub mod traceparent;
pub mod turns;

pub use baggage::Baggage;
pub use early::FirstBytes;
pub use error::{DialError, HboneError, OpenError};
pub use forwarded::Forwarded;
pub use nested::{Nested, NestedDriver, NestedError};
pub use pool::{Dialer, Pool, PoolKey};
pub use server::{ConnectRequest, ServerConnection, Unread};
pub use settings::Settings;
pub use stream::H2Stream;
pub use turns::{Turn, TurnBounds, Turns};
