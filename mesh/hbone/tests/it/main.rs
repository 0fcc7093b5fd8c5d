//! Tunnels between real HTTP/2 peers: over TLS on loopback where TLS matters, over pipes with paused time where time
//! matters.

mod fixture;
mod flow;
mod liveness;
mod pooling;
mod resets;
