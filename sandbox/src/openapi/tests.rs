use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::schema::{Registry, from_crd_version};

fn apps() -> Value {
    let schema = Registry::builtin().schema("apps", "v1", "Deployment").unwrap();
    let served = Served {
        kind: "Deployment",
        plural: "deployments",
        namespaced: true,
        schema: Some(&schema),
        status: true,
        scale: true,
    };
    document("apps", "v1", &[served])
}

#[test]
fn the_index_names_documents_by_content() {
    let index = index([("", "v1", "AB".to_owned()), ("apps", "v1", "CD".to_owned())]);
    assert_eq!(
        index,
        json!({"paths": {
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=AB"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=CD"},
        }})
    );
}

#[test]
fn patches_announce_field_validation() {
    let document = apps();
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    let patch = &document["paths"][path]["patch"];
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pretty", "dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    for (path, method) in [
        ("/apis/apps/v1/deployments", "get"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments", "post"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status", "put"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "get"),
    ] {
        assert!(document["paths"][path].get(method).is_some(), "{method} {path}");
    }
}

#[test]
fn schemas_carry_merge_keys_and_kinds() {
    let document = apps();
    let schemas = &document["components"]["schemas"];
    let kind = &schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(*kind, json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    assert!(strategy["description"].is_string());
}

#[test]
fn every_reference_is_defined() {
    let registry = Registry::builtin();
    for (group, version, kind) in registry.kinds() {
        let schema = registry.schema(group, version, kind).unwrap();
        let plural = kind.to_lowercase();
        let served =
            Served { kind, plural: &plural, namespaced: true, schema: Some(&schema), status: false, scale: false };
        let document = document(group, version, &[served]);
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        for reference in references {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{kind}: {name}");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(reference) => {
                        references.insert(reference.to_owned());
                    }
                    None => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[test]
fn custom_kinds_are_published_as_defined() {
    let spec = json!({"type": "object", "description": "what is wanted", "required": ["mode"], "properties": {
        "mode": {"type": "string", "enum": ["A", "B"], "default": "A", "maxLength": 5},
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "weight": {"type": "integer", "minimum": 1, "maximum": 10, "exclusiveMaximum": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }, "x-kubernetes-validations": [{"rule": "true"}]});
    let version = json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec.clone()}}}});
    let schema = from_crd_version(&version).unwrap();
    let served = Served {
        kind: "Thing",
        plural: "things",
        namespaced: false,
        schema: Some(&schema),
        status: false,
        scale: false,
    };
    let document = document("sub.example.com", "v1", &[served]);
    let thing = &document["components"]["schemas"]["com.example.sub.v1.Thing"];
    assert_eq!(thing["properties"]["spec"], spec);
    assert_eq!(
        thing["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(thing["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
    let patch = &document["paths"]["/apis/sub.example.com/v1/things/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

#[test]
fn fingerprints_need_no_document() {
    let registry = Registry::builtin();
    let schema = registry.schema("", "v1", "Pod").unwrap();
    let served =
        Served { kind: "Pod", plural: "pods", namespaced: true, schema: Some(&schema), status: true, scale: false };
    assert_eq!(fingerprint("", "v1", &[served]), fingerprint("", "v1", &[served]));
    assert_ne!(fingerprint("", "v1", &[served]), fingerprint("", "v1", &[Served { status: false, ..served }]));
}
