//! Component tests: real network namespaces, real sockets, scripted peers.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod agent;
mod lab;
mod plugin;
mod redirect;
mod zds;
