//! How a value is owned: as one, or in parts.

use serde_json::{Map, Value};

use crate::schema::{ListType, Node, Type};

/// How a value is owned.
pub(super) enum Shape<'n> {
    /// As one value.
    Leaf,
    /// By fields or keys.
    Parts,
    /// By items.
    Items(Items<'n>),
}

/// A list whose items have an identity.
pub(super) struct Items<'n> {
    keys: &'n ListType,
    item: Option<&'n Node>,
}

impl<'n> Shape<'n> {
    /// How a value is owned by its schema. Values without a schema are owned by the fields of
    /// objects, lists as a whole.
    pub(super) fn of(node: Option<&'n Node>, value: &Value) -> Self {
        match value {
            Value::Object(_) if node.is_none_or(is_granular) => Self::Parts,
            Value::Array(_) => match node {
                Some(node) if node.list != ListType::Atomic => {
                    Self::Items(Items { keys: &node.list, item: node.items.as_deref() })
                }
                _ => Self::Leaf,
            },
            _ => Self::Leaf,
        }
    }
}

/// Built-in fields of free JSON are owned as a whole.
fn is_granular(node: &Node) -> bool {
    let free_builtin = node.kind == Type::Any && node.definition.is_some();
    !node.atomic_map && !free_builtin
}

/// Whether a value is as good as absent.
pub(super) fn is_absent(node: Option<&Node>, value: &Value) -> bool {
    value.is_null() && node.is_some_and(|node| !node.nullable)
}

/// The schema of a field or key.
pub(super) fn field<'n>(node: Option<&'n Node>, name: &str) -> Option<&'n Node> {
    node.and_then(|node| node.field(name)).map(AsRef::as_ref)
}

/// Whether a name is a declared field, rather than a key somebody chose.
pub(super) fn is_declared(node: Option<&Node>, name: &str) -> bool {
    node.is_some_and(|node| node.property(name).is_some())
}

/// The path element of a field.
pub(super) fn field_element(name: &str) -> String {
    format!("f:{name}")
}

impl<'n> Items<'n> {
    /// The schema of every item.
    pub(super) fn item(&self) -> Option<&'n Node> {
        self.item
    }

    /// The path element of an item, or the name of the key it lacks.
    pub(super) fn element(&self, item: &Value) -> Result<String, String> {
        let ListType::Map(keys) = self.keys else { return Ok(format!("v:{item}")) };
        let mut values = Map::new();
        let mut names: Vec<&String> = keys.iter().collect();
        names.sort_unstable();
        for name in names {
            let default = || self.item.and_then(|item| item.property(name)).and_then(|key| key.default.as_ref());
            let value = item.get(name).filter(|value| !value.is_null()).or_else(default);
            values.insert(name.clone(), value.ok_or_else(|| name.clone())?.clone());
        }
        Ok(format!("k:{}", Value::Object(values)))
    }

    /// All items with their elements, or none if an item has no identity or shares it with
    /// another, which an object stored before its schema changed may have.
    pub(super) fn elements<'v>(&self, items: &'v [Value]) -> Option<Vec<(String, &'v Value)>> {
        let mut elements: Vec<(String, &Value)> = Vec::with_capacity(items.len());
        for item in items {
            elements.push((self.element(item).ok()?, item));
        }
        let mut names: Vec<&str> = elements.iter().map(|(element, _)| element.as_str()).collect();
        names.sort_unstable();
        let unique = !names.windows(2).any(|pair| pair.first() == pair.last());
        unique.then_some(elements)
    }
}
