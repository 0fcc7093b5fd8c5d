//! Tunnels between real HTTP/2 peers: over TLS on loopback where TLS matters, over pipes with paused time where time
//! matters.

// A test that cannot go on panics, wherever that shows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::large_futures, clippy::too_many_lines)]

mod early;
mod fixture;
mod floods;
mod flow;
mod liveness;
mod nested;
mod pooling;
mod resets;
