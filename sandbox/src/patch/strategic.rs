//! Strategic merge patches: merge patches that know which lists are keyed.
//!
//! A patch talks about list items by their merge key, and carries directives: `$patch` (delete,
//! replace, merge), `$retainKeys`, `$setElementOrder/<list>` and `$deleteFromPrimitiveList/<list>`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Merge, Node, Schema};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch.
///
/// # Errors
///
/// [`PatchError::Malformed`] for a wrong directive or a list item without its merge key.
///
/// # Source
///
/// Kubernetes API concepts, "strategic merge patch"; merge keys from the schema.
pub fn strategic(schema: &Schema, document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(document), Value::Object(patch)) = (document, patch) else {
        return Err(PatchError::malformed("a strategic merge patch must be a JSON object"));
    };
    object(Some(schema.root()), document.clone(), patch.clone()).map(Value::Object)
}

type Fields = Map<String, Value>;

fn object(node: Option<&Node>, mut fields: Fields, mut patch: Fields) -> Result<Fields, PatchError> {
    match directive(patch.remove(PATCH))? {
        Some(Directive::Replace) => return Ok(without_directives_in(patch)),
        Some(Directive::Delete) => return Ok(Fields::new()),
        Some(Directive::Merge) | None => {}
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain(&mut fields, &keys)?;
    }
    let orders = take_prefixed(&mut patch, ELEMENT_ORDER);
    for (name, deleted) in take_prefixed(&mut patch, DELETE_SCALARS) {
        if let (Some(Value::Array(items)), Value::Array(deleted)) = (fields.get_mut(&name), deleted) {
            items.retain(|item| !deleted.contains(item));
        }
    }
    let before = fields.clone();
    for (name, value) in patch {
        let child = node.and_then(|node| node.field(&name)).map(AsRef::as_ref);
        let value = match (fields.remove(&name), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(patch)) => Value::Object(object(child, old, patch)?),
            (Some(Value::Array(old)), Value::Array(patch)) => Value::Array(list(child, &name, old, patch)?),
            (None, Value::Array(patch)) => Value::Array(list(child, &name, Vec::new(), patch)?),
            (_, patch) => match added(patch)? {
                Some(value) => value,
                None => continue,
            },
        };
        fields.insert(name, value);
    }
    for (name, order) in orders {
        let child = node.and_then(|node| node.field(&name)).map(AsRef::as_ref);
        let key = merge_of(child).and_then(|merge| merge.key.as_deref());
        if let (Some(Value::Array(items)), Value::Array(order)) = (fields.get_mut(&name), order) {
            let server = before.get(&name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            *items = ordered(std::mem::take(items), &order, server, key);
        }
    }
    Ok(fields)
}

/// A value that was not there before: what the patch says, without directives.
fn added(patch: Value) -> Result<Option<Value>, PatchError> {
    if let Value::Object(fields) = &patch
        && directive(fields.get(PATCH).cloned())? == Some(Directive::Delete)
    {
        return Ok(None);
    }
    Ok(Some(without_directives(patch)))
}

fn list(node: Option<&Node>, name: &str, old: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    let Some(merge) = merge_of(node).filter(|merge| merge.lists) else {
        return Ok(patch.into_iter().map(without_directives).collect());
    };
    let item = node.and_then(|node| node.items.as_deref());
    match &merge.key {
        Some(key) => objects(item, key, name, old, patch),
        None => Ok(scalars(old, patch)),
    }
}

/// Scalars known by themselves: those that are new are added.
fn scalars(mut old: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    for value in patch {
        if !old.contains(&value) {
            old.push(value);
        }
    }
    old
}

/// Objects known by a key: each patch item changes, deletes or adds the object of that key.
fn objects(
    node: Option<&Node>,
    key: &str,
    name: &str,
    mut items: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    let mut changes = Vec::with_capacity(patch.len());
    let mut replace = false;
    for value in patch {
        let Value::Object(mut change) = value else {
            return Err(PatchError::malformed(format!("list {name} takes objects with a {key:?}, got {value}")));
        };
        let found = directive(change.remove(PATCH))?;
        let identity = change.get(key).cloned();
        match (found, identity) {
            (Some(Directive::Replace), None) => replace = true,
            (_, None) => {
                let change = Value::Object(change);
                return Err(PatchError::malformed(format!("map: {change} does not contain declared merge key: {key}")));
            }
            (Some(Directive::Delete), Some(identity)) => items.retain(|item| item.get(key) != Some(&identity)),
            (Some(Directive::Replace), Some(identity)) => {
                let whole = Value::Object(without_directives_in(change));
                match items.iter_mut().find(|item| item.get(key) == Some(&identity)) {
                    Some(item) => *item = whole,
                    None => items.push(whole),
                }
            }
            (Some(Directive::Merge) | None, Some(identity)) => changes.push((identity, change)),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(|(_, change)| Value::Object(without_directives_in(change))).collect());
    }
    for (identity, change) in changes {
        match items.iter_mut().find(|item| item.get(key) == Some(&identity)) {
            Some(Value::Object(item)) => *item = object(node, std::mem::take(item), change)?,
            _ => items.push(Value::Object(without_directives_in(change))),
        }
    }
    Ok(items)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Delete,
    Replace,
    Merge,
}

fn directive(value: Option<Value>) -> Result<Option<Directive>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text == "delete" => Ok(Some(Directive::Delete)),
        Some(Value::String(text)) if text == "replace" => Ok(Some(Directive::Replace)),
        Some(Value::String(text)) if text == "merge" => Ok(Some(Directive::Merge)),
        Some(other) => {
            Err(PatchError::malformed(format!("unknown patch type {other}: $patch is delete, replace or merge")))
        }
    }
}

/// Keeps only the named fields: how a union switches from one of its fields to another.
fn retain(fields: &mut Fields, keys: &Value) -> Result<(), PatchError> {
    let Value::Array(keys) = keys else {
        return Err(PatchError::malformed(format!("{RETAIN_KEYS} must be a list of field names, got {keys}")));
    };
    fields.retain(|name, _| keys.iter().any(|key| key == name));
    Ok(())
}

fn take_prefixed(patch: &mut Fields, prefix: &str) -> Vec<(String, Value)> {
    let names: Vec<String> = patch.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    let take = |name: String| {
        let value = patch.remove(&name)?;
        Some((name.strip_prefix(prefix)?.to_owned(), value))
    };
    names.into_iter().filter_map(take).collect()
}

/// Sorts a list as the patch wants. Items that only the server has keep their places relative to
/// those that were there before.
fn ordered(items: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or_default(),
        None => item.clone(),
    };
    let place_in = |list: &[Value], item: &Value| {
        let wanted = identity(item);
        list.iter().position(|candidate| identity(candidate) == wanted)
    };
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place_in(order, item).is_some());
    named.sort_by_key(|item| place_in(order, item));
    rest.sort_by_key(|item| place_in(server, item));
    let mut merged = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), named.peek()) {
            (None, None) => return merged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                matches!((place_in(server, left), place_in(server, right)), (Some(left), Some(right)) if left < right)
            }
        };
        merged.extend(if rest_first { rest.next() } else { named.next() });
    }
}

fn merge_of(node: Option<&Node>) -> Option<&Merge> {
    node?.merge.as_ref()
}

/// A value that only the patch has, as it is stored: directives are not data, and what is to be
/// deleted is not there.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives_in(fields)),
        Value::Array(items) => {
            let is_delete = |item: &Value| item.get(PATCH).and_then(Value::as_str).is_some();
            let bare = |item: &Value| item.as_object().is_some_and(|fields| fields.len() == 1);
            let deletes = |item: &Value| item.get(PATCH).and_then(Value::as_str) == Some("delete");
            let kept = items.into_iter().filter(|item| !(is_delete(item) && (bare(item) || deletes(item))));
            Value::Array(kept.map(without_directives).collect())
        }
        scalar => scalar,
    }
}

fn without_directives_in(fields: Fields) -> Fields {
    fields
        .into_iter()
        .filter(|(name, value)| {
            let known = name == PATCH
                || name == RETAIN_KEYS
                || name.starts_with(ELEMENT_ORDER)
                || name.starts_with(DELETE_SCALARS);
            !known && !value.is_null()
        })
        .map(|(name, value)| (name, without_directives(value)))
        .collect()
}
