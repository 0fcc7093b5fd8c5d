//! One bad object never blocks others: whatever is broken in whatever way, what is well written keeps working, what
//! proxies are told is something that they take, and nothing is left of what is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use mesh_core::names::NamespacedName;
use mesh_route::{Action, Limits, RequestView, Table};
use mesh_wire::l7;
use mesh_wire::l7::resource::Kind as Message;
use mesh_xds::server::Resource;
use serde_json::{Value, json};

use super::random::Random;
use crate::source::convert;
use crate::translate::l7::decode;
use crate::translate::{Model, ObjectStatus, StatusTarget, fixture};
use crate::world::{Change, Kind, MeshSettings};

const GOOD: &str = r"
kind: Namespace
metadata: {name: ns}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.0.0.9}]}
---
kind: Gateway
metadata: {name: edge, namespace: ns}
spec:
  gatewayClassName: istio
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}]
---
kind: Service
metadata: {name: web, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], selector: {app: web}, ports: [{name: http, port: 80}, {name: x, port: 81}]}
---
kind: Service
metadata: {name: clean, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], selector: {app: clean}, ports: [{name: http, port: 80}]}
---
kind: VirtualService
metadata: {name: good, namespace: ns}
spec: {hosts: [clean], http: [{match: [{uri: {exact: /good}}], route: [{destination: {host: clean}}]}]}
---
kind: HTTPRoute
metadata: {name: good, namespace: ns}
spec:
  parentRefs: [{name: edge}, {group: '', kind: Service, name: web}]
  rules: [{matches: [{path: {type: Exact, value: /good}}], backendRefs: [{name: clean, port: 80}]}]
";

/// A well-written object of each kind, to be broken.
fn whole(random: &mut Random) -> (Kind, Value) {
    let parents = json!([{"name": "edge"}, {"group": "", "kind": "Service", "name": "web"}]);
    let backends = json!([{"name": "web", "port": 80, "weight": 3}, {"name": "clean", "port": 80}]);
    let edits = json!({"set": [{"name": "a", "value": "b"}], "add": [{"name": "c", "value": "d"}], "remove": ["e"]});
    let route = json!([{"destination": {"host": "web", "port": {"number": 80}, "subset": "v1"}, "weight": 1}]);
    match random.below(9) {
        0..3 => {
            let matches = json!([{
                "path": {"type": random.pick(&["Exact", "PathPrefix", "RegularExpression"]), "value": "/x"},
                "headers": [{"name": "x", "type": "RegularExpression", "value": "[a-z]+"}],
                "queryParams": [{"name": "q", "value": "1"}], "method": "GET",
            }]);
            let filters = json!([
                {"type": "RequestHeaderModifier", "requestHeaderModifier": edits},
                {"type": "URLRewrite", "urlRewrite": {"hostname": "h.example", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/y"}}},
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}, "percent": 50}},
                {"type": "CORS", "cors": {"allowOrigins": ["https://*.example"], "maxAge": 5}},
            ]);
            let rule = json!({
                "matches": matches, "filters": filters, "backendRefs": backends,
                "timeouts": {"request": "2s", "backendRequest": "1s"},
                "retry": {"codes": [503], "attempts": 2, "backoff": "10ms"},
                "sessionPersistence": {"sessionName": "s", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}},
            });
            (Kind::HttpRoute, json!({"parentRefs": parents, "hostnames": ["x.example"], "rules": [rule]}))
        }
        3 => {
            let matches = json!([{"method": {"service": "a.B", "method": "C", "type": "Exact"}, "headers": [{"name": "x", "value": "y"}]}]);
            (Kind::GrpcRoute, json!({"parentRefs": parents, "rules": [{"matches": matches, "backendRefs": backends}]}))
        }
        4 => {
            let rules = json!([{"backendRefs": backends}]);
            (Kind::TlsRoute, json!({"parentRefs": parents, "hostnames": ["*.example"], "rules": rules}))
        }
        5 => {
            let http = json!({
                "match": [{"uri": {"regex": "/x.*"}, "headers": {"h": {"exact": "1"}}, "port": 80, "ignoreUriCase": true}],
                "route": route, "rewrite": {"uriRegexRewrite": {"match": "/x", "rewrite": "/\\1"}}, "timeout": "1s",
                "retries": {"attempts": 2, "retryOn": "5xx,503", "perTryTimeout": "1s"},
                "fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 5.0}}, "abort": {"httpStatus": 500}},
                "corsPolicy": {"allowOrigins": [{"regex": ".*"}]}, "mirrors": [{"destination": {"host": "web"}}],
                "headers": {"request": {"set": {"a": "%REQ(b)%"}}},
            });
            let direct = json!({"directResponse": {"status": 200, "body": {"bytes": "aGk="}}});
            let tcp = json!([{"match": [{"port": 81, "destinationSubnets": ["10.0.0.0/8"]}], "route": route}]);
            (Kind::VirtualService, json!({"hosts": ["web"], "http": [http, direct], "tcp": tcp}))
        }
        6 => {
            let policy = json!({
                "loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "ttl": "1h"}, "maglev": {"tableSize": 65537}}},
                "connectionPool": {"tcp": {"connectTimeout": "1s"}, "http": {"maxRetries": 1}},
                "outlierDetection": {"interval": "1s", "maxEjectionPercent": 50}, "tls": {"mode": "SIMPLE", "sni": "s.example"},
                "portLevelSettings": [{"port": {"number": 81}, "tls": {"mode": "DISABLE"}}],
            });
            let subset = json!({"name": "v1", "labels": {"v": "1"}, "trafficPolicy": policy});
            (Kind::DestinationRule, json!({"host": "web", "trafficPolicy": policy, "subsets": [subset]}))
        }
        7 => {
            let listeners = json!([{
                "name": "more", "port": 80, "protocol": "HTTP", "hostname": "*.example",
                "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": "HTTPRoute"}]},
            }, {"name": "secure", "port": 444, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}], "options": {"a": "b"}}}]);
            (Kind::ListenerSet, json!({"parentRef": {"name": "edge"}, "listeners": listeners}))
        }
        _ => {
            let validation = json!({"hostname": "h.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "c"}]});
            let targets = json!([{"group": "", "kind": "Service", "name": "web", "sectionName": "x"}]);
            (Kind::BackendTlsPolicy, json!({"targetRefs": targets, "validation": validation}))
        }
    }
}

/// Every place in a document, the whole excluded.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in entries {
        let place = format!("{at}/{name}");
        places(value, &place, all);
        all.push(place);
    }
}

fn junk(random: &mut Random) -> Value {
    let long = "a".repeat(5000);
    random.pick(&[
        json!(null),
        json!(""),
        json!("*"),
        json!("/"),
        json!("[a-"),
        json!("(a*)*(b*)*{1000}{1000}"),
        json!("a\u{0}\r\nb"),
        json!("%REQ("),
        json!("999999999999h"),
        json!("-1s"),
        json!(long),
        json!(-1),
        json!(0),
        json!(70000),
        json!(1e30),
        json!(true),
        json!([]),
        json!({}),
        json!(["x", 1]),
        json!({"x": {"y": []}}),
    ])
}

fn broken(random: &mut Random, number: usize) -> Change {
    let (kind, mut spec) = whole(random);
    for _ in 0..1 + random.below(3) {
        let mut all = Vec::new();
        places(&spec, "", &mut all);
        let place = random.pick(&all);
        let junk = junk(random);
        // What is for all hosts is for those of others too, and not broken.
        let host = place.contains("/host") && junk == "*";
        if let Some(value) = spec.pointer_mut(&place).filter(|_| !host) {
            *value = junk;
        }
    }
    // Of two that exclude each other the older one wins, broken or not.
    let (name, created) = (format!("broken-{number}"), "1970-01-01T01:00:00Z");
    let metadata = json!({"name": name, "namespace": "ns", "generation": 1, "creationTimestamp": created});
    let object = json!({"apiVersion": "v1", "kind": kind.name(), "metadata": metadata, "spec": spec});
    convert::change(kind, serde_json::from_value(object).unwrap(), "default")
}

fn tables(resource: &Resource) -> Vec<l7::HttpTable> {
    match message(resource) {
        Some(Message::Port(port)) => port.http.into_iter().collect(),
        Some(Message::Listener(listener)) => listener.http.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn message(resource: &Resource) -> Option<Message> {
    decode(resource).and_then(|message| message.kind)
}

fn l4_rules(resource: &Resource) -> (Vec<l7::TlsRule>, Vec<l7::L4Rule>) {
    match message(resource) {
        Some(Message::Port(port)) => (port.tls_rules, port.tcp_rules),
        Some(Message::Listener(listener)) => (listener.tls_rules, listener.tcp_rules),
        _ => Default::default(),
    }
}

fn subnets(resource: &Resource) -> Vec<String> {
    let (tls, tcp) = l4_rules(resource);
    let all = tls.into_iter().filter_map(|one| one.rule).chain(tcp);
    all.flat_map(|one| one.destination_subnets).collect()
}

fn hostnames(resource: &Resource) -> Vec<String> {
    let own = match message(resource) {
        Some(Message::Listener(listener)) => vec![listener.hostname],
        _ => Vec::new(),
    };
    l4_rules(resource).0.into_iter().flat_map(|one| one.hostnames).chain(own).collect()
}

/// Who made the rule that answers `GET /good`.
fn answers(resource: &Resource) -> Option<String> {
    let compiled = Table::compile(tables(resource).first()?, &Limits::default()).expect("a table that proxies take");
    let headers = HeaderMap::new();
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: "any.where",
        path: "/good",
        query: None,
        headers: &headers,
        port: 80,
        claims: None,
    };
    let found = compiled.find(&request)?;
    let forwards = matches!(found.rule.action, Action::Forward(_));
    let origin = &found.rule.origin;
    Some(format!("{} {} {forwards}", origin.kind, origin.name))
}

type Statuses = BTreeMap<StatusTarget, Arc<ObjectStatus>>;

fn good_statuses(model: &Model) -> Statuses {
    let good = |(target, _): &(&StatusTarget, &Arc<ObjectStatus>)| &*target.key.name == "good";
    let all = model.statuses().iter().filter(good);
    all.map(|(target, status)| (target.clone(), status.clone())).collect()
}

const CLEAN: &str = "ns/wp/ns/clean.ns.svc.cluster.local:80";
const LISTENER: &str = "ns/edge/listener/http";

fn check(model: &Model, before: &Model, seed: usize) {
    let resources = model.layer7().resources();
    for resource in resources.values() {
        for table in tables(resource) {
            let compiled = Table::compile(&table, &Limits::default());
            assert!(compiled.is_ok(), "seed {seed}: {}: {:?}", resource.name, compiled.err());
        }
        for text in subnets(resource) {
            let good = text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
            assert!(good, "seed {seed}: {}: subnet {text:?}", resource.name);
        }
        for host in hostnames(resource) {
            let good = mesh_route::host::pattern(&host);
            assert!(good.is_ok(), "seed {seed}: {}: host {host:?}", resource.name);
        }
    }
    assert_eq!(resources[CLEAN], before.layer7().resources()[CLEAN], "seed {seed}");
    for name in [LISTENER, "ns/wp/ns/web.ns.svc.cluster.local:80"] {
        assert_eq!(answers(&resources[name]).as_deref(), Some("HTTPRoute good true"), "seed {seed}: {name}");
    }
    assert_eq!(good_statuses(model), good_statuses(before), "seed {seed}");
}

#[test]
fn broken_objects_disturb_nobody_else_and_leave_nothing() {
    let before = fixture::model(GOOD, MeshSettings::default());
    assert_eq!(good_statuses(&before).len(), 2);
    for seed in 0..SEEDS {
        let mut random = Random::new(u64::try_from(seed).unwrap());
        let mut model = before.clone();
        let mut told: Vec<(Kind, NamespacedName)> = Vec::new();
        for number in 0..OBJECTS {
            let change = broken(&mut random, number);
            match &change {
                Change::Upsert(object) | Change::Partial { object, .. } => told.push((object.kind(), object.key())),
                Change::Broken { kind, key, .. } | Change::Delete(kind, key) => told.push((*kind, key.clone())),
                other => panic!("{other:?}"),
            }
            model.apply(change);
            if random.coin() {
                model.flush();
            }
        }
        model.flush();
        check(&model, &before, seed);
        told.into_iter().for_each(|(kind, key)| model.apply(Change::Delete(kind, key)));
        model.flush();
        assert_eq!(model.layer7().resources(), before.layer7().resources(), "seed {seed}");
        assert_eq!(model.statuses(), before.statuses(), "seed {seed}");
    }
}

/// Worlds that are tried.
const SEEDS: usize = 150;
/// Broken objects in each.
const OBJECTS: usize = 8;
