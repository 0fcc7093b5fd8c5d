#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "demo"}, "spec": spec})
}

fn endpoint(ip: &str, ready: bool, hostname: Option<&str>) -> Value {
    json!({"addresses": [ip], "hostname": hostname, "conditions": {"ready": ready}})
}

fn zone_with(extra: Vec<Value>) -> Zone {
    let slice = |service: &str, family: &str, endpoints: Vec<Value>| {
        object(json!({
            "metadata": {"name": format!("{service}-{family}"), "namespace": "demo",
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": family, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
    };
    let port = json!([{"name": "http", "port": 80}]);
    let services = [
        service("web", json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:10:96::5"], "ports": port})),
        service("v4only", json!({"clusterIP": "10.96.0.6", "ports": port})),
        service("db", json!({"clusterIP": "None", "ports": port})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org."})),
        service("alias", json!({"type": "ExternalName", "externalName": "web.demo.svc.cluster.local"})),
    ];
    let mut db = vec![
        endpoint("10.244.1.2", true, Some("zero")),
        endpoint("10.244.1.3", true, None),
        endpoint("10.244.1.4", false, None),
    ];
    db.extend(extra);
    Zone::build(
        "cluster.local",
        &[object(json!({"metadata": {"name": "empty"}}))],
        &services.map(object),
        &[slice("db", "IPv4", db), slice("db", "IPv6", vec![endpoint("fd00::2", true, Some("zero"))])],
    )
}

fn ask_message(zone: &Zone, message: &Message, transport: Transport) -> Message {
    Message::from_vec(&respond(zone, message, transport, 0).unwrap()).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message
}

fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let response = ask_message(&zone_with(vec![]), &query(name, kind), Transport::Udp);
    assert_eq!(response.metadata.id, 7);
    let mut texts: Vec<String> = response.answers.iter().map(|record| record.data.to_string()).collect();
    texts.sort();
    (response.metadata.response_code, texts)
}

#[test]
fn names_have_the_records_they_should() {
    use RecordType::{A, AAAA, PTR, SRV};
    let table: &[(&str, RecordType, &[&str])] = &[
        ("web.demo.svc.cluster.local.", A, &["10.96.0.5"]),
        ("WEB.Demo.svc.cluster.local.", A, &["10.96.0.5"]),
        ("web.demo.svc.cluster.local.", AAAA, &["fd00:10:96::5"]),
        ("db.demo.svc.cluster.local.", A, &["10.244.1.2", "10.244.1.3"]),
        ("zero.db.demo.svc.cluster.local.", A, &["10.244.1.2"]),
        ("zero.db.demo.svc.cluster.local.", AAAA, &["fd00::2"]),
        ("10-244-1-3.db.demo.svc.cluster.local.", A, &["10.244.1.3"]),
        ("_http._tcp.web.demo.svc.cluster.local.", SRV, &["0 100 80 web.demo.svc.cluster.local."]),
        ("5.0.96.10.in-addr.arpa.", PTR, &["web.demo.svc.cluster.local."]),
        ("out.demo.svc.cluster.local.", A, &["example.org."]),
        ("alias.demo.svc.cluster.local.", A, &["10.96.0.5", "web.demo.svc.cluster.local."]),
    ];
    for (name, kind, expected) in table {
        let (code, found) = ask(name, *kind);
        assert_eq!(
            (code, found),
            (ResponseCode::NoError, expected.iter().map(|text| (*text).to_owned()).collect()),
            "{name} {kind}"
        );
    }
}

#[test]
fn no_such_name_and_no_such_record_are_told_apart() {
    use RecordType::{A, AAAA, MX, TXT};
    let table = [
        ("v4only.demo.svc.cluster.local.", AAAA, ResponseCode::NoError),
        ("web.demo.svc.cluster.local.", MX, ResponseCode::NoError),
        ("demo.svc.cluster.local.", A, ResponseCode::NoError),
        ("empty.svc.cluster.local.", A, ResponseCode::NoError),
        ("_tcp.web.demo.svc.cluster.local.", TXT, ResponseCode::NoError),
        ("cluster.local.", A, ResponseCode::NoError),
        ("nope.demo.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("web.other.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("10-244-1-4.db.demo.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("example.org.", A, ResponseCode::NXDomain),
        ("web.demo.svc.cluster.local.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("mycluster.local.", A, ResponseCode::NXDomain),
    ];
    let zone = zone_with(vec![]);
    for (name, kind, code) in table {
        let response = ask_message(&zone, &query(name, kind), Transport::Udp);
        assert_eq!(response.metadata.response_code, code, "{name} {kind}");
        assert!(response.answers.is_empty());
        let ours = name.ends_with(".cluster.local.") || name == "cluster.local.";
        assert_eq!(response.authorities.len(), usize::from(ours), "{name}: how long to remember");
        assert_eq!(response.metadata.authoritative, ours);
    }
}

#[test]
fn srv_answers_bring_the_addresses_along() {
    let response = ask_message(
        &zone_with(vec![]),
        &query("_http._tcp.db.demo.svc.cluster.local.", RecordType::SRV),
        Transport::Udp,
    );
    assert_eq!(response.answers.len(), 2);
    assert_eq!(response.additionals.len(), 3, "two IPv4 addresses and one IPv6");
}

#[test]
fn long_answers_are_cut_for_datagrams_only() {
    let many = (0..60).map(|n| endpoint(&format!("10.244.9.{n}"), true, None)).collect();
    let zone = zone_with(many);
    let mut plain = query("db.demo.svc.cluster.local.", RecordType::A);
    let udp = ask_message(&zone, &plain, Transport::Udp);
    assert!(udp.metadata.truncation && udp.answers.is_empty());
    assert_eq!(ask_message(&zone, &plain, Transport::Tcp).answers.len(), 62);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    plain.set_edns(edns);
    let large = ask_message(&zone, &plain, Transport::Udp);
    assert_eq!(large.answers.len(), 62);
    assert_eq!(large.edns.unwrap().max_payload(), PAYLOAD_BYTES_MAX);
}

#[test]
fn odd_requests_get_their_code_and_responses_none() {
    let zone = zone_with(vec![]);
    let mut status = query("x.", RecordType::A);
    status.metadata.op_code = OpCode::Status;
    assert_eq!(ask_message(&zone, &status, Transport::Udp).metadata.response_code, ResponseCode::NotImp);
    let empty = Message::new(1, MessageType::Query, OpCode::Query);
    assert_eq!(ask_message(&zone, &empty, Transport::Udp).metadata.response_code, ResponseCode::FormErr);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask_message(&zone, &chaos, Transport::Udp).metadata.response_code, ResponseCode::Refused);
    assert!(respond(&zone, &Message::response(1, OpCode::Query), Transport::Udp, 0).is_none());
}

#[test]
fn records_take_turns() {
    let zone = zone_with(vec![]);
    let first = |turn: u32| {
        let bytes = respond(&zone, &query("db.demo.svc.cluster.local.", RecordType::A), Transport::Udp, turn).unwrap();
        Message::from_vec(&bytes).unwrap().answers[0].data.to_string()
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(2));
}
