//! One node of a schema tree.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::rules::Rules;

/// The JSON type a value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Anything: inside `allOf` and the like, and where built-in types hold free JSON.
    #[default]
    Any,
    /// A struct or a map.
    Object,
    /// A list.
    Array,
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A whole number or a text: ports and percentages.
    IntOrString,
}

impl Type {
    /// Its name in OpenAPI, none for [`Type::Any`] and [`Type::IntOrString`].
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Any | Self::IntOrString => None,
            Self::Object => Some("object"),
            Self::Array => Some("array"),
            Self::String => Some("string"),
            Self::Integer => Some("integer"),
            Self::Number => Some("number"),
            Self::Boolean => Some("boolean"),
        }
    }
}

/// What an item of a list is known by: `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Scalars that occur once; each is its own identity.
    Set,
    /// Objects known by the values of these fields.
    Map(Arc<[String]>),
}

/// How a strategic merge patch treats a field: `x-kubernetes-patch-strategy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// `x-kubernetes-patch-merge-key`: the field that identifies the objects of a list. None for
    /// lists of scalars and for objects.
    pub key: Option<Arc<str>>,
    /// Whether lists are merged at all; false for objects that only keep `retain_keys`.
    pub lists: bool,
    /// Whether `$retainKeys` is used for objects here.
    pub retain_keys: bool,
}

/// The named type behind a node, published once per OpenAPI document.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Such as `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// The description of the type, which a field may replace by its own.
    pub description: Option<Arc<str>>,
    /// The group, version and kind, for the types of whole objects.
    pub kind: Option<(String, String, String)>,
}

/// One node of a schema tree. Children are shared, so that cloning a node is cheap.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// What the field is for, shown by `kubectl explain`.
    pub description: Option<Arc<str>>,
    /// The named type this node is an instance of.
    pub definition: Option<Arc<Definition>>,
    /// Whether this only names a type that encloses it: its fields are free.
    pub recursive: bool,
    /// The JSON type.
    pub kind: Type,
    /// Whether null is a value of its own rather than an absent field.
    pub nullable: bool,
    /// Known fields of an object.
    pub properties: Arc<BTreeMap<String, Arc<Node>>>,
    /// The schema of every value of a map.
    pub additional: Option<Arc<Node>>,
    /// The schema of every item of a list.
    pub items: Option<Arc<Node>>,
    /// Fields that must be there.
    pub required: Arc<[String]>,
    /// Whether unknown fields are kept.
    pub preserve_unknown: bool,
    /// Whether the value is a whole object with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// What items of a list are known by.
    pub list: ListType,
    /// Whether an object is one value for field ownership: `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// How a strategic merge patch treats the value, where it matters.
    pub merge: Option<Merge>,
    /// The value of an absent field.
    pub default: Option<Value>,
    /// Rules about values.
    pub rules: Option<Box<Rules>>,
    /// `x-kubernetes-validations`, kept for publishing.
    pub validations: Option<Value>,
}

impl Node {
    /// Whether an object here is a map from any key, rather than a struct.
    pub fn is_map(&self) -> bool {
        self.properties.is_empty() && self.additional.is_some()
    }

    /// The schema of a field or key of an object.
    pub fn field(&self, name: &str) -> Option<&Arc<Node>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// The schema of a named field.
    pub fn property(&self, name: &str) -> Option<&Arc<Node>> {
        self.properties.get(name)
    }
}
