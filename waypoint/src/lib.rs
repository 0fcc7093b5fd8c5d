//! The layer-7 proxy: waypoint, ingress, egress and east-west gateway in one.
//!
//! Read in the order in which a connection meets the code: [`listener`] (accept, prove), [`dispatch`] (what was asked
//! for), [`detect`] (what the bytes are), then [`http`] or [`tcp`], [`upstream`], [`report`]. [`snapshot`] is what the
//! control plane said, [`endpoints`] where services are.

pub mod admin;
pub mod config;
pub mod connection;
mod crowd;
mod describe;
pub mod detect;
pub mod dispatch;
pub mod endpoints;
pub mod explain;
pub mod filter;
mod heard;
pub mod http;
pub mod limits;
pub mod listener;
mod memory;
pub mod overload;
pub mod own;
mod pace;
mod places;
pub mod report;
pub mod shared;
pub mod snapshot;
pub mod start;
mod tally;
pub mod tcp;
pub mod upstream;
pub mod worker;
pub mod workers;
