//! Pod specifications, in pods and in templates.

use serde_json::Value;

use super::{Unique, container, fields, list, not_negative, one_of, required, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata, names,
};

/// Adds what is wrong with a pod specification.
pub(super) fn spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let volumes = volumes(spec, &path.field("volumes"), errors);
    required(spec, "containers", path, errors);
    let mut seen = Unique::default();
    for name in ["initContainers", "containers"] {
        let path = path.field(name);
        for (index, item) in list(spec, name).iter().enumerate() {
            let path = path.index(index);
            container::validate(item, &volumes, &path, errors);
            if let Some(name) = text(item, "name") {
                seen.add(name, &path.field("name"), errors);
            }
        }
    }
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    one_of(spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], path, errors);
    not_negative(spec, "terminationGracePeriodSeconds", path, errors);
    metadata::labels(spec.get("nodeSelector"), &path.field("nodeSelector"), errors);
    for (field, rule) in [("hostname", names::label as fn(&str) -> Option<String>), ("subdomain", names::label)] {
        if let Some(name) = text(spec, field).filter(|name| !name.is_empty()) {
            metadata::check(rule, name, &path.field(field), errors);
        }
    }
    for field in ["serviceAccountName", "priorityClassName", "nodeName"] {
        if let Some(name) = text(spec, field).filter(|name| !name.is_empty()) {
            metadata::check(names::subdomain, name, &path.field(field), errors);
        }
    }
}

/// Adds what is wrong with the volumes, and returns their names.
fn volumes<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut seen = Unique::default();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(index);
        if required(volume, "name", &path, errors)
            && let Some(name) = text(volume, "name")
        {
            metadata::check(names::label, name, &path.field("name"), errors);
            seen.add(name, &path.field("name"), errors);
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, source)| *name != "name" && !source.is_null())
            .map(|(name, _)| name)
            .collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(path, "must specify a volume type")),
            [_] => {}
            [_, second, ..] => {
                errors.push(FieldError::forbidden(path.field(second), "may not specify more than 1 volume type"));
            }
        }
        if let Some(host) = fields(volume, "hostPath")
            && host.get("path").and_then(Value::as_str).is_none_or(str::is_empty)
        {
            let host = path.field("hostPath");
            errors.push(FieldError::required(host.field("path"), ""));
        }
    }
    seen.0
}
