//! What the control plane knows of the cluster: reduced objects, and the indexes that translation reads.
//!
//! The world holds no secret of Kubernetes: objects arrive already reduced to what is read, and every change says
//! which outputs it can touch ([`Dirty`]), so that translation recomputes those and nothing else.

mod address;
pub mod backend_name;
pub mod binding;
mod census;
pub mod change;
pub mod entry;
pub mod extension;
pub mod gateway;
pub mod host;
mod index;
mod index_l7;
pub mod l7_settings;
pub mod labels;
mod located;
pub mod material;
pub mod memo;
pub mod network;
pub mod object;
pub mod promises;
pub mod proxies;
mod query;
mod query_gateway;
mod query_l7;
mod reach;
mod reach_gateway;
mod reach_l7;
mod reach_network;
mod reach_waypoint;
pub mod registered;
mod remote;
mod route_refs;
pub mod settings;
pub mod short_name;
mod store;
pub mod target;
mod told_labels;
pub mod written;

pub use backend_name::{BackendName, MULTICLUSTER_GROUP};
pub use binding::Binding;
pub use change::{Change, Kind, Object, RemoteChange};
pub use entry::{EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadAddress, WorkloadEntry};
pub use extension::{Demand, Extension};
pub use gateway::{Gateway, GatewayClass, RequestAuthentication};
pub use host::{HostKey, HostSource, Winner};
pub use index_l7::ParentKind;
pub use l7_settings::{AccessLog, L7Settings};
pub use labels::{Labels, Selector};
pub use material::Material;
pub use network::{NetworkGateway, NetworkGatewayAddress, NetworkGateways};
pub use object::{
    AuthorizationPolicy, Distribution, Families, Locality, Namespace, Node, PeerAuthentication, Pod, Protocol, Service,
    ServicePort, Slice, TargetPort,
};
pub use promises::{Promise, Promises};
pub use proxies::ProxySettings;
pub(crate) use query_gateway::{CLASS_DEFAULTS, NAME_OVERRIDE};
pub use query_l7::covers;
pub(crate) use query_l7::credential_keys;
pub use reach::Dirty;
pub use reach_network::{EAST_WEST_CLASS, EAST_WEST_CONTROLLER};
pub use registered::Registered;
pub(crate) use remote::SHARED;
pub use settings::{MeshSettings, Scope, ScopeRule, Visibility};
pub use store::World;
pub use target::{Target, TargetKind};
pub use written::{
    BackendTlsPolicy, DestinationRule, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute, TlsRoute,
    TrafficPolicy, UdpRoute, VirtualService, WorkloadGroup, Written,
};
