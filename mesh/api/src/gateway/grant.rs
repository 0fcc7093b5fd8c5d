//! ReferenceGrant: which objects of other namespaces may refer to those of this one.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GROUP_NAME, KIND_NAME, NAMESPACE_NAME};

/// Lets objects of other namespaces refer to objects of the grant's namespace.
///
/// # Source
/// `gateway.networking.k8s.io/v1beta1 ReferenceGrant`; `v1` has the same shape.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    doc = "Lets objects of other namespaces refer to objects of this one.",
    namespaced,
    shortname = "refgrant",
    category = "gateway-api",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["from", "to"]))]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// Who may refer; each entry to everything in `to`.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<GrantFrom>,
    /// What may be referred to.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<GrantTo>,
}

/// Objects that may refer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "namespace"]))]
#[serde(default)]
pub struct GrantFrom {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind, for example `HTTPRoute` or `Gateway`.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Namespace of the objects.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind"]))]
#[serde(default)]
pub struct GrantTo {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind, for example `Service` or `Secret`.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Name of the object. Absent: every one of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    /// Whether an object of `from` may refer to an object of the grant's namespace.
    pub fn allows(&self, from: &GrantFrom, group: &str, kind: &str, name: &str) -> bool {
        self.from.contains(from)
            && self.to.iter().any(|to| {
                let named = to.name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
                to.group == group && to.kind == kind && named
            })
    }
}
