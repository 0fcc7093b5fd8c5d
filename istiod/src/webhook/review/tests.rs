//! What is judged, what is let through, and what the answer says.

use mesh_telemetry::metrics::Registry;
use serde_json::json;

use super::*;

fn review(kind: &str, operation: &str, object: &Value) -> Value {
    let group = KINDS.iter().find(|(_, one)| *one == kind).map_or("other.io", |(group, _)| group);
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "u1", "operation": operation, "userInfo": {"username": "me"}, "namespace": "shop", "name": "x",
            "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": "things"},
            "object": object, "oldObject": null, "dryRun": true,
        },
    })
}

fn ask(review: &Value, metrics: &WebhookMetrics) -> Value {
    let answer = answer(review.to_string().as_bytes(), &Context::default(), metrics).unwrap();
    serde_json::from_slice::<Value>(&answer).unwrap()["response"].clone()
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "any/v1", "kind": "Any", "metadata": {"name": "x", "namespace": "shop"}, "spec": spec})
}

#[test]
fn a_rejection_names_field_value_and_expectation() {
    let metrics = WebhookMetrics::new(&Registry::new());
    let spec = json!({"action": "PERMIT", "rules": [{"from": [{"source": {"ipBlocks": ["x"]}}]}]});
    let response = ask(&review("AuthorizationPolicy", "CREATE", &object(&spec)), &metrics);
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 400);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("configuration is invalid: "), "{message}");
    for part in
        ["spec.action: \"PERMIT\": expected one of", "spec.rules[0].from[0].source.ipBlocks[0]: \"x\": expected an IP"]
    {
        assert!(message.contains(part), "{part} is missing from {message}");
    }
}

#[test]
fn warnings_come_with_the_answer_and_are_bounded() {
    let metrics = WebhookMetrics::new(&Registry::new());
    let response =
        ask(&review("PeerAuthentication", "UPDATE", &object(&json!({"mtls": {"mode": "DISABLE"}}))), &metrics);
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("mode DISABLE"));
    let unknown: serde_json::Map<_, _> = (0..60).map(|i| (format!("{}{i}", "x".repeat(300)), json!(1))).collect();
    let response = ask(&review("PeerAuthentication", "UPDATE", &object(&Value::Object(unknown))), &metrics);
    let warnings: Vec<_> =
        response["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().chars().count()).collect();
    assert!(warnings.iter().all(|length| *length <= 256) && warnings.iter().sum::<usize>() <= 4096, "{warnings:?}");
}

#[test]
fn what_is_not_about_to_be_stored_is_let_through() {
    let metrics = WebhookMetrics::new(&Registry::new());
    let bad = object(&json!({"mtls": 3}));
    assert_eq!(ask(&review("PeerAuthentication", "CREATE", &bad), &metrics)["allowed"], false);
    let mut going = bad.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    let mut status = review("PeerAuthentication", "UPDATE", &bad);
    status["request"]["subResource"] = json!("status");
    for (name, review) in [
        ("deletion", review("PeerAuthentication", "DELETE", &Value::Null)),
        ("connect", review("PeerAuthentication", "CONNECT", &bad)),
        ("unknown kind", review("Surprise", "CREATE", &bad)),
        ("being deleted", review("PeerAuthentication", "UPDATE", &going)),
        ("status", status),
    ] {
        assert_eq!(ask(&review, &metrics)["allowed"], true, "{name}");
    }
}

#[test]
fn judgements_are_counted_under_known_words_only() {
    let registry = Registry::new();
    let metrics = WebhookMetrics::new(&registry);
    let mut odd = review("PeerAuthentication", "CREATE", &object(&json!({})));
    odd["request"]["kind"]["version"] = json!("v9\"} evil");
    ask(&odd, &metrics);
    ask(&review("PeerAuthentication", "CREATE", &object(&json!({"mtls": 3}))), &metrics);
    let text = registry.encode();
    for line in [
        "galley_validation_passed{group=\"security.istio.io\",version=\"other\",resource=\"peerauthentications\"} 1",
        "galley_validation_failed{group=\"security.istio.io\",version=\"v1\",resource=\"peerauthentications\",reason=\"invalid_resource\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing from {text}");
    }
}

#[test]
fn labels_and_annotations_reach_the_judge() {
    let metrics = WebhookMetrics::new(&Registry::new());
    let mut policy = object(&json!({"rules": [{}]}));
    policy["metadata"]["annotations"] = json!({"istio.io/dry-run": "maybe"});
    let response = ask(&review("AuthorizationPolicy", "CREATE", &policy), &metrics);
    assert!(response["status"]["message"].as_str().unwrap().contains("istio.io/dry-run"));
}
