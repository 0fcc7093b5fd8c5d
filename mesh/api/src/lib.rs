//! Kubernetes names and types that the mesh reads and writes. The only crate that defines them.

pub mod crds;
pub mod labels;
pub mod security;
pub mod status;
