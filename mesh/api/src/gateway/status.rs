//! Status of gateways.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RouteGroupKind;
use crate::status::Condition;

/// What the controller says of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Addresses under which the gateway is reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<GatewayStatusAddress>,
    /// One entry a condition type: `Accepted`, `Programmed` and more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// One entry a listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets were attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<i32>,
}

/// An address of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["value"]))]
#[serde(default)]
pub struct GatewayStatusAddress {
    /// `IPAddress`, `Hostname`, or a domain-prefixed type. Absent: `IPAddress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    pub type_: Option<String>,
    /// The address.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// What the controller says of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "attachedRoutes", "conditions"]))]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: String,
    /// Kinds of routes that may attach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes were attached.
    pub attached_routes: i32,
    /// One entry a condition type: `Accepted`, `Programmed`, `ResolvedRefs`, `Conflicted`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(default)]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}
