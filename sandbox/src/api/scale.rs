//! The `scale` subresource.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    ApiServer,
    body::Decoded,
    patching::{PatchKind, patch_error},
    resources::Scale,
    status::{ApiError, json_response},
    write::{Part, Target, Tracking, WriteOptions, set_meta},
};
use crate::{patch, schema::FieldError, store::meta_str};

impl ApiServer {
    /// Answers a `get` of `scale`.
    pub(crate) fn scale(&self, at: &Target<'_>, name: &str) -> Result<Response, ApiError> {
        let scale = scale_of(at)?;
        let object = self.fetch(at, name)?;
        Ok(json_response(StatusCode::OK, &show(scale, object.value())))
    }

    /// Replaces the number of replicas.
    pub(crate) async fn rescale(
        &self,
        at: &Target<'_>,
        name: &str,
        sent: &Value,
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let scale = scale_of(at)?;
        let live = self.fetch(at, name)?;
        let replicas = sent.pointer("/spec/replicas").map_or(Some(0), Value::as_i64).filter(|replicas| *replicas >= 0);
        let Some(replicas) = replicas else {
            let reason = "Invalid value: must be greater than or equal to 0".to_owned();
            let error = FieldError { path: "spec.replicas".to_owned(), reason };
            return Err(ApiError::invalid("autoscaling", "Scale", name, vec![error]));
        };
        let mut value = at.resource.present(live.value(), &at.version.name);
        put_number(&mut value, &scale.spec, replicas);
        if let Some(version) = meta_str(sent, "resourceVersion") {
            set_meta(&mut value, "resourceVersion", json!(version));
        }
        let decoded = Decoded { value, duplicates: Vec::new() };
        let written = self.update(at, &live, decoded, (Part::Scale, Tracking::Update), options).await?;
        Ok(json_response(StatusCode::OK, &show(scale, written.object.value())))
    }

    /// Patches the number of replicas.
    pub(crate) async fn patch_scale(
        &self,
        at: &Target<'_>,
        name: &str,
        (kind, sent): (PatchKind, &Value),
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let scale = scale_of(at)?;
        let shown = show(scale, self.fetch(at, name)?.value());
        let patched = match kind {
            PatchKind::Json => patch::json(&shown, sent),
            PatchKind::Merge | PatchKind::Strategic => patch::merge(&shown, sent),
            PatchKind::Apply { .. } => {
                return Err(ApiError::not_implemented("server-side apply of the scale subresource"));
            }
        };
        let patched = patched.map_err(|error| patch_error(&error))?;
        self.rescale(at, name, &patched, options).await
    }
}

fn scale_of<'a>(at: &Target<'a>) -> Result<&'a Scale, ApiError> {
    at.version.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

fn show(scale: &Scale, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let metadata = object.get("metadata").and_then(Value::as_object);
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: Map<String, Value> =
        kept.iter().filter_map(|field| Some(((*field).to_owned(), metadata?.get(*field)?.clone()))).collect();
    let mut status = json!({"replicas": number(&scale.status)});
    let selector = scale.selector.as_ref().and_then(|pointer| object.pointer(pointer)).map(selector_text);
    if let (Some(selector), Some(fields)) = (selector, status.as_object_mut()) {
        fields.insert("selector".to_owned(), json!(selector));
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&scale.spec)}, "status": status,
    })
}

/// A label selector as text.
pub(crate) fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut terms: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    for rule in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
        let values: Vec<&str> =
            rule.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let (key, values) = (text("key"), values.join(","));
        terms.push(match text("operator") {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            "NotIn" => format!("{key} notin ({values})"),
            _ => format!("{key} in ({values})"),
        });
    }
    terms.join(",")
}

fn put_number(value: &mut Value, pointer: &str, number: i64) {
    let mut current = value;
    let parts: Vec<&str> = pointer.split('/').filter(|part| !part.is_empty()).collect();
    let Some((last, parents)) = parts.split_last() else { return };
    for part in parents {
        let Some(fields) = current.as_object_mut() else { return };
        current = fields.entry((*part).to_owned()).or_insert_with(|| json!({}));
    }
    if let Some(fields) = current.as_object_mut() {
        fields.insert((*last).to_owned(), json!(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
        ]});
        assert_eq!(selector_text(&selector), "app=web,tier in (a,b),!old");
    }

    #[test]
    fn numbers_are_put_where_nothing_was() {
        let mut value = json!({"metadata": {}});
        put_number(&mut value, "/spec/replicas", 3);
        assert_eq!(value, json!({"metadata": {}, "spec": {"replicas": 3}}));
    }
}
