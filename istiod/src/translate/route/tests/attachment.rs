//! Section 9 of the gateway controller's spec: checks, their order, and what is told of them.

use super::*;

const LISTENERS: &str = "  - {name: plain, port: 80, protocol: HTTP, hostname: '*.bar.com'}
  - {name: open, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: team, port: 8081, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}
  - {name: typed, port: 8082, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}
  - {name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: end, port: 8443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: x}]}}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: udp, port: 9001, protocol: UDP}";

fn namespaces() -> String {
    ["web", "b"].map(|name| format!("kind: Namespace\nmetadata: {{name: {name}}}\n---\n")).concat()
        + "kind: Namespace\nmetadata: {name: c, labels: {team: a}}\n---\n"
}

fn verdict(kind: &str, namespace: &str, parent: &str, hostnames: &str, at: &str) -> Result<Vec<String>, &'static str> {
    let hostnames = if hostnames.is_empty() { String::new() } else { format!("  hostnames: [{hostnames}]\n") };
    let yaml = edge(LISTENERS)
        + &namespaces()
        + &format!(
            "kind: {kind}\nmetadata: {{name: r, namespace: {namespace}}}\nspec:\n  parentRefs: [{{name: edge, namespace: web{parent}}}]\n{hostnames}  rules: []\n"
        );
    let model = model(&yaml);
    let world = model.world();
    let gateway = world.gateway(&key("web/edge")).unwrap();
    let place = Place::of_gateway(gateway).find(|place| place.listener.name == at).unwrap();
    let kind = Kind::ALL.into_iter().find(|one| one.name() == kind).unwrap();
    let route = Route::find(world, kind, &NamespacedName::new(namespace, "r")).unwrap();
    let attached = attach_route(world, route, &route.parents()[0], place);
    attached.map(|hosts| hosts.iter().map(ToString::to_string).collect()).map_err(|refused| refused.reason)
}

#[test]
fn the_first_check_that_fails_is_the_verdict_of_a_listener() {
    use words::{
        NO_MATCHING_LISTENER_HOSTNAME as HOST, NO_MATCHING_PARENT as PARENT, NOT_ALLOWED_BY_LISTENERS as DENIED,
    };
    for (kind, namespace, parent, hosts, at, wanted) in [
        ("HTTPRoute", "web", "", "a.bar.com", "plain", Ok(vec!["a.bar.com"])),
        ("HTTPRoute", "web", "", "", "plain", Ok(vec!["*.bar.com"])),
        ("HTTPRoute", "web", "", "", "open", Ok(vec!["*"])),
        ("HTTPRoute", "web", ", port: 81", "x", "plain", Err(PARENT)),
        ("HTTPRoute", "web", ", port: 80", "a.bar.com", "plain", Ok(vec!["a.bar.com"])),
        ("HTTPRoute", "web", ", sectionName: other", "a.bar.com", "plain", Err(PARENT)),
        ("HTTPRoute", "web", ", sectionName: plain, port: 80", "a.bar.com", "plain", Ok(vec!["a.bar.com"])),
        ("HTTPRoute", "web", ", sectionName: plain, port: 8080", "a.bar.com", "plain", Err(PARENT)),
        ("HTTPRoute", "b", "", "a.foo.com", "plain", Err(HOST)),
        ("HTTPRoute", "web", "", "bar.com", "plain", Err(HOST)),
        ("HTTPRoute", "b", "", "a.bar.com", "plain", Err(DENIED)),
        ("HTTPRoute", "b", "", "", "open", Ok(vec!["*"])),
        ("HTTPRoute", "b", "", "", "team", Err(DENIED)),
        ("HTTPRoute", "c", "", "", "team", Ok(vec!["*"])),
        ("HTTPRoute", "web", "", "", "typed", Err(DENIED)),
        ("GRPCRoute", "web", "", "", "typed", Ok(vec!["*"])),
        ("TLSRoute", "web", "", "a", "open", Err(DENIED)),
        ("TLSRoute", "web", "", "a", "pass", Ok(vec!["a"])),
        ("TLSRoute", "web", "", "a", "end", Ok(vec!["a"])),
        ("TCPRoute", "web", "", "", "pass", Err(DENIED)),
        ("TCPRoute", "web", "", "", "end", Ok(vec!["*"])),
        ("TCPRoute", "web", "", "", "tcp", Ok(vec!["*"])),
        ("HTTPRoute", "web", "", "", "tcp", Err(DENIED)),
        ("HTTPRoute", "web", "", "", "udp", Err(DENIED)),
    ] {
        let found = verdict(kind, namespace, parent, hosts, at);
        let wanted = wanted.map(|hosts| hosts.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(found, wanted, "{kind} of {namespace} with {parent} and {hosts} at {at}");
    }
}

#[test]
fn gateway_row_12_another_hostname_is_no_match() {
    let yaml = edge("  - {name: http, port: 80, protocol: HTTP, hostname: '*.bar.com'}")
        + &http_route("r", "  hostnames: [a.foo.com]");
    assert_eq!(says(&model(&yaml), "web/r", words::ACCEPTED), "False NoMatchingListenerHostname");
}

#[test]
fn gateway_row_13_another_namespace_is_not_allowed() {
    let yaml = edge("  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}")
        + &http_route("r", "")
            .replace("namespace: web,", "namespace: b,")
            .replace("{name: edge}", "{name: edge, namespace: web}");
    assert_eq!(says(&model(&yaml), "b/r", words::ACCEPTED), "False NotAllowedByListeners");
}

#[test]
fn any_listener_that_takes_the_route_is_enough() {
    let listeners = "  - {name: one, port: 80, protocol: HTTP, hostname: '*.bar.com'}\n  - {name: two, port: 81, protocol: TCP}\n  - {name: three, port: 82, protocol: HTTP}\n  - {name: four, port: 83, protocol: HTTP}";
    let model = model(&(edge(listeners) + &http_route("r", "  hostnames: [a.foo.com]\n  rules: []")));
    let [parent] = parents(&model, Kind::HttpRoute, "web/r").try_into().unwrap();
    assert_eq!(brief(&parent.conditions, words::ACCEPTED), "True Accepted");
    assert!(parent.conditions[0].message.contains("2 listeners"), "{:?}", parent.conditions[0]);
    assert_eq!(listener(&model, "one").routed.http, None);
    assert!(listener(&model, "three").routed.http.is_some());
}

#[test]
fn of_several_refusals_the_most_telling_is_shown() {
    let refused = |parent: &str, hosts: &str| {
        let listeners = "  - {name: one, port: 80, protocol: HTTP, hostname: '*.bar.com'}\n  - {name: two, port: 81, protocol: TCP}";
        let route = http_route("r", &format!("  hostnames: [{hosts}]"))
            .replace("{name: edge}", &format!("{{name: edge{parent}}}"));
        says(&model(&(edge(listeners) + &route)), "web/r", words::ACCEPTED)
    };
    assert_eq!(refused("", "a.foo.com"), "False NotAllowedByListeners", "the TCP listener refuses its kind");
    assert_eq!(refused(", port: 80", "a.foo.com"), "False NoMatchingListenerHostname");
    assert_eq!(refused(", sectionName: three", "a.bar.com"), "False NoMatchingParent");
}

#[test]
fn gateway_row_17_gateways_of_others_are_left_alone() {
    let other = "kind: GatewayClass\nmetadata: {name: theirs}\nspec: {controllerName: example.com/theirs}\n---\nkind: Gateway\nmetadata: {name: other, namespace: web}\nspec: {gatewayClassName: theirs, listeners: [{name: a, port: 80, protocol: HTTP}]}\n---\nkind: Gateway\nmetadata: {name: far, namespace: web}\nspec: {gatewayClassName: istio-remote, listeners: [{name: a, port: 80, protocol: HTTP}]}\n---\n";
    let route = http_route("r", "").replace(
        "[{name: edge}]",
        "[{name: other}, {name: edge}, {name: far}, {name: gone}, {name: x, kind: Pod, group: ''}]",
    );
    let model = model(&(open_edge() + other + &route));
    let names: Vec<_> = parents(&model, Kind::HttpRoute, "web/r").into_iter().map(|one| one.reference.name).collect();
    assert_eq!(names, ["edge"]);
}

#[test]
fn http_and_grpc_routes_do_not_share_a_host() {
    let route = |kind: &str, name: &str, age: &str, host: &str| {
        format!(
            "kind: {kind}\nmetadata: {{name: {name}, namespace: web, creationTimestamp: '1970-01-01T00:00:{age}Z'}}\nspec:\n  parentRefs: [{{name: edge}}]\n  hostnames: ['{host}']\n  rules: [{{backendRefs: [{{name: a, port: 80}}]}}]\n---\n"
        )
    };
    let yaml = open_edge()
        + &services("web")
        + &route("HTTPRoute", "young", "30", "x.example")
        + &route("GRPCRoute", "old", "10", "*.example")
        + &route("HTTPRoute", "younger", "40", "other.org");
    let model = model(&yaml);
    assert_eq!(says(&model, "web/young", words::ACCEPTED), "False ParentRefConflict");
    assert_eq!(says(&model, "web/younger", words::ACCEPTED), "True Accepted");
    let [parent] = parents(&model, Kind::GrpcRoute, "web/old").try_into().unwrap();
    assert_eq!(brief(&parent.conditions, words::ACCEPTED), "True Accepted");
    let served = listener(&model, "http");
    assert_eq!(served.get("http://x.example/"), "web/a.web:80 h2");
    let gateway = model.world().gateway(&key("web/edge")).unwrap();
    let place = Place::of_gateway(gateway).next().unwrap();
    assert_eq!(crate::translate::route::attached_routes(model.world(), place), 2);
}

#[test]
fn listener_sets_are_parents_of_their_own() {
    let set = "kind: ListenerSet\nmetadata: {name: more, namespace: b}\nspec: {parentRef: {name: edge, namespace: web}, listeners: [{name: http, protocol: HTTP, hostname: set.example}]}\n---\n";
    let route = |namespace: &str, parent: &str| {
        format!(
            "kind: HTTPRoute\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{parentRefs: [{parent}], rules: [{{backendRefs: [{{name: a, port: 80}}]}}]}}\n---\n"
        )
    };
    let allowing = |from: &str| {
        open_edge()
            .replace("  listeners:", &format!("  allowedListeners: {{namespaces: {{from: {from}}}}}\n  listeners:"))
    };
    let to_set = route("b", "{kind: ListenerSet, name: more}");
    let all = model(&(allowing("All") + set + &services("b") + &to_set));
    assert_eq!(says(&all, "b/r", words::ACCEPTED), "True Accepted");
    let world = all.world();
    let written = world.listener_set(&key("b/more")).unwrap();
    let place = Place::of_set(written).next().unwrap();
    assert_eq!(place.port(), 80, "that of the protocol");
    let mut names = Names::default();
    let routed = for_listener(world, &key("web/edge"), place, &mut names);
    assert_eq!(routed.http.unwrap().hosts[0].hostnames, ["set.example"]);
    assert_eq!(listener(&all, "http").routed.http, None, "the gateway's own listener has nothing of it");
    for from in ["None", "Same"] {
        let none = model(&(allowing(from) + set + &services("b") + &to_set));
        assert_eq!(says(&none, "b/r", words::ACCEPTED), "False NoMatchingParent", "{from}");
    }
    // A Gateway as the parent means its own listeners only.
    let section = route("b", "{name: edge, namespace: web, sectionName: nothing}");
    assert_eq!(says(&model(&(allowing("All") + set + &section)), "b/r", words::ACCEPTED), "False NoMatchingParent");
}

#[test]
fn hosts_of_a_narrower_listener_are_not_served_by_a_wider_one() {
    let listeners = "  - {name: wide, port: 80, protocol: HTTP}\n  - {name: mid, port: 80, protocol: HTTP, hostname: '*.example.com'}\n  - {name: narrow, port: 80, protocol: HTTP, hostname: a.example.com}\n  - {name: elsewhere, port: 81, protocol: HTTP, hostname: '*.org'}";
    let route = |name: &str, section: &str, hosts: &str| {
        http_route(name, &format!("  hostnames: [{hosts}]\n  rules: [{{backendRefs: [{{name: a, port: 80}}]}}]"))
            .replace("{name: edge}", &format!("{{name: edge, sectionName: {section}}}"))
    };
    let yaml = edge(listeners)
        + &services("web")
        + &route("r1", "wide", "a.example.com, b.example.com, '*.example.com', x.org, '*.com'")
        + &route("r2", "mid", "a.example.com, b.example.com");
    let model = model(&yaml);
    let hosts = |name: &str| listener(&model, name).routed.http.map(|table| table.hosts.concat_names());
    assert_eq!(hosts("wide").unwrap(), ["*.com", "x.org"]);
    assert_eq!(hosts("mid").unwrap(), ["b.example.com"]);
    assert_eq!(hosts("narrow"), None);
}

trait HostNames {
    fn concat_names(self) -> Vec<String>;
}

impl HostNames for Vec<l7::VirtualHost> {
    fn concat_names(self) -> Vec<String> {
        self.into_iter().flat_map(|host| host.hostnames).collect()
    }
}
