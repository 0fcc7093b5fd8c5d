//! What users lay over the objects of a Gateway: strategic-merge patches in ConfigMaps.

mod strategic;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::labels as names;
use serde_json::Value;

use super::Kinds;
use super::infrastructure::parameters;
use crate::world::{Gateway, Kind, Material, World};

/// Why the overlays of a ConfigMap are not used; nothing of the Gateway is applied then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ConfigMap {config_map}, key {key:?}: {reason}")]
pub(crate) struct OverlayError {
    /// The ConfigMap.
    pub config_map: String,
    /// Key of its data.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Patches by the kind that they are for.
pub(crate) type Patches = BTreeMap<Kinds, Value>;

/// Overlays in the order in which they are laid: of the class, then the Gateway's own.
///
/// # Errors
/// What is wrong with one of them.
pub(crate) fn layers(world: &World, gateway: &Gateway) -> Result<Vec<Patches>, String> {
    let own = match parameters(gateway) {
        None => None,
        Some(Err(reason)) => return Err(reason),
        Some(Ok(key)) => match world.material(Kind::ConfigMap, &key) {
            Some(found) => Some(found),
            None => return Err(format!("spec.infrastructure.parametersRef: ConfigMap {key} does not exist")),
        },
    };
    let defaults = world.class_defaults(&gateway.class);
    let read = |material: &Arc<Material>| read(material).map_err(|error| error.to_string());
    defaults.into_iter().chain(own).map(read).collect()
}

/// Reads the patches of a ConfigMap.
pub(crate) fn read(material: &Material) -> Result<Patches, OverlayError> {
    let mut patches = Patches::new();
    for (key, text) in &material.data {
        let bad = |reason: String| OverlayError { config_map: material.key.to_string(), key: key.to_string(), reason };
        let kind = Kinds::ALL.into_iter().find(|kind| kind.overlay_key() == &**key);
        let Some(kind) = kind else {
            let known: Vec<_> = Kinds::ALL.iter().map(|kind| kind.overlay_key()).collect();
            return Err(bad(format!("unknown, expected one of {}", known.join(", "))));
        };
        let text = std::str::from_utf8(text).map_err(|_| bad("is not text".to_owned()))?;
        let patch: Value = serde_saphyr::from_str(text).map_err(|error| bad(format!("is not YAML: {error}")))?;
        judge(&patch, kind).map_err(bad)?;
        patches.insert(kind, patch);
    }
    Ok(patches)
}

/// Lays a patch over an object.
pub(crate) fn apply(object: &mut Value, patch: &Value) {
    strategic::merge(object, patch);
}

/// A patch says how an object looks, not whose it is.
fn judge(patch: &Value, kind: Kinds) -> Result<(), String> {
    let fields = match patch {
        Value::Null => return Ok(()),
        Value::Object(fields) => fields,
        _ => return Err("expected a mapping".to_owned()),
    };
    for (field, value) in fields {
        let allowed = match field.as_str() {
            "apiVersion" => *value == kind.api_version(),
            "kind" => *value == kind.name(),
            "status" => false,
            directive if directive.starts_with('$') => false,
            _ => true,
        };
        if !allowed {
            return Err(format!("{field} may not be patched"));
        }
    }
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err("metadata: expected a mapping".to_owned()),
    };
    if let Some(field) = metadata.keys().find(|field| !matches!(field.as_str(), "labels" | "annotations")) {
        return Err(format!("metadata.{field} may not be patched, only labels and annotations may"));
    }
    let texts = metadata.iter().filter_map(|(field, value)| Some((field, value.as_object()?)));
    let mut reserved = texts.flat_map(|(field, texts)| texts.keys().map(move |key| (field, key)));
    let taken = |key: &str| IDENTITY.contains(&key) || key.starts_with('$');
    match reserved.find(|(_, key)| taken(key)) {
        Some((field, key)) => Err(format!("metadata.{field}.{key} may not be patched: it says whose the object is")),
        None if metadata.values().any(|value| !value.is_object()) => Err("metadata: expected mappings".to_owned()),
        None => Ok(()),
    }
}

/// Labels by which objects are found.
const IDENTITY: [&str; 3] = [names::GATEWAY_NAME, super::infrastructure::CLASS_LABEL, names::GATEWAY_MANAGED];

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mesh_core::names::NamespacedName;

    use crate::world::Labels;

    use super::*;

    fn material(key: &str, text: &str) -> Material {
        let data = [(key.into(), Bytes::copy_from_slice(text.as_bytes()))].into();
        let (uid, type_) = ("u".into(), "".into());
        Material { key: NamespacedName::new("ns", "params"), uid, created_s: 0, labels: Labels::default(), type_, data }
    }

    #[test]
    fn patches_are_read_by_kind_and_never_touch_whose_an_object_is() {
        let read = |key: &str, text: &str| read(&material(key, text));
        let patches = read("deployment", "spec:\n  replicas: 3\nmetadata:\n  labels: {a: b}\n").unwrap();
        assert_eq!(patches[&Kinds::Deployment]["spec"]["replicas"], 3);
        for (key, text, told) in [
            ("foo", "bar", "unknown"),
            ("deployment", "spec: [", "is not YAML"),
            ("deployment", "- 1", "expected a mapping"),
            ("deployment", "metadata: {name: other}", "metadata.name"),
            ("service", "metadata: {namespace: other}", "metadata.namespace"),
            ("service", "metadata: {ownerReferences: []}", "metadata.ownerReferences"),
            ("service", "metadata: {finalizers: [a/b]}", "metadata.finalizers"),
            ("service", "metadata: {uid: x}", "metadata.uid"),
            ("service", "metadata: {labels: {gateway.istio.io/managed: null}}", "gateway.istio.io/managed"),
            ("service", "metadata: {labels: null}", "expected mappings"),
            ("service", "kind: Secret", "kind may not"),
            ("deployment", "$patch: delete", "$patch may not"),
        ] {
            let error = read(key, text).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("ns/params"), "{error}");
        }
    }
}
