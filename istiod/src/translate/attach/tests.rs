//! Every row of the table of targets, and what several of them come to.

use super::*;
use crate::translate::fixture;
use crate::world::{MeshSettings, Promise, Promises};

const TOWN: &str = "
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint}
status: {addresses: [{value: 10.0.0.1}]}
---
kind: Gateway
metadata: {name: pending, namespace: ns}
spec: {gatewayClassName: istio-waypoint}
---
kind: GatewayClass
metadata: {name: nginx}
spec: {controllerName: example.com/nginx}
---
kind: Gateway
metadata: {name: foreign, namespace: ns}
spec: {gatewayClassName: nginx}
status: {addresses: [{value: 10.0.0.2}]}
---
kind: Gateway
metadata: {name: unknown, namespace: ns}
spec: {gatewayClassName: nobodys}
status: {addresses: [{value: 10.0.0.3}]}
---
kind: Gateway
metadata: {name: remote, namespace: ns}
spec: {gatewayClassName: istio-remote}
status: {addresses: [{value: 10.0.0.4}]}
---
kind: Gateway
metadata: {name: between, namespace: ns}
spec: {gatewayClassName: istio-east-west}
status: {addresses: [{value: 10.0.0.5}]}
---
kind: Gateway
metadata: {name: edge, namespace: ns}
spec: {gatewayClassName: istio}
---
kind: Service
metadata: {name: web, namespace: ns, labels: {istio.io/use-waypoint: wp}}
---
kind: Service
metadata: {name: bare, namespace: ns}
---
kind: ServiceEntry
metadata: {name: api, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {hosts: [api.example.com], resolution: DNS}
";

const GATEWAY: &str = "gateway.networking.k8s.io";

fn judged(namespace: &str, targets: &[(&str, &str, &str)], guards: bool, settings: MeshSettings) -> Condition {
    let model = fixture::model(TOWN, settings);
    let target = |(group, kind, name): &(&str, &str, &str)| TargetRef {
        group: (*group).to_owned(),
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
        namespace: None,
    };
    let targets: Vec<_> = targets.iter().map(target).collect();
    waypoint_accepted(model.world(), &namespace.into(), &targets, guards)
}

fn outcome(namespace: &str, targets: &[(&str, &str, &str)]) -> (bool, &'static str) {
    let condition = judged(namespace, targets, true, MeshSettings::default());
    (condition.holds, condition.reason)
}

#[test]
fn each_kind_of_target() {
    let root = "istio-system";
    let rows = [
        ("ns", (GATEWAY, "Gateway", "wp"), (true, "Accepted")),
        ("ns", (GATEWAY, "Gateway", "pending"), (false, "TargetNotFound")),
        ("ns", (GATEWAY, "Gateway", "foreign"), (false, "Invalid")),
        ("ns", (GATEWAY, "Gateway", "unknown"), (false, "Invalid")),
        ("ns", (GATEWAY, "Gateway", "remote"), (false, "Invalid")),
        ("ns", (GATEWAY, "Gateway", "between"), (false, "Invalid")),
        ("ns", (GATEWAY, "Gateway", "edge"), (true, "Accepted")),
        ("other", (GATEWAY, "Gateway", "wp"), (false, "TargetNotFound")),
        (root, (GATEWAY, "GatewayClass", "istio-waypoint"), (true, "Accepted")),
        ("ns", (GATEWAY, "GatewayClass", "istio-waypoint"), (false, "Invalid")),
        (root, (GATEWAY, "GatewayClass", "istio"), (false, "Invalid")),
        (root, (GATEWAY, "GatewayClass", "ghost"), (false, "TargetNotFound")),
        ("ns", ("", "Service", "web"), (true, "Accepted")),
        ("ns", ("core", "Service", "web"), (true, "Accepted")),
        ("ns", ("", "Service", "bare"), (false, "AncestorNotBound")),
        ("ns", ("", "Service", "ghost"), (false, "TargetNotFound")),
        ("ns", ("networking.istio.io", "ServiceEntry", "api"), (true, "Accepted")),
        ("ns", ("networking.istio.io", "ServiceEntry", "web"), (false, "TargetNotFound")),
        ("ns", (GATEWAY, "HTTPRoute", "r"), (false, "Invalid")),
    ];
    for (namespace, target, expected) in rows {
        assert_eq!(outcome(namespace, &[target]), expected, "{namespace} {target:?}");
    }
}

#[test]
fn gateways_between_networks_and_of_others_enforce_nothing_and_the_message_says_so() {
    let networks = MeshSettings { multi_network: true, ..MeshSettings::default() };
    let between = judged("ns", &[(GATEWAY, "Gateway", "between")], true, networks);
    assert_eq!((between.holds, between.reason), (false, "Invalid"));
    assert!(between.message.contains("ns/between (it relays tunnels"), "{}", between.message);
    let foreign = judged("ns", &[(GATEWAY, "Gateway", "foreign")], true, MeshSettings::default());
    assert!(foreign.message.contains("class is of another controller"), "{}", foreign.message);
}

#[test]
fn several_targets_are_one_condition() {
    let (good, bad) = (("", "Service", "web"), ("", "Service", "bare"));
    assert_eq!(outcome("ns", &[good, (GATEWAY, "Gateway", "wp")]), (true, "Accepted"));
    assert_eq!(outcome("ns", &[good, bad]), (true, "PartiallyInvalid"));
    assert_eq!(outcome("ns", &[bad, (GATEWAY, "Gateway", "ghost")]), (false, "Invalid"));
    let message = judged("ns", &[good, bad, (GATEWAY, "Gateway", "ghost")], true, MeshSettings::default()).message;
    assert!(message.contains("Service.core:ns/bare"), "{message}");
    assert!(message.contains("Gateway.gateway.networking.k8s.io:ns/ghost"), "{message}");
    assert!(!message.contains("ns/web"), "{message}");
}

#[test]
fn the_message_says_what_happens_to_a_service_without_waypoint() {
    let message = |guards, settings| judged("ns", &[("", "Service", "bare")], guards, settings).message;
    assert!(message(true, MeshSettings::default()).contains("Node proxies refuse connections"));
    assert!(!message(false, MeshSettings::default()).contains("refuse"));
    let promises = Promises { waypoint_required: Promise::Reference, ..Promises::default() };
    let reference = MeshSettings { promises, ..MeshSettings::default() };
    assert!(!message(true, reference).contains("refuse"));
}
