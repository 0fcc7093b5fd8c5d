//! Sets of field paths, and their `FieldsV1` form.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde_json::{Map, Value};

/// A set of field paths: a tree whose edges are path elements as `FieldsV1` writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path that ends here is in the set.
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// Fields that say which object it is, or that the server owns. Nobody manages them.
const IDENTITY: [&str; 3] = ["f:apiVersion", "f:kind", "f:metadata"];
const METADATA_IDENTITY: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

impl FieldSet {
    /// Reads the `fieldsV1` of a managed fields entry; none if it is not in that form.
    pub fn from_fields_v1(value: &Value) -> Option<Self> {
        let mut set = Self::read(value)?;
        set.member = false;
        Some(set)
    }

    fn read(value: &Value) -> Option<Self> {
        let fields = value.as_object()?;
        let mut set = Self { member: fields.is_empty(), children: BTreeMap::new() };
        for (name, child) in fields {
            if name == "." {
                set.member = true;
            } else if ["f:", "k:", "v:", "i:"].iter().any(|prefix| name.starts_with(prefix)) {
                set.children.insert(name.clone(), Self::read(child)?);
            } else {
                return None;
            }
        }
        Some(set)
    }

    /// The `fieldsV1` of a managed fields entry.
    pub fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (name, child) in &self.children {
            fields.insert(name.clone(), child.to_fields_v1());
        }
        Value::Object(fields)
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    pub(super) fn add_self(&mut self) {
        self.member = true;
    }

    pub(super) fn contains_self(&self) -> bool {
        self.member
    }

    /// The subset below an element, to be filled.
    pub(super) fn child_mut(&mut self, element: String) -> &mut Self {
        self.children.entry(element).or_default()
    }

    /// Puts a subset below an element, unless it is empty.
    pub(super) fn set_child(&mut self, element: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(super) fn child(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.children.iter()
    }

    /// Paths in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.extend(other);
        result
    }

    fn extend(&mut self, other: &Self) {
        self.member |= other.member;
        for (name, child) in &other.children {
            self.children.entry(name.clone()).or_default().extend(child);
        }
    }

    /// Paths in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |own, other| own && !other, true)
    }

    /// Paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |own, other| own && other, false)
    }

    fn combine(&self, other: &Self, member: fn(bool, bool) -> bool, keep_unmatched: bool) -> Self {
        let mut result = Self { member: member(self.member, other.member), children: BTreeMap::new() };
        for (name, child) in &self.children {
            match other.children.get(name) {
                Some(other) => result.set_child(name.clone(), child.combine(other, member, keep_unmatched)),
                None if keep_unmatched => result.set_child(name.clone(), child.clone()),
                None => {}
            }
        }
        result
    }

    /// The set without these paths of one element; what is below them stays.
    #[must_use]
    pub(super) fn without_members(mut self, elements: &[&str]) -> Self {
        for element in elements {
            if let Some(child) = self.children.get_mut(*element) {
                child.member = false;
                if child.is_empty() {
                    self.children.remove(*element);
                }
            }
        }
        self
    }

    /// The set without the fields that nobody manages.
    #[must_use]
    pub(super) fn without_identity(mut self) -> Self {
        if let Some(metadata) = self.children.get_mut("f:metadata") {
            metadata.children.retain(|name, _| !METADATA_IDENTITY.contains(&name.as_str()));
        }
        self.without_members(&IDENTITY)
    }

    /// All paths, as people read them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        if self.member {
            paths.push(prefix.clone());
        }
        for (name, child) in &self.children {
            let length = prefix.len();
            // Writing to a text does not fail.
            let _ = write!(prefix, "{}", Readable(name));
            child.collect(prefix, paths);
            prefix.truncate(length);
        }
    }
}

/// A path element for people.
struct Readable<'a>(&'a str);

impl fmt::Display for Readable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, content) = self.0.split_once(':').unwrap_or(("", self.0));
        match kind {
            "f" => write!(formatter, ".{content}"),
            "v" => write!(formatter, "[={content}]"),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(formatter, "[{}]", keys.join(","))
            }
            _ => write!(formatter, "[{content}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_fields_v1(&value).unwrap()
    }

    #[test]
    fn fields_v1_round_trip() {
        let value = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}, "f:labels": {".": {}, "f:app": {}}}});
        assert_eq!(set(value.clone()).to_fields_v1(), value);
        assert!(set(json!({})).is_empty());
        assert_eq!(FieldSet::from_fields_v1(&json!({"nonsense": {}})), None);
    }

    #[test]
    fn algebra() {
        let left = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let right = set(json!({"f:a": {"f:b": {}}, "f:d": {}}));
        assert_eq!(left.union(&right), set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}})));
        assert_eq!(left.difference(&right), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(left.intersection(&right), set(json!({"f:a": {"f:b": {}}})));
        assert!(left.difference(&left).is_empty());
    }

    #[test]
    fn readable_paths() {
        let fields =
            set(json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}}));
        assert_eq!(
            fields.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].name",
            ]
        );
    }
}
