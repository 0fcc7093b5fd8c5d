//! The status shape shared by the mesh kinds: conditions with the generation that they judge.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a mesh object. Written by the control plane's leader, one field manager a condition family.
///
/// # Source
/// `IstioStatus`: `{conditions[], observedGeneration, validationMessages[]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshStatus {
    /// One entry a condition type; several writers own different types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Generation of the object that the whole status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Findings of an analysis, written by whoever analysed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation_messages: Vec<ValidationMessage>,
}

/// Status of a ServiceEntry: that of every mesh object, and the addresses that were allocated.
///
/// # Source
/// `ServiceEntryStatus`: `IstioStatus` with `addresses[{value, host}]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryStatus {
    /// One entry a condition type; several writers own different types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Generation of the object that the whole status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Findings of an analysis, written by whoever analysed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validation_messages: Vec<ValidationMessage>,
    /// Addresses that the control plane allocated for hosts without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AllocatedAddress>,
}

/// An address that was allocated for a host of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["value"]))]
#[serde(default)]
pub struct AllocatedAddress {
    /// The IP address.
    pub value: String,
    /// Host that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A finding of an analysis about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ValidationMessage {
    /// Kind of the finding.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ValidationMessageType>,
    /// How grave it is: `ERROR`, `WARNING`, `INFO` or `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Where more is told about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documentation_url: Option<String>,
}

/// Names the kind of a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ValidationMessageType {
    /// Name for humans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Code for programs, for example `IST0101`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// One judgement of the control plane about one generation of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is judged, for example `ZtunnelAccepted`. Unique in the list.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word a program can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One or two sentences for a human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// RFC 3339 time of the last change of `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Generation of the object that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// AuthorizationPolicy: what the node proxies enforce of it.
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// AuthorizationPolicy with `targetRefs`: what the waypoints enforce of it.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// Reason: the only target is not there, or nothing that could enforce the policy.
pub const REASON_TARGET_NOT_FOUND: &str = "TargetNotFound";
/// Reason: none of several targets can be used.
pub const REASON_INVALID: &str = "Invalid";
/// Reason: enforced as written.
pub const REASON_ACCEPTED: &str = "Accepted";
/// Reason: some value cannot be honoured as written; the message says which and what happens instead.
pub const REASON_UNSUPPORTED_VALUE: &str = "UnsupportedValue";

/// Service, ServiceEntry, WorkloadEntry: whether the waypoint that is asked for is used.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// ServiceEntry: it cannot work without a waypoint, and has none.
pub const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";
/// ServiceEntry: who may see it, where the mesh configuration decides that.
pub const VISIBILITY_APPLIED: &str = "istio.io/VisibilityApplied";
/// ServiceEntry, WorkloadEntry: something of it is not served as written.
pub const SERVED: &str = "istio.io/Served";
/// Reason: bound to a waypoint.
pub const REASON_WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// Reason: the waypoint does not exist or has no address.
pub const REASON_WAYPOINT_NOT_READY: &str = "WaypointIsNotReady";
/// Reason: the waypoint does not take objects of that namespace.
pub const REASON_ATTACHMENT_DENIED: &str = "AttachmentDenied";
/// Reason: the waypoint takes other traffic.
pub const REASON_UNSUPPORTED_TRAFFIC_TYPE: &str = "UnsupportedTrafficType";
/// Reason: what is private to a namespace cannot have its waypoint elsewhere.
pub const REASON_CROSS_NAMESPACE_WAYPOINT: &str = "CrossNamespaceWaypointForbidden";
/// Reason: a wildcard host needs a waypoint.
pub const REASON_NO_WAYPOINT_FOR_WILDCARD: &str = "NoWaypointForWildcardService";
/// Reason: some of several targets can be used.
pub const REASON_PARTIALLY_INVALID: &str = "PartiallyInvalid";
/// Reason: the target has no waypoint.
pub const REASON_ANCESTOR_NOT_BOUND: &str = "AncestorNotBound";
