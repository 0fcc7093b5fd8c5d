//! The API server as its clients see it: kube-rs in process and over TLS, and kubectl.
// Helpers of tests panic like tests do; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

mod access;
mod applies;
mod collection;
mod corpus;
mod definitions;
mod faults;
mod kinds;
mod kubectl;
mod objects;
mod restarts;
mod server;
mod services;
mod streams;
mod tables;
mod tokens;
mod watches;
mod webhooks;
