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
