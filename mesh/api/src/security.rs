//! The group `security.istio.io`: who may call whom, and who must prove an identity.

mod authorization;
mod peer;
mod request;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use authorization::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, Condition as WhenCondition, From, Operation, Provider, Rule,
    Source, TargetRef, To,
};
pub use peer::{Mode, MutualTls, PeerAuthentication, PeerAuthenticationSpec};
pub use request::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec};

/// API group of the kinds in this module.
pub const GROUP: &str = "security.istio.io";

/// Chooses workloads by label: every entry must be present with that value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels a workload must carry. Empty counts as "no selector".
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 4096,
        "additionalProperties" = {"type": "string", "maxLength": 63},
        "x-kubernetes-validations" = [{
            "rule": "self.all(key, key != '' && !key.contains('*') && !self[key].contains('*'))",
            "message": "matchLabels must have non-empty keys and no `*`: give exact labels"
        }]
    ))]
    pub match_labels: BTreeMap<String, String>,
}

/// The rule of kinds that attach either by labels or to named objects.
pub(crate) fn attach_once() -> Value {
    json!([{
        "rule": "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) \
                 + (has(self.targetRefs) && size(self.targetRefs) > 0 ? 1 : 0) <= 1",
        "message": "selector, targetRef and targetRefs exclude each other: give one of them"
    }])
}
