//! From the stored object and what a client proposes to the object after the write.

use serde_json::{Map, Value, json};

use super::{
    defaults::map,
    resources::Resource,
    status::ApiError,
    write::{Part, Target, meta_number, set_meta},
};
use crate::store::{Object, ResourceKey, meta_list, meta_str};

/// Refuses a proposal for another object than the stored one, or for another revision of it.
pub(crate) fn check_identity(at: &Target<'_>, live: &Object, proposed: &Value) -> Result<(), ApiError> {
    let (group, plural) = (&at.resource.group, &at.resource.plural);
    if let Some(name) = meta_str(proposed, "name")
        && name != live.name()
    {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", live.name());
        return Err(ApiError::bad_request(message));
    }
    if let Some(version) = meta_str(proposed, "resourceVersion")
        && version != live.revision().to_string()
    {
        return Err(ApiError::stale(group, plural, live.name()));
    }
    if let Some(uid) = meta_str(proposed, "uid")
        && uid != live.uid()
    {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", live.uid());
        return Err(ApiError::conflict(group, plural, live.name(), &why));
    }
    Ok(())
}

/// The object after the write: what the part may change from `proposed`, the rest from `live`.
pub(crate) fn overlay(at: &Target<'_>, live: &Value, mut proposed: Value, part: Part) -> Value {
    match part {
        Part::Status | Part::Finalize => {
            let mut value = live.clone();
            if part == Part::Status {
                move_field(&mut proposed, &mut value, "status");
                // As in Kubernetes: agents with no more than the right to write a pod's or node's status mark it so.
                if matches!(at.resource.plural.as_str(), "pods" | "nodes") {
                    for field in ["labels", "annotations"] {
                        copy_meta(&proposed, &mut value, field);
                    }
                }
            } else {
                let finalizers = proposed.pointer("/spec/finalizers").cloned().unwrap_or(json!([]));
                if let Some(fields) = value.as_object_mut() {
                    map(fields, "spec").insert("finalizers".to_owned(), finalizers);
                }
            }
            if let Some(managed) = proposed.pointer("/metadata/managedFields") {
                set_meta(&mut value, "managedFields", managed.clone());
            }
            value
        }
        Part::Main | Part::Scale => {
            if at.version.status {
                move_field(&mut live.clone(), &mut proposed, "status");
            }
            if at.resource.key == ResourceKey::namespaces()
                && let Some(finalizers) = live.pointer("/spec/finalizers")
                && let Some(fields) = proposed.as_object_mut()
            {
                map(fields, "spec").insert("finalizers".to_owned(), finalizers.clone());
            }
            keep_server_fields(live, &mut proposed);
            proposed
        }
    }
}

/// Moves a field over, or removes it where the source has none.
fn move_field(from: &mut Value, to: &mut Value, field: &str) {
    let value = from.as_object_mut().and_then(|fields| fields.remove(field));
    if let Some(fields) = to.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
}

/// Copies a field of the metadata, or removes it where the source has none.
fn copy_meta(from: &Value, to: &mut Value, field: &str) {
    let found = from.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
    if let Some(metadata) = to.get_mut("metadata").and_then(Value::as_object_mut) {
        match found {
            Some(found) => metadata.insert(field.to_owned(), found),
            None => metadata.remove(field),
        };
    }
}

fn keep_server_fields(live: &Value, proposed: &mut Value) {
    const KEPT: [&str; 8] = [
        "name",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ];
    let Some(metadata) = proposed.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in KEPT {
        match live.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
}

/// Whether a deletion that was asked for waits for nothing any more.
pub(crate) fn is_finished(resource: &Resource, value: &Value) -> bool {
    let waits_for_grace = resource.key.as_str() == "pods" && meta_number(value, "deletionGracePeriodSeconds") > 0;
    let namespace_finalizers = resource.key == ResourceKey::namespaces()
        && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    meta_str(value, "deletionTimestamp").is_some()
        && meta_list(value, "finalizers").is_empty()
        && !waits_for_grace
        && !namespace_finalizers
}

/// Whether more than metadata and status changed.
pub(crate) fn specification_differs(old: &Value, new: &Value) -> bool {
    let relevant = |value: &Value| {
        let fields = value.as_object().into_iter().flatten();
        let kept = fields.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    relevant(old) != relevant(new)
}

/// Whether a write would change nothing; times of managers do not count.
pub(crate) fn is_unchanged(old: &Value, new: &Value) -> bool {
    let comparable = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("time");
                }
            }
        }
        value
    };
    comparable(old) == comparable(new)
}
