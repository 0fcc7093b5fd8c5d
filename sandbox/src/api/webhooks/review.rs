//! `AdmissionReview`: the question and the answer.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Admission, hook::Side, matching::Matched};
use crate::api::{names, status::ApiError, user::User};

/// Warnings taken from one answer.
const WARNINGS_MAX: usize = 32;
/// Longest warning, in bytes; longer ones are cut.
const WARNING_BYTES_MAX: usize = 256;

/// A question.
pub(super) struct Question {
    pub(super) uid: String,
    pub(super) body: Vec<u8>,
}

/// What a webhook answered when it did not refuse.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) warnings: Vec<String>,
    /// Operations of a JSON patch.
    pub(super) patch: Option<Value>,
}

/// The question about an admission; `value` is in the version that the webhook wants.
pub(super) fn request(admission: &Admission<'_>, matched: &Matched, value: Option<&Value>) -> Question {
    let (resource, uid) = (admission.at.resource, names::uid());
    let kind = |version: &str| json!({"group": resource.group, "version": version, "kind": resource.kind});
    let plural = |version: &str| json!({"group": resource.group, "version": version, "resource": resource.plural});
    let options = match admission.operation {
        "CREATE" => "CreateOptions",
        "DELETE" => "DeleteOptions",
        _ => "UpdateOptions",
    };
    let requested = &admission.at.version.name;
    let mut request = json!({
        "uid": uid,
        "kind": kind(&matched.version), "resource": plural(&matched.version),
        "requestKind": kind(requested), "requestResource": plural(requested),
        "name": admission.name, "operation": admission.operation, "userInfo": admission.user.map(User::to_value),
        "object": value, "oldObject": admission.old.map(|old| matched.present(admission, old)),
        "dryRun": admission.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    });
    if let Some(fields) = request.as_object_mut() {
        if let Some(namespace) = admission.at.namespace {
            fields.insert("namespace".to_owned(), json!(namespace));
        }
        if let Some(subresource) = admission.subresource {
            fields.insert("subResource".to_owned(), json!(subresource));
            fields.insert("requestSubResource".to_owned(), json!(subresource));
        }
    }
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request});
    Question { uid, body: serde_json::to_vec(&review).unwrap_or_default() }
}

/// Reads an answer: an outer error means that it makes no sense, an inner one that the webhook
/// refuses.
pub(super) fn read(name: &str, side: Side, uid: &str, body: &[u8]) -> Result<Result<Verdict, ApiError>, String> {
    let review: Value = serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))?;
    let text = |path: &str| review.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if text("/kind") != "AdmissionReview" || text("/apiVersion") != "admission.k8s.io/v1" {
        let (kind, version) = (text("/kind"), text("/apiVersion"));
        return Err(format!(
            "expected response of kind admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
        ));
    }
    let response = review.get("response").filter(|response| response.is_object());
    let response = response.ok_or("webhook response is absent")?;
    if text("/response/uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text("/response/uid")));
    }
    let listed = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let warnings = listed.filter_map(Value::as_str).take(WARNINGS_MAX).map(shortened).collect();
    match response.get("allowed").and_then(Value::as_bool) {
        Some(true) => Ok(Ok(Verdict { warnings, patch: patch(side, response)? })),
        Some(false) => Ok(Err(refusal(name, response))),
        None => Err("response.allowed is not a truth value".to_owned()),
    }
}

fn patch(side: Side, response: &Value) -> Result<Option<Value>, String> {
    let Some(encoded) = response.get("patch").and_then(Value::as_str).filter(|patch| !patch.is_empty()) else {
        return Ok(None);
    };
    if side == Side::Validating {
        return Err("a validating webhook must not send a patch".to_owned());
    }
    match response.get("patchType").and_then(Value::as_str) {
        Some("JSONPatch") => {}
        other => return Err(format!("expected response.patchType of JSONPatch, got {other:?}")),
    }
    let bytes = STANDARD.decode(encoded).map_err(|error| format!("response.patch is not base64: {error}"))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("response.patch is not JSON: {error}"))
}

fn refusal(name: &str, response: &Value) -> ApiError {
    let text = |path: &str| response.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (text("/status/message"), text("/status/reason")) {
        (Some(message), _) => format!("{denied}: {message}"),
        (None, Some(reason)) => format!("{denied}: {reason}"),
        (None, None) => format!("{denied} without explanation"),
    };
    let code = response.pointer("/status/code").and_then(Value::as_u64);
    let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)).unwrap_or(400);
    let reason = match text("/status/reason") {
        Some("Forbidden") => "Forbidden",
        Some("Invalid") => "Invalid",
        Some("BadRequest") => "BadRequest",
        Some("Conflict") => "Conflict",
        _ => "",
    };
    ApiError {
        code: StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST),
        reason,
        message,
        subject: None,
        causes: Vec::new(),
        retry_after_seconds: None,
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=WARNING_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    // What a header cannot carry would lose the whole warning.
    text.get(..end).unwrap_or_default().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
