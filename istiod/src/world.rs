//! What the control plane knows of the cluster: reduced objects, and the indexes that translation reads.
//!
//! The world holds no secret of Kubernetes: objects arrive already reduced to what is read, and every change says
//! which outputs it can touch ([`Dirty`]), so that translation recomputes those and nothing else.

pub mod binding;
pub mod change;
pub mod entry;
pub mod gateway;
pub mod host;
mod index;
pub mod labels;
pub mod network;
pub mod object;
pub mod promises;
mod query;
mod reach;
mod reach_waypoint;
mod remote;
pub mod settings;
mod store;
pub mod target;

pub use binding::Binding;
pub use change::{Change, Kind, Object, RemoteChange};
pub use entry::{EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadAddress, WorkloadEntry};
pub use gateway::{Gateway, GatewayClass, RequestAuthentication};
pub use host::{HostKey, HostSource, Winner};
pub use labels::{Labels, Selector};
pub use network::{NetworkGateway, NetworkGatewayAddress, NetworkGateways};
pub use object::{
    AuthorizationPolicy, Distribution, Families, Locality, Namespace, Node, PeerAuthentication, Pod, Protocol, Service,
    ServicePort, Slice, TargetPort,
};
pub use promises::{Promise, Promises};
pub use reach::Dirty;
pub(crate) use remote::SHARED;
pub use settings::{MeshSettings, Scope, ScopeRule, Visibility};
pub use store::World;
pub use target::{Target, TargetKind};
