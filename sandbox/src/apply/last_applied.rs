//! The annotation of client-side apply, kept true while `kubectl` applies on the server.
//!
//! Without it, going back to a client-side `kubectl apply` would compare with what was applied
//! long ago, and delete or keep the wrong fields.

use serde_json::{Value, json};

/// What `kubectl apply` last sent, as JSON in an annotation.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Longest annotation that is kept, in bytes: the limit for all annotations of an object.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Writes the applied configuration into the annotation of an object that has one, when the
/// manager is `kubectl`.
pub(super) fn refresh(object: &mut Value, applied: &Value, manager: &str) {
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else { return };
    if manager != "kubectl" || !annotations.contains_key(ANNOTATION) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.remove(ANNOTATION);
        }
    }
    let text = format!("{applied}\n");
    if text.len() > ANNOTATION_BYTES_MAX {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubectl_refreshes_an_annotation_that_is_there() {
        let applied = json!({"metadata": {"name": "x"}, "data": {"a": "1"}});
        let with = json!({"metadata": {"annotations": {ANNOTATION: "old", "other": "x"}}});
        let refreshed = |object: &Value, manager: &str| {
            let mut object = object.clone();
            refresh(&mut object, &applied, manager);
            object
        };
        assert_eq!(
            refreshed(&with, "kubectl")["metadata"]["annotations"],
            json!({ANNOTATION: "{\"data\":{\"a\":\"1\"},\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n", "other": "x"})
        );
        assert_eq!(refreshed(&with, "other"), with);
        let without = json!({"metadata": {}});
        assert_eq!(refreshed(&without, "kubectl"), without);
    }

    #[test]
    fn a_configuration_too_long_for_annotations_is_dropped() {
        let mut object = json!({"metadata": {"annotations": {ANNOTATION: "old"}}});
        refresh(&mut object, &json!({"data": {"a": "x".repeat(ANNOTATION_BYTES_MAX)}}), "kubectl");
        assert_eq!(object, json!({"metadata": {"annotations": {}}}));
    }
}
