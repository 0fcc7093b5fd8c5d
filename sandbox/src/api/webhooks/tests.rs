//! Answers of webhooks, good and bad, and configurations.

use serde_json::{Value, json};

use super::{
    check_configuration,
    hook::Side,
    review::{self, Verdict},
};

fn read(side: Side, response: Value) -> Result<Result<Verdict, String>, String> {
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    let answer = review::read("x.example.com", side, "u1", review.to_string().as_bytes())?;
    Ok(answer.map_err(|error| format!("{} {}", error.code.as_u16(), error.message)))
}

#[test]
fn answers() {
    let patch = "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL2EifV0=";
    let allowed = read(Side::Validating, json!({"uid": "u1", "allowed": true, "warnings": ["careful\nhere"]}));
    assert_eq!(allowed.unwrap().unwrap().warnings, ["careful here"]);
    let patched = read(Side::Mutating, json!({"uid": "u1", "allowed": true, "patchType": "JSONPatch", "patch": patch}));
    assert_eq!(patched.unwrap().unwrap().patch, Some(json!([{"op": "remove", "path": "/a"}])));
    let denied =
        read(Side::Validating, json!({"uid": "u1", "allowed": false, "status": {"message": "no", "code": 403}}));
    assert_eq!(denied.unwrap().unwrap_err(), "403 admission webhook \"x.example.com\" denied the request: no");
    let silent = read(Side::Validating, json!({"uid": "u1", "allowed": false}));
    assert_eq!(
        silent.unwrap().unwrap_err(),
        "400 admission webhook \"x.example.com\" denied the request without explanation"
    );
    for senseless in [
        json!({"uid": "other", "allowed": true}),
        json!({"uid": "u1"}),
        json!({"uid": "u1", "allowed": true, "patchType": "JSONPatch", "patch": patch}),
        Value::Null,
    ] {
        assert!(read(Side::Validating, senseless.clone()).is_err(), "{senseless}");
    }
    assert!(read(Side::Mutating, json!({"uid": "u1", "allowed": true, "patch": patch})).is_err(), "no patch type");
}

#[test]
fn configurations_that_cannot_be_honoured_are_refused() {
    let good = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://localhost:1/x"},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    });
    assert_eq!(check_configuration(&json!({"webhooks": [good]})), []);
    let changes = [
        (json!({"name": "short"}), "webhooks[0].name"),
        (json!({"sideEffects": "Some"}), "webhooks[0].sideEffects"),
        (json!({"admissionReviewVersions": ["v1beta1"]}), "webhooks[0].admissionReviewVersions"),
        (json!({"timeoutSeconds": 31}), "webhooks[0].timeoutSeconds"),
        (json!({"reinvocationPolicy": "IfNeeded"}), "webhooks[0].reinvocationPolicy"),
        (json!({"matchConditions": [{"name": "a", "expression": "true"}]}), "webhooks[0].matchConditions"),
        (json!({"clientConfig": {"url": "http://a/"}}), "webhooks[0].clientConfig.url"),
        (json!({"clientConfig": {}}), "webhooks[0].clientConfig"),
        (json!({"clientConfig": {"url": "https://a/", "caBundle": "eA=="}}), "webhooks[0].clientConfig.caBundle"),
        (json!({"rules": [{"operations": ["*"]}]}), "webhooks[0].rules[0].apiGroups"),
    ];
    for (change, path) in changes {
        let entry = crate::patch::merge(&good, &change).unwrap();
        let entry = if change.get("clientConfig").is_some() {
            let mut entry = entry;
            entry["clientConfig"] = change["clientConfig"].clone();
            entry
        } else {
            entry
        };
        let errors = check_configuration(&json!({"webhooks": [entry]}));
        assert!(errors.iter().any(|error| error.path == path), "{path}: {errors:?}");
    }
    let twice = check_configuration(&json!({"webhooks": [good, good]}));
    assert!(twice.iter().any(|error| error.reason.starts_with("Duplicate value")), "{twice:?}");
}
