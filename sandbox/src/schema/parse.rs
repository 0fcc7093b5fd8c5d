//! Reading a schema node from its JSON form.

use std::{collections::BTreeMap, sync::Arc};

use regex::Regex;
use serde_json::{Map, Value};

use super::{
    error::{FieldError, Path, SchemaError},
    node::{ListType, Merge, Node, Type},
    rules::{Bound, Rules},
};

/// Deepest nesting of a schema. Deeper ones are refused, because readers recurse.
const DEPTH_MAX: usize = 64;

/// Finds the node of a `$ref`.
pub(super) type Resolve<'a> = dyn FnMut(&str) -> Option<Arc<Node>> + 'a;

/// Reads a schema. References are looked up with `resolve`.
pub(super) fn node(schema: &Value, path: &Path<'_>, resolve: &mut Resolve<'_>) -> Result<Node, SchemaError> {
    Reader { resolve, depth: 0 }.node(schema, path)
}

struct Reader<'r, 'f> {
    resolve: &'r mut Resolve<'f>,
    depth: usize,
}

impl Reader<'_, '_> {
    fn node(&mut self, schema: &Value, path: &Path<'_>) -> Result<Node, SchemaError> {
        let fields = match schema {
            Value::Object(fields) => fields,
            Value::Bool(true) => return Ok(Node { preserve_unknown: true, ..Node::default() }),
            other => return Err(FieldError::invalid(path, other, "must be an object").into()),
        };
        if self.depth == DEPTH_MAX {
            return Err(FieldError::forbidden(path, &format!("nested deeper than {DEPTH_MAX} levels")).into());
        }
        self.depth += 1;
        let node = match fields.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.reference(reference, fields, path),
            None => self.inline(fields, path),
        };
        self.depth -= 1;
        node
    }

    fn reference(&mut self, name: &str, fields: &Map<String, Value>, path: &Path<'_>) -> Result<Node, SchemaError> {
        let found = (self.resolve)(name);
        let found = found.ok_or_else(|| FieldError::forbidden(path.field("$ref"), "$ref is not supported"))?;
        let mut node = found.as_ref().clone();
        if let Some(description) = text(fields, "description") {
            node.description = Some(description);
        }
        Ok(node)
    }

    fn inline(&mut self, fields: &Map<String, Value>, path: &Path<'_>) -> Result<Node, SchemaError> {
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        let (additional, free) = match fields.get("additionalProperties") {
            None | Some(Value::Bool(false)) => (None, false),
            Some(Value::Bool(true)) => (None, true),
            Some(schema) => (Some(Arc::new(self.node(schema, &path.field("additionalProperties"))?)), false),
        };
        let items = match fields.get("items") {
            Some(schema) => Some(Arc::new(self.node(schema, &path.field("items"))?)),
            None => None,
        };
        Ok(Node {
            description: text(fields, "description"),
            definition: None,
            recursive: false,
            kind: kind(fields, path)?,
            nullable: flag("nullable"),
            properties: Arc::new(self.properties(fields, path)?),
            additional,
            items,
            required: texts(fields, "required").into(),
            preserve_unknown: free || flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            list: list_type(fields, path)?,
            atomic_map: map_type(fields, path)?,
            merge: merge(fields),
            default: fields.get("default").cloned(),
            rules: self.rules(fields, path)?,
            validations: fields.get("x-kubernetes-validations").cloned(),
        })
    }

    fn properties(
        &mut self,
        fields: &Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<BTreeMap<String, Arc<Node>>, SchemaError> {
        let path = path.field("properties");
        let Some(properties) = fields.get("properties") else { return Ok(BTreeMap::new()) };
        let Value::Object(properties) = properties else {
            return Err(FieldError::invalid(path, properties, "must be an object").into());
        };
        let read =
            |(name, schema): (&String, &Value)| Ok((name.clone(), Arc::new(self.node(schema, &path.key(name))?)));
        properties.iter().map(read).collect()
    }

    fn rules(&mut self, fields: &Map<String, Value>, path: &Path<'_>) -> Result<Option<Box<Rules>>, SchemaError> {
        const NAMES: [&str; 19] = [
            "format",
            "enum",
            "pattern",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "exclusiveMinimum",
            "exclusiveMaximum",
        ];
        if !NAMES.iter().any(|name| fields.contains_key(*name)) {
            return Ok(None);
        }
        let count = |name: &str| fields.get(name).and_then(Value::as_u64);
        let not = match fields.get("not") {
            Some(schema) => Some(self.node(schema, &path.field("not"))?),
            None => None,
        };
        Ok(Some(Box::new(Rules {
            format: text(fields, "format"),
            values: fields.get("enum").and_then(Value::as_array).cloned(),
            pattern: pattern(fields, path)?,
            minimum: bound(fields, "minimum", "exclusiveMinimum"),
            maximum: bound(fields, "maximum", "exclusiveMaximum"),
            multiple_of: fields.get("multipleOf").and_then(Value::as_f64),
            length_min: count("minLength"),
            length_max: count("maxLength"),
            items_min: count("minItems"),
            items_max: count("maxItems"),
            items_unique: fields.get("uniqueItems").and_then(Value::as_bool).unwrap_or(false),
            properties_min: count("minProperties"),
            properties_max: count("maxProperties"),
            all_of: self.nodes(fields, "allOf", path)?,
            any_of: self.nodes(fields, "anyOf", path)?,
            one_of: self.nodes(fields, "oneOf", path)?,
            not,
        })))
    }

    fn nodes(&mut self, fields: &Map<String, Value>, name: &str, path: &Path<'_>) -> Result<Vec<Node>, SchemaError> {
        let path = path.field(name);
        let schemas = fields.get(name).and_then(Value::as_array).into_iter().flatten();
        schemas.enumerate().map(|(index, schema)| self.node(schema, &path.index(index))).collect()
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<Arc<str>> {
    fields.get(name).and_then(Value::as_str).map(Arc::from)
}

fn texts(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn kind(fields: &Map<String, Value>, path: &Path<'_>) -> Result<Type, SchemaError> {
    const KNOWN: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    if fields.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        return Ok(Type::IntOrString);
    }
    Ok(match fields.get("type") {
        None => Type::Any,
        Some(value) => match value.as_str().unwrap_or_default() {
            "" => Type::Any,
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return Err(FieldError::not_supported(path.field("type"), value, KNOWN).into()),
        },
    })
}

fn list_type(fields: &Map<String, Value>, path: &Path<'_>) -> Result<ListType, SchemaError> {
    const NAME: &str = "x-kubernetes-list-type";
    match fields.get(NAME) {
        None => Ok(ListType::Atomic),
        Some(value) => match value.as_str().unwrap_or_default() {
            "atomic" => Ok(ListType::Atomic),
            "set" => Ok(ListType::Set),
            "map" => Ok(ListType::Map(texts(fields, "x-kubernetes-list-map-keys").into())),
            _ => Err(FieldError::not_supported(path.field(NAME), value, ["atomic", "map", "set"]).into()),
        },
    }
}

fn map_type(fields: &Map<String, Value>, path: &Path<'_>) -> Result<bool, SchemaError> {
    const NAME: &str = "x-kubernetes-map-type";
    match fields.get(NAME) {
        None => Ok(false),
        Some(value) => match value.as_str().unwrap_or_default() {
            "atomic" => Ok(true),
            "granular" => Ok(false),
            _ => Err(FieldError::not_supported(path.field(NAME), value, ["atomic", "granular"]).into()),
        },
    }
}

fn merge(fields: &Map<String, Value>) -> Option<Merge> {
    let strategy = fields.get("x-kubernetes-patch-strategy").and_then(Value::as_str)?;
    let has = |name: &str| strategy.split(',').any(|part| part == name);
    Some(Merge {
        key: text(fields, "x-kubernetes-patch-merge-key"),
        lists: has("merge"),
        retain_keys: has("retainKeys"),
    })
}

fn pattern(fields: &Map<String, Value>, path: &Path<'_>) -> Result<Option<Regex>, SchemaError> {
    let Some(value) = fields.get("pattern") else { return Ok(None) };
    let source = value.as_str().unwrap_or_default();
    if source.is_empty() {
        return Ok(None);
    }
    match Regex::new(source) {
        Ok(regex) => Ok(Some(regex)),
        Err(error) => {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            Err(FieldError::invalid(path.field("pattern"), value, &detail).into())
        }
    }
}

/// `exclusiveMinimum` is a flag beside `minimum` in the Kubernetes dialect.
fn bound(fields: &Map<String, Value>, name: &str, exclusive: &str) -> Option<Bound> {
    let value = fields.get(name).and_then(Value::as_f64)?;
    Some(Bound { value, exclusive: fields.get(exclusive).and_then(Value::as_bool).unwrap_or(false) })
}
