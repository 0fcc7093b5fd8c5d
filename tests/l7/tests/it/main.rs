//! The shipped layer-7 proxy, from outside: a scripted control plane, clients that break every rule, and real software
//! as client and as server, on the loopback of a network namespace of its own.

// A test that cannot go on panics, wherever that shows, and what it measured is for whoever reads its output.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout,
    clippy::too_many_lines
)]

mod abuse_chunks;
mod abuse_flood;
mod abuse_frames;
mod abuse_head;
mod abuse_upgrade;
mod answers;
mod bulk;
mod frames;
mod grpc;
mod hosts;
mod isolate;
mod nginx;
mod paths;
mod program;
mod raw;
mod recorder;
mod relay;
mod relay_gateway;
mod relay_kinds;
mod resources;
mod semantics;
mod through_tunnels;
mod tunnel;
mod websocket;
mod world;
