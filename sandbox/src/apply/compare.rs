//! Which fields differ between two objects.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    fields::FieldSet,
    shape::{self, Items, Shape},
};
use crate::schema::{Node, Schema};

/// The fields that differ between an old and a new object, without those nobody manages.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Only in the new object.
    pub(super) added: FieldSet,
    /// Only in the old one.
    pub(super) removed: FieldSet,
    /// In both, with another value.
    pub(super) modified: FieldSet,
}

impl Comparison {
    pub(super) fn of(schema: &Schema, old: Option<&Value>, new: &Value) -> Self {
        let root = Some(schema.root().as_ref());
        let empty = Value::Object(Map::new());
        let mut change = Self::default();
        object(root, Some(old.unwrap_or(&empty)), Some(new), &mut change);
        let tidy = |mut set: FieldSet| {
            if !schema.is_custom() {
                // Built-in objects have their sections always, even if empty.
                set = set.without_members(&["f:spec", "f:status"]);
            }
            set.without_identity()
        };
        Self { added: tidy(change.added), removed: tidy(change.removed), modified: tidy(change.modified) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }
}

fn walk(node: Option<&Node>, old: Option<&Value>, new: Option<&Value>, change: &mut Comparison) {
    let old = old.filter(|value| !shape::is_absent(node, value));
    let new = new.filter(|value| !shape::is_absent(node, value));
    let either = match (old, new) {
        (None, None) => return,
        (Some(old), Some(new)) if old == new => return,
        (Some(value), None) | (None, Some(value)) => value,
        (Some(old), Some(new)) => {
            if std::mem::discriminant(old) != std::mem::discriminant(new) {
                return change.modified.add_self();
            }
            new
        }
    };
    match Shape::of(node, either) {
        Shape::Leaf => leaf(old, new, change),
        Shape::Parts => {
            object(node, old, new, change);
            whole(old, new, change);
        }
        Shape::Items(items) => match (identified(&items, old), identified(&items, new)) {
            (Some(old_items), Some(new_items)) => {
                list(&items, &old_items, &new_items, change);
                whole(old, new, change);
            }
            _ => leaf(old, new, change),
        },
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, change: &mut Comparison) {
    match (old, new) {
        (None, _) => change.added.add_self(),
        (_, None) => change.removed.add_self(),
        _ => change.modified.add_self(),
    }
}

/// A value with parts is itself added or removed when the other object does not have it.
fn whole(old: Option<&Value>, new: Option<&Value>, change: &mut Comparison) {
    match (old, new) {
        (None, _) => change.added.add_self(),
        (_, None) => change.removed.add_self(),
        _ => {}
    }
}

fn object(node: Option<&Node>, old: Option<&Value>, new: Option<&Value>, change: &mut Comparison) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    for (name, value) in old {
        part(shape::field(node, name), &shape::field_element(name), Some(value), new.get(name), change);
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        part(shape::field(node, name), &shape::field_element(name), None, Some(value), change);
    }
}

type Identified<'v> = Vec<(String, &'v Value)>;

fn identified<'v>(items: &Items<'_>, value: Option<&'v Value>) -> Option<Identified<'v>> {
    items.elements(value.and_then(Value::as_array).map_or(&[], Vec::as_slice))
}

fn list(items: &Items<'_>, old: &Identified<'_>, new: &Identified<'_>, change: &mut Comparison) {
    let new_by_element: HashMap<&str, &Value> = new.iter().map(|(element, value)| (element.as_str(), *value)).collect();
    let mut seen = Vec::with_capacity(old.len());
    for (element, value) in old {
        seen.push(element.as_str());
        part(items.item(), element, Some(value), new_by_element.get(element.as_str()).copied(), change);
    }
    for (element, value) in new.iter().filter(|(element, _)| !seen.contains(&element.as_str())) {
        part(items.item(), element, None, Some(value), change);
    }
}

fn part(node: Option<&Node>, element: &str, old: Option<&Value>, new: Option<&Value>, change: &mut Comparison) {
    if old == new {
        return;
    }
    let mut inner = Comparison::default();
    walk(node, old, new, &mut inner);
    change.added.set_child(element.to_owned(), inner.added);
    change.removed.set_child(element.to_owned(), inner.removed);
    change.modified.set_child(element.to_owned(), inner.modified);
}
