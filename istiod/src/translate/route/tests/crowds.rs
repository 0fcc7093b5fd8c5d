//! Many routes, and routes with much in them: nobody's fill what belongs to all, and nobody's change makes all be looked
//! at again.

use super::*;
use crate::world::{Change, Dirty};

fn route(kind: &str, name: &str, age: u8, host: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{name: {name}, namespace: web, creationTimestamp: '1970-01-01T00:{age:02}:00Z'}}\nspec:\n  \
         parentRefs: [{{name: edge}}]\n  hostnames: ['{host}']\n  rules: [{{backendRefs: [{{name: a, port: 80}}]}}]\n---\n"
    )
}

fn apply(model: &mut Model, yaml: &str) {
    fixture::changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

#[test]
fn a_route_that_comes_or_goes_has_those_judged_again_that_it_keeps_out_and_no_others() {
    let many: String =
        (0..40).map(|number| route("HTTPRoute", &format!("r{number}"), 30, &format!("h{number}.example"))).collect();
    let mut model = model(&(open_edge() + &services("web") + &many + &route("GRPCRoute", "g", 20, "g.example")));
    assert_eq!(says(&model, "web/r7", words::ACCEPTED), "True Accepted");
    // What a change of one of them reaches.
    let mut world = model.world().clone();
    let mut dirty = Dirty::default();
    let change = fixture::changes(&route("HTTPRoute", "r3", 30, "other.example")).remove(0);
    world.apply(change, &mut dirty);
    let routes = dirty.conditions.iter().filter(|(kind, _)| matches!(kind, Kind::HttpRoute | Kind::GrpcRoute));
    assert_eq!(routes.cloned().collect::<Vec<_>>(), [(Kind::HttpRoute, key("web/r3"))]);
    // One that keeps another out.
    apply(&mut model, &route("GRPCRoute", "old", 10, "h7.example"));
    assert_eq!(says(&model, "web/r7", words::ACCEPTED), "False ParentRefConflict");
    assert_eq!(says(&model, "web/r8", words::ACCEPTED), "True Accepted");
    apply(&mut model, &route("GRPCRoute", "old", 10, "h8.example"));
    assert_eq!(says(&model, "web/r7", words::ACCEPTED), "True Accepted");
    assert_eq!(says(&model, "web/r8", words::ACCEPTED), "False ParentRefConflict");
    model.apply(Change::Delete(Kind::GrpcRoute, key("web/old")));
    model.flush();
    assert_eq!(says(&model, "web/r8", words::ACCEPTED), "True Accepted");
}

/// Matches by so many different patterns, all of one route.
fn patterned(name: &str, age: u8, patterns: usize) -> String {
    let each = |number: usize| format!("{{path: {{type: RegularExpression, value: '/{name}/{number}/[a-z]+'}}}}");
    let matches: Vec<_> = (0..patterns).map(each).collect();
    let rules = format!("rules:\n  - {{matches: [{}], backendRefs: [{{name: a, port: 80}}]}}", matches.join(", "));
    route("HTTPRoute", name, age, "x.example").replace("rules: [{backendRefs: [{name: a, port: 80}]}]", &rules)
}

#[test]
fn a_route_with_too_many_patterns_is_served_with_those_that_it_may_have() {
    let model =
        model(&(open_edge() + &services("web") + &patterned("p", 1, 300) + &route("HTTPRoute", "r", 2, "y.example")));
    assert_eq!(says(&model, "web/p", words::RESOLVED_REFS), "False UnsupportedValue");
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "True ResolvedRefs");
    let served = listener(&model, "http");
    let (first, last) = (served.get("http://x.example/p/0/a"), served.get("http://x.example/p/299/a"));
    assert_eq!(first, "web/a.web:80");
    assert!(last.starts_with("500 rule 0: the route has more than 256 different regular expressions"), "{last}");
    assert_eq!(served.get("http://y.example/"), "web/a.web:80");
}

#[test]
fn when_a_listener_is_full_the_youngest_routes_are_left_out_and_told() {
    // Every host has other routes, and so entries of its own: 80 routes of 64 matches make more than a proxy takes.
    let matches: Vec<_> = (0..64).map(|number| format!("{{path: {{value: /{number}}}}}")).collect();
    let rules = format!("rules: [{{matches: [{}], backendRefs: [{{name: a, port: 80}}]}}]", matches.join(", "));
    let full = |number: u8| {
        let hosts: Vec<_> = (0..=number).map(|host| format!("h{host}.example")).collect();
        let one =
            route("HTTPRoute", &format!("p{number:02}"), number / 2, "HOSTS").replace("'HOSTS'", &hosts.join(", "));
        one.replace("rules: [{backendRefs: [{name: a, port: 80}]}]", &rules)
    };
    let many: String = (0..80).map(full).collect();
    let model = model(&(open_edge() + &services("web") + &many));
    let served = listener(&model, "http");
    let names: std::collections::BTreeSet<_> =
        served.table().rules.iter().map(|rule| rule.origin.as_ref().unwrap().name.clone()).collect();
    assert_eq!((names.len(), names.first().unwrap().as_str(), names.last().unwrap().as_str()), (77, "p00", "p76"));
    assert!(served.table().hosts.iter().map(|host| host.entries.len()).sum::<usize>() <= Limits::default().entries);
    assert_eq!(says(&model, "web/p00", words::ACCEPTED), "True Accepted");
    let parents = parents(&model, Kind::HttpRoute, "web/p79");
    let accepted = parents[0].conditions.iter().find(|one| one.type_ == words::ACCEPTED).unwrap();
    assert!(!accepted.holds && accepted.message.contains("older routes fill listener http"), "{accepted:?}");
}
