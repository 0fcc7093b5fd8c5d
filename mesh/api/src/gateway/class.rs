//! GatewayClass: which controller acts on the gateways of a class.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DOMAIN_PATH, GROUP_NAME, KIND_NAME};
use crate::status::Condition;

/// A class of gateways and the controller that acts on them.
///
/// # Source
/// `gateway.networking.k8s.io/v1 GatewayClass`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GatewayClass",
    plural = "gatewayclasses",
    doc = "A class of gateways and the controller that acts on them.",
    status = "GatewayClassStatus",
    shortname = "gc",
    category = "gateway-api",
    printcolumn = r#"{"name": "Controller", "type": "string", "jsonPath": ".spec.controllerName"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Description", "type": "string", "jsonPath": ".spec.description", "priority": 1}"#
)]
#[schemars(extend("required" = ["controllerName"]))]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    /// Name of the controller, `domain/path`. Cannot be changed.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = DOMAIN_PATH),
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "controllerName cannot be changed: make another GatewayClass"
        }])
    )]
    pub controller_name: String,
    /// Object with settings of the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersReference>,
    /// What the class is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}

/// Names an object with settings, in any namespace or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
#[serde(default)]
pub struct ParametersReference {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object; absent for objects of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = super::NAMESPACE_NAME))]
    pub namespace: Option<String>,
}

/// What the controller says of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassStatus {
    /// One entry a condition type, `Accepted` foremost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Features of the API that gateways of the class have, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub supported_features: Vec<SupportedFeature>,
}

/// A feature of the Gateway API, as its conformance suite names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct SupportedFeature {
    /// Name of the feature.
    pub name: String,
}
