//! `meta.k8s.io` tables: what `kubectl get` prints.

mod columns;
mod jsonpath;

use std::sync::Arc;

use serde_json::{Value, json};

use self::columns::Layout;
use super::{clock::age, query::Params, resources::Column, write::Target};
use crate::store::{Object, meta_str};

/// What of the object goes into a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// The `includeObject` parameter.
pub(crate) fn include(params: &Params) -> Include {
    match params.text("includeObject") {
        Some("None") => Include::None,
        Some("Object") => Include::Object,
        _ => Include::Metadata,
    }
}

/// A table of objects.
pub(crate) fn render(at: &Target<'_>, objects: &[Arc<Object>], metadata: Value, include: Include) -> Value {
    let builtin = columns::builtin(&at.resource.key).filter(|_| !at.resource.custom);
    let own = &at.version.columns;
    let definitions = builtin.as_ref().map_or_else(|| custom_definitions(own), layout_definitions);
    let cells = |object: &Value| match &builtin {
        Some(layout) => (layout.cells)(object),
        None => custom_cells(own, object),
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let shown = match include {
                Include::None => Value::Null,
                Include::Metadata => partial(object.value()),
                Include::Object => at.resource.present(object.value(), &at.version.name),
            };
            json!({"cells": cells(object.value()), "object": shown})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The object's metadata alone.
pub(crate) fn partial(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn layout_definitions(layout: &Layout) -> Vec<Value> {
    layout
        .columns
        .iter()
        .map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            definition(column.name, column.kind, format, column.description, column.priority)
        })
        .collect()
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn custom_definitions(columns: &[Column]) -> Vec<Value> {
    let mut list = vec![definition("Name", "string", "name", "Name of the object, unique within its namespace.", 0)];
    if columns.is_empty() {
        list.push(definition("Age", "date", "", "Time since the object was created.", 0));
    }
    list.extend(
        columns
            .iter()
            .map(|column| definition(&column.name, &column.kind, &column.format, &column.description, column.priority)),
    );
    list
}

fn custom_cells(columns: &[Column], object: &Value) -> Vec<Value> {
    let mut cells = vec![json!(meta_str(object, "name").unwrap_or_default())];
    if columns.is_empty() {
        cells.push(json!(age(meta_str(object, "creationTimestamp"))));
    }
    cells.extend(columns.iter().map(|column| custom_cell(column, object)));
    cells
}

fn custom_cell(column: &Column, object: &Value) -> Value {
    let found = jsonpath::find(&column.path, object);
    match (column.kind.as_str(), found.as_slice()) {
        (_, []) => Value::Null,
        ("date", [first, ..]) => json!(age(first.as_str())),
        ("integer" | "number", [first, ..]) => {
            if first.is_number() {
                (*first).clone()
            } else {
                Value::Null
            }
        }
        ("boolean", [first, ..]) => {
            if first.is_boolean() {
                (*first).clone()
            } else {
                Value::Null
            }
        }
        (_, many) => {
            let texts: Vec<String> = many.iter().map(|value| text(value)).collect();
            json!(texts.join(","))
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
