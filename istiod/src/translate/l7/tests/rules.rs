//! Which DestinationRules count for a client.

use super::*;
use crate::translate::l7::fixture::listener;

const EDGES: &str = "
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
kind: ServiceEntry
metadata: {name: api, namespace: egress}
spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443, name: http, protocol: HTTP}]}
---
kind: HTTPRoute
metadata: {name: r, namespace: istio-system}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 443}]}]
---
";

fn rule(name: &str, namespace: &str, host: &str, more: &str) -> String {
    format!(
        "kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: '{host}', {more}}}\n---\n"
    )
}

/// How the backend of the route at the edge, a gateway of the root namespace, is called.
fn called(rules: &str) -> l7::TrafficPolicy {
    let listener = listener(&world(&format!("{EDGES}{rules}")), "istio-system/edge/listener/http").unwrap();
    listener.backends[0].policy.clone().unwrap()
}

#[test]
fn a_rule_of_the_service_comes_before_those_of_the_root_namespace_for_gateways_there_too() {
    let wide = rule("wide", "istio-system", "*.com", "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}}");
    let own = rule("own", "egress", "api.example.com", "trafficPolicy: {tls: {mode: SIMPLE}}");
    let policy = called(&format!("{wide}{own}"));
    assert_eq!((policy.tls.map(|tls| tls.mode()), policy.outlier_detection), (Some(Mode::Simple), None));
    assert_eq!(called(&wide).outlier_detection.unwrap().consecutive_5xx, 7, "it is the last that is asked");
    for kept in ["exportTo: [.]", "exportTo: [istio-system]"] {
        let private = rule(
            "private",
            "istio-system",
            "*.com",
            &format!("{kept}, trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: 3}}}}"),
        );
        let policy = called(&format!("{private}{wide}{own}"));
        assert_eq!((policy.tls, policy.outlier_detection.unwrap().consecutive_5xx), (None, 3), "{kept}");
    }
}

#[test]
fn a_rule_for_some_clients_stands_alone_before_those_for_all() {
    let all = rule(
        "all",
        "ns",
        "web",
        "subsets: [{name: v1, labels: {v: '1'}}], trafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}}",
    );
    let some = |value: &str| {
        let more = "trafficPolicy: {connectionPool: {http: {maxRetries: 9}}}";
        let selector =
            format!("workloadSelector: {{matchLabels: {{gateway.networking.k8s.io/gateway-name: {value}}}}}");
        rule("some", "ns", "web", &format!("{selector}, {more}"))
    };
    let own = web(&format!("{all}{}", some("wp")));
    assert_eq!(policy(&own).outlier_detection, None, "nothing of the other rule is merged into it");
    assert_eq!(policy(&own).connection_pool.as_ref().unwrap().max_retries, 9);
    let other = web(&format!("{all}{}", some("another")));
    assert_eq!(policy(&other).outlier_detection.as_ref().unwrap().consecutive_5xx, 7);
}
