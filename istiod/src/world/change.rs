//! What sources tell the world.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{
    AuthorizationPolicy, BackendTlsPolicy, DestinationRule, Extension, Gateway, GatewayClass, GrpcRoute, HttpRoute,
    ListenerSet, Material, MeshSettings, Namespace, Node, PeerAuthentication, Pod, ReferenceGrant,
    RequestAuthentication, Service, ServiceEntry, Slice, TcpRoute, TlsRoute, TrafficPolicy, UdpRoute, VirtualService,
    WorkloadEntry, WorkloadGroup,
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
    /// networking.istio.io/v1 WorkloadGroup.
    WorkloadGroup,
    /// gateway.networking.k8s.io/v1 Gateway.
    Gateway,
    /// gateway.networking.k8s.io/v1 GatewayClass.
    GatewayClass,
    /// security.istio.io/v1 RequestAuthentication.
    Request,
    /// gateway.networking.k8s.io/v1 HTTPRoute.
    HttpRoute,
    /// gateway.networking.k8s.io/v1 GRPCRoute.
    GrpcRoute,
    /// gateway.networking.k8s.io/v1 TLSRoute.
    TlsRoute,
    /// gateway.networking.k8s.io/v1 TCPRoute.
    TcpRoute,
    /// gateway.networking.k8s.io/v1 UDPRoute: nobody serves it, and its status says so.
    UdpRoute,
    /// gateway.networking.k8s.io/v1beta1 ReferenceGrant.
    ReferenceGrant,
    /// gateway.networking.k8s.io/v1 ListenerSet.
    ListenerSet,
    /// gateway.networking.k8s.io/v1 BackendTLSPolicy.
    BackendTlsPolicy,
    /// gateway.networking.x-k8s.io/v1alpha1 XBackendTrafficPolicy.
    TrafficPolicy,
    /// networking.istio.io/v1 VirtualService.
    VirtualService,
    /// networking.istio.io/v1 DestinationRule.
    DestinationRule,
    /// extensions.istio.io/v1alpha1 WasmPlugin.
    WasmPlugin,
    /// extensions.istio.io/v1alpha1 TrafficExtension.
    TrafficExtension,
    /// networking.istio.io/v1alpha3 EnvoyFilter.
    EnvoyFilter,
    /// core/v1 ConfigMap: only those that others refer to.
    ConfigMap,
    /// core/v1 Secret: only those that others refer to.
    Secret,
}

impl Kind {
    /// Every kind: those that every cluster has, those with definitions, and those of which only some objects are read.
    pub const ALL: [Self; 29] = [
        Self::Namespace,
        Self::Node,
        Self::Service,
        Self::Slice,
        Self::Pod,
        Self::Authorization,
        Self::Peer,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::WorkloadGroup,
        Self::Gateway,
        Self::GatewayClass,
        Self::Request,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::ReferenceGrant,
        Self::ListenerSet,
        Self::BackendTlsPolicy,
        Self::TrafficPolicy,
        Self::VirtualService,
        Self::DestinationRule,
        Self::WasmPlugin,
        Self::TrafficExtension,
        Self::EnvoyFilter,
        Self::ConfigMap,
        Self::Secret,
    ];
    /// Kinds of which only the objects that others refer to are read.
    pub const REFERENCED: [Self; 2] = [Self::ConfigMap, Self::Secret];
    /// Kinds that every cluster has.
    pub const BUILT_IN: &'static [Self] = Self::ALL.split_at(5).0;
    /// Kinds that a cluster has only once their definitions were installed.
    pub const DEFINED: &'static [Self] = {
        let (_, rest) = Self::ALL.split_at(Self::BUILT_IN.len());
        rest.split_at(rest.len() - Self::REFERENCED.len()).0
    };

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
            Self::WorkloadGroup => "WorkloadGroup",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::Request => "RequestAuthentication",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::ListenerSet => "ListenerSet",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::TrafficPolicy => "XBackendTrafficPolicy",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::WasmPlugin => "WasmPlugin",
            Self::TrafficExtension => "TrafficExtension",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// Whether a cluster that has only another version of the kind is served without it: nothing is unprotected then that
    /// was protected before.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::GrpcRoute
                | Self::TlsRoute
                | Self::TcpRoute
                | Self::UdpRoute
                | Self::ReferenceGrant
                | Self::ListenerSet
                | Self::BackendTlsPolicy
                | Self::TrafficPolicy
                | Self::WorkloadGroup
        )
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
    /// A group of workloads that register themselves.
    WorkloadGroup(WorkloadGroup),
    /// A gateway.
    Gateway(Gateway),
    /// A class of gateways.
    GatewayClass(GatewayClass),
    /// A request authentication.
    Request(RequestAuthentication),
    /// An HTTP route.
    HttpRoute(HttpRoute),
    /// A gRPC route.
    GrpcRoute(GrpcRoute),
    /// A TLS route.
    TlsRoute(TlsRoute),
    /// A TCP route.
    TcpRoute(TcpRoute),
    /// A UDP route.
    UdpRoute(UdpRoute),
    /// A grant of references from other namespaces.
    ReferenceGrant(ReferenceGrant),
    /// Listeners beside those of a gateway.
    ListenerSet(ListenerSet),
    /// TLS towards a service.
    BackendTlsPolicy(BackendTlsPolicy),
    /// Retry budget of a service.
    TrafficPolicy(TrafficPolicy),
    /// Routes of hosts.
    VirtualService(VirtualService),
    /// How a host is called.
    DestinationRule(DestinationRule),
    /// Code or patches for proxies that are not ours.
    Extension(Extension),
    /// A ConfigMap that others refer to.
    ConfigMap(Material),
    /// A Secret that others refer to.
    Secret(Material),
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
            Self::WorkloadGroup(_) => Kind::WorkloadGroup,
            Self::Gateway(_) => Kind::Gateway,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Request(_) => Kind::Request,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::UdpRoute(_) => Kind::UdpRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::ListenerSet(_) => Kind::ListenerSet,
            Self::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
            Self::VirtualService(_) => Kind::VirtualService,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::Extension(one) => one.kind,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Secret(_) => Kind::Secret,
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
            Self::WorkloadGroup(group) => group.key.clone(),
            Self::Gateway(gateway) => gateway.key.clone(),
            Self::GatewayClass(class) => NamespacedName::new("", class.name.clone()),
            Self::Request(policy) => policy.key.clone(),
            Self::HttpRoute(one) => one.key.clone(),
            Self::GrpcRoute(one) => one.key.clone(),
            Self::TlsRoute(one) => one.key.clone(),
            Self::TcpRoute(one) => one.key.clone(),
            Self::UdpRoute(one) => one.key.clone(),
            Self::ReferenceGrant(one) => one.key.clone(),
            Self::ListenerSet(one) => one.key.clone(),
            Self::BackendTlsPolicy(one) => one.key.clone(),
            Self::TrafficPolicy(one) => one.key.clone(),
            Self::VirtualService(one) => one.key.clone(),
            Self::DestinationRule(one) => one.key.clone(),
            Self::Extension(one) => one.key.clone(),
            Self::ConfigMap(one) | Self::Secret(one) => one.key.clone(),
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
    /// The object names another revision, or a tag that may stand for ours.
    Tagged {
        /// What it names.
        revision: Arc<str>,
        /// What it means where that is ours.
        change: Box<Change>,
    },
    /// Everything that existed of this kind has been told (or the kind does not exist in this cluster).
    Synced(Kind),
    /// Something about another cluster, by its id.
    Remote(Arc<str>, Box<RemoteChange>),
}

impl Change {
    /// The object that it is about, if it is about one.
    pub fn subject(&self) -> Option<(Kind, NamespacedName)> {
        match self {
            Self::Upsert(object) | Self::Partial { object, .. } => Some((object.kind(), object.key())),
            Self::Delete(kind, key) | Self::Broken { kind, key, .. } => Some((*kind, key.clone())),
            Self::Tagged { change, .. } => change.subject(),
            Self::Retain(..) | Self::Settings(_) | Self::Synced(_) | Self::Remote(..) => None,
        }
    }
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
