//! Changes that built-in kinds do not allow.

use serde_json::Value;

use super::text;
use crate::schema::error::FieldError;

const IMMUTABLE: &str = "field is immutable";

/// Adds the changes from `old` to `new` that are not allowed.
pub(super) fn validate(kind: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" => fixed(old, new, &["spec", "selector"], IMMUTABLE, errors),
        "StatefulSet" => stateful_set(old, new, errors),
        "Job" => {
            fixed(old, new, &["spec", "selector"], IMMUTABLE, errors);
            fixed(old, new, &["spec", "completionMode"], IMMUTABLE, errors);
            // A job that has not started may get another template.
            if old.pointer("/spec/suspend") != Some(&Value::Bool(true)) {
                fixed(old, new, &["spec", "template"], IMMUTABLE, errors);
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => fixed(old, new, &["roleRef"], "cannot change roleRef", errors),
        "EndpointSlice" => fixed(old, new, &["addressType"], IMMUTABLE, errors),
        "PriorityClass" => {
            fixed(old, new, &["value"], IMMUTABLE, errors);
            fixed(old, new, &["preemptionPolicy"], IMMUTABLE, errors);
        }
        "ConfigMap" => locked(old, new, &["data", "binaryData"], errors),
        "Secret" => {
            fixed(old, new, &["type"], IMMUTABLE, errors);
            locked(old, new, &["data"], errors);
        }
        "Service" => service(old, new, errors),
        "Pod" => pod(old, new, errors),
        "CustomResourceDefinition" => {
            fixed(old, new, &["spec", "group"], IMMUTABLE, errors);
            fixed(old, new, &["spec", "scope"], IMMUTABLE, errors);
            fixed(old, new, &["spec", "names", "plural"], IMMUTABLE, errors);
        }
        _ => {}
    }
}

/// A field that keeps its first value.
fn fixed(old: &Value, new: &Value, path: &[&str], detail: &str, errors: &mut Vec<FieldError>) {
    let pointer = format!("/{}", path.join("/"));
    let (before, after) = (old.pointer(&pointer), new.pointer(&pointer));
    if let Some(before) = before
        && after != Some(before)
        && !before.is_null()
    {
        errors.push(FieldError::invalid(path.join("."), after.unwrap_or(&Value::Null), detail));
    }
}

fn stateful_set(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    const FREE: [&str; 8] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "volumeClaimTemplates",
    ];
    if without(old, &FREE) != without(new, &FREE) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

/// A config map or secret that has been marked immutable.
fn locked(old: &Value, new: &Value, data: &[&str], errors: &mut Vec<FieldError>) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for field in data.iter().filter(|field| old.get(**field) != new.get(**field)) {
        errors.push(FieldError::forbidden(field, detail));
    }
}

/// The cluster IP stays, unless the service had none or gives it up.
fn service(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
    let (old, new) = (spec(old), spec(new));
    let external = |spec: &Value| text(spec, "type") == Some("ExternalName");
    if external(&old) || external(&new) {
        return;
    }
    let address = |spec: &Value| text(spec, "clusterIP").unwrap_or_default().to_owned();
    let (before, after) = (address(&old), address(&new));
    if !before.is_empty() && !after.is_empty() && before != after {
        let value = new.get("clusterIPs").cloned().unwrap_or_else(|| Value::from(vec![after]));
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &value, "may not change once set"));
    }
}

/// A pod's specification stays as it is, but for a few fields.
fn pod(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    const FREE: [&str; 6] = [
        "activeDeadlineSeconds",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
        "nodeSelector",
        "affinity",
    ];
    let node = |object: &Value| object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let bound = node(old);
    let mut before = without(old, &FREE);
    let mut after = without(new, &FREE);
    for spec in [&mut before, &mut after] {
        strip_images(spec);
    }
    if let (Value::Object(before), Value::Object(after)) = (&mut before, &mut after) {
        if bound.is_empty() {
            // Binding writes the node.
            after.remove("nodeName");
            before.remove("nodeName");
        }
        // Tolerations may be added.
        let kept = before.remove("tolerations").unwrap_or_default();
        let now = after.remove("tolerations").unwrap_or_default();
        let all_kept = items(&kept).iter().all(|toleration| items(&now).contains(toleration));
        if all_kept && before == after {
            return;
        }
    }
    let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    errors.push(FieldError::forbidden("spec", detail));
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn spec_of(object: &Value) -> Value {
    object.get("spec").cloned().unwrap_or_default()
}

fn without(object: &Value, names: &[&str]) -> Value {
    let mut spec = spec_of(object);
    if let Value::Object(fields) = &mut spec {
        fields.retain(|name, value| !names.contains(&name.as_str()) && !value.is_null());
    }
    spec
}

fn strip_images(spec: &mut Value) {
    for name in ["containers", "initContainers"] {
        for container in spec.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(fields) = container {
                fields.remove("image");
            }
        }
    }
}
