//! The control plane: Kubernetes objects in, workload and policy resources out, and the certificate authority.
//!
//! `source → world → translate → publish → xDS`; `ca` signs for whoever `auth` knows; `roots` and `status` write what
//! the leader alone writes.

pub mod allocate;
pub mod auth;
pub mod ca;
pub mod cluster;
pub mod config;
pub mod debug;
pub mod gate;
pub mod gateway;
pub mod lead;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod offline;
pub mod publish;
pub mod registration;
pub mod roots;
pub mod run;
pub mod serve;
pub mod simulate;
pub mod source;
pub mod status;
pub mod supervise;
pub mod translate;
pub mod trust_bundle;
mod wait;
pub mod webhook;
pub mod world;
