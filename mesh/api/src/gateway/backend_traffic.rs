//! XBackendTrafficPolicy: how much of a service's traffic may be retries.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference;
use super::{LocalObjectReference, PolicyStatus, SessionPersistence};
use crate::duration::DurationText;

/// Bounds retries to a service.
///
/// # Source
/// `gateway.networking.x-k8s.io/v1alpha1 XBackendTrafficPolicy`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XBackendTrafficPolicy",
    plural = "xbackendtrafficpolicies",
    doc = "How much of a service's traffic may be retries.",
    namespaced,
    status = "PolicyStatus",
    shortname = "xbtrafficpolicy",
    category = "gateway-api",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["targetRefs"]))]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendTrafficPolicySpec {
    /// Services that the policy is for.
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["group", "kind", "name"]
        )
    )]
    pub target_refs: Vec<LocalObjectReference>,
    /// How many retries there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_constraint: Option<RetryConstraint>,
    /// Whether sessions stick to an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// How many retries there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConstraint {
    /// In proportion to requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetDetails>,
    /// Retries that there may always be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_rate: Option<RequestRate>,
}

/// Retries in proportion to requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BudgetDetails {
    /// Retries among a hundred requests. Absent: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// Time over which requests are counted, 1s to 1h. Absent: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "reference::duration",
        extend("x-kubernetes-validations" = [{
            "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
            "message": "interval must be 1s to 1h"
        }])
    )]
    pub interval: Option<DurationText>,
}

/// A number in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestRate {
    /// The number. Absent: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: Option<u32>,
    /// The time, above 0 and at most 1h. Absent: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "reference::duration",
        extend("x-kubernetes-validations" = [{
            "rule": "duration(self) > duration('0s') && duration(self) <= duration('1h')",
            "message": "interval must be above 0s and at most 1h"
        }])
    )]
    pub interval: Option<DurationText>,
}
