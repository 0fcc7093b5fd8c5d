//! Custom resource definitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Discovery,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

use crate::server::{Server, within};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                 "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 10},
                        "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                 }}}},
                {"name": "v1alpha1", "served": true, "storage": false, "deprecated": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn widget(name: &str, size: i64) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
}

#[tokio::test]
async fn a_definition_is_established_and_discovered_at_once() {
    let server = Server::start();
    let client = server.client();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut sent = definition();
    sent["apiVersion"] = json!("apiextensions.k8s.io/v1");
    sent["kind"] = json!("CustomResourceDefinition");
    api.create(&PostParams::default(), &serde_json::from_value(sent).unwrap()).await.unwrap();
    within(await_condition(api, "widgets.example.com", conditions::is_crd_established())).await.unwrap();
    for discovery in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let group = discovery.get("example.com").unwrap();
        assert_eq!(group.versions().collect::<Vec<_>>(), ["v1", "v1alpha1"]);
        let (resource, _) = discovery.resolve_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget")).unwrap();
        let widgets: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
        assert!(widgets.list(&Default::default()).await.unwrap().items.is_empty());
    }
    let document = server.get("/openapi/v3/apis/example.com/v1").await;
    assert!(document["paths"].as_object().unwrap().keys().any(|path| path.ends_with("/widgets")), "{document}");
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_validated() {
    let server = Server::start();
    server.create(DEFINITIONS, definition()).await;
    let mut object = widget("a", 3);
    object["spec"]["unknown"] = json!(1);
    object["status"] = json!({"ready": true});
    let created = server.create(WIDGETS, object).await;
    assert_eq!(created["spec"], json!({"size": 3, "color": "red"}));
    assert_eq!((created.get("status"), &created["metadata"]["generation"]), (None, &json!(1)));
    for (spec, path) in [
        (json!({"size": 0}), "spec.size"),
        (json!({"size": "big"}), "spec.size"),
        (json!({"size": 1, "color": "blue"}), "spec.color"),
        (json!({}), "spec.size"),
    ] {
        let mut object = widget("b", 1);
        object["spec"] = spec;
        let (code, answer) = server.call("POST", WIDGETS, object).await;
        assert_eq!(code, 422, "{answer}");
        assert_eq!(answer["details"]["causes"][0]["field"], path, "{answer}");
    }
    let (_, after) = server
        .call("PATCH", &format!("{WIDGETS}/a/status"), json!({"status": {"ready": true}, "spec": {"size": 9}}))
        .await;
    assert_eq!((&after["status"]["ready"], &after["spec"]["size"]), (&json!(true), &json!(3)));
    let (code, _) = server.call("PUT", &format!("{WIDGETS}/a"), widget("a", 4)).await;
    assert_eq!(code, 422, "custom resources are replaced at a revision only");
}

#[tokio::test]
async fn every_served_version_shows_the_same_object() {
    let server = Server::start();
    server.create(DEFINITIONS, definition()).await;
    server.create(WIDGETS, widget("a", 3)).await;
    let path = "/apis/example.com/v1alpha1/namespaces/default/widgets";
    let old = server.get(&format!("{path}/a")).await;
    assert_eq!((old["apiVersion"].as_str(), &old["spec"]["size"]), (Some("example.com/v1alpha1"), &json!(3)));
    let mut object = widget("b", 4);
    object["apiVersion"] = json!("example.com/v1alpha1");
    server.create(path, object).await;
    assert_eq!(server.get(&format!("{WIDGETS}/b")).await["apiVersion"], "example.com/v1");
    assert_eq!(server.get(path).await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn broken_definitions_name_what_is_wrong() {
    let server = Server::start();
    let cases: [(&str, Value, &str); 5] = [
        ("/metadata/name", json!("gadgets.example.com"), "metadata.name"),
        ("/spec/versions/0/storage", json!(false), "spec.versions"),
        ("/spec/versions/0/schema/openAPIV3Schema/type", json!("nonsense"), "openAPIV3Schema"),
        ("/spec/names/kind", json!(""), "spec.names.kind"),
        ("/spec/scope", json!("Galaxy"), "spec.scope"),
    ];
    for (pointer, value, path) in cases {
        let mut broken = definition();
        *broken.pointer_mut(pointer).unwrap() = value;
        let (code, answer) = server.call("POST", DEFINITIONS, broken).await;
        assert_eq!(code, 422, "{pointer}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(path), "{pointer}: {answer}");
    }
    assert_eq!(server.call("GET", WIDGETS, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_definition_goes_with_its_objects() {
    let server = Server::start();
    server.create(DEFINITIONS, definition()).await;
    let mut held = widget("held", 1);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.create(WIDGETS, held).await;
    server.create(WIDGETS, widget("free", 1)).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    server.call("DELETE", &path, Value::Null).await;
    server.gone(&format!("{WIDGETS}/free")).await;
    assert_eq!(server.call("GET", &path, Value::Null).await.0, 200, "one object is held");
    server.call("PATCH", &format!("{WIDGETS}/held"), json!({"metadata": {"finalizers": null}})).await;
    server.gone(&path).await;
    assert_eq!(server.call("GET", WIDGETS, Value::Null).await.0, 404);
    let again: ApiResource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    server.create(DEFINITIONS, definition()).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(server.client(), &again);
    assert!(api.list(&Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn rules_of_a_definition_are_enforced_and_transitions_compared() {
    let server = Server::start();
    let spec = json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' is above max'", "fieldPath": ".min"},
            {"rule": "self.min >= oldSelf.min", "message": "min cannot shrink"},
        ],
        "properties": {"min": {"type": "integer", "default": 1}, "max": {"type": "integer", "default": 5}},
    });
    let definition = |spec: Value| {
        json!({
            "metadata": {"name": "ranges.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "ranges", "kind": "Range"},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}],
            },
        })
    };
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut bad = spec.clone();
    bad["x-kubernetes-validations"][0]["rule"] = json!("self.low <= self.max");
    let (code, answer) = server.call("POST", crds, definition(bad)).await;
    assert_eq!(code, 422);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"),
        "{message}"
    );
    assert!(message.contains("undefined field 'low'"), "{message}");
    server.create(crds, definition(spec)).await;
    let ranges = "/apis/example.com/v1/namespaces/default/ranges";
    let (code, answer) = server.call("POST", ranges, json!({"metadata": {"name": "r"}, "spec": {"min": 9}})).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["message"],
        "Range.example.com \"r\" is invalid: spec.min: Invalid value: \"object\": min 9 is above max"
    );
    server.create(ranges, json!({"metadata": {"name": "r"}, "spec": {"min": 3}})).await;
    let one = format!("{ranges}/r");
    assert_eq!(server.call("PATCH", &one, json!({"spec": {"min": 4}})).await.0, 200);
    let (code, answer) = server.call("PATCH", &one, json!({"spec": {"min": 2}})).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().ends_with("min cannot shrink"), "{answer}");
}

#[tokio::test]
async fn the_shipped_definitions_are_accepted_with_all_their_rules() {
    let server = Server::start();
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/charts/base/crds");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let (code, answer) =
            server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
        assert_eq!(code, 201, "{}: {answer}", path.display());
        count += 1;
    }
    assert!(count > 0);
}
