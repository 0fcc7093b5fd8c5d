//! Kubernetes names and types that the mesh reads and writes. The only crate that defines them.
//!
//! What `kubectl explain` shows of a field is its doc comment here. Enums have an empty schema description, which would
//! otherwise be shown in place of the field's.

pub mod crds;
pub mod duration;
pub mod extensions;
pub mod gateway;
pub mod labels;
pub mod networking;
pub mod security;
pub mod status;
pub mod telemetry;
pub mod validate;
