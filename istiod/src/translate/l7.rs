//! Layer 7: what waypoints and gateways are told. One resource for a proxy itself, one for each port of each service that
//! it serves; listeners are put together elsewhere from the same parts.
//!
//! Everything is a pure function of the world, and says what else it read ([`uses`]), so that only that brings it up
//! again. Endpoints are no part of it: a pod that comes or goes touches nothing here.

mod authorization;
pub mod backend;
pub mod backend_tls;
#[cfg(test)]
pub(crate) mod fixture;
pub mod layer;
mod onward;
mod port;
pub mod proxy;
pub mod remarks;
pub mod report;
pub mod retry;
mod rival;
mod rule;
#[cfg(test)]
mod tests;
pub mod tls;
mod traffic;
pub mod uses;
mod virtual_service;

pub(crate) use authorization::unenforceable;
pub use layer::{Layer7, decode, redacted};
pub(in crate::translate) use onward::closed_to;
pub(super) use rival::losses;
