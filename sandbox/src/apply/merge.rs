//! Putting applied fields into a live object.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::shape::{self, Items, Shape};
use crate::schema::Node;

/// The live object with the applied fields in it.
pub(super) fn merge(node: Option<&Node>, live: &Value, applied: &Value) -> Value {
    match (Shape::of(node, applied), live, applied) {
        (Shape::Parts, Value::Object(live), Value::Object(applied)) => object(node, live, applied),
        (Shape::Items(items), Value::Array(live), Value::Array(applied)) => list(&items, live, applied),
        _ => clean(node, applied),
    }
}

fn object(node: Option<&Node>, live: &Map<String, Value>, applied: &Map<String, Value>) -> Value {
    let mut merged = live.clone();
    for (name, value) in applied {
        let child = shape::field(node, name);
        if shape::is_absent(child, value) {
            continue;
        }
        let value = match live.get(name) {
            Some(live) => merge(child, live, value),
            None => clean(child, value),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// A new value without the fields that are as good as absent.
fn clean(node: Option<&Node>, value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter_map(|(name, value)| {
                let child = shape::field(node, name);
                (!shape::is_absent(child, value)).then(|| (name.clone(), clean(child, value)))
            })
            .collect(),
        Value::Array(items) => {
            let child = node.and_then(|node| node.items.as_deref());
            items.iter().map(|item| clean(child, item)).collect()
        }
        scalar => scalar.clone(),
    }
}

/// Items of both lists: shared ones in the applied order, live ones where they stood among them.
fn list(items: &Items<'_>, live: &[Value], applied: &[Value]) -> Value {
    let (Some(live), Some(applied_items)) = (items.elements(live), items.elements(applied)) else {
        return Value::Array(applied.to_vec());
    };
    let (live_values, applied_values) = (by_element(&live), by_element(&applied_items));
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let mut live = live.iter().peekable();
    for (element, value) in &applied_items {
        while let Some((_, kept)) = live.next_if(|(next, _)| !applied_values.contains_key(next.as_str())) {
            merged.push((*kept).clone());
        }
        match live_values.get(element.as_str()) {
            None => merged.push(clean(items.item(), value)),
            Some(old) => {
                merged.push(merge(items.item(), old, value));
                live.next_if(|(next, _)| next == element);
            }
        }
    }
    let rest = live.filter(|(element, _)| !applied_values.contains_key(element.as_str()));
    merged.extend(rest.map(|(_, kept)| (*kept).clone()));
    Value::Array(merged)
}

fn by_element<'v>(items: &'v [(String, &'v Value)]) -> HashMap<&'v str, &'v Value> {
    items.iter().map(|(element, value)| (element.as_str(), *value)).collect()
}
