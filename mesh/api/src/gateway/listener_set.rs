//! ListenerSet: listeners that others add to a gateway.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listener::rules;
use super::{GROUP, GROUP_NAME, KIND_NAME, Listener, ListenerStatus, NAMESPACE_NAME};
use crate::status::Condition;

/// Adds listeners to a gateway that allows it.
///
/// # Source
/// `gateway.networking.k8s.io/v1 ListenerSet`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "ListenerSet",
    doc = "Listeners that are added to a gateway.",
    namespaced,
    status = "ListenerSetStatus",
    shortname = "lset",
    category = "gateway-api",
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["parentRef", "listeners"]))]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetSpec {
    /// The gateway.
    pub parent_ref: ParentGatewayReference,
    /// What is added. A port of 0, or none, is the usual one of the protocol.
    #[schemars(
        length(min = 1, max = 64),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = rules(true)
        )
    )]
    pub listeners: Vec<Listener>,
}

/// Names a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct ParentGatewayReference {
    /// API group. Absent: that of gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind. Absent: `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: Option<String>,
    /// Name of the gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the gateway. Absent: that of the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
}

impl ParentGatewayReference {
    /// Its API group, the default filled in.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }

    /// Its kind, the default filled in.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}

/// What the controller says of a listener set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListenerSetStatus {
    /// One entry a condition type: `Accepted`, `Programmed`.
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
}
