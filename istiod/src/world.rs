//! What the control plane knows of the cluster: reduced objects, and the indexes that translation reads.
//!
//! The world holds no secret of Kubernetes: objects arrive already reduced to what is read, and every change says
//! which outputs it can touch ([`Dirty`]), so that translation recomputes those and nothing else.

pub mod change;
pub mod labels;
pub mod object;
mod reach;
pub mod settings;
mod store;

pub use change::{Change, Kind, Object};
pub use labels::{Labels, Selector};
pub use object::{
    AuthorizationPolicy, Distribution, Families, Locality, Namespace, Node, PeerAuthentication, Pod, Protocol, Service,
    ServicePort, Slice, TargetPort,
};
pub use reach::Dirty;
pub use settings::MeshSettings;
pub use store::World;
