//! What holds for every kind: every field of its definition is known, and nothing breaks the judge.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// An object with every property of a schema, as deep as it goes.
fn full(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => {
            let properties = schema["properties"].as_object().unwrap();
            Value::Object(properties.iter().map(|(key, inner)| (key.clone(), full(inner))).collect())
        }
        Some("object") => Value::Object(Map::from_iter([("8080".to_owned(), full(&schema["additionalProperties"]))])),
        Some("array") => json!([full(&schema["items"])]),
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(1),
        _ => json!("a"),
    }
}

#[test]
fn every_field_of_every_definition_is_judged() {
    let mut kinds = 0;
    for crd in crate::crds::all() {
        let Some((group, kind)) =
            KINDS.iter().find(|(group, kind)| *group == crd.spec.group && *kind == crd.spec.names.kind)
        else {
            continue;
        };
        kinds += 1;
        for version in &crd.spec.versions {
            let schema =
                serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap();
            let spec = full(&schema["properties"]["spec"]);
            let object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"namespace": "shop"}, "spec": spec});
            let verdict = judge_value(&object, &Context::default());
            let unknown: Vec<_> = verdict.warnings.iter().filter(|one| one.contains("this field is unknown")).collect();
            assert_eq!(unknown, Vec::<&String>::new(), "{kind} {}", version.name);
        }
    }
    assert_eq!(kinds, KINDS.len(), "every kind that is judged has a definition");
}

#[test]
fn the_object_that_proves_the_webhook_passes_the_definition() {
    let crd = crate::crds::all()
        .into_iter()
        .find(|crd| crd.spec.group == "networking.istio.io" && crd.spec.names.kind == "Gateway");
    let crd = serde_json::to_value(crd.expect("a definition of Gateway")).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert_eq!(schema["required"], Value::Null, "an empty spec must be left to the webhook");
    rejected("Gateway", &[("{}", &["spec.servers: missing: expected at least 1"])]);
}

/// A full spec of every kind.
static SPECS: LazyLock<Vec<(String, String, Value)>> = LazyLock::new(|| {
    let spec = |crd: CustomResourceDefinition| {
        let schema = crd.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
        let schema = serde_json::to_value(schema).ok()?;
        Some((crd.spec.group, crd.spec.names.kind, full(&schema["properties"]["spec"])))
    };
    crate::crds::all().into_iter().filter_map(spec).collect()
});

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop_oneof![
        "[a-zA-Z]{1,12}",
        proptest::sample::select(vec![
            "*",
            "",
            "10.0.0.0/8",
            "unix:///x",
            "https://[::1",
            "{**}",
            "%",
            "é",
            "1.5h",
            "DNS",
            "STATIC"
        ])
        .prop_map(str::to_owned),
        ".{0,20}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let keys = proptest::sample::select(KEYS.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(keys, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_json_breaks_the_judge(spec in any_json()) {
        for (group, kind) in KINDS {
            let none = BTreeMap::new();
            let candidate = Candidate { group, kind, namespace: "shop", labels: &none, annotations: &none, spec: &spec };
            let verdict = validate(&candidate, &Context::default()).expect("a kind of the mesh");
            prop_assert!(verdict.errors.len() <= MESSAGES_MAX + 1 && verdict.warnings.len() <= MESSAGES_MAX + 1);
            if !spec.is_object() && !spec.is_null() {
                prop_assert!(!verdict.errors.is_empty());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// A well-formed object with one value replaced by anything.
    #[test]
    fn no_value_in_any_place_breaks_the_judge(at in any::<proptest::sample::Index>(), kind in any::<proptest::sample::Index>(), value in any_json()) {
        let (group, kind, spec) = kind.get(&SPECS);
        let mut spec = spec.clone();
        let mut places = Vec::new();
        pointers(&spec, String::new(), &mut places);
        let place = at.get(&places).clone();
        *spec.pointer_mut(&place).unwrap() = value;
        let none = BTreeMap::new();
        let candidate = Candidate { group, kind, namespace: "shop", labels: &none, annotations: &none, spec: &spec };
        validate(&candidate, &Context::default());
    }
}

fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| pointers(inner, format!("{at}/{key}"), all)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| pointers(inner, format!("{at}/{index}"), all))
        }
        _ => {}
    }
    all.push(at);
}

const KEYS: [&str; 48] = [
    "selector",
    "matchLabels",
    "targetRefs",
    "targetRef",
    "rules",
    "from",
    "source",
    "to",
    "operation",
    "when",
    "key",
    "values",
    "ports",
    "paths",
    "hosts",
    "addresses",
    "endpoints",
    "resolution",
    "workloadSelector",
    "labels",
    "address",
    "network",
    "host",
    "trafficPolicy",
    "loadBalancer",
    "consistentHash",
    "localityLbSetting",
    "distribute",
    "failover",
    "http",
    "tls",
    "tcp",
    "match",
    "route",
    "destination",
    "weight",
    "uri",
    "regex",
    "prefix",
    "servers",
    "port",
    "number",
    "name",
    "protocol",
    "tracing",
    "metrics",
    "url",
    "exportTo",
];
