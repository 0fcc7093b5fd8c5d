//! The node proxy on the wire: each module follows one part of the specification.
//!
//! Rows of the specifications' tables of examples are named in the tests: `hbone_row_5_…` is row 5 of the data path's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

mod arriving;
mod arriving_backend;
mod arriving_tls;
mod certificates;
mod counting;
mod coverage;
mod discovery;
mod discovery_demand;
mod discovery_stream;
mod ending;
mod guarded;
mod leaving;
mod leaving_pool;
mod leaving_tls;
mod modes;
mod names;
mod operations;
mod policies;
mod shop;
mod waypoints;
mod zds;
