//! The files of configMap, secret, downwardAPI and projected volumes. Pure but for reading the
//! informers' caches.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};
use kube::ResourceExt;

use super::super::fields::{self, Placement};
use super::token::Tokens;
use crate::informer::Informers;

/// One file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
}

impl std::fmt::Debug for File {
    /// Without the content: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({} bytes, {:o})", self.content.len(), self.mode)
    }
}

/// The files of a volume by their path in it.
pub(super) type Payload = BTreeMap<PathBuf, File>;

/// What a ConfigMap or Secret holds.
pub(super) type Values = BTreeMap<String, Vec<u8>>;

/// The files a volume should have now.
///
/// # Errors
/// A message naming the object or key that is missing and not optional.
pub(super) fn of_volume(
    pod: &Pod,
    placement: &Placement,
    volume: &Volume,
    cache: &Informers,
    tokens: &Tokens,
) -> Result<Payload, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut payload = Payload::new();
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode;
        let wanted = Wanted { kind: "configmap", name: &map.name, items: map.items.as_deref(), optional: map.optional };
        payload.extend(wanted.files(config_map(cache, &namespace, &map.name), mode)?);
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let wanted = Wanted { kind: "secret", name, items: secret.items.as_deref(), optional: secret.optional };
        payload.extend(wanted.files(self::secret(cache, &namespace, name), secret.default_mode)?);
    } else if let Some(downward) = &volume.downward_api {
        let items = downward.items.as_deref().unwrap_or_default();
        payload.extend(downward_files(pod, placement, items, downward.default_mode)?);
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            payload.extend(projection(pod, placement, source, mode, cache, tokens)?);
        }
    }
    Ok(payload)
}

fn projection(
    pod: &Pod,
    placement: &Placement,
    source: &VolumeProjection,
    mode: Option<i32>,
    cache: &Informers,
    tokens: &Tokens,
) -> Result<Payload, String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(map) = &source.config_map {
        let wanted = Wanted { kind: "configmap", name: &map.name, items: map.items.as_deref(), optional: map.optional };
        return wanted.files(config_map(cache, &namespace, &map.name), mode);
    }
    if let Some(secret) = &source.secret {
        let wanted =
            Wanted { kind: "secret", name: &secret.name, items: secret.items.as_deref(), optional: secret.optional };
        return wanted.files(self::secret(cache, &namespace, &secret.name), mode);
    }
    if let Some(downward) = &source.downward_api {
        return downward_files(pod, placement, downward.items.as_deref().unwrap_or_default(), mode);
    }
    if let Some(wanted) = &source.service_account_token {
        let token = tokens
            .find(wanted)
            .ok_or_else(|| format!("token for audience {:?} was not issued yet", wanted.audience))?;
        let file = File { content: token.as_bytes().to_vec(), mode: bits(None, mode) };
        return Ok(Payload::from([(PathBuf::from(&wanted.path), file)]));
    }
    Err("a projected source is not one of configMap, secret, downwardAPI and serviceAccountToken".into())
}

fn config_map(cache: &Informers, namespace: &str, name: &str) -> Option<Values> {
    let map = cache.config_maps.get(namespace, name)?;
    let mut values: Values =
        map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect();
    let binary = map.binary_data.iter().flatten();
    values.extend(binary.map(|(key, bytes)| (key.clone(), bytes.0.clone())));
    Some(values)
}

fn secret(cache: &Informers, namespace: &str, name: &str) -> Option<Values> {
    let secret = cache.secrets.get(namespace, name)?;
    let data = secret.data.iter().flatten();
    Some(data.map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect())
}

/// What a volume wants of one ConfigMap or Secret.
struct Wanted<'a> {
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
}

impl Wanted<'_> {
    fn files(&self, values: Option<Values>, mode: Option<i32>) -> Result<Payload, String> {
        let optional = self.optional == Some(true);
        let Some(mut values) = values else {
            return if optional { Ok(Payload::new()) } else { Err(format!("{} {:?} not found", self.kind, self.name)) };
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            let file = |content| File { content, mode: bits(None, mode) };
            return Ok(values.into_iter().map(|(key, content)| (key.into(), file(content))).collect());
        };
        let mut payload = Payload::new();
        for item in items {
            match values.remove(&item.key) {
                Some(content) => {
                    let file = File { content: content.clone(), mode: bits(item.mode, mode) };
                    payload.insert(PathBuf::from(&item.path), file);
                    // The same key may be wanted at two paths.
                    values.insert(item.key.clone(), content);
                }
                None if optional => {}
                None => {
                    return Err(format!("references non-existent {} key: {}", self.kind, item.key));
                }
            }
        }
        Ok(payload)
    }
}

fn downward_files(
    pod: &Pod,
    placement: &Placement,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, placement, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            fields::resource(pod, placement, reference, None)?
        } else {
            return Err(format!("downward API file {:?} has neither fieldRef nor resourceFieldRef", item.path));
        };
        let file = File { content: text.into_bytes(), mode: bits(item.mode, mode) };
        payload.insert(PathBuf::from(&item.path), file);
    }
    Ok(payload)
}

/// The item's mode, else the volume's, else 0644.
fn bits(item: Option<i32>, volume: Option<i32>) -> u32 {
    item.or(volume).and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted<'a>(items: Option<&'a [KeyToPath]>, optional: Option<bool>) -> Wanted<'a> {
        Wanted { kind: "configmap", name: "settings", items, optional }
    }

    fn values() -> Option<Values> {
        Some(Values::from([("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]))
    }

    #[test]
    fn keys_become_files_and_items_choose_and_rename() {
        let all = wanted(None, None).files(values(), Some(0o400)).unwrap();
        assert_eq!(all.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(all.values().all(|file| file.mode == 0o400));

        let items: Vec<KeyToPath> = serde_json::from_value(json!([
            {"key": "a", "path": "x/one", "mode": 0o600}, {"key": "a", "path": "two"}]))
        .unwrap();
        let chosen = wanted(Some(&items), None).files(values(), None).unwrap();
        assert_eq!(chosen[&PathBuf::from("x/one")].mode, 0o600);
        assert_eq!(chosen[&PathBuf::from("two")].content, b"1");
        assert_eq!(chosen.len(), 2);
    }

    #[test]
    fn missing_objects_and_keys_are_errors_unless_optional() {
        let items: Vec<KeyToPath> = serde_json::from_value(json!([{"key": "z", "path": "z"}])).unwrap();
        assert_eq!(wanted(None, None).files(None, None).unwrap_err(), "configmap \"settings\" not found");
        assert!(wanted(None, Some(true)).files(None, None).unwrap().is_empty());
        assert!(wanted(Some(&items), None).files(values(), None).unwrap_err().contains('z'));
        assert!(wanted(Some(&items), Some(true)).files(values(), None).unwrap().is_empty());
    }

    #[test]
    fn contents_are_not_printed() {
        let file = File { content: b"secret".to_vec(), mode: 0o600 };
        assert_eq!(format!("{file:?}"), "File(6 bytes, 600)");
    }
}
