//! Types and reasons of the conditions of the Gateway API.
//!
//! # Source
//! spec of the gateway controller, sections 5 to 7, 10, 12 and 15.

/// Type: the object, or its part, takes part in what is served.
pub const ACCEPTED: &str = "Accepted";
/// Type: everything that is named exists and may be used.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Type of routes: their mesh parents have waypoints.
pub const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
/// Type of Gateways and listeners: it is in force.
pub const PROGRAMMED: &str = "Programmed";
/// Type of listeners: another one has its place.
pub const CONFLICTED: &str = "Conflicted";
/// Type of Gateways: clients without a valid certificate are let in.
pub const INSECURE_FRONTEND: &str = "InsecureFrontendValidationMode";

/// The parent takes routes of other namespaces, or of other kinds.
pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
/// No hostname of the route is one of the listener.
pub const NO_MATCHING_LISTENER_HOSTNAME: &str = "NoMatchingListenerHostname";
/// There is no such parent, listener or port.
pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
/// Another route has the place.
pub const PARENT_REF_CONFLICT: &str = "ParentRefConflict";
/// Some value is not served.
pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
/// The backend does not exist, or does not have the port.
pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
/// A ReferenceGrant is missing.
pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
/// The kind of what is named is not served.
pub const INVALID_KIND: &str = "InvalidKind";
/// The application protocol of the backend is not served.
pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
/// The reference to a backend is malformed.
pub const INVALID_DESTINATION: &str = "InvalidDestination";
/// A filter cannot be honoured.
pub const INVALID_FILTER: &str = "InvalidFilter";
/// Some other value of the route cannot be honoured.
pub const INVALID_CONFIGURATION: &str = "InvalidConfiguration";
/// What a policy targets does not exist.
pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
/// Another policy has the target.
pub const CONFLICTED_POLICY: &str = "Conflicted";
/// The policy is malformed.
pub const INVALID: &str = "Invalid";
/// No certificate of an authority can be used.
pub const NO_VALID_CA_CERTIFICATE: &str = "NoValidCACertificate";
/// A certificate of an authority cannot be used.
pub const INVALID_CA_CERTIFICATE_REF: &str = "InvalidCACertificateRef";
/// An annotation asks for the policy to be left alone.
pub const IGNORED_BY_ISTIO: &str = "IgnoredByIstio";

/// Controller of Gateways of class `istio`, and the name under which the status of routes is written.
pub const GATEWAY_CONTROLLER: &str = "istio.io/gateway-controller";
/// Controller of waypoints.
pub const MESH_CONTROLLER: &str = "istio.io/mesh-controller";
/// Controller of Gateways that stand for those of other clusters.
pub const UNMANAGED_CONTROLLER: &str = "istio.io/unmanaged-gateway";
