//! Policies and rules for the pods of gateways, chosen by their labels.

use super::*;
use crate::translate::fixture;
use crate::world::ProxySettings;

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: ns, labels: {team: a}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}], infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: params}}}
---
";
const PARAMETERS: &str = "
kind: ConfigMap
metadata: {name: params, namespace: ns}
data: {deployment: 'spec: {template: {metadata: {labels: {app: edge}}}}'}
---
";
const BY_HAND: &str = "
kind: Gateway
metadata: {name: edge, namespace: ns}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}], addresses: [{type: Hostname, value: mine}]}
---
kind: Service
metadata: {name: mine, namespace: ns}
spec: {clusterIP: 10.0.0.7, clusterIPs: [10.0.0.7], selector: {proxy: mine}, ports: [{name: http, port: 80}]}
---
";

fn deny(key: &str, value: &str) -> String {
    format!(
        "kind: AuthorizationPolicy\nmetadata: {{name: closed, namespace: ns}}\nspec: {{selector: {{matchLabels: {{{key}: \
         {value}}}}}, action: DENY, rules: [{{}}]}}\n---\n"
    )
}

fn pod(account: &str, labels: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: p, namespace: ns, uid: u, labels: {{{labels}}}}}\nspec: {{nodeName: n1, \
         serviceAccountName: {account}}}\nstatus: {{podIP: 10.1.0.9, podIPs: [{{ip: 10.1.0.9}}]}}\n---\n"
    )
}

/// Names of the policies that the gateway is told.
fn told(model: &Model) -> Vec<String> {
    proxy(model, "ns/edge").unwrap().authorizations.into_iter().map(|one| one.name).collect()
}

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

#[test]
fn a_policy_selects_the_pods_of_a_gateway_by_the_labels_that_they_get() {
    for (key, value, holds) in [
        ("app", "edge", true),
        ("gateway.networking.k8s.io/gateway-name", "edge", true),
        ("gateway.istio.io/managed", "istio.io-gateway-controller", true),
        ("service.istio.io/canonical-name", "edge-istio", true),
        ("istio.io/dataplane-mode", "none", true),
        ("app", "other", false),
        ("team", "a", false),
    ] {
        let model = model(&format!("{EDGE}{PARAMETERS}{}", deny(key, value)));
        assert_eq!(!told(&model).is_empty(), holds, "{key}: {value}");
    }
    // Labels of a Gateway are copied to its pods only where the mesh says so.
    let plain = EDGE.replace(", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: params}}", "");
    let yaml = format!("{SERVICES}{plain}{}", deny("team", "a"));
    for copied in [true, false] {
        let proxies = ProxySettings { copy_metadata: copied, ..ProxySettings::default() }.into();
        let settings = MeshSettings { proxies, ..MeshSettings::default() };
        assert_eq!(!told(&fixture::model(&yaml, settings)).is_empty(), copied);
    }
}

#[test]
fn overlays_that_come_later_and_labels_of_pods_that_change_are_followed() {
    let mut model = model(&format!("{EDGE}{}", deny("app", "edge")));
    assert!(told(&model).is_empty());
    apply(&mut model, PARAMETERS);
    assert_eq!(told(&model), ["closed"]);
    apply(&mut model, &PARAMETERS.replace("app: edge", "app: else"));
    assert!(told(&model).is_empty());
    let of_gateway = "gateway.networking.k8s.io/gateway-name: edge, app";
    apply(&mut model, &pod("edge-istio", &format!("{of_gateway}: edge")));
    assert_eq!(told(&model), ["closed"], "a pod of the last roll-out still has it");
    apply(&mut model, &pod("stranger", &format!("{of_gateway}: edge")));
    assert!(told(&model).is_empty(), "not a proxy of the gateway");
}

#[test]
fn pods_that_the_user_deploys_are_those_of_the_named_service() {
    let mut by_hand = model(&format!("{BY_HAND}{}", deny("app", "edge")));
    assert!(told(&by_hand).is_empty());
    apply(&mut by_hand, &pod("edge-istio", "proxy: mine, app: edge"));
    assert_eq!(told(&by_hand), ["closed"]);
    apply(&mut by_hand, &pod("edge-istio", "proxy: mine, app: else"));
    assert!(told(&by_hand).is_empty());
    assert_eq!(told(&model(&format!("{BY_HAND}{}", deny("proxy", "mine")))), ["closed"], "before there are any");
}

#[test]
fn rules_for_some_pods_follow_their_labels() {
    let rule = "
kind: DestinationRule
metadata: {name: dr, namespace: ns}
spec: {host: web, workloadSelector: {matchLabels: {app: edge}}, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}}}
---
kind: HTTPRoute
metadata: {name: r, namespace: ns}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
";
    let mut model = model(&format!("{EDGE}{rule}"));
    let detects = |model: &Model| {
        let listener = crate::translate::l7::fixture::listener(model, "ns/edge/listener/http").unwrap();
        listener.backends[0].policy.as_ref().unwrap().outlier_detection.is_some()
    };
    assert!(!detects(&model));
    apply(&mut model, PARAMETERS);
    assert!(detects(&model));
    apply(&mut model, &PARAMETERS.replace("app: edge", "app: else"));
    assert!(!detects(&model));
}
