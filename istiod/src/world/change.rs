//! What sources tell the world.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{AuthorizationPolicy, MeshSettings, Namespace, Node, PeerAuthentication, Pod, Service, Slice};

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
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Namespace, Self::Node, Self::Service, Self::Slice, Self::Pod, Self::Authorization, Self::Peer];

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
}
