//! Revision numbers of a Deployment's ReplicaSets. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Where the number is kept, on sets and on the Deployment.
pub(super) const ANNOTATION: &str = "deployment.kubernetes.io/revision";

/// The revision of an object, 0 when it has none.
pub(super) fn of(meta: &ObjectMeta) -> u64 {
    meta.annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ANNOTATION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The number after the highest of `old`.
pub(super) fn next(old: &[Arc<ReplicaSet>]) -> u64 {
    old.iter().map(|set| of(&set.metadata)).max().unwrap_or(0) + 1
}
