//! The group `gateway.networking.k8s.io`: gateways, among them waypoints, and their classes.

mod backend_tls;
mod backend_traffic;
mod class;
mod grant;
mod grpc_route;
mod http_filter;
mod http_route;
mod l4_route;
mod listener;
mod listener_set;
mod reference;
mod route;
mod status;
mod tls;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backend_tls::{
    BackendTLSPolicy, BackendTLSPolicySpec, BackendTlsValidation, SubjectAltName, SubjectAltNameType,
};
pub use backend_traffic::{
    BudgetDetails, RequestRate, RetryConstraint, XBackendTrafficPolicy, XBackendTrafficPolicySpec,
};
pub use class::{GatewayClass, GatewayClassSpec, GatewayClassStatus, ParametersReference, SupportedFeature};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use grpc_route::{
    GRPCRoute, GRPCRouteSpec, GrpcBackendReference, GrpcHeaderMatch, GrpcMethodMatch, GrpcRouteFilter,
    GrpcRouteFilterType, GrpcRouteMatch, GrpcRouteRule,
};
pub use http_filter::{
    CorsFilter, ExternalAuthFilter, ExternalAuthProtocol, ForwardBodyConfig, Fraction, GrpcAuthConfig, HeaderFilter,
    HttpAuthConfig, HttpHeader, HttpPathModifier, HttpPathModifierType, HttpRouteFilter, HttpRouteFilterType,
    RequestMirrorFilter, RequestRedirectFilter, UrlRewriteFilter,
};
pub use http_route::{
    HTTPRoute, HTTPRouteSpec, HttpBackendReference, HttpHeaderMatch, HttpPathMatch, HttpQueryParamMatch,
    HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts, PathMatchType, ValueMatchType,
};
pub use l4_route::{L4RouteRule, TCPRoute, TCPRouteSpec, TLSRoute, TLSRouteSpec, UDPRoute, UDPRouteSpec};
pub use listener::{AllowedRoutes, Listener, NamespaceChoice, RouteGroupKind, RouteNamespaces};
pub use listener_set::{ListenerSet, ListenerSetSpec, ListenerSetStatus, ParentGatewayReference};
pub use reference::{
    BackendObjectReference, BackendReference, LocalObjectReference, ParentReference, PolicyTargetReference,
};
pub use route::{
    CookieConfig, CookieLifetime, PolicyAncestorStatus, PolicyStatus, RouteParentStatus, RouteStatus,
    SessionPersistence, SessionPersistenceType,
};
pub use status::{GatewayStatus, GatewayStatusAddress, ListenerStatus};
pub use tls::{
    BackendTls, CertificateReference, ClientValidation, FrontendTls, FrontendTlsConfig, FrontendTlsPort, GatewayTls,
    ListenerTls, ObjectReference, TlsMode, ValidationMode,
};

/// API group of the kinds in this module.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// API group of the kinds that are on trial.
pub const GROUP_EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";

/// Asks for a proxy at the edge of the mesh, or (class `istio-waypoint`) for one between workloads.
///
/// # Source
/// `gateway.networking.k8s.io/v1 Gateway`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    doc = "A proxy at the edge of the mesh, or a waypoint inside it.",
    namespaced,
    status = "GatewayStatus",
    shortname = "gtw",
    category = "gateway-api",
    printcolumn = r#"{"name": "Class", "type": "string", "jsonPath": ".spec.gatewayClassName"}"#,
    printcolumn = r#"{"name": "Address", "type": "string", "jsonPath": ".status.addresses[*].value"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["gatewayClassName", "listeners"]))]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Name of the GatewayClass; says which controller acts on the object.
    #[schemars(length(min = 1, max = 253))]
    pub gateway_class_name: String,
    /// What the gateway listens to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = listener::rules(false)
        )
    )]
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for. Absent: any that the implementation gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(a, !has(a.value) || self.exists_one(b, has(b.value) && b.value == a.value && (has(b.type) ? b.type : 'IPAddress') == (has(a.type) ? a.type : 'IPAddress')))",
            "message": "addresses must be different"
        }])
    )]
    pub addresses: Vec<GatewayAddress>,
    /// What is put on the objects that are made for the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Infrastructure>,
    /// Which ListenerSets may add listeners. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS settings beyond those of single listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTls>,
}

/// An address that a gateway shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GatewayAddress {
    /// `IPAddress`, `Hostname`, or a domain-prefixed type. Absent: `IPAddress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 253), regex(pattern = ADDRESS_TYPE))]
    pub type_: Option<String>,
    /// The address. Absent: the implementation chooses one of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub value: Option<String>,
}

/// Labels, annotations and parameters of what is made for a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Labels for the objects that are made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the objects that are made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
    /// Object of the gateway's namespace with further settings, for example a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<LocalParametersReference>,
}

/// Names an object with settings, in the gateway's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
#[serde(default)]
pub struct LocalParametersReference {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which ListenerSets may add listeners to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AllowedListeners {
    /// By the ListenerSet's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ListenerNamespaces>,
}

/// Namespaces whose ListenerSets may add listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListenerNamespaces {
    /// Which namespaces. Absent: `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<NamespaceChoice>,
    /// The namespaces, where `from` is `Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Chooses objects by their labels; every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be present with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["key", "operator"]))]
#[serde(default)]
pub struct LabelRequirement {
    /// Key of the label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for `In` and `NotIn`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// A DNS subdomain, or nothing.
pub(crate) const GROUP_NAME: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A kind of the Kubernetes API.
pub(crate) const KIND_NAME: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// A host name, also a wildcard.
pub(crate) const HOST_NAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A name of one namespace.
pub(crate) const NAMESPACE_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Full name of an object or of a section of one.
pub(crate) const SUBDOMAIN_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `domain/path`, as controllers name themselves.
pub(crate) const DOMAIN_PATH: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$";
/// A known type of address, or a `domain/path` one.
const ADDRESS_TYPE: &str = r"^(IPAddress|Hostname|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+)$";
