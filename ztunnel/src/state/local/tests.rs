//! A local file means what a control plane would have said.

use super::*;
use crate::state::fixture::World;

fn load(text: &str) -> Result<World, LocalError> {
    let mut world = World::new();
    LocalConfig::parse(text)?.apply(&mut world.feed)?;
    Ok(world)
}

fn error(text: &str) -> String {
    load(text).map(|_| ()).unwrap_err().to_string()
}

const ALL: &str = r#"
workloads:
  - uid: c1//Pod/shop/cart
    name: cart
    namespace: shop
    serviceAccount: cart
    trustDomain: td
    workloadIps: [10.1.0.77, "fd00::77"]
    protocol: HBONE
    network: n1
    node: node-1
    hostname: cart.example
    waypoint: {destination: shop/waypoint.shop.svc.cluster.local, hboneMtlsPort: 15018}
    networkGateway: {destination: n1/192.0.2.10}
    networkMode: HostNetwork
    status: Unhealthy
    canonicalName: cart
    canonicalRevision: v2
    workloadName: cart
    workloadType: job
    clusterId: c1
    locality: {region: r, zone: z, subzone: s}
    authorizationPolicies: [shop/lock]
    applicationTunnel: {protocol: PROXY, port: 15088}
    capacity: 3
    services:
      shop/cart.shop.svc.cluster.local: {80: 8080}
  - uid: bare
services:
  - name: cart
    namespace: shop
    hostname: cart.shop.svc.cluster.local
    vips: [n1/172.20.0.9, /172.20.0.9]
    cidrVips: [n1/198.18.0.0/15]
    ports: {80: 0}
    subjectAltNames: ["spiffe://td/ns/far/sa/cart"]
    waypoint: {destination: n1/10.1.0.200, hboneMtlsPort: 15008}
    weightedWaypoints:
      - {destination: {destination: shop/canary.shop.svc.cluster.local}, weight: 5}
    loadBalancer: {routingPreferences: [Network, Zone], mode: Failover, healthPolicy: AllowAll}
    ipFamilies: Dual
    canonical: true
    visibility: Namespace
policies:
  - name: lock
    namespace: shop
    scope: WorkloadSelector
    action: Deny
    dryRun: true
    rules:
      - - - principals: [{Exact: td/ns/shop/sa/web}, Presence]
            notNamespaces: [{Prefix: kube-}, {Suffix: -dev}]
            serviceAccounts: [{namespace: shop, serviceAccount: web}]
            sourceIps: [10.0.0.0/8, "fd00::1"]
            notDestinationPorts: [9090]
"#;

#[test]
fn every_field_of_the_specification_is_read() {
    let world = load(ALL).unwrap();
    let dump = Value::Object(world.snapshot().dump());
    let file: Value = LocalConfig::parse(ALL).unwrap().to_json();
    // What was written comes back in config_dump under the same names, endpoints and defaults aside.
    let (cart, service) = (&dump["workloads"][1], &dump["services"][0]);
    for (name, value) in file["workloads"][0].as_object().unwrap() {
        let same_address = name == "networkGateway";
        assert!(&cart[name] == value || same_address, "{name}: {} is not {value}", cart[name]);
    }
    assert_eq!(cart["networkGateway"]["destination"], "n1/192.0.2.10");
    assert_eq!(cart["networkGateway"]["hboneMtlsPort"], 15008);
    for (name, value) in file["services"][0].as_object().unwrap() {
        assert!(&service[name] == value || name == "weightedWaypoints", "{name}: {} is not {value}", service[name]);
    }
    assert_eq!(service["weightedWaypoints"][0]["weight"], 5);
    assert_eq!(service["endpoints"]["c1//Pod/shop/cart"]["port"], serde_json::json!({"80": 8080}));
    let policy = &dump["policies"][0];
    assert_eq!(policy["rules"][0][0][0]["sourceIps"], serde_json::json!(["10.0.0.0/8", "fd00::1/128"]));
    assert_eq!((&policy["scope"], &policy["action"]), (&"WorkloadSelector".into(), &"Deny".into()));
    assert_eq!(policy["rules"], file["policies"][0]["rules"]);
    assert_eq!(dump["workloads"][0].get("capacity"), None, "1 is what is meant when nothing is said");
}

#[test]
fn json_is_yaml_and_an_empty_file_is_fine() {
    assert_eq!(LocalConfig::parse("").unwrap(), LocalConfig::default());
    assert_eq!(LocalConfig::parse("# nothing\n").unwrap(), LocalConfig::default());
    let json = r#"{"services": [{"namespace": "a", "hostname": "x.example", "ports": {"80": 8080}}]}"#;
    let world = load(json).unwrap();
    assert_eq!(world.snapshot().services().next().unwrap().name.as_ref(), "x");
    assert_eq!(LocalConfig::default().to_json(), serde_json::json!({}));
}

#[test]
fn unknown_fields_are_refused_by_name() {
    for (text, field) in [
        ("workload: []", "workload"),
        ("workloads: [{uid: a, ips: []}]", "ips"),
        ("services: [{namespace: a, hostname: b, endpoints: {}}]", "endpoints"),
        ("services: [{namespace: a, hostname: b, loadBalancer: {modus: Strict}}]", "modus"),
        ("policies: [{name: a, namespace: b, scope: Global, action: Allow, rules: [[[{ports: [80]}]]]}]", "ports"),
    ] {
        let error = error(text);
        assert!(error.contains(&format!("`{field}`")) && error.contains("line 1"), "{error}");
    }
}

#[test]
fn values_that_mean_nothing_are_refused_with_what_was_expected() {
    for (text, wanted) in [
        ("workloads: [{uid: ''}]", "uid: empty"),
        ("workloads: [{uid: a}, {uid: a}]", "workloads: \"a\" is there twice"),
        ("workloads: [{uid: a, services: {nowhere: {}}}]", "expected <namespace>/<hostname>"),
        ("workloads: [{uid: a, protocol: UDP}]", "UDP"),
        ("workloads: [{uid: a, trustDomain: a/b}]", "trust_domain"),
        ("workloads: [{uid: a, workloadIps: [ten]}]", "IP"),
        ("services: [{namespace: a, hostname: b, vips: [10.0.0.1]}]", "<network>/<ip>"),
        ("services: [{namespace: a, hostname: b, cidrVips: [n/10.0.0.0/33]}]", "<network>/<ip>/<length>"),
        ("services: [{namespace: a, hostname: b, waypoint: {destination: x}}]", "<namespace>/<hostname>"),
        ("policies: [{name: a, namespace: b, scope: Global}]", "action"),
        ("policies: [{name: a, namespace: b, scope: Global, action: Allow, rules: [[[{sourceIps: [x]}]]]}]", "range"),
    ] {
        let error = error(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = LocalConfig::load(&LocalSource::Path("/nowhere/mesh.yaml".into())).unwrap_err();
    assert!(error.to_string().contains("/nowhere/mesh.yaml"), "{error}");
}

#[test]
fn the_example_of_the_documentation_loads() {
    let example = include_str!("../../../../docs/examples/node-proxy.yaml");
    let world = load(example).unwrap();
    assert!(world.snapshot().workloads().count() >= 2);
    assert!(world.snapshot().policies().count() >= 1);
}
