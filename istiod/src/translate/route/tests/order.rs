//! Which of several matches comes first: table 2.3 of the routing spec.

use super::*;

fn route(name: &str, age_s: i64, rules: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: {name}, namespace: web, creationTimestamp: '1970-01-01T00:{:02}:{:02}Z'}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n{rules}\n---\n",
        age_s / 60,
        age_s % 60
    )
}

fn to(backend: &str, matching: &str) -> String {
    format!("  - {{matches: [{matching}], backendRefs: [{{name: {backend}, port: 80}}]}}\n")
}

fn served(routes: &str) -> Served {
    listener(&model(&(open_edge() + &services("web") + routes)), "http")
}

#[test]
fn routing_row_6_of_equal_matches_the_older_route_wins() {
    let served =
        served(&(route("r1", 60, &to("a", "{path: {value: /x}}")) + &route("r2", 30, &to("b", "{path: {value: /x}}"))));
    assert_eq!(served.get("http://h/x"), "web/b.web:80");
}

#[test]
fn of_equally_old_routes_the_first_by_name_wins_and_of_rules_the_first() {
    let served = served(
        &(route("r2", 30, &to("b", "{path: {value: /x}}"))
            + &route("r1", 30, &(to("a", "{path: {value: /x}}") + &to("c", "{path: {value: /x}}")))),
    );
    assert_eq!(served.get("http://h/x"), "web/a.web:80");
}

#[test]
fn gateway_row_16_exact_paths_come_before_prefixes_with_more_conditions() {
    let served = served(&route(
        "r",
        0,
        &(to("a", "{path: {value: /api}, method: GET}") + &to("b", "{path: {type: Exact, value: /api/v1}}")),
    ));
    assert_eq!(served.get("http://h/api/v1"), "web/b.web:80");
    assert_eq!(served.get("http://h/api/v2"), "web/a.web:80");
    assert_eq!(served.ask("POST", "http://h/api/v2", &[]), "404");
}

#[test]
fn each_step_of_precedence_decides_before_the_next() {
    let pairs = [
        ("{path: {value: /x/y}}", "{path: {value: /x}, method: GET, headers: [{name: h, value: v}]}"),
        ("{path: {value: /x}}", "{path: {type: RegularExpression, value: '/x/y.*'}, method: GET}"),
        (
            "{path: {type: RegularExpression, value: '/x/y.*'}}",
            "{path: {type: RegularExpression, value: '/x.*'}, method: GET}",
        ),
        (
            "{path: {value: /x}, method: GET}",
            "{path: {value: /x}, headers: [{name: h, value: v}, {name: i, value: v}]}",
        ),
        (
            "{path: {value: /x}, headers: [{name: h, value: v}, {name: i, value: v}]}",
            "{path: {value: /x}, headers: [{name: h, value: v}], queryParams: [{name: q, value: '1'}]}",
        ),
        ("{path: {value: /x}, queryParams: [{name: q, value: '1'}]}", "{path: {value: /x}}"),
        ("{path: {value: /x}}", "{headers: [{name: h, value: v}]}"),
    ];
    for (first, second) in pairs {
        let routes = route("old", 0, &to("b", second)) + &route("young", 99, &to("a", first));
        let answer = served(&routes).ask("GET", "http://h/x/y?q=1", &[("h", "v"), ("i", "v")]);
        assert_eq!(answer, "web/a.web:80", "{first} before {second}");
    }
}

/// The order in which objects are told makes no difference.
#[test]
fn the_result_does_not_depend_on_the_order_of_events() {
    let parts = [
        open_edge(),
        services("web"),
        route("r1", 60, &(to("a", "{path: {value: /x}}") + &to("b", "{headers: [{name: h, value: v}]}"))),
        route("r2", 30, &to("b", "{path: {type: RegularExpression, value: '/.*'}}")),
        route("r3", 30, &to("c", "{method: POST}"))
            .replace("  rules:", "  hostnames: [b.example, '*.example', a.example]\n  rules:"),
    ];
    let first = served_of(&parts.concat());
    for rotation in 1..parts.len() {
        let mut rotated = parts.to_vec();
        rotated.rotate_left(rotation);
        assert_eq!(served_of(&rotated.concat()), first);
    }
    let mut hosts: Vec<_> = first.http.unwrap().hosts.into_iter().map(|host| host.hostnames).collect();
    hosts.sort();
    assert_eq!(hosts, [vec!["*".to_owned()], vec!["*.example".into(), "a.example".into(), "b.example".into()]]);
}

fn served_of(yaml: &str) -> Routed {
    listener(&model(yaml), "http").routed
}

/// A request for a more specific host never sees routes of a less specific one.
#[test]
fn the_most_specific_host_keeps_the_request() {
    let wide =
        route("wide", 0, &to("a", "{path: {value: /}}")).replace("  rules:", "  hostnames: ['*.example']\n  rules:");
    let narrow = route("narrow", 9, &to("b", "{path: {value: /only}}"))
        .replace("  rules:", "  hostnames: [x.example]\n  rules:");
    let served = served(&(wide + &narrow));
    assert_eq!(served.get("http://x.example:80/only"), "web/b.web:80");
    assert_eq!(served.get("http://x.example/other"), "404");
    assert_eq!(served.get("http://y.example/only"), "web/a.web:80");
    assert_eq!(served.get("http://example/"), "404");
}

#[test]
fn grpc_routes_are_ordered_by_service_then_method() {
    let grpc = |name: &str, age: i64, rules: &str| route(name, age, rules).replace("HTTPRoute", "GRPCRoute");
    let to = |backend: &str, method: &str| {
        format!("  - {{matches: [{{method: {method}}}], backendRefs: [{{name: {backend}, port: 80}}]}}\n")
    };
    let served = served(
        &(grpc("old", 0, &to("a", "{method: Get}"))
            + &grpc("young", 9, &(to("b", "{service: x.Y}") + &to("c", "{service: x.Y, method: Get}")))),
    );
    assert_eq!(served.ask("POST", "http://h/x.Y/Get", &[]), "web/c.web:80 h2");
    assert_eq!(served.ask("POST", "http://h/x.Y/Put", &[]), "web/b.web:80 h2");
    assert_eq!(served.ask("POST", "http://h/z/Get", &[]), "web/a.web:80 h2");
}
