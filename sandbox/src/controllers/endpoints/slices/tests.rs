#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "demo", "uid": "s1", "labels": {"team": "a"}},
        "spec": spec,
    }))
    .unwrap()
}

fn pod(name: &str, ready: bool, extra: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "demo", "uid": format!("u-{name}"),
            "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    json_patch::merge(&mut pod, &extra);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn dual() -> Service {
    service(json!({
        "selector": {"app": "web"}, "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"},
                  {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
                  {"name": "gone", "port": 99, "targetPort": "absent"}]
    }))
}

fn zone(node: &str) -> Option<String> {
    (node == "node-1").then(|| "zone-a".to_owned())
}

#[test]
fn both_families_with_named_ports_resolved() {
    let slices = desired(&dual(), &[pod("a", true, json!({}))], zone);
    assert_eq!(slices.len(), 2);
    let v4 = &slices[0];
    assert_eq!(v4.address_type, "IPv4");
    assert_eq!(v4.name_any(), "web-ipv4-0");
    assert_eq!(v4.labels()[SERVICE_LABEL], "web");
    assert_eq!(v4.labels()["team"], "a");
    let ports: Vec<_> = v4.ports.iter().flatten().map(|port| (port.name.as_deref(), port.port)).collect();
    assert_eq!(ports, [(Some("http"), Some(8080)), (Some("dns"), Some(53))]);
    let endpoint = &v4.endpoints[0];
    assert_eq!(endpoint.addresses, ["10.244.1.2"]);
    assert_eq!(endpoint.zone.as_deref(), Some("zone-a"));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().uid.as_deref(), Some("u-a"));
    assert_eq!(slices[1].endpoints[0].addresses, ["fd00::2"]);
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let table = [
        (true, json!({}), false, (true, true, false)),
        (false, json!({}), false, (false, false, false)),
        (true, deleted.clone(), false, (false, true, true)),
        (false, json!({}), true, (true, true, false)),
        (false, deleted, true, (true, true, true)),
    ];
    for (ready, extra, publish, (is_ready, serving, terminating)) in table {
        let mut service = dual();
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publish);
        let slices = desired(&service, &[pod("a", ready, extra.clone())], zone);
        let conditions = slices[0].endpoints[0].conditions.as_ref().unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(is_ready), Some(serving), Some(terminating)),
            "ready {ready}, {extra}, publish {publish}"
        );
    }
}

#[test]
fn finished_pods_pods_without_address_and_other_labels_are_left_out() {
    let pods = [
        pod("a", true, json!({"status": {"phase": "Succeeded"}})),
        pod("b", false, json!({"status": {"podIPs": null}})),
        pod("c", true, json!({"metadata": {"labels": {"app": "other"}}})),
    ];
    let slices = desired(&dual(), &pods, zone);
    assert_eq!(slices.len(), 2, "an empty slice per family");
    assert!(slices.iter().all(|slice| slice.endpoints.is_empty()));
    assert!(desired(&service(json!({"ports": []})), &pods, zone).is_empty());
}

#[test]
fn pods_with_other_port_numbers_get_their_own_slice() {
    let other = json!({"spec": {"containers": [{"name": "c", "ports": [
        {"name": "http", "containerPort": 9090}]}]}});
    let service = service(json!({"selector": {"app": "web"}, "ipFamilies": ["IPv4"],
        "ports": [{"port": 80, "targetPort": "http"}]}));
    let slices = desired(&service, &[pod("a", true, json!({})), pod("b", true, other)], zone);
    let numbers: Vec<_> = slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port).collect();
    assert_eq!(numbers, [Some(8080), Some(9090)]);
    assert_eq!(slices[1].name_any(), "web-ipv4-1");
}

#[test]
fn a_headless_service_names_hosts_of_its_subdomain() {
    let named = json!({"spec": {"hostname": "zero", "subdomain": "web"}});
    let service = service(json!({"selector": {"app": "web"}, "clusterIP": "None",
        "ipFamilies": ["IPv4"], "ports": []}));
    let slices = desired(&service, &[pod("a", true, named)], zone);
    assert_eq!(slices[0].endpoints[0].hostname.as_deref(), Some("zero"));
    assert!(slices[0].labels().contains_key(HEADLESS_LABEL));
}

#[test]
fn large_services_are_split() {
    let pods: Vec<_> = (0..150).map(|number| pod(&format!("p{number}"), true, json!({}))).collect();
    let sizes: Vec<_> = desired(&dual(), &pods, zone).iter().map(|slice| slice.endpoints.len()).collect();
    assert_eq!(sizes, [100, 50, 100, 50]);
}
