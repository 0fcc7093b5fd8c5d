use super::*;
use crate::translate::conditions::ROUTE_MANAGER;

fn target(kind: Kind) -> StatusTarget {
    StatusTarget { kind, key: NamespacedName::new("ns", "one"), manager: ROUTE_MANAGER }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn condition(type_: &'static str, holds: bool) -> Condition {
    Condition { type_, holds, reason: "Accepted", message: "m".into() }
}

fn parent(name: &str, holds: bool) -> Attached {
    let reference = ParentReference { name: name.into(), ..ParentReference::default() };
    Attached { reference, controller: words::GATEWAY_CONTROLLER, conditions: vec![condition(words::ACCEPTED, holds)] }
}

fn route(generation: i64, parents: Vec<Attached>) -> ObjectStatus {
    ObjectStatus { generation, conditions: Vec::new(), parts: Parts::Parents(parents) }
}

fn names(status: &Value) -> Vec<String> {
    let parents = status["parents"].as_array().unwrap().iter();
    parents.map(|one| format!("{} {}", one["controllerName"].as_str().unwrap(), one["parentRef"]["name"])).collect()
}

#[test]
fn foreign_entries_stay_in_place_and_own_stale_ones_go() {
    let target = target(Kind::HttpRoute);
    let first = merged(&target, Some(&route(1, vec![parent("a", true), parent("b", true)])), &Value::Null, at(0));
    let mut live = first.unwrap();
    let foreign = json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []});
    live["parents"].as_array_mut().unwrap().insert(1, foreign);
    live["parents"][0]["conditions"].as_array_mut().unwrap().push(json!({"type": "Theirs", "status": "True"}));
    assert_eq!(merged(&target, Some(&route(1, vec![parent("b", true), parent("a", true)])), &live, at(9)), None);
    let status = merged(&target, Some(&route(2, vec![parent("c", true), parent("a", false)])), &live, at(60)).unwrap();
    let wanted =
        [r#"istio.io/gateway-controller "a""#, r#"example.com/other "x""#, r#"istio.io/gateway-controller "c""#];
    assert_eq!(names(&status), wanted);
    let [accepted, theirs] = status["parents"][0]["conditions"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&accepted["status"], &accepted["observedGeneration"]), (&json!("False"), &json!(2)));
    assert_eq!(accepted["lastTransitionTime"], "1970-01-01T00:01:00Z");
    assert_eq!(theirs["type"], "Theirs");
    // Nothing of ours is wanted any more.
    let rest = merged(&target, None, &live, at(60)).unwrap();
    assert_eq!(names(&rest), [r#"example.com/other "x""#]);
    assert_eq!(merged(&target, None, &rest, at(60)), None);
    assert_eq!(merged(&target, None, &Value::Null, at(60)), None);
}

#[test]
fn defaults_of_references_make_no_difference() {
    let target = target(Kind::HttpRoute);
    let mut live = merged(&target, Some(&route(1, vec![parent("a", true)])), &Value::Null, at(0)).unwrap();
    // As an API server stores it.
    let reference = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "ns", "name": "a"});
    live["parents"][0]["parentRef"] = reference;
    assert_eq!(merged(&target, Some(&route(1, vec![parent("a", true)])), &live, at(60)), None);
    let mut sectioned = parent("a", true);
    sectioned.reference.section_name = Some("https".into());
    let status = merged(&target, Some(&route(1, vec![sectioned])), &live, at(60)).unwrap();
    assert_eq!(status["parents"][0]["parentRef"], json!({"name": "a", "sectionName": "https"}));
}

#[test]
fn a_gateway_keeps_what_others_say_and_loses_listeners_that_are_gone() {
    let listener = |name: &str, routes| ListenerPart {
        name: name.into(),
        supported_kinds: Vec::new(),
        attached_routes: routes,
        conditions: vec![condition(words::ACCEPTED, true)],
    };
    let parts = |listeners| {
        Parts::Gateway(GatewayParts { addresses: None, listeners: Some(listeners), attached_listener_sets: 0 })
    };
    let wanted = |listeners| ObjectStatus {
        generation: 3,
        conditions: vec![condition(words::ACCEPTED, true)],
        parts: parts(listeners),
    };
    let live = json!({
        "addresses": [{"value": "10.0.0.1"}],
        "conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z"},
            {"type": "Theirs", "status": "True"},
        ],
    });
    let target = target(Kind::Gateway);
    let status = merged(&target, Some(&wanted(vec![listener("a", 1), listener("b", 0)])), &live, at(60)).unwrap();
    assert_eq!(status.get("addresses"), None, "they stay as they are");
    let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, ["Accepted", "Theirs"]);
    let mut live = live;
    live["conditions"] = status["conditions"].clone();
    live["listeners"] = status["listeners"].clone();
    assert_eq!(merged(&target, Some(&wanted(vec![listener("a", 1), listener("b", 0)])), &live, at(90)), None);
    let status = merged(&target, Some(&wanted(vec![listener("a", 2)])), &live, at(90)).unwrap();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1);
    assert_eq!(status["listeners"][0]["attachedRoutes"], 2);
    assert_eq!(merged(&target, None, &live, at(90)), None, "another controller's, or nobody's");
}
