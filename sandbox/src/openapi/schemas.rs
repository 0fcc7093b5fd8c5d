//! The `components.schemas` of a document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Served;
use crate::schema::{Bound, ListType, Node, Rules, Type};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// The named schemas of one document, collected while it is made.
pub(super) struct Components {
    group: String,
    version: String,
    schemas: BTreeMap<String, Value>,
}

impl Components {
    pub(super) fn new(group: &str, version: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), schemas: BTreeMap::new() }
    }

    pub(super) fn into_schemas(self) -> BTreeMap<String, Value> {
        self.schemas
    }

    /// Adds the schema of a kind and of lists of it, and returns its name.
    pub(super) fn object(&mut self, resource: &Served<'_>) -> String {
        let node = resource.schema.map(|schema| schema.root().clone());
        let name = match node.as_ref().and_then(|node| node.definition.as_ref()) {
            Some(definition) => definition.name.clone(),
            None => custom_name(&self.group, &self.version, resource.kind),
        };
        let mut schema = match &node {
            Some(node) => self.inline(node, node.description.as_deref()),
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        set(&mut schema, "x-kubernetes-group-version-kind", json!([self.kind(resource.kind)]));
        self.schemas.insert(name.clone(), schema);
        let list = json!({
            "type": "object",
            "description": format!("{}List is a list of {}", resource.kind, resource.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "items": {"type": "array", "items": reference(&name)},
            },
            "x-kubernetes-group-version-kind": [self.kind(&format!("{}List", resource.kind))],
        });
        self.schemas.insert(format!("{name}List"), list);
        name
    }

    fn kind(&self, kind: &str) -> Value {
        json!({"group": self.group, "version": self.version, "kind": kind})
    }

    /// The schema of a node where it is used: a reference if its type has a name.
    fn node(&mut self, node: &Node) -> Value {
        let Some(definition) = &node.definition else { return self.inline(node, node.description.as_deref()) };
        if !node.recursive && !self.schemas.contains_key(&definition.name) {
            // Holds the place, so that a type that contains itself is made once.
            self.schemas.insert(definition.name.clone(), Value::Null);
            let schema = self.inline(node, definition.description.as_deref());
            self.schemas.insert(definition.name.clone(), strip_use(schema));
        }
        let mut schema = json!({"allOf": [reference(&definition.name)]});
        // The type has its own description; repeating it would show it twice.
        if let Some(description) = &node.description
            && definition.description.as_ref() != Some(description)
        {
            set(&mut schema, "description", json!(description.as_ref()));
        }
        annotate_use(node, &mut schema);
        schema
    }

    fn inline(&mut self, node: &Node, description: Option<&str>) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        if let Some(description) = description {
            put("description", json!(description));
        }
        if let Some(kind) = node.kind.name() {
            put("type", json!(kind));
        }
        if node.kind == Type::IntOrString {
            put("x-kubernetes-int-or-string", json!(true));
        }
        if !node.properties.is_empty() {
            let properties: Map<String, Value> =
                node.properties.iter().map(|(name, child)| (name.clone(), self.node(child))).collect();
            put("properties", Value::Object(properties));
        }
        if let Some(values) = &node.additional {
            put("additionalProperties", self.node(values));
        }
        if let Some(items) = &node.items {
            put("items", self.node(items));
        }
        if !node.required.is_empty() {
            put("required", json!(node.required.as_ref()));
        }
        let free = node.preserve_unknown && node.definition.is_none();
        for (name, on) in [
            ("nullable", node.nullable),
            ("x-kubernetes-preserve-unknown-fields", free),
            ("x-kubernetes-embedded-resource", node.embedded),
        ] {
            if on {
                put(name, json!(true));
            }
        }
        if let Some(validations) = &node.validations {
            put("x-kubernetes-validations", validations.clone());
        }
        let mut schema = Value::Object(fields);
        if let Some(rules) = &node.rules {
            self.rules(rules, &mut schema);
        }
        annotate_use(node, &mut schema);
        match node.definition.as_ref().map(|definition| definition.name.as_str()) {
            Some(QUANTITY) => set(&mut schema, "oneOf", json!([{"type": "string"}, {"type": "number"}])),
            Some(INT_OR_STRING) => {
                set(&mut schema, "format", json!("int-or-string"));
                set(&mut schema, "oneOf", json!([{"type": "integer"}, {"type": "string"}]));
            }
            _ => {}
        }
        schema
    }

    fn rules(&mut self, rules: &Rules, schema: &mut Value) {
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                set(schema, name, value);
            }
        };
        put("format", rules.format.as_deref().filter(|format| *format != "quantity").map(Value::from));
        put("enum", rules.values.clone().map(Value::Array));
        put("pattern", rules.pattern.as_ref().map(|pattern| Value::from(pattern.as_str())));
        for (name, exclusive, bound) in
            [("minimum", "exclusiveMinimum", rules.minimum), ("maximum", "exclusiveMaximum", rules.maximum)]
        {
            put(name, bound.map(|bound: Bound| number(bound.value)));
            put(exclusive, bound.filter(|bound| bound.exclusive).map(|_| Value::Bool(true)));
        }
        put("multipleOf", rules.multiple_of.map(number));
        for (name, count) in [
            ("minLength", rules.length_min),
            ("maxLength", rules.length_max),
            ("minItems", rules.items_min),
            ("maxItems", rules.items_max),
            ("minProperties", rules.properties_min),
            ("maxProperties", rules.properties_max),
        ] {
            put(name, count.map(Value::from));
        }
        for (name, nodes) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
            if !nodes.is_empty() {
                let nodes: Vec<Value> = nodes.iter().map(|node| self.node(node)).collect();
                set(schema, name, Value::Array(nodes));
            }
        }
        if let Some(not) = &rules.not {
            let not = self.node(not);
            set(schema, "not", not);
        }
    }
}

/// Adds what belongs to the use of a type rather than to the type.
fn annotate_use(node: &Node, schema: &mut Value) {
    if let Some(default) = &node.default {
        set(schema, "default", default.clone());
    }
    match &node.list {
        ListType::Atomic if node.kind == Type::Array => set(schema, "x-kubernetes-list-type", json!("atomic")),
        ListType::Atomic => {}
        ListType::Set => set(schema, "x-kubernetes-list-type", json!("set")),
        ListType::Map(keys) => {
            set(schema, "x-kubernetes-list-type", json!("map"));
            set(schema, "x-kubernetes-list-map-keys", json!(keys.as_ref()));
        }
    }
    if node.atomic_map {
        set(schema, "x-kubernetes-map-type", json!("atomic"));
    }
    if let Some(merge) = &node.merge {
        let strategy: Vec<&str> = [("merge", merge.lists), ("retainKeys", merge.retain_keys)]
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| name)
            .collect();
        set(schema, "x-kubernetes-patch-strategy", json!(strategy.join(",")));
        if let Some(key) = &merge.key {
            set(schema, "x-kubernetes-patch-merge-key", json!(key.as_ref()));
        }
    }
}

/// Takes away what belongs to one use of a named type.
fn strip_use(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        for name in ["default", "x-kubernetes-patch-strategy", "x-kubernetes-patch-merge-key"] {
            fields.remove(name);
        }
    }
    schema
}

/// The name of a custom kind's schema: the group's domain backwards.
fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn set(schema: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = schema {
        fields.insert(name.to_owned(), value);
    }
}

/// A whole number where it is one: clients print what they read.
fn number(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT_MAX {
        // Within the range where every whole number is exact.
        return format!("{value:.0}").parse::<i64>().map_or_else(|_| json!(value), Value::from);
    }
    json!(value)
}
