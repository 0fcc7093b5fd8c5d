//! What a client sent, checked against the address it was sent to.

use serde_json::{Map, Value, json};

use super::{
    body::Decoded,
    defaults::map,
    query::FieldValidation,
    status::ApiError,
    write::{Target, WriteOptions},
};
use crate::store::meta_str;

/// Checks what was sent against the address it was sent to, and drops or reports unknown fields.
pub(crate) fn screen(
    at: &Target<'_>,
    sent: Decoded,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let Decoded { mut value, duplicates } = sent;
    let resource = at.resource;
    let Some(fields) = value.as_object_mut() else {
        return Err(ApiError::bad_request(format!("a {} must be an object", resource.kind)));
    };
    let api_version = resource.api_version(&at.version.name);
    for (field, wanted, what) in [("apiVersion", &api_version, "API version"), ("kind", &resource.kind, "kind")] {
        let found = fields.entry(field).or_insert_with(|| json!(wanted));
        if found.as_str() != Some(wanted) {
            let message = format!("the {what} in the data ({found}) does not match the expected {what} ({wanted})");
            return Err(ApiError::bad_request(message));
        }
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    check_sent_namespace(at, map(fields, "metadata"))?;
    let mut unknown = Vec::new();
    if let Some(schema) = &at.version.schema {
        unknown = schema.prune(&mut value);
        schema.default(&mut value);
    }
    let problems = (duplicates.iter().map(|path| format!("duplicate field \"{path}\"")))
        .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    report(at, meta_str(&value, "name").unwrap_or_default(), problems.collect(), options, warnings)?;
    warnings.extend(at.version.deprecation.clone());
    Ok(value)
}

/// Refuses, reports or ignores fields that cannot be stored.
///
/// # Errors
///
/// 400 with `fieldValidation=Strict`.
pub(crate) fn report(
    at: &Target<'_>,
    name: &str,
    problems: Vec<String>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    match options.validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let kind = &at.resource.kind;
            let message = format!(
                "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                at.version.name,
                problems.join(", ")
            );
            Err(ApiError::bad_request(message).about(&at.resource.group, kind, name))
        }
        FieldValidation::Warn => {
            warnings.extend(problems);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_sent_namespace(at: &Target<'_>, metadata: &mut Map<String, Value>) -> Result<(), ApiError> {
    let sent = metadata.get("namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty());
    match (at.namespace, sent) {
        (Some(wanted), Some(sent)) if sent != wanted => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        (Some(wanted), _) => {
            metadata.insert("namespace".to_owned(), json!(wanted));
            Ok(())
        }
        (None, Some(sent)) => {
            let message = format!("namespace {sent:?} given, but {} live outside namespaces", at.resource.qualified());
            Err(ApiError::bad_request(message))
        }
        (None, None) => {
            metadata.remove("namespace");
            Ok(())
        }
    }
}
