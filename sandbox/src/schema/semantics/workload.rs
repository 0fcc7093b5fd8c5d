//! Kinds that make pods from a template.

use serde_json::Value;

use super::{not_negative, pod, required, selector, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata,
};

/// Adds what is wrong with the specification of a kind that keeps pods running.
pub(super) fn replicated(kind: &str, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(spec, name, path, errors);
    }
    let labels = spec.pointer("/template/metadata/labels");
    if required(spec, "selector", path, errors)
        && let Some(found) = spec.get("selector")
    {
        let place = path.field("selector");
        selector::validate(Some(found), &place, errors);
        if selector::is_empty(found) {
            let detail = format!("empty selector is invalid for {}", kind.to_lowercase());
            errors.push(FieldError::invalid(place, found, &detail));
        } else if !selector::matches(found, labels) {
            let template = path.field("template");
            let metadata = template.field("metadata");
            let value = labels.cloned().unwrap_or(Value::Null);
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(metadata.field("labels"), &value, detail));
        }
    }
    template(spec, &["Always"], path, errors);
}

/// Adds what is wrong with the specification of a job.
pub(super) fn job(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for name in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        not_negative(spec, name, path, errors);
    }
    template(spec, &["OnFailure", "Never"], path, errors);
}

/// Adds what is wrong with the specification of a cron job.
pub(super) fn cron_job(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    required(spec, "schedule", path, errors);
    let template = path.field("jobTemplate");
    job(spec.pointer("/jobTemplate/spec").unwrap_or(&Value::Null), &template.field("spec"), errors);
}

fn template(spec: &Value, restart: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("template");
    let Some(template) = spec.get("template").filter(|template| template.is_object()) else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    let place = path.field("metadata");
    metadata::labels(template.pointer("/metadata/labels"), &place.field("labels"), errors);
    metadata::annotations(template.pointer("/metadata/annotations"), &place.field("annotations"), errors);
    let path = path.field("spec");
    let found = template.get("spec").unwrap_or(&Value::Null);
    pod::spec(found, &path, errors);
    // An unknown policy has been reported as one already.
    if let Some(policy) = text(found, "restartPolicy")
        && ["Always", "OnFailure", "Never"].contains(&policy)
        && !restart.contains(&policy)
    {
        let value = Value::from(policy);
        errors.push(FieldError::not_supported(path.field("restartPolicy"), &value, restart.iter().copied()));
    }
}
