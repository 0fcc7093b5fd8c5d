//! The words everything else uses: identities, addresses, names, durations, rates, back-off, drain.
//!
//! Nothing here performs I/O.

pub mod addr;
pub mod backoff;
pub mod bucket;
pub mod drain;
pub mod duration;
pub mod env;
pub mod identity;
pub mod names;

pub use addr::NetworkAddr;
pub use identity::{Identity, TrustDomain};
pub use names::NamespacedName;
