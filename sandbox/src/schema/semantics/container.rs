//! Containers of a pod.

use serde_json::Value;

use super::{Unique, fields, list, not_negative, one_of, port, required, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata, names,
};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Adds what is wrong with one container. `volumes` are the names it may mount.
pub(super) fn validate(container: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if required(container, "name", path, errors)
        && let Some(name) = text(container, "name")
    {
        metadata::check(names::label, name, &path.field("name"), errors);
    }
    if required(container, "image", path, errors)
        && let Some(image) = text(container, "image")
        && image.trim() != image
    {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.field("image"), &Value::from(image), detail));
    }
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], path, errors);
    ports(container, &path.field("ports"), errors);
    environment(container, &path.field("env"), errors);
    mounts(container, volumes, &path.field("volumeMounts"), errors);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get(name).filter(|found| found.is_object()) {
            probe(found, &path.field(name), errors);
        }
    }
    resources(container, &path.field("resources"), errors);
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = Unique::default();
    for (index, item) in list(container, "ports").iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = text(item, "name").filter(|name| !name.is_empty()) {
            metadata::check(names::port_name, name, &path.field("name"), errors);
            seen.add(name, &path.field("name"), errors);
        }
        match item.get("containerPort") {
            Some(number) => port(number, &path.field("containerPort"), errors),
            None => errors.push(FieldError::required(path.field("containerPort"), "")),
        }
        if let Some(number) = item.get("hostPort").filter(|number| number.as_i64() != Some(0)) {
            port(number, &path.field("hostPort"), errors);
        }
        one_of(item, "protocol", &PROTOCOLS, &path, errors);
    }
}

fn environment(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(index);
        if required(variable, "name", &path, errors)
            && let Some(name) = text(variable, "name")
            && !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
        {
            let detail =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(path.field("name"), &Value::from(name), detail));
        }
        let source = fields(variable, "valueFrom");
        if source.is_some() && text(variable, "value").is_some_and(|value| !value.is_empty()) {
            let value = Value::Object(source.cloned().unwrap_or_default());
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(path.field("valueFrom"), &value, detail));
        }
        if source.is_some_and(|source| source.len() > 1) {
            let value = Value::Object(source.cloned().unwrap_or_default());
            let detail = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(path.field("valueFrom"), &value, detail));
        }
    }
}

fn mounts(container: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(index);
        if required(mount, "name", &path, errors)
            && let Some(name) = text(mount, "name")
            && !volumes.contains(&name)
        {
            errors.push(FieldError { path: path.field("name").to_string(), reason: format!("Not found: {name:?}") });
        }
        if required(mount, "mountPath", &path, errors)
            && let Some(target) = text(mount, "mountPath")
        {
            if seen.contains(&target) {
                errors.push(FieldError::invalid(path.field("mountPath"), &Value::from(target), "must be unique"));
            }
            seen.push(target);
        }
    }
}

fn probe(probe: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
    let handlers: Vec<&str> = HANDLERS.into_iter().filter(|name| fields(probe, name).is_some()).collect();
    match handlers.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [_] => {}
        [_, second, ..] => {
            errors.push(FieldError::forbidden(path.field(second), "may not specify more than 1 handler type"));
        }
    }
    for name in ["httpGet", "tcpSocket"] {
        let Some(found) = probe.get(name).and_then(|handler| handler.get("port")) else { continue };
        let handler = path.field(name);
        let path = handler.field("port");
        match found.as_str() {
            Some(name) => metadata::check(names::port_name, name, &path, errors),
            None => port(found, &path, errors),
        }
    }
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(probe, name, path, errors);
    }
}

fn resources(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(resources) = container.get("resources") else { return };
    for name in ["limits", "requests"] {
        let path = path.field(name);
        for (resource, value) in fields(resources, name).into_iter().flatten() {
            if value.as_str().is_some_and(|text| text.starts_with('-'))
                || value.as_f64().is_some_and(|number| number < 0.0)
            {
                errors.push(FieldError::invalid(path.key(resource), value, "must be greater than or equal to 0"));
            }
        }
    }
}
