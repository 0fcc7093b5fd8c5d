//! The shipped program between a scripted control plane, tunnel clients and endpoints, on the loopback of a network
//! namespace of its own.

// A test that cannot go on panics, wherever that shows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::large_futures, clippy::too_many_lines)]

mod admin;
mod client;
mod crowds;
mod dispatch;
mod drain;
mod endpoint;
mod gateway;
mod isolate;
mod onward;
mod overload;
mod resources;
mod revocation;
mod rows;
mod staging;
mod tcp;
mod world;
