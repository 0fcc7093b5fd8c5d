//! Objects that are kept as they were written, with what translation reads of their metadata.

use std::sync::Arc;

use mesh_api::gateway::{
    BackendTLSPolicySpec, GRPCRouteSpec, HTTPRouteSpec, ListenerSetSpec, ReferenceGrantSpec, TCPRouteSpec,
    TLSRouteSpec, UDPRouteSpec, XBackendTrafficPolicySpec,
};
use mesh_api::networking::{DestinationRuleSpec, VirtualServiceSpec, WorkloadGroupSpec};
use mesh_core::names::NamespacedName;

use super::Labels;

/// An object with its specification.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<S> {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Creation time in seconds since 1970.
    pub created_s: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// All labels.
    pub labels: Labels,
    /// Annotations of Istio and of the Gateway API; others say nothing to the mesh.
    pub annotations: Labels,
    /// `spec`.
    pub spec: Arc<S>,
}

impl<S> Written<S> {
    /// Older ones first, then by namespace and name.
    pub fn age(&self) -> (i64, &NamespacedName) {
        (self.created_s, &self.key)
    }
}

/// An HTTPRoute.
pub type HttpRoute = Written<HTTPRouteSpec>;
/// A GRPCRoute.
pub type GrpcRoute = Written<GRPCRouteSpec>;
/// A TLSRoute.
pub type TlsRoute = Written<TLSRouteSpec>;
/// A TCPRoute.
pub type TcpRoute = Written<TCPRouteSpec>;
/// A UDPRoute.
pub type UdpRoute = Written<UDPRouteSpec>;
/// A ReferenceGrant.
pub type ReferenceGrant = Written<ReferenceGrantSpec>;
/// A ListenerSet.
pub type ListenerSet = Written<ListenerSetSpec>;
/// A BackendTLSPolicy.
pub type BackendTlsPolicy = Written<BackendTLSPolicySpec>;
/// An XBackendTrafficPolicy.
pub type TrafficPolicy = Written<XBackendTrafficPolicySpec>;
/// A VirtualService.
pub type VirtualService = Written<VirtualServiceSpec>;
/// A DestinationRule.
pub type DestinationRule = Written<DestinationRuleSpec>;
/// A WorkloadGroup.
pub type WorkloadGroup = Written<WorkloadGroupSpec>;
