//! From the world to resources: pure functions of one object and what it depends on, and a model that calls them
//! for what a change can touch.

mod attach;
mod backend_policy;
mod balance;
mod canonical;
pub mod conditions;
pub mod endpoint;
pub mod entry;
mod extension;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gateway;
pub mod host;
pub mod l7;
pub mod listener;
mod member;
mod model;
pub mod peer;
pub mod plan;
pub mod pod;
pub mod policy;
mod references;
mod remote;
pub mod required;
mod resource;
pub mod route;
pub mod service;
mod statuses;
mod subject;
mod tagged;
pub mod waypoint;
pub mod workload_entry;

pub use conditions::{Condition, ObjectStatus, StatusTarget};
pub use mesh_wire::meltemi::WAYPOINT_REQUIRED;
pub use model::{Delta, Model};
