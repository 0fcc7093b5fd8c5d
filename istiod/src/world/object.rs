//! Kubernetes objects reduced to the fields that the mesh reads.
//!
//! A cluster of 50,000 pods is held in memory once in this form, so nothing is kept "for later".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::security::{AuthorizationPolicySpec, Mode};
use mesh_core::names::NamespacedName;

use super::{Binding, Labels};

/// A pod that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `spec.serviceAccountName`; empty when the API server has not defaulted it.
    pub service_account: Arc<str>,
    /// `spec.nodeName`; empty until scheduled.
    pub node: Arc<str>,
    /// All labels: any may be selected on.
    pub labels: Labels,
    /// Name of what owns the pod, by the heuristics of the API (a Deployment rather than its ReplicaSet).
    pub workload_name: Arc<str>,
    /// `status.podIPs`; empty when there is none yet or when one of them is not an address.
    pub ips: Box<[IpAddr]>,
    /// Ready condition true and not being deleted.
    pub ready: bool,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// The node agent says that redirection works.
    pub redirected: bool,
    /// Named TCP ports: containers first, then restartable init containers.
    pub ports: Box<[(Arc<str>, u16)]>,
    /// Waypoint labels.
    pub binding: Option<Box<Binding>>,
}

/// A Service other than ExternalName.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: NamespacedName,
    /// Virtual addresses; none when headless.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.ipFamilies`.
    pub families: Families,
    /// `spec.ports`.
    pub ports: Box<[ServicePort]>,
    /// `spec.selector`, when not empty.
    pub selector: Option<Labels>,
    /// `spec.internalTrafficPolicy` is Local.
    pub node_local: bool,
    /// `spec.trafficDistribution`, when it is a value that we know.
    pub distribution: Option<Distribution>,
    /// The traffic-distribution annotation.
    pub distribution_annotation: Option<Distribution>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.type` is LoadBalancer.
    pub load_balancer: bool,
    /// What a load balancer is reached by: addresses and names of `status.loadBalancer.ingress`.
    pub external: Box<[Arc<str>]>,
    /// All labels: the scope of a service may depend on any.
    pub labels: Labels,
    /// Waypoint labels.
    pub binding: Option<Box<Binding>>,
}

/// Which address families a service is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Not said.
    #[default]
    Automatic,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

/// A locality preference as users write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Same network, region and zone first.
    SameZone,
    /// As [`Self::SameZone`], then subzone and node.
    SameNode,
    /// Explicitly no preference, which also hides wider settings.
    Any,
}

/// One port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty for the only port of a service.
    pub name: Arc<str>,
    /// Port of the virtual address.
    pub port: u16,
    /// Where it leads.
    pub target: TargetPort,
    /// What it speaks.
    pub protocol: Protocol,
}

/// `targetPort` of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number, or the port itself when not given.
    Number(u16),
    /// The name of a container port.
    Name(Arc<str>),
}

/// Application protocol of a service port, as far as the wire protocol tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Anything that has no name of its own.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
    /// TLS or HTTPS.
    Tls,
    /// gRPC for browsers; nobody knows whether as HTTP/1.1 or HTTP/2.
    GrpcWeb,
    /// UDP: never proxied.
    Udp,
    /// Bytes of something that has a name, but none on the wire: MongoDB, Redis, MySQL.
    Stream,
    /// HTTP/1.1 with upgrades, inside TLS. Who does not make requests of it passes it on as TLS.
    Wss,
}

impl Protocol {
    /// Whether requests may be seen on the port.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::Unknown)
    }

    /// Whether connections may be seen that are no requests.
    pub fn is_l4(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Wss | Self::Stream | Self::Unknown)
    }

    /// Whether nobody looks at what connections begin with.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Stream)
    }
}

/// An EndpointSlice with addresses, for some service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name of the slice.
    pub key: NamespacedName,
    /// Service it belongs to.
    pub service: NamespacedName,
    /// TCP ports by the service port's name.
    pub ports: Box<[(Arc<str>, u16)]>,
    /// Endpoints that are pods, sorted: name in the slice's namespace and uid.
    pub pods: Box<[(NamespacedName, Arc<str>)]>,
    /// Endpoints that are not pods, sorted and unique: address and health.
    pub addresses: Box<[(IpAddr, bool)]>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// All labels: discovery selectors may use any.
    pub labels: Labels,
    /// The traffic-distribution annotation.
    pub distribution: Option<Distribution>,
    /// Waypoint labels.
    pub binding: Option<Box<Binding>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Where it stands.
    pub locality: Locality,
}

/// Region, zone and subzone; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Widest part.
    pub region: Arc<str>,
    /// Middle part.
    pub zone: Arc<str>,
    /// Narrowest part.
    pub subzone: Arc<str>,
}

/// An AuthorizationPolicy of our revision.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.generation`.
    pub generation: i64,
    /// The dry-run annotation.
    pub dry_run: bool,
    /// `spec.selector`, when not empty.
    pub selector: Option<Labels>,
    /// What was written.
    pub spec: Arc<AuthorizationPolicySpec>,
}

/// A PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Namespace and name.
    pub key: NamespacedName,
    /// Creation time in seconds since 1970: the oldest of a level wins.
    pub created_s: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.selector`, when not empty.
    pub selector: Option<Labels>,
    /// `spec.mtls.mode`.
    pub mode: Mode,
    /// `spec.portLevelMtls`.
    pub ports: BTreeMap<u16, Mode>,
}
