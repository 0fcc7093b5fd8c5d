//! Journeys of users through the whole mesh, in the sandbox, with real traffic.
//!
//! Each test has a sandbox of its own; run them one at a time: `make test`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

mod admission;
mod bad_input;
mod cli;
mod control_plane;
mod demo;
mod dns;
mod docs;
mod kubectl;
mod never_in_the_clear;
mod policy;
mod sandbox;
mod simulate;
mod status;
mod town;
mod traffic;
mod upgrade;
