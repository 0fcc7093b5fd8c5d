//! The types behind built-in kinds, read from generated schemas when first needed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

use super::{
    builtin::Kind,
    list_types,
    node::{Definition, Node, Type},
    parse,
    rules::Rules,
};

/// Shared by all built-in schemas: each named type is read once.
pub(super) struct Definitions {
    state: Mutex<State>,
}

struct State {
    generator: SchemaGenerator,
    nodes: HashMap<String, Arc<Node>>,
    /// The types being read, outermost first: a type that contains itself ends here.
    open: Vec<String>,
}

/// Types of free JSON, and the recursive ones of schemas, which have their own reader.
const FREE_TYPES: [&str; 6] = [
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
];

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

impl Definitions {
    pub(super) fn new() -> Self {
        let generator = SchemaSettings::draft07().into_generator();
        Self { state: Mutex::new(State { generator, nodes: HashMap::new(), open: Vec::new() }) }
    }

    /// The tree of a whole object.
    pub(super) fn root(&self, kind: &Kind) -> Arc<Node> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let schema = (kind.generate)(&mut state.generator);
        let name = schema.as_value().get("$ref").and_then(Value::as_str).map(definition_name);
        let mut node = match name {
            Some(name) => state.definition(name).as_ref().clone(),
            None => state.read(schema.as_value()),
        };
        // The generated types want metadata; Kubernetes takes objects without and finds them
        // nameless instead.
        node.required = node.required.iter().filter(|field| *field != "metadata").cloned().collect();
        if let Some(definition) = &node.definition {
            node.definition = Some(Arc::new(Definition {
                name: definition.name.clone(),
                description: definition.description.clone(),
                kind: Some((kind.group.to_owned(), kind.version.to_owned(), kind.name.to_owned())),
            }));
        }
        Arc::new(node)
    }

    /// The metadata of any object.
    pub(super) fn metadata(&self) -> Arc<Node> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let schema = state.generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>();
        let name = schema.as_value().get("$ref").and_then(Value::as_str).map(definition_name).unwrap_or_default();
        state.definition(name)
    }
}

impl State {
    fn definition(&mut self, name: &str) -> Arc<Node> {
        if let Some(node) = self.nodes.get(name) {
            return node.clone();
        }
        if self.open.iter().any(|open| open == name) {
            let definition = Definition { name: name.to_owned(), description: None, kind: None };
            return Arc::new(Node {
                definition: Some(Arc::new(definition)),
                recursive: true,
                preserve_unknown: true,
                ..Node::default()
            });
        }
        self.open.push(name.to_owned());
        let schema = self.generator.definitions().get(name).cloned().unwrap_or_default();
        let mut node = self.read(&schema);
        self.open.pop();
        complete(name, &mut node);
        let node = Arc::new(node);
        self.nodes.insert(name.to_owned(), node.clone());
        node
    }

    fn read(&mut self, schema: &Value) -> Node {
        let mut resolve = |name: &str| Some(self.definition(definition_name(name)));
        parse::node(schema, &super::Path::Root, &mut resolve)
            .expect("generated schemas are well-formed, every kind is tested")
    }
}

fn definition_name(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// Adds what the generated schema of a type does not say.
fn complete(name: &str, node: &mut Node) {
    node.definition =
        Some(Arc::new(Definition { name: name.to_owned(), description: node.description.clone(), kind: None }));
    if FREE_TYPES.contains(&name) {
        node.kind = Type::Any;
        node.rules = None;
    }
    if name == QUANTITY {
        node.kind = Type::Any;
        node.rules = Some(Box::new(Rules { format: Some("quantity".into()), ..Rules::default() }));
    }
    node.preserve_unknown |= node.kind == Type::Any;
    list_types::annotate_type(name, node);
    let properties: BTreeMap<String, Arc<Node>> = node
        .properties
        .iter()
        .map(|(field, child)| {
            let mut child = child.clone();
            list_types::annotate_field(name, field, Arc::make_mut(&mut child));
            (field.clone(), child)
        })
        .collect();
    node.properties = Arc::new(properties);
}
