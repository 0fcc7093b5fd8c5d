//! Schemas of custom resource definitions: which ones are structural.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    Schema, builtin,
    cel::RuleTree,
    error::{FieldError, Path, SchemaError},
    node::{ListType, Node, Type},
    parse, prune, validate,
};

/// Reads the schema of one version of a custom resource definition: an item of `spec.versions`.
///
/// # Errors
///
/// The first thing that makes the schema unusable, with its path inside the version.
///
/// # Source
///
/// Kubernetes' "structural schema" rules: every field has a type, and value rules in `allOf`,
/// `anyOf`, `oneOf` and `not` add no shape of their own.
pub fn from_crd_version(version: &Value) -> Result<Schema, SchemaError> {
    let root = Path::Root;
    let path = root.field("schema");
    let path = path.field("openAPIV3Schema");
    let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
        return Err(FieldError::required(path, "schemas are required").into());
    };
    structural(schema, &path, Place::Root)?;
    let mut node = parse::node(schema, &path, &mut |_| None)?;
    check_node(&node, &path)?;
    enclose(&mut node, true);
    check_defaults(&node, &path)?;
    let mut hasher = DefaultHasher::new();
    schema.to_string().hash(&mut hasher);
    let node = Arc::new(node);
    let rules = RuleTree::compile(&node, &path)?;
    Ok(Schema::custom(node, rules, hasher.finish()))
}

/// Where a schema stands, which decides what it may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Item,
    MapValue,
    /// In `allOf` and the like.
    Rule,
}

fn structural(schema: &Value, path: &Path<'_>, place: Place) -> Result<(), SchemaError> {
    let Value::Object(fields) = schema else {
        return Err(FieldError::invalid(path, schema, "must be an object").into());
    };
    if place == Place::Rule {
        rule_only(fields, path)?
    } else {
        shape(fields, path, place)?
    }
    let child_place = |place_outside| if place == Place::Rule { Place::Rule } else { place_outside };
    if let Some(Value::Object(properties)) = fields.get("properties") {
        let path = path.field("properties");
        for (name, schema) in properties {
            structural(schema, &path.key(name), child_place(Place::Property))?;
        }
    }
    if let Some(items) = fields.get("items") {
        structural(items, &path.field("items"), child_place(Place::Item))?;
    }
    if let Some(values @ Value::Object(_)) = fields.get("additionalProperties") {
        structural(values, &path.field("additionalProperties"), child_place(Place::MapValue))?;
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        let path = path.field(name);
        for (index, schema) in fields.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            structural(schema, &path.index(index), Place::Rule)?;
        }
    }
    match fields.get("not") {
        Some(schema) => structural(schema, &path.field("not"), Place::Rule),
        None => Ok(()),
    }
}

fn shape(fields: &Map<String, Value>, path: &Path<'_>, place: Place) -> Result<(), SchemaError> {
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool) == Some(true);
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() && !flag("x-kubernetes-int-or-string") && !flag("x-kubernetes-preserve-unknown-fields") {
        let what = match place {
            Place::Root => "must not be empty at the root",
            Place::Item => "must not be empty for specified array items",
            Place::MapValue | Place::Property | Place::Rule => "must not be empty for specified object fields",
        };
        return Err(FieldError::required(path.field("type"), what).into());
    }
    if place == Place::Root && kind != "object" {
        let found = Value::from(kind);
        return Err(FieldError::invalid(path.field("type"), &found, "must be object at the root").into());
    }
    if fields.contains_key("properties") && fields.get("additionalProperties").is_some_and(|value| *value != false) {
        let detail = "additionalProperties and properties are mutual exclusive";
        return Err(FieldError::forbidden(path.field("additionalProperties"), detail).into());
    }
    if kind == "array" && !fields.contains_key("items") {
        return Err(FieldError::required(path.field("items"), "must be specified").into());
    }
    if flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        return Err(FieldError::forbidden(path.field("uniqueItems"), detail).into());
    }
    if fields.contains_key("$ref") {
        return Err(FieldError::forbidden(path.field("$ref"), "$ref is not supported").into());
    }
    Ok(())
}

/// Inside `allOf` and the like, only rules about values may stand, except that the two types of an
/// int-or-string are usually spelled out.
fn rule_only(fields: &Map<String, Value>, path: &Path<'_>) -> Result<(), SchemaError> {
    const SHAPE: [&str; 9] = [
        "additionalProperties",
        "default",
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
    ];
    let spelled_out = matches!(fields.get("type").and_then(Value::as_str), None | Some("" | "integer" | "string"));
    let shape = SHAPE.iter().find(|name| fields.get(**name).is_some_and(|value| *value != false));
    match (spelled_out, shape) {
        (false, _) => Err(FieldError::forbidden(path.field("type"), "must be empty to be structural").into()),
        (true, Some(name)) => Err(FieldError::forbidden(path.field(name), "must be undefined to be structural").into()),
        (true, None) => Ok(()),
    }
}

/// Lists with an identity: their keys must identify.
fn check_node(node: &Node, path: &Path<'_>) -> Result<(), SchemaError> {
    if node.list != ListType::Atomic && node.kind != Type::Array {
        let found = Value::from(node.kind.name().unwrap_or_default());
        let detail = "must be array if x-kubernetes-list-type is specified";
        return Err(FieldError::invalid(path.field("type"), &found, detail).into());
    }
    match (&node.list, &node.items) {
        (ListType::Map(keys), Some(items)) => check_keys(keys, items, path)?,
        (ListType::Set, Some(items)) if matches!(items.kind, Type::Array) && items.list != ListType::Atomic => {
            let detail = "set as value of x-kubernetes-list-type needs items that are scalars or atomic";
            return Err(FieldError::forbidden(path.field("items"), detail).into());
        }
        _ => {}
    }
    let properties = path.field("properties");
    for (name, child) in node.properties.iter() {
        check_node(child, &properties.key(name))?;
    }
    if let Some(items) = &node.items {
        check_node(items, &path.field("items"))?;
    }
    match &node.additional {
        Some(values) => check_node(values, &path.field("additionalProperties")),
        None => Ok(()),
    }
}

fn check_keys(keys: &[String], items: &Node, path: &Path<'_>) -> Result<(), SchemaError> {
    let names = path.field("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        return Err(FieldError::required(names, detail).into());
    }
    for (index, key) in keys.iter().enumerate() {
        let item = path.field("items");
        let properties = item.field("properties");
        let Some(property) = items.property(key) else {
            let detail = "entries must all be names of item properties";
            return Err(FieldError::invalid(names.index(index), &Value::from(key.as_str()), detail).into());
        };
        if matches!(property.kind, Type::Array | Type::Object) {
            let found = Value::from(property.kind.name().unwrap_or_default());
            let property = properties.key(key);
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            return Err(FieldError::invalid(property.field("type"), &found, detail).into());
        }
        if property.default.is_none() && !items.required.contains(key) {
            let property = properties.key(key);
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            return Err(FieldError::required(property.field("default"), detail).into());
        }
    }
    Ok(())
}

/// A default must be a value that would be accepted.
fn check_defaults(node: &Node, path: &Path<'_>) -> Result<(), SchemaError> {
    let properties = path.field("properties");
    for (name, child) in node.properties.iter() {
        let path = properties.key(name);
        if let Some(default) = &child.default {
            let mut pruned = default.clone();
            let dropped = prune::prune(child, &mut pruned);
            if let Some(unknown) = dropped.first() {
                let detail = format!("must not have unknown fields: {unknown}");
                return Err(FieldError::invalid(path.field("default"), default, &detail).into());
            }
            super::defaulting::fill(child, &mut pruned);
            if let Some(error) = validate::validate(child, &pruned).into_iter().next() {
                let place = path.field("default");
                let inner = if error.path.is_empty() { String::new() } else { format!(".{}", error.path) };
                return Err(SchemaError { path: format!("{place}{inner}"), reason: error.reason });
            }
        }
        check_defaults(child, &path)?;
    }
    if let Some(items) = &node.items {
        check_defaults(items, &path.field("items"))?;
    }
    match &node.additional {
        Some(values) => check_defaults(values, &path.field("additionalProperties")),
        None => Ok(()),
    }
}

/// Whole objects have the fixed fields of any object, whatever the definition says about them.
fn enclose(node: &mut Node, whole: bool) {
    let mut properties: BTreeMap<String, Arc<Node>> = node.properties.as_ref().clone();
    for child in properties.values_mut() {
        if touches_objects(child) {
            enclose(Arc::make_mut(child), false);
        }
    }
    if whole || node.embedded {
        let text = Arc::new(Node { kind: Type::String, ..Node::default() });
        let named = |name: &str| {
            let described = properties.get(name).and_then(|node| node.description.clone());
            Arc::new(Node { description: described, ..text.as_ref().clone() })
        };
        let (version, kind) = (named("apiVersion"), named("kind"));
        // Rules about the name, the only part of metadata that a definition may restrict.
        let mut metadata = builtin::metadata().as_ref().clone();
        if let Some(rules) =
            properties.get("metadata").and_then(|node| node.property("name")).and_then(|name| name.rules.clone())
        {
            let mut fields = metadata.properties.as_ref().clone();
            if let Some(name) = fields.get_mut("name") {
                Arc::make_mut(name).rules = Some(rules);
            }
            metadata.properties = Arc::new(fields);
        }
        properties.insert("apiVersion".to_owned(), version);
        properties.insert("kind".to_owned(), kind);
        properties.insert("metadata".to_owned(), Arc::new(metadata));
    }
    node.properties = Arc::new(properties);
    for child in [&mut node.items, &mut node.additional].into_iter().flatten() {
        if touches_objects(child) {
            enclose(Arc::make_mut(child), false);
        }
    }
}

/// Whether an embedded object is somewhere at or below a node.
fn touches_objects(node: &Node) -> bool {
    node.embedded
        || node.properties.values().any(|child| touches_objects(child))
        || node.items.as_ref().is_some_and(|child| touches_objects(child))
        || node.additional.as_ref().is_some_and(|child| touches_objects(child))
}

#[cfg(test)]
mod tests;
