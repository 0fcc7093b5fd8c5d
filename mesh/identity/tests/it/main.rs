//! Handshakes between real rustls peers, and the authority's client against a scripted authority.

// A test that cannot go on panics, wherever that shows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::large_futures, clippy::too_many_lines)]

mod authority;
mod handshake;
