//! Rules of built-in kinds beyond their shape.
//!
//! Not all of them: those whose violation would otherwise surface much later and in a confusing
//! place, such as a pod that never starts or a service that routes nowhere.

mod config;
mod container;
mod pod;
mod selector;
mod service;
mod update;
mod workload;

use serde_json::{Map, Value};

use super::error::{FieldError, Path};

/// Adds what is wrong with an object of a built-in kind.
pub(super) fn validate(kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let path = Path::Field(&Path::Root, "spec");
    match kind {
        "Pod" => pod::spec(spec, &path, errors),
        "Service" => service::spec(spec, &path, errors),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => workload::replicated(kind, spec, &path, errors),
        "Job" => workload::job(spec, &path, errors),
        "CronJob" => workload::cron_job(spec, &path, errors),
        "ConfigMap" => config::config_map(object, errors),
        "Secret" => config::secret(object, errors),
        "EndpointSlice" => config::endpoint_slice(object, errors),
        "NetworkPolicy" => selector::validate(spec.get("podSelector"), &path.field("podSelector"), errors),
        "PodDisruptionBudget" => selector::validate(spec.get("selector"), &path.field("selector"), errors),
        _ => {}
    }
}

/// Adds changes that an object of a built-in kind does not allow.
pub(super) fn validate_update(kind: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    update::validate(kind, old, new, errors);
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn fields<'a>(value: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    value.get(name).and_then(Value::as_object)
}

/// A text that is one of a fixed set, when it is there.
fn one_of(value: &Value, name: &str, known: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(found) = value.get(name).filter(|found| !found.is_null())
        && !known.iter().any(|known| found == known)
    {
        errors.push(FieldError::not_supported(path.field(name), found, known.iter().copied()));
    }
}

/// A whole number that is not negative, when it is there.
fn not_negative(value: &Value, name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(found) = value.get(name)
        && found.as_i64().is_some_and(|number| number < 0)
    {
        errors.push(FieldError::invalid(path.field(name), found, "must be greater than or equal to 0"));
    }
}

/// A port number.
fn port(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !value.as_i64().is_some_and(|port| (1..=65_535).contains(&port)) {
        errors.push(FieldError::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

/// A field that must be there and not be empty.
fn required(value: &Value, name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) -> bool {
    let there = match value.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    if !there {
        errors.push(FieldError::required(path.field(name), ""));
    }
    there
}

/// Texts that may occur once.
#[derive(Default)]
struct Unique<'a>(Vec<&'a str>);

impl<'a> Unique<'a> {
    fn add(&mut self, text: &'a str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
        if self.0.contains(&text) {
            errors.push(FieldError::duplicate(path, &Value::from(text)));
        }
        self.0.push(text);
    }
}

#[cfg(test)]
mod tests;
