//! Routes of services at their waypoints.

use super::*;

fn route(kind: &str, namespace: &str, parent: &str, rest: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{parentRefs: [{{group: '', kind: Service, {parent}}}], {rest}}}\n---\n"
    )
}

fn port(name: &str, port: u16, protocol: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{name: {name}, namespace: web}}\nspec: {{clusterIP: 10.0.0.2, ports: [{{name: main, port: {port}, appProtocol: {protocol}}}, {{name: http-other, port: 8080}}]}}\n---\n"
    )
}

const TO_B: &str = "rules: [{backendRefs: [{name: b, port: 80, namespace: web}]}]";

#[test]
fn routing_row_15_hosts_of_requests_and_routes_are_ignored() {
    let yaml = services("web") + &route("HTTPRoute", "web", "name: a", &format!("hostnames: [other.example], {TO_B}"));
    let served = service(&model(&yaml), "web/a", 80);
    assert_eq!(served.get("http://a/"), "web/b.web:80");
    assert_eq!(served.get("http://anything:81/"), "web/b.web:80");
}

#[test]
fn gateway_row_15_a_service_as_parent_needs_no_grant() {
    let yaml = services("web")
        + &services("far")
        + &route("HTTPRoute", "web", "name: a", "rules: [{backendRefs: [{name: a, port: 80, namespace: far}]}]");
    let model = model(&yaml);
    assert_eq!(service(&model, "web/a", 80).get("http://a/"), "far/a.far:80");
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "True ResolvedRefs");
    let mut settings = MeshSettings::default();
    settings.l7.mesh_grants = true;
    let model = fixture::model(&yaml, settings);
    assert_eq!(service(&model, "web/a", 80).get("http://a/"), "500", "where the mesh configuration asks for one");
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False RefNotPermitted");
}

#[test]
fn a_port_of_the_parent_restricts_the_route() {
    let answer = |parent: &str, number: u16| {
        let yaml = services("web") + &port("s", 80, "http") + &route("HTTPRoute", "web", parent, TO_B);
        service(&model(&yaml), "web/s", number).routed.http.is_some()
    };
    assert!(answer("name: s", 80) && answer("name: s", 8080));
    assert!(answer("name: s, port: 80", 80) && !answer("name: s, port: 80", 8080));
    assert!(answer("name: s, sectionName: http-other", 8080) && !answer("name: s, sectionName: http-other", 80));
    assert!(!answer("name: s, port: 80, sectionName: http-other", 80));
    assert!(!answer("name: s", 81), "no such port");
    assert!(!answer("name: b", 80), "another service");
    assert!(!answer("name: s, namespace: far", 80));
}

#[test]
fn routes_of_the_services_and_the_waypoints_namespace_count() {
    for (namespace, holds) in [("web", true), ("infra", true), ("clients", false)] {
        let yaml = services("web") + &route("HTTPRoute", namespace, "name: a, namespace: web", TO_B);
        let model = model(&yaml);
        assert_eq!(service(&model, "web/a", 80).routed.http.is_some(), holds, "{namespace}");
        assert_eq!(says(&model, &format!("{namespace}/r"), words::ACCEPTED), "True Accepted", "{namespace}");
    }
}

#[test]
fn nothing_is_added_behind_the_rules_of_routes() {
    let yaml = services("web")
        + &route(
            "HTTPRoute",
            "web",
            "name: a",
            "rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: b, port: 80}]}]",
        );
    let served = service(&model(&yaml), "web/a", 80);
    assert_eq!((served.get("http://a/x").as_str(), served.get("http://a/y").as_str()), ("web/b.web:80", "404"));
}

#[test]
fn http_and_grpc_routes_of_a_service_are_one_table() {
    let grpc = route(
        "GRPCRoute",
        "web",
        "name: a",
        "rules: [{matches: [{method: {service: x.Y}}], backendRefs: [{name: c, port: 80}]}]",
    );
    let yaml = services("web") + &route("HTTPRoute", "web", "name: a", TO_B) + &grpc;
    let served = service(&model(&yaml), "web/a", 80);
    assert_eq!(served.ask("POST", "http://a/x.Y/Z", &[]), "web/c.web:80 h2");
    assert_eq!(served.get("http://a/"), "web/b.web:80");
}

#[test]
fn what_a_port_speaks_decides_which_routes_it_takes() {
    let served = |protocol: &str| {
        let l4 = "rules: [{backendRefs: [{name: b, port: 80}]}]";
        let yaml = services("web")
            + &port("s", 80, protocol)
            + &route("HTTPRoute", "web", "name: s", TO_B)
            + &route("TCPRoute", "web", "name: s", l4)
            + &route("TLSRoute", "web", "name: s", &format!("hostnames: [ignored.example], {l4}"));
        let routed = service(&model(&yaml), "web/s", 80).routed;
        let names: Vec<_> = routed.tls_rules.iter().flat_map(|one| one.hostnames.clone()).collect();
        let tcp: Vec<_> = routed.tcp_rules.iter().map(|one| one.origin.as_ref().unwrap().kind.clone()).collect();
        (routed.http.is_some(), names.join(" "), tcp.join(" "))
    };
    let host = "s.web.svc.cluster.local".to_owned();
    assert_eq!(served("http"), (true, String::new(), String::new()));
    assert_eq!(served("tls"), (false, host.clone(), "TCPRoute".into()));
    assert_eq!(served("tcp"), (false, String::new(), "TLSRoute TCPRoute".into()), "nobody looks at the server name");
    assert_eq!(served("other"), (true, host, "TCPRoute".into()));
}

#[test]
fn a_service_entry_is_a_parent_for_all_its_hosts() {
    let entry = "kind: ServiceEntry\nmetadata: {name: ext, namespace: web}\nspec: {hosts: [x.example.com, y.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n---\n";
    let parent = route("HTTPRoute", "web", "name: ext", TO_B)
        .replace("group: '', kind: Service,", "group: networking.istio.io, kind: ServiceEntry,");
    let model = model(&(services("web") + entry + &parent));
    for host in ["x.example.com", "y.example.com"] {
        let mut names = Names::default();
        let routed = for_service(model.world(), &key("web/wp"), &HostKey::new("web", host), 80, &mut names);
        assert!(routed.http.is_some(), "{host}");
    }
    assert_eq!(says(&model, "web/r", words::ACCEPTED), "True Accepted");
}
