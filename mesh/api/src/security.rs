//! The group `security.istio.io`: who may call whom, and who must prove an identity.

mod authorization;
mod peer;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use authorization::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, Condition as WhenCondition, From, Operation, Provider, Rule,
    Source, TargetRef, To,
};
pub use peer::{Mode, MutualTls, PeerAuthentication, PeerAuthenticationSpec};

/// API group of the kinds in this module.
pub const GROUP: &str = "security.istio.io";

/// Chooses workloads by label: every entry must be present with that value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels a workload must carry. Empty counts as "no selector".
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}
