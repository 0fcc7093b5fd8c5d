//! What sources tell the world.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{
    AuthorizationPolicy, Gateway, GatewayClass, MeshSettings, Namespace, Node, PeerAuthentication, Pod,
    RequestAuthentication, Service, ServiceEntry, Slice, WorkloadEntry,
};

/// Kinds of objects in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 Pod.
    Pod,
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    Slice,
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Node.
    Node,
    /// security.istio.io/v1 AuthorizationPolicy.
    Authorization,
    /// security.istio.io/v1 PeerAuthentication.
    Peer,
    /// networking.istio.io/v1 ServiceEntry.
    ServiceEntry,
    /// networking.istio.io/v1 WorkloadEntry.
    WorkloadEntry,
    /// gateway.networking.k8s.io/v1 Gateway.
    Gateway,
    /// gateway.networking.k8s.io/v1 GatewayClass.
    GatewayClass,
    /// security.istio.io/v1 RequestAuthentication.
    Request,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Namespace,
        Self::Node,
        Self::Service,
        Self::Slice,
        Self::Pod,
        Self::Authorization,
        Self::Peer,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::Gateway,
        Self::GatewayClass,
        Self::Request,
    ];
    /// Kinds that a cluster has only once their definitions were installed.
    pub const DEFINED: [Self; 7] = [
        Self::Authorization,
        Self::Peer,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::Gateway,
        Self::GatewayClass,
        Self::Request,
    ];

    /// The kind as Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Authorization => "AuthorizationPolicy",
            Self::Peer => "PeerAuthentication",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::Request => "RequestAuthentication",
        }
    }
}

/// One object of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A pod.
    Pod(Pod),
    /// A service.
    Service(Service),
    /// An endpoint slice.
    Slice(Slice),
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// An authorization policy.
    Authorization(AuthorizationPolicy),
    /// A peer authentication.
    Peer(PeerAuthentication),
    /// A service entry.
    ServiceEntry(ServiceEntry),
    /// A workload entry.
    WorkloadEntry(WorkloadEntry),
    /// A gateway.
    Gateway(Gateway),
    /// A class of gateways.
    GatewayClass(GatewayClass),
    /// A request authentication.
    Request(RequestAuthentication),
}

impl Object {
    /// The kind of this object.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::Slice,
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Authorization(_) => Kind::Authorization,
            Self::Peer(_) => Kind::Peer,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::WorkloadEntry(_) => Kind::WorkloadEntry,
            Self::Gateway(_) => Kind::Gateway,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Request(_) => Kind::Request,
        }
    }

    /// Namespace (empty for cluster-wide kinds) and name.
    pub fn key(&self) -> NamespacedName {
        match self {
            Self::Pod(pod) => pod.key.clone(),
            Self::Service(service) => service.key.clone(),
            Self::Slice(slice) => slice.key.clone(),
            Self::Namespace(namespace) => NamespacedName::new("", namespace.name.clone()),
            Self::Node(node) => NamespacedName::new("", node.name.clone()),
            Self::Authorization(policy) => policy.key.clone(),
            Self::Peer(policy) => policy.key.clone(),
            Self::ServiceEntry(entry) => entry.key.clone(),
            Self::WorkloadEntry(entry) => entry.key.clone(),
            Self::Gateway(gateway) => gateway.key.clone(),
            Self::GatewayClass(class) => NamespacedName::new("", class.name.clone()),
            Self::Request(policy) => policy.key.clone(),
        }
    }
}

/// One step of the world.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is now like this.
    Upsert(Object),
    /// The object is gone, or no longer of interest.
    Delete(Kind, NamespacedName),
    /// A complete list was read: objects of the kind that are not in it are gone.
    Retain(Kind, HashSet<NamespacedName>),
    /// The object is now like this. Part of what was written cannot be read, and is replaced by something stricter.
    Partial {
        /// What is in force.
        object: Object,
        /// What is wrong with it, naming field and value.
        reason: String,
    },
    /// The object cannot be read; what was known of it before stays in force.
    Broken {
        /// Its kind.
        kind: Kind,
        /// Its name.
        key: NamespacedName,
        /// Its generation, for the status.
        generation: i64,
        /// What is wrong with it, naming field and value.
        reason: String,
        /// What is in force where no version before it is known: never weaker than what may have been meant. None where
        /// not even its scope can be read.
        stand_in: Option<Box<Object>>,
    },
    /// The mesh settings are now these.
    Settings(Arc<MeshSettings>),
    /// Everything that existed of this kind has been told (or the kind does not exist in this cluster).
    Synced(Kind),
    /// Something about another cluster, by its id.
    Remote(Arc<str>, Box<RemoteChange>),
}

/// One step of the world of another cluster. Every connection to it has an epoch, and a later one a higher epoch: what it
/// tells is used as soon as it is complete, and until then what the connection before it told.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // always boxed, and nearly always of the large variant
pub enum RemoteChange {
    /// A connection tells this.
    Told {
        /// Which connection.
        epoch: u64,
        /// What it tells.
        change: Change,
    },
    /// A connection has told everything that there is.
    Complete {
        /// Which connection.
        epoch: u64,
    },
    /// The cluster is no longer one of ours.
    Gone,
    /// Clusters that were known at the start are complete, or late.
    Settled,
}
