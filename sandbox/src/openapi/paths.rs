//! The `paths` of a document.

use serde_json::{Map, Value, json};

use super::{Served, path, schemas::reference};

/// Query parameters of writes. `kubectl` looks for `fieldValidation` before it relies on the
/// server to check fields.
const WRITE_PARAMETERS: [(&str, &str, &str); 4] = [
    ("pretty", "string", "If 'true', then the output is pretty printed."),
    ("dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: All"),
    (
        "fieldManager",
        "string",
        "fieldManager is a name associated with the actor or entity that is making these changes.",
    ),
    (
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict",
    ),
];

const FORCE: (&str, &str, &str) = ("force", "boolean", "Force is going to \"force\" Apply requests.");

const LIST_PARAMETERS: [(&str, &str, &str); 9] = [
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields."),
    ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels."),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    ("watch", "boolean", "Watch for changes to the described resources."),
];

/// One operation of a path.
struct Operation {
    /// The HTTP method, lower case.
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    parameters: Vec<Value>,
    /// Media types of the request body.
    accepts: &'static [&'static str],
}

const BODIES: &[&str] = &["application/json", "application/yaml"];
const BUILTIN_PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const CUSTOM_PATCHES: &[&str] =
    &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];

/// Adds the paths of a resource whose objects have the named schema.
pub(super) fn add(paths: &mut Map<String, Value>, group: &str, version: &str, resource: &Served<'_>, schema: &str) {
    let root = format!("/{}", path(group, version));
    let base = if resource.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
    let plural = resource.plural;
    let custom = resource.schema.is_none_or(|schema| schema.is_custom());
    let kind = json!({"group": group, "version": version, "kind": resource.kind});
    let make = |operations: Vec<Operation>, named: bool, object: &str| {
        let mut item = Map::new();
        let mut common = Vec::new();
        if resource.namespaced {
            common.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
        }
        if named {
            common.push(in_path("name", &format!("name of the {}", resource.kind)));
        }
        if !common.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(common));
        }
        for operation in operations {
            let (method, value) = operation.to_value(&kind, object);
            item.insert(method.to_owned(), value);
        }
        Value::Object(item)
    };
    let list = format!("{schema}List");
    let collection = make(vec![list_operation(), create_operation(), delete_collection()], false, schema);
    paths.insert(format!("{base}/{plural}"), collection);
    let patches = if custom { CUSTOM_PATCHES } else { BUILTIN_PATCHES };
    let item = make(vec![get(), put(), patch(patches), delete()], true, schema);
    paths.insert(format!("{base}/{plural}/{{name}}"), item);
    for (name, on) in [("status", resource.status), ("scale", resource.scale)] {
        if on {
            let item = make(vec![get(), put(), patch(patches)], true, schema);
            paths.insert(format!("{base}/{plural}/{{name}}/{name}"), item);
        }
    }
    if resource.namespaced {
        let (method, value) = list_operation().to_value(&kind, &list);
        paths.insert(format!("{root}/{plural}"), json!({method: value}));
    }
}

fn list_operation() -> Operation {
    Operation { method: "get", action: "list", parameters: parameters(&LIST_PARAMETERS), accepts: &[] }
}

fn create_operation() -> Operation {
    Operation { method: "post", action: "post", parameters: parameters(&WRITE_PARAMETERS), accepts: BODIES }
}

fn delete_collection() -> Operation {
    Operation {
        method: "delete",
        action: "deletecollection",
        parameters: parameters(&LIST_PARAMETERS),
        accepts: BODIES,
    }
}

fn get() -> Operation {
    Operation { method: "get", action: "get", parameters: Vec::new(), accepts: &[] }
}

fn put() -> Operation {
    Operation { method: "put", action: "put", parameters: parameters(&WRITE_PARAMETERS), accepts: BODIES }
}

fn patch(accepts: &'static [&'static str]) -> Operation {
    let mut all = parameters(&WRITE_PARAMETERS);
    all.extend(parameters(&[FORCE]));
    Operation { method: "patch", action: "patch", parameters: all, accepts }
}

fn delete() -> Operation {
    const DELETE: [(&str, &str, &str); 3] = [
        ("dryRun", "string", "When present, indicates that modifications should not be persisted."),
        ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
        ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
    ];
    Operation { method: "delete", action: "delete", parameters: parameters(&DELETE), accepts: BODIES }
}

impl Operation {
    fn to_value(&self, kind: &Value, schema: &str) -> (&'static str, Value) {
        let content = |media_types: &[&str], schema: &Value| -> Map<String, Value> {
            media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema}))).collect()
        };
        let mut value = json!({
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": kind,
            "responses": {"200": {"description": "OK", "content": content(BODIES, &reference(schema))}},
        });
        if let Value::Object(fields) = &mut value {
            if !self.parameters.is_empty() {
                fields.insert("parameters".to_owned(), Value::Array(self.parameters.clone()));
            }
            if !self.accepts.is_empty() {
                let body = match self.action {
                    "post" | "put" => reference(schema),
                    _ => json!({"type": "object"}),
                };
                fields.insert("requestBody".to_owned(), json!({"content": content(self.accepts, &body)}));
            }
        }
        (self.method, value)
    }
}

fn parameters(table: &[(&str, &str, &str)]) -> Vec<Value> {
    let parameter = |(name, kind, description): &(&str, &str, &str)| json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}});
    table.iter().map(parameter).collect()
}

fn in_path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true}})
}
