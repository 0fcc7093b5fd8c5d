//! Delta-ADS server, generic over resource types.
//!
//! - [`Resource`]: one published resource, serialised once and shared by every client.
//! - [`Hub`]: the resources and the connected clients; a publisher replaces resources, clients are told what changed.
//! - `session`: the protocol of one stream as a state machine without I/O; `exchange`: the same together with the hub.
//! - [`AdsService`]: the gRPC shell around it.
//!
//! Memory is O(resources + clients): a client that does not read holds a list of pointers, one piece of a response and
//! one merged set of names, and is cut when it falls too far behind (it then reconnects and is sent only what differs).

mod answer;
mod body;
mod connection;
mod exchange;
mod hub;
mod resource;
mod service;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod wire;

pub use connection::{ConnectionStatus, TypeStatus};
pub use hub::{Change, Hub, HubOptions, Observer, Unobserved};
pub use resource::{Resource, content_version};
pub use service::{AdsService, Attendant, Gatekeeper};
pub use session::Peer;
pub use store::{Backing, TypeSpec};
