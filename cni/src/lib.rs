//! The CNI plugin and the node agent: pods of the mesh get redirect rules in their network namespace, and the
//! node proxy gets the namespace.

pub mod agent;
pub mod config;
pub mod eligibility;
pub mod event;
pub mod install;
pub mod metrics;
pub mod plugin;
pub mod redirect;
pub mod zds;
