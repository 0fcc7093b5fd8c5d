//! What every binary of the mesh shares to be observable: structured logs with a writer thread of
//! their own, a metrics registry, a small HTTP server for admin endpoints, and readiness.
//!
//! Nothing here knows what it reports about: names of metrics, log fields and admin paths belong
//! to the binaries.

pub mod http;
pub mod log;
pub mod metrics;
pub mod ready;
