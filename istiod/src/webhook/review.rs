//! One review: what the API server asks, and what it is told.

use kube::api::DynamicObject;
use kube::core::Status;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use mesh_api::validate::{self, ADVISED, Candidate, Context, KINDS, Verdict};
use serde_json::Value;

use super::metrics::{Judged, WebhookMetrics};

/// Why a body is no review.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// Not JSON of the right form.
    #[error("expected an AdmissionReview as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("apiVersion {found:?}: expected admission.k8s.io/v1")]
    Version {
        /// What it says.
        found: String,
    },
    /// Nothing is asked.
    #[error("the review has no request")]
    NoRequest,
}

/// Judges the review in `body` and gives the review to send back.
///
/// # Errors
/// See [`ReviewError`].
pub fn answer(body: &[u8], context: &Context, metrics: &WebhookMetrics) -> Result<Vec<u8>, ReviewError> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
    if review.types.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::Version { found: review.types.api_version });
    }
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(|_| ReviewError::NoRequest)?;
    let response = respond(&request, context, metrics);
    Ok(serde_json::to_vec(&response.into_review())?)
}

fn respond(
    request: &AdmissionRequest<DynamicObject>,
    context: &Context,
    metrics: &WebhookMetrics,
) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(verdict) = judge(request, context) else { return response };
    let judged = judged(request);
    let Verdict { errors, warnings } = verdict;
    let mut response = response;
    response.warnings = Some(short(warnings)).filter(|all| !all.is_empty());
    if errors.is_empty() {
        metrics.passed(&judged);
        return response;
    }
    metrics.failed(&judged);
    let message = format!("configuration is invalid: {}", errors.join("; "));
    let (namespace, name) = (request.namespace.as_deref().unwrap_or_default(), &request.name);
    tracing::info!(kind = request.kind.kind, namespace, name, dry_run = request.dry_run, message, "object rejected");
    let mut response = response.deny("");
    response.result = Status { code: 400, ..Status::failure(&message, "BadRequest") };
    response
}

/// Only objects that are about to be stored are judged. One that is being deleted is let go, whatever it says: its last
/// updates only take finalizers away.
fn judge(request: &AdmissionRequest<DynamicObject>, context: &Context) -> Option<Verdict> {
    if !matches!(request.operation, Operation::Create | Operation::Update)
        || request.sub_resource.as_ref().is_some_and(|sub| !sub.is_empty())
    {
        return None;
    }
    let object = request.object.as_ref()?;
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = request.namespace.as_deref().or(object.metadata.namespace.as_deref()).unwrap_or_default();
    let (none, empty) = (Value::Null, std::collections::BTreeMap::new());
    let candidate = Candidate {
        group: &request.kind.group,
        kind: &request.kind.kind,
        namespace,
        labels: object.metadata.labels.as_ref().unwrap_or(&empty),
        annotations: object.metadata.annotations.as_ref().unwrap_or(&empty),
        spec: object.data.get("spec").unwrap_or(&none),
    };
    let (group, kind) = (candidate.group, candidate.kind);
    validate::validate(&candidate, context).or_else(|| {
        // Kinds of others: their schemas refuse, we only advise.
        let known = ADVISED.contains(&(group, kind));
        known.then(|| Verdict { errors: Vec::new(), warnings: validate::advice(group, kind, candidate.spec) })
    })
}

/// Labels of metrics: known words, or `other`.
fn judged(request: &AdmissionRequest<DynamicObject>) -> Judged {
    let known = KINDS.iter().position(|(group, kind)| *group == request.kind.group && *kind == request.kind.kind);
    let (group, resource) =
        known.and_then(|at| Some((KINDS.get(at)?.0, *RESOURCES.get(at)?))).unwrap_or(("other", "other"));
    let version = VERSIONS.iter().find(|version| **version == request.kind.version).unwrap_or(&"other");
    Judged { group, version, resource }
}

/// Warnings in the form that API servers pass on: short ones, and not too many.
fn short(warnings: Vec<String>) -> Vec<String> {
    let mut left = WARNING_CHARS_ALL_MAX;
    let clip = |text: String| match text.char_indices().nth(WARNING_CHARS_MAX - 1) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    let fits = |text: &String| {
        let fits = text.chars().count() <= left;
        left = left.saturating_sub(text.chars().count());
        fits
    };
    warnings.into_iter().map(clip).take_while(fits).collect()
}

/// Plurals, in the order of [`KINDS`].
const RESOURCES: [&str; KINDS.len()] = [
    "authorizationpolicies",
    "peerauthentications",
    "requestauthentications",
    "serviceentries",
    "workloadentries",
    "workloadgroups",
    "destinationrules",
    "virtualservices",
    "gateways",
    "sidecars",
    "proxyconfigs",
    "envoyfilters",
    "telemetries",
    "wasmplugins",
    "trafficextensions",
];
const VERSIONS: [&str; 5] = ["v1", "v1beta1", "v1alpha3", "v1alpha1", "v1alpha2"];
/// API servers cut a longer warning.
const WARNING_CHARS_MAX: usize = 256;
/// API servers drop what goes beyond.
const WARNING_CHARS_ALL_MAX: usize = 4096;

#[cfg(test)]
mod tests;
