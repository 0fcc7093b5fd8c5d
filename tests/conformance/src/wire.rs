//! The messages of the wire, declared by hand from the specification's tables. Enumerations are plain numbers, so that
//! values that no enumeration has can be sent, too.
#![allow(missing_docs)] // names and meanings are those of the tables

pub mod ca;
pub mod discovery;
pub mod security;
pub mod workload;
pub mod zds;

/// Type URL of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Type URL of policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
