//! Incremental xDS: the protocol between the control plane and its proxies, generic over resource types.

pub mod client;
pub mod server;
