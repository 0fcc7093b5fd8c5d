//! The catalogue of served resources: built-in ones and those of custom resource definitions.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;

use super::builtin;
use crate::{schema::Schema, store::ResourceKey};

/// A resource in one API group, with all its versions.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Where its objects are stored.
    pub(crate) key: ResourceKey,
    /// API group, empty for core.
    pub(crate) group: String,
    /// Name in paths.
    pub(crate) plural: String,
    /// Name for one.
    pub(crate) singular: String,
    /// Kind of an object.
    pub(crate) kind: String,
    /// Kind of a list.
    pub(crate) list_kind: String,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Short names for `kubectl`.
    pub(crate) short_names: Vec<String>,
    /// Such as `all`.
    pub(crate) categories: Vec<String>,
    /// Served versions, preferred first.
    pub(crate) versions: Vec<Version>,
    /// Whether `metadata.generation` counts changes of the specification.
    pub(crate) generation: bool,
    /// How objects are presented in this group.
    pub(crate) shape: Shape,
    /// Fields that field selectors may name.
    pub(crate) selectable: Vec<String>,
    /// Subresources other than `status` and `scale`.
    pub(crate) subresources: Vec<Subresource>,
    /// Whether a definition made it.
    pub(crate) custom: bool,
}

/// One version of a resource.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Such as `v1`.
    pub(crate) name: String,
    /// Whether objects are stored in this version.
    pub(crate) storage: bool,
    /// The schema of its objects.
    pub(crate) schema: Option<Arc<Schema>>,
    /// Whether `status` is a subresource.
    pub(crate) status: bool,
    /// The `scale` subresource.
    pub(crate) scale: Option<Scale>,
    /// Additional printer columns of a definition.
    pub(crate) columns: Vec<Column>,
    /// Text of the deprecation warning.
    pub(crate) deprecation: Option<String>,
}

/// Where `scale` reads and writes, as JSON pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Wanted replicas.
    pub(crate) spec: String,
    /// Observed replicas.
    pub(crate) status: String,
    /// Label selector, text or object.
    pub(crate) selector: Option<String>,
}

/// A printer column of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// A subresource as discovery lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) verbs: &'static [&'static str],
}

/// How the objects of a group relate to the stored ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Only `apiVersion` may differ; a served version is the stored one.
    Same,
    /// Only `apiVersion` differs; stored in this one, which is not served.
    Stored(Arc<str>),
    /// `events.k8s.io` objects stored as core events.
    NewEvent,
}

/// Field names of `events.k8s.io/v1` and of core `v1` events.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

impl Resource {
    /// A served version by name.
    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// `group/version`, or `version` for core.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// The `apiVersion` in which an object of this resource is stored.
    fn stored_api_version(&self) -> Option<String> {
        match &self.shape {
            Shape::NewEvent => Some("v1".to_owned()),
            Shape::Stored(api_version) => Some(api_version.to_string()),
            Shape::Same => {
                let version = self.versions.iter().find(|version| version.storage)?;
                Some(self.api_version(&version.name))
            }
        }
    }

    /// Whether the stored form can be sent as it is.
    pub(crate) fn presents_unchanged(&self, stored: &Value, version: &str) -> bool {
        let stored_version = stored.get("apiVersion").and_then(Value::as_str);
        self.shape == Shape::Same && stored_version == Some(self.api_version(version).as_str())
    }

    /// The object as clients of `version` see it.
    pub(crate) fn present(&self, stored: &Value, version: &str) -> Value {
        let mut value = stored.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), Value::String(self.api_version(version)));
            if self.shape == Shape::NewEvent {
                for (new, old) in EVENT_FIELDS {
                    rename(fields, old, new);
                }
            }
        }
        value
    }

    /// The stored form of what a client sent.
    pub(crate) fn absorb(&self, mut value: Value) -> Value {
        let api_version = self.stored_api_version();
        if let Some(fields) = value.as_object_mut() {
            if let Some(api_version) = api_version {
                fields.insert("apiVersion".to_owned(), Value::String(api_version));
            }
            if self.shape == Shape::NewEvent {
                for (new, old) in EVENT_FIELDS {
                    rename(fields, new, old);
                }
            }
        }
        value
    }

    /// The name with group, for messages.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

fn rename(fields: &mut serde_json::Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// All served resources. Readers take the current immutable version.
#[derive(Debug)]
pub(crate) struct Catalog {
    current: RwLock<Arc<Resources>>,
}

/// The resources of one moment, by group and plural name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    by_name: BTreeMap<(String, String), Arc<Resource>>,
}

impl Catalog {
    /// The built-in resources.
    pub(crate) fn builtin(schemas: &crate::schema::Registry) -> Self {
        let mut resources = Resources::default();
        for resource in builtin::resources(schemas) {
            resources.insert(resource);
        }
        Self { current: RwLock::new(Arc::new(resources)) }
    }

    /// The resources of now.
    pub(crate) fn current(&self) -> Arc<Resources> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds or replaces a resource.
    pub(crate) fn serve(&self, resource: Resource) {
        self.change(|resources| resources.insert(resource));
    }

    /// Removes a resource.
    pub(crate) fn retire(&self, group: &str, plural: &str) {
        self.change(|resources| {
            resources.by_name.remove(&(group.to_owned(), plural.to_owned()));
        });
    }

    fn change(&self, edit: impl FnOnce(&mut Resources)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Resources::clone(&current);
        edit(&mut next);
        *current = Arc::new(next);
    }
}

impl Resources {
    fn insert(&mut self, resource: Resource) {
        self.by_name.insert((resource.group.clone(), resource.plural.clone()), Arc::new(resource));
    }

    /// One resource.
    pub(crate) fn find(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(&(group.to_owned(), plural.to_owned()))
    }

    /// The resource whose objects are stored under `key`.
    pub(crate) fn by_key(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        let (plural, group) = key.as_str().split_once('.').unwrap_or((key.as_str(), ""));
        self.find(group, plural)
    }

    /// All resources, sorted by group and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_name.values()
    }

    /// The versions of a group, preferred first.
    pub(crate) fn versions(&self, group: &str) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        let members = self.iter().filter(|resource| resource.group == group);
        for version in members.flat_map(|resource| &resource.versions) {
            if !versions.contains(&version.name) {
                versions.push(version.name.clone());
            }
        }
        versions.sort_by_key(|version| version_rank(version));
        versions
    }

    /// The names of all groups that have resources, core first.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = self.iter().map(|resource| resource.group.clone()).collect();
        groups.dedup();
        groups
    }
}

/// Sorts versions as Kubernetes does: `v2`, `v1`, `v1beta2`, `v1alpha1`, then others.
pub(crate) fn version_rank(version: &str) -> impl Ord + use<> {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (major, tail) = rest.split_at(digits);
        let major: i64 = major.parse().ok()?;
        let (stage, minor) = if tail.is_empty() {
            (0, 0)
        } else if let Some(minor) = tail.strip_prefix("beta") {
            (1, minor.parse::<i64>().ok()?)
        } else {
            (2, tail.strip_prefix("alpha")?.parse::<i64>().ok()?)
        };
        Some((stage, -major, -minor))
    });
    (parsed.unwrap_or((3, 0, 0)), version.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_sort_by_stability_then_number() {
        let mut versions = ["foo", "v1alpha1", "v1", "v2beta1", "v2", "v1beta2"];
        versions.sort_by_key(|version| version_rank(version));
        assert_eq!(versions, ["v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn new_events_are_stored_as_core_events() {
        let catalog = Catalog::builtin(&crate::schema::Registry::builtin()).current();
        let events = catalog.find("events.k8s.io", "events").unwrap();
        let sent =
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hi", "regarding": {"kind": "Pod"}});
        let stored = events.absorb(sent.clone());
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "message": "hi", "involvedObject": {"kind": "Pod"}})
        );
        assert_eq!(events.present(&stored, "v1"), sent);
    }
}
