//! Listeners of Gateways and of the ListenerSets that add to them: which there are, which of them conflict, what their TLS
//! needs, and what proxies are told.

mod conflict;
pub mod effective;
pub mod protocol;
pub mod references;
mod resource;
#[cfg(test)]
mod tests;
pub mod tls;

pub use conflict::Conflict;
pub use effective::{Effective, Owner, SetRefusal, effective};
pub use protocol::ListenerProtocol;
pub use references::references;
pub use resource::{Compiled, listeners};
