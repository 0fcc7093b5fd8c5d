//! Owner heuristics and port protocols; everything else is covered by the golden tests.

use mesh_api::security::Mode;
use serde_json::{Value, json};

use super::*;
use crate::world::{PeerAuthentication, Protocol};

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn workload_name(generate_name: &str, owner: Value, labels: Value) -> String {
    let pod = object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pod-1", "namespace": "ns", "generateName": generate_name, "labels": labels, "ownerReferences": [owner]},
    }));
    match change(Kind::Pod, pod, "default") {
        Change::Upsert(Object::Pod(pod)) => pod.workload_name.to_string(),
        other => panic!("{other:?}"),
    }
}

fn owner(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "u", "controller": true})
}

#[test]
fn owner_heuristics() {
    let hash = json!({"pod-template-hash": "7d9f6"});
    assert_eq!(workload_name("web-7d9f6-", owner("ReplicaSet", "web-7d9f6"), hash.clone()), "web");
    assert_eq!(workload_name("web-7d9f6-", owner("ReplicaSet", "web-other"), hash.clone()), "web-other");
    assert_eq!(workload_name("", owner("ReplicaSet", "web-7d9f6"), hash), "pod-1");
    let rollout = json!({"rollouts-pod-template-hash": "abc"});
    assert_eq!(workload_name("r-abc-", owner("ReplicaSet", "r-abc"), rollout), "r");
    let config = json!({"deploymentconfig": "dc"});
    assert_eq!(workload_name("dc-1-", owner("ReplicationController", "dc-1"), config), "dc");
    assert_eq!(workload_name("j-", owner("Job", "cron-29000000"), json!({})), "cron");
    assert_eq!(workload_name("j-", owner("Job", "cron-1"), json!({})), "cron-1");
    assert_eq!(workload_name("s-", owner("StatefulSet", "db"), json!({})), "db");
    let named = json!({"service.istio.io/workload-name": "mine"});
    assert_eq!(workload_name("s-", owner("StatefulSet", "db"), named), "mine");
    let loose = json!({"apiVersion": "v1", "kind": "ReplicaSet", "name": "x", "uid": "u"});
    assert_eq!(workload_name("x-", loose, json!({})), "pod-1");
}

#[test]
fn port_protocols() {
    let protocol = |port: Value| {
        let service = object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ns"}, "spec": {"ports": [port]},
        }));
        match change(Kind::Service, service, "default") {
            Change::Upsert(Object::Service(service)) => service.ports[0].protocol,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(protocol(json!({"port": 1, "name": "http-x"})), Protocol::Http);
    assert_eq!(protocol(json!({"port": 1, "name": "https"})), Protocol::Tls);
    assert_eq!(protocol(json!({"port": 1, "name": "http", "appProtocol": "grpc"})), Protocol::Grpc);
    assert_eq!(protocol(json!({"port": 1, "name": "http2", "protocol": "UDP"})), Protocol::Udp);
    assert_eq!(protocol(json!({"port": 1, "name": "udp-x"})), Protocol::Udp);
    assert_eq!(protocol(json!({"port": 80})), Protocol::Unknown);
    // Their servers speak first: nobody may wait for the client.
    assert_eq!(protocol(json!({"port": 3306, "name": "mysql"})), Protocol::Stream);
    assert_eq!(protocol(json!({"port": 1, "appProtocol": "redis"})), Protocol::Stream);
    assert_eq!(protocol(json!({"port": 27017, "name": "db"})), Protocol::Tcp);
    assert_eq!(protocol(json!({"port": 1, "name": "x", "appProtocol": "kubernetes.io/wss"})), Protocol::Wss);
    assert_eq!(protocol(json!({"port": 1, "name": "grpc-web-x"})), Protocol::GrpcWeb);
    assert_eq!(protocol(json!({"port": 1, "name": "x", "appProtocol": "http_proxy"})), Protocol::Http);
}

fn peer_with_ports(base: &str, ports: Value) -> (PeerAuthentication, Option<String>) {
    let peer = object(json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": base}, "portLevelMtls": ports},
    }));
    match change(Kind::Peer, peer, "default") {
        Change::Upsert(Object::Peer(peer)) => (peer, None),
        Change::Partial { object: Object::Peer(peer), reason } => (peer, Some(reason)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_port_does_not_weaken_a_peer_authentication() {
    let (peer, reason) =
        peer_with_ports("STRICT", json!({"http": {"mode": "DISABLE"}, "0": {}, "80": {"mode": "DISABLE"}}));
    assert_eq!((peer.mode, peer.ports), (Mode::Strict, [(80, Mode::Disable)].into()));
    assert_eq!(peer.selector, Some([("app", "web")].into_iter().collect()));
    let reason = reason.unwrap();
    assert!(reason.contains(r#"portLevelMtls "http""#) && reason.contains(r#"portLevelMtls "0""#), "{reason}");
    let (peer, reason) = peer_with_ports("PERMISSIVE", json!({"http": {"mode": "STRICT"}}));
    assert_eq!(peer.mode, Mode::Strict);
    assert!(reason.unwrap().contains("every port is STRICT instead"));
    let (peer, reason) = peer_with_ports("PERMISSIVE", json!({"http": {"mode": "PERMISSIVE"}}));
    assert!(peer.mode == Mode::Permissive && reason.is_some());
    assert_eq!(peer_with_ports("UNSET", json!({"80": {"mode": "STRICT"}})).1, None);
}

#[test]
fn ports_without_a_selector_do_not_weaken_a_peer_authentication() {
    let read = |ports: Value| {
        let peer = object(json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": ports},
        }));
        match change(Kind::Peer, peer, "default") {
            Change::Partial { object: Object::Peer(peer), reason } => (peer.mode, peer.ports.len(), reason),
            other => panic!("{other:?}"),
        }
    };
    let (mode, ports, reason) = read(json!({"80": {"mode": "STRICT"}, "81": {"mode": "DISABLE"}}));
    assert_eq!((mode, ports), (Mode::Strict, 0));
    assert!(reason.contains("selector") && reason.contains("every port is STRICT"), "{reason}");
    let (mode, _, reason) = read(json!({"81": {"mode": "DISABLE"}}));
    assert!(mode == Mode::Permissive && reason.contains("no effect"), "{reason}");
}

#[test]
fn an_unreadable_object_names_field_and_value() {
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ns", "generation": 4},
        "spec": {"clusterIP": "10.0.0.999"},
    }));
    match change(Kind::Service, service, "default") {
        Change::Broken { key, generation, reason, .. } => {
            assert_eq!((key.to_string().as_str(), generation), ("ns/s", 4));
            assert!(reason.contains("10.0.0.999"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
