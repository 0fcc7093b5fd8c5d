//! The node proxy: takes the connections of every enrolled pod of its node, tunnels them over
//! mutually authenticated HBONE, and enforces layer-4 policy where they arrive.
//!
//! Read in the order in which a connection meets the code: `node` (which pods), `pod`, `outbound`,
//! [`route`], `inbound`, `copy`, [`report`]. [`state`] is what the control plane said.

pub mod admin;
pub mod config;
pub mod connections;
pub mod copy;
pub mod dial;
pub mod dns;
pub mod explain;
mod failure;
mod inbound;
mod joined;
pub mod limits;
mod memory;
pub mod node;
mod outbound;
pub mod pod;
pub mod promises;
pub mod proxy_protocol;
pub mod report;
pub mod revocation;
pub mod route;
pub mod shared;
pub mod socks;
pub mod start;
pub mod state;
pub mod workers;
