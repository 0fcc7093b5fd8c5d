//! How objects of the Gateway API name others: parents, backends, and targets of policies.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{GROUP, GROUP_NAME, KIND_NAME, NAMESPACE_NAME, SUBDOMAIN_NAME};

/// What a route attaches to: a gateway, a listener set, or a service of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// API group. Absent: that of gateways. Empty: the core group, of services.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind. Absent: `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: Option<String>,
    /// Namespace. Absent: that of the object that refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
    /// Name of the parent.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A listener of a gateway by its name, or a port of a service by its name. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub section_name: Option<String>,
    /// Listeners on this port, or this port of a service. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
}

impl ParentReference {
    /// Its API group, the default filled in.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }

    /// Its kind, the default filled in.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}

/// Where traffic goes, with its share of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [{
        "rule": "(has(self.group) && size(self.group) > 0) || (has(self.kind) && self.kind != 'Service') || has(self.port)",
        "message": "a backend of kind Service must have a port"
    }]
))]
#[serde(default)]
pub struct BackendReference {
    /// API group. Absent or empty: the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind. Absent: `Service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: Option<String>,
    /// Name of the backend.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace. Absent: that of the route. Another one needs a ReferenceGrant where the parent is a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
    /// Port of the service, not of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
    /// Share of the traffic, in proportion to the sum of all weights. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub weight: Option<u32>,
}

impl BackendReference {
    /// Its API group, the default filled in.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    /// Its kind, the default filled in.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Service")
    }

    /// Its weight, the default filled in.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }
}

/// Where copies or questions go: a backend without a share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [{
        "rule": "(has(self.group) && size(self.group) > 0) || (has(self.kind) && self.kind != 'Service') || has(self.port)",
        "message": "a backend of kind Service must have a port"
    }]
))]
#[serde(default)]
pub struct BackendObjectReference {
    /// API group. Absent or empty: the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind. Absent: `Service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: Option<String>,
    /// Name of the backend.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace. Absent: that of the route. Another one needs a ReferenceGrant where the parent is a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
    /// Port of the service, not of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
}

impl BackendObjectReference {
    /// As a backend that takes part in a split, of weight 1.
    pub fn weighted(&self) -> BackendReference {
        BackendReference {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            port: self.port,
            weight: None,
        }
    }
}

/// Names an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
#[serde(default)]
pub struct LocalObjectReference {
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

/// What a policy is for: an object of its namespace, or one section of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargetReference {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// One port of a service by its name. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub section_name: Option<String>,
}

/// Schema of a length of time: up to four numbers of up to five digits with the units `h`, `m`, `s` and `ms`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32, "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"})
}

/// Rules of a list of parents: each is named once, or else by different sections and ports.
pub(super) fn parent_rules() -> serde_json::Value {
    let same = "(has(p.group) ? p.group : 'gateway.networking.k8s.io') == (has(o.group) ? o.group : 'gateway.networking.k8s.io') \
        && (has(p.kind) ? p.kind : 'Gateway') == (has(o.kind) ? o.kind : 'Gateway') \
        && (has(p.__namespace__) ? p.__namespace__ : '') == (has(o.__namespace__) ? o.__namespace__ : '') && p.name == o.name";
    let section = |one: &str| format!("(has({one}.sectionName) ? {one}.sectionName : '')");
    let port = |one: &str| format!("(has({one}.port) ? {one}.port : 0)");
    let whole = |one: &str| format!("({} == '' && {} == 0)", section(one), port(one));
    serde_json::json!([
        {
            "rule": format!("self.all(p, !{} || self.exists_one(o, {same}))", whole("p")),
            "message": "a parent that is named more than once must be named with sectionName or port each time"
        },
        {
            "rule": format!(
                "self.all(p, self.exists_one(o, {same} && {} == {} && {} == {}))",
                section("p"), section("o"), port("p"), port("o")
            ),
            "message": "a parent must not be named twice with the same sectionName and port"
        }
    ])
}
