//! One stored object, its address in the store, and readers of its metadata.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde_json::Value;

/// An object as it was at one revision. Never changed, shared by lists, watches and the log.
#[derive(Debug)]
pub struct Object {
    value: Value,
    revision: u64,
    json: OnceLock<Bytes>,
}

impl Object {
    /// Takes a value and stamps the revision into its metadata.
    pub fn new(mut value: Value, revision: u64) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
        Self { value, revision, json: OnceLock::new() }
    }

    /// The object itself.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The revision of the write that made it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The object as JSON text; made once however many watchers send it.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(serde_json::to_vec(&self.value).unwrap_or_default()))
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        meta_str(&self.value, "name").unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> Option<&str> {
        meta_str(&self.value, "namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        meta_str(&self.value, "uid").unwrap_or_default()
    }

    /// Whether deletion has been asked for.
    pub fn is_deleting(&self) -> bool {
        meta_str(&self.value, "deletionTimestamp").is_some()
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        meta_list(&self.value, "finalizers").iter().filter_map(Value::as_str)
    }

    /// The UIDs in `metadata.ownerReferences`.
    pub fn owner_uids(&self) -> Vec<String> {
        let references = meta_list(&self.value, "ownerReferences").iter();
        references.filter_map(|owner| owner.get("uid")?.as_str().map(str::to_owned)).collect()
    }
}

/// The `metadata` of an object.
pub fn meta<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get("metadata")?.get(field)
}

/// A text field of `metadata`; absent when empty.
pub fn meta_str<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    meta(value, field)?.as_str().filter(|text| !text.is_empty())
}

/// A list field of `metadata`; empty when absent.
pub fn meta_list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    meta(value, field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A resource: its plural name, with `.group` behind it unless it is of the core group.
///
/// The same text names a custom resource's definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey(Arc<str>);

impl ResourceKey {
    /// The key of `plural` in `group` (empty for core).
    pub fn new(group: &str, plural: &str) -> Self {
        if group.is_empty() { Self(plural.into()) } else { Self(format!("{plural}.{group}").into()) }
    }

    /// `namespaces`.
    pub fn namespaces() -> Self {
        Self::new("", "namespaces")
    }

    /// `customresourcedefinitions.apiextensions.k8s.io`.
    pub fn definitions() -> Self {
        Self::new("apiextensions.k8s.io", "customresourcedefinitions")
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An object within its resource. Sorts by namespace, then name; cluster-scoped ones first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ObjectKey {
    /// A cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self { namespace: "".into(), name: name.into() }
    }

    /// An object in a namespace.
    pub fn namespaced(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object in `namespace`, or cluster-scoped without one.
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.unwrap_or_default().into(), name: name.into() }
    }

    /// The namespace, unless cluster-scoped.
    pub fn namespace(&self) -> Option<&str> {
        Some(&*self.namespace).filter(|namespace| !namespace.is_empty())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(formatter, "{namespace}/{}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}
