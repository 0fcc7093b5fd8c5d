//! From a backend and its endpoints to a response.
//!
//! A [`Cluster`] is one pool: a backend's policy and its endpoints, shared by all workers, with counters that workers
//! share through atomics only. [`WorkerUpstreams`] is what one worker keeps: connections, and the state of balancers.
//!
//! ```text
//! let cluster = shared.cluster(&backend, view)?;                                    // when the configuration changes
//! let choice = cluster.hash(&HashInput { headers, query, .. });                   // and the cookie to set, if any
//! let reply = upstreams.request(&cluster, request, &PickContext { hash: choice.hash, tried: &tried, ..}).await?;
//! let tcp = upstreams.connect(&cluster, &PickContext::default()).await?;             // a byte stream
//! ```
//!
//! A request goes: breakers → pick (session, level, locality, balancer) → pool (idle connection, stream of a shared one,
//! or a new one) → transport (TCP, tunnel, TLS, PROXY header) → response; every step fails as an [`UpstreamError`], which
//! knows its flag, its text and what may be retried.

mod accounting;
mod backend;
mod balance;
mod body;
mod breaker;
mod budget;
mod cluster;
mod connect;
mod error;
mod export;
mod failover;
mod h1;
mod h2;
mod hash;
mod host;
mod io;
mod levels;
mod names;
mod outlier;
mod pick;
pub mod proxy_protocol;
mod random;
mod session;
mod shared;
mod sockets;
mod stats;
mod tls;
mod warmup;
mod worker;

pub use backend::{BackendError, BackendPolicy};
pub use body::{BoxError, ReplyBody, RequestBody};
pub use breaker::Permit;
pub use cluster::Cluster;
pub use error::{Failure, UpstreamError};
pub use hash::{HashChoice, HashInput};
pub use host::Host;
pub use io::{StreamLimits, UpstreamIo};
pub use pick::{PickContext, Picked};
pub use session::Session;
pub use shared::UpstreamShared;
pub(crate) use sockets::break_off;
pub use stats::{Count, Stats};
pub use worker::{Reply, WorkerUpstreams};
