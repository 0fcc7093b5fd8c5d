//! Data of ConfigMaps and Secrets that other objects refer to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mesh_core::names::NamespacedName;

use super::Labels;

/// A ConfigMap or a Secret. Its values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Creation time in seconds since 1970.
    pub created_s: i64,
    /// All labels.
    pub labels: Labels,
    /// `type` of a Secret.
    pub type_: Arc<str>,
    /// `data` and `binaryData`, decoded.
    pub data: BTreeMap<Arc<str>, Bytes>,
}

impl Material {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.data.get(key)
    }

    /// The value of a key, where it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Material").field("key", &self.key).field("keys", &keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let data = [(Arc::from("tls.key"), Bytes::from_static(b"SECRETKEY"))].into();
        let key = NamespacedName::new("ns", "one");
        let material =
            Material { key, uid: "".into(), created_s: 0, labels: Labels::default(), type_: "Opaque".into(), data };
        let shown = format!("{material:?}");
        assert!(shown.contains("tls.key") && !shown.contains("SECRETKEY"), "{shown}");
        assert_eq!(material.text("tls.key"), Some("SECRETKEY"));
    }
}
