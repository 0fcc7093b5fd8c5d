//! From the world to resources: pure functions of one object and what it depends on, and a model that calls them
//! for what a change can touch.

pub mod endpoint;
mod model;
pub mod peer;
pub mod pod;
pub mod policy;
mod resource;
pub mod service;

pub use model::{Delta, Model, PolicyStatus};
