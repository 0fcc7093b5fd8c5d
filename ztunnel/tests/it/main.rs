//! Real proxies between pods that are network namespaces: real rules, real sockets, certificates from memory.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, or the right to make a user namespace; says so if it has neither.

// A test that cannot go on panics, wherever that shows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::large_futures, clippy::too_many_lines)]

mod across;
mod agent;
mod arriving;
mod controller;
mod dns;
mod isolate;
mod leaving;
mod mesh;
mod named;
mod on_demand;
mod peer;
mod pod;
mod policy;
mod proxy;
mod required;
mod revocation;
mod sandwich;
mod standalone;
mod waypoints;
mod wind_down;
