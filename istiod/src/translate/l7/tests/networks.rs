//! Gateways between networks, which serve what names none of them.

use super::*;
use crate::translate::fixture;
use crate::world::{Change, Scope, ScopeRule, Selector};

const GATEWAY: &str = "
kind: Gateway
metadata: {name: between, namespace: istio-system}
spec: {gatewayClassName: istio-east-west, listeners: [{name: mesh, port: 15008, protocol: HBONE, tls: {mode: Terminate}}]}
";
const ENTRY: &str = "
kind: ServiceEntry
metadata: {name: out, namespace: ns, labels: {scope: global}}
spec: {hosts: [out.example], addresses: [10.9.9.9], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}
---
kind: Service
metadata: {name: shared, namespace: other, labels: {scope: global}}
spec: {clusterIP: 10.0.0.4, clusterIPs: [10.0.0.4], selector: {app: x}, ports: [{name: http, port: 80}]}
";

fn joined() -> MeshSettings {
    let services_selector =
        Selector { match_labels: [("scope".to_owned(), "global".to_owned())].into(), ..Selector::default() };
    let global = ScopeRule { services_selector, scope: Scope::Global, ..ScopeRule::default() };
    MeshSettings { multi_network: true, scopes: vec![global], ..MeshSettings::default() }
}

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

/// Ports that the gateway serves.
fn served(model: &Model) -> Vec<String> {
    let ports = model.layer7().resources().keys().filter_map(|name| name.strip_prefix("istio-system/between/"));
    ports.map(ToOwned::to_owned).collect()
}

const ALL: [&str; 2] = ["ns/out.example:80", "other/shared.other.svc.cluster.local:80"];

#[test]
fn a_new_gateway_between_networks_is_told_of_every_service_that_is_for_all_clusters() {
    let mut model = fixture::model(&format!("{SERVICES}{ENTRY}"), joined());
    assert!(served(&model).is_empty());
    apply(&mut model, GATEWAY);
    assert_eq!(served(&model), ALL);
    model.apply(Change::Delete(Kind::Gateway, mesh_core::names::NamespacedName::new("istio-system", "between")));
    model.flush();
    assert!(served(&model).is_empty());
}

#[test]
fn a_class_that_comes_to_be_one_between_networks_serves_and_one_of_others_does_not() {
    let own = GATEWAY.replace("istio-east-west", "own");
    let mut model = fixture::model(&format!("{SERVICES}{ENTRY}---{own}"), joined());
    assert!(served(&model).is_empty(), "nobody knows its class");
    let class = |controller: &str| {
        format!("kind: GatewayClass\nmetadata: {{name: own}}\nspec: {{controllerName: {controller}}}\n")
    };
    apply(&mut model, &class("istio.io/eastwest-controller"));
    assert_eq!(served(&model), ALL);
    apply(&mut model, &class("example.com/other"));
    assert!(served(&model).is_empty());
}
