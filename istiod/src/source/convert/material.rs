//! ConfigMaps and Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kube::api::DynamicObject;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Unreadable, created_s, fields, labels};
use crate::world::Material;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    #[serde(rename = "type")]
    type_: Option<String>,
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, String>>,
    string_data: Option<BTreeMap<String, String>>,
}

/// Text as it stands, beside what is encoded.
pub(super) fn config_map(key: &NamespacedName, mut object: DynamicObject) -> Result<Material, Unreadable> {
    let read: Fields = fields(&mut object)?;
    Ok(material(key, &object, "", read.data.as_ref(), read.binary_data.as_ref()))
}

/// Everything is encoded; `stringData` is what files may say.
pub(super) fn secret(key: &NamespacedName, mut object: DynamicObject) -> Result<Material, Unreadable> {
    // What is wrong may be quoted from the document: nothing of a Secret is.
    let read: Fields = fields(&mut object).map_err(|_| Unreadable("data: expected a map of base64 text".to_owned()))?;
    let type_ = read.type_.as_deref().unwrap_or_default();
    Ok(material(key, &object, type_, read.string_data.as_ref(), read.data.as_ref()))
}

/// A value that cannot be decoded is left out: whoever asks for it finds nothing.
fn material(
    key: &NamespacedName,
    object: &DynamicObject,
    type_: &str,
    plain: Option<&BTreeMap<String, String>>,
    encoded: Option<&BTreeMap<String, String>>,
) -> Material {
    let decode = |text: &str| STANDARD.decode(text.split_whitespace().collect::<String>()).ok();
    let encoded = encoded.into_iter().flatten();
    let encoded = encoded.filter_map(|(name, text)| Some((Arc::from(name.as_str()), Bytes::from(decode(text)?))));
    let plain = plain.into_iter().flatten();
    let plain = plain.map(|(name, text)| (Arc::from(name.as_str()), Bytes::copy_from_slice(text.as_bytes())));
    Material {
        key: key.clone(),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created_s: created_s(object),
        labels: labels(object),
        type_: type_.into(),
        data: encoded.chain(plain).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::world::{Change, Kind, Object};

    fn read(kind: Kind, mut document: Value) -> Change {
        document["metadata"] = json!({"name": "one", "namespace": "ns"});
        super::super::change(kind, serde_json::from_value(document).unwrap(), "default")
    }

    #[test]
    fn values_are_decoded() {
        let document = json!({"data": {"ca.crt": "text"}, "binaryData": {"bin": "AQI="}});
        let Change::Upsert(Object::ConfigMap(one)) = read(Kind::ConfigMap, document) else { panic!("not read") };
        assert_eq!((one.text("ca.crt"), one.get("bin").map(|bytes| &**bytes)), (Some("text"), Some(&[1u8, 2][..])));
        let document = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "dGV4dA==", "bad": "%"}});
        let Change::Upsert(Object::Secret(one)) = read(Kind::Secret, document) else { panic!("not read") };
        assert_eq!((&*one.type_, one.text("tls.crt"), one.get("bad")), ("kubernetes.io/tls", Some("text"), None));
    }

    #[test]
    fn nothing_of_a_secret_is_told_when_it_cannot_be_read() {
        let Change::Broken { reason, .. } = read(Kind::Secret, json!({"data": "hidden"})) else { panic!("read") };
        assert!(!reason.contains("hidden"), "{reason}");
    }
}
