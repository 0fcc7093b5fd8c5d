//! AuthorizationPolicy: rules that allow or deny connections and requests.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::WorkloadSelector;
use crate::status::MeshStatus;

/// Allows, denies, audits or delegates the traffic that its rules match.
///
/// # Source
/// `security.istio.io/v1 AuthorizationPolicy`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "AuthorizationPolicy",
    doc = "Rules that allow or deny connections and requests.",
    namespaced,
    status = "MeshStatus",
    shortname = "ap",
    category = "istio-io",
    category = "security-istio-io",
    printcolumn = r#"{"name": "Action", "type": "string", "jsonPath": ".spec.action", "description": "The operation to take."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Workloads it applies to. Absent: the whole namespace; in the root namespace the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Waypoints, services or gateways it applies to; such a policy is not enforced by the node proxies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What happens to matching traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Who decides, for action CUSTOM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Any may match. None at all: an ALLOW policy then denies everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub rules: Vec<Rule>,
}

/// What a policy does with the traffic that it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Traffic that no ALLOW policy matches is denied once one exists.
    #[default]
    Allow,
    /// Matching traffic is denied, whatever else allows it.
    Deny,
    /// Matching requests are recorded; waypoints and gateways only.
    Audit,
    /// An external authorizer decides; waypoints and gateways only.
    Custom,
}

/// Names an extension provider of the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct Provider {
    /// Name of the provider.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// Names an object of the policy's own namespace that the policy attaches to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["kind", "name"], "x-kubernetes-validations" = [{
    "rule": "[has(self.group) ? self.group : '', self.kind] in [['', 'Service'], ['core', 'Service'], ['networking.istio.io', 'ServiceEntry'], ['gateway.networking.k8s.io', 'Gateway'], ['gateway.networking.k8s.io', 'GatewayClass']]",
    "message": "targetRefs must name a Service, a ServiceEntry (group networking.istio.io), or a Gateway or GatewayClass (group gateway.networking.k8s.io)"
}]))]
#[serde(default)]
pub struct TargetRef {
    /// API group; empty or `core` for Service.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Must stay empty: references cross no namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == ''",
        "message": "namespace must be empty: targets are in the object's own namespace"
    }]))]
    pub namespace: Option<String>,
}

/// Matches when every section that is present matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rule {
    /// Any may match. Absent: any source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub from: Vec<From>,
    /// Any may match. Absent: any operation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To>,
    /// All must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
}

/// One alternative of [`Rule::from`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct From {
    /// The caller.
    pub source: Source,
}

/// Describes callers: kinds AND-ed, values of a kind OR-ed, none of a `not` list may match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(!has(self.serviceAccounts) && !has(self.notServiceAccounts)) || (!has(self.principals) && !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces))",
    "message": "serviceAccounts exclude principals and namespaces: a service account tells both"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Identities without scheme: `trust-domain/ns/N/sa/S`; `*` at either end is a wildcard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    /// Identities that must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<String>,
    /// Callers by end-user identity; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_principals: Vec<String>,
    /// End-user identities that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_request_principals: Vec<String>,
    /// Namespaces of the caller's identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces that must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    /// `account` of the policy's namespace, or `namespace/account`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub service_accounts: Vec<String>,
    /// Service accounts that must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the caller; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<String>,
    /// Trust domains that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_trust_domains: Vec<String>,
    /// Addresses or CIDR blocks of the TCP peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<String>,
    /// Addresses or CIDR blocks that must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<String>,
    /// Blocks of the original client as told by a header; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remote_ip_blocks: Vec<String>,
    /// Blocks of the original client that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_remote_ip_blocks: Vec<String>,
}

/// One alternative of [`Rule::to`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct To {
    /// The operation.
    pub operation: Operation,
}

/// Describes what is called: kinds AND-ed, values of a kind OR-ed, none of a `not` list may match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// HTTP hosts; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// HTTP hosts that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<String>,
    /// Workload ports, 1 to 65535.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Workload ports that must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<String>,
    /// HTTP methods; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// HTTP methods that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<String>,
    /// HTTP paths; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// HTTP paths that must not match; L7 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
}

/// One entry of [`Rule::when`]: an attribute and the values it may or must not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["key"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Name of the attribute, for example `source.ip`.
    pub key: String,
    /// Values of which one must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Values of which none may match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_values: Vec<String>,
}

/// The rules about the whole policy.
fn spec_rules() -> Value {
    let mut rules = super::attach_once();
    let own = [
        json!({
            "rule": "!has(self.action) || !(self.action in ['DENY', 'CUSTOM']) || (has(self.rules) && size(self.rules) > 0)",
            "message": "rules are required for action DENY and CUSTOM: without them nothing would be denied or asked"
        }),
        json!({
            "rule": "(has(self.action) && self.action == 'CUSTOM') == has(self.provider)",
            "message": "provider is required for action CUSTOM, and for no other"
        }),
    ];
    rules.as_array_mut().into_iter().for_each(|rules| rules.extend(own.clone()));
    rules
}
