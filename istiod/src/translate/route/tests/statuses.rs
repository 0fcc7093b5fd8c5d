//! What the status of a route says beside its verdicts: section 12 of the gateway controller's spec.

use super::*;

const WAYPOINT: &str = "kind: Gateway\nmetadata: {name: wp, namespace: infra}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}\nstatus: {addresses: [{type: IPAddress, value: 10.0.0.9}]}\n---\n";

fn service_a(labels: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{name: a, namespace: web, labels: {{{labels}}}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n"
    )
}

fn mesh_route(namespace: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: r, namespace: {namespace}, generation: 7}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: a, namespace: web}}], rules: [{{backendRefs: [{{name: a, namespace: web, port: 80}}]}}]}}\n---\n"
    )
}

const BOUND: &str = "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra";

fn waypoints(yaml: &str, route: &str) -> String {
    let [parent] = parents(&model(yaml), Kind::HttpRoute, route).try_into().unwrap();
    assert_eq!(brief(&parent.conditions, words::RESOLVED_WAYPOINTS), "True ResolvedWaypoints");
    parent.conditions[2].message.clone()
}

#[test]
fn the_waypoint_of_a_mesh_route_is_told() {
    let bound = WAYPOINT.to_owned() + &service_a(BOUND);
    assert!(waypoints(&(bound.clone() + &mesh_route("web")), "web/r").contains("resolved: infra/wp"));
    assert!(waypoints(&(bound.clone() + &mesh_route("infra")), "infra/r").contains("resolved: infra/wp"));
    let consumer = waypoints(&(bound + &mesh_route("clients")), "clients/r");
    assert!(consumer.contains("no effect") && consumer.contains("namespaces web and infra only"), "{consumer}");
    let unbound = waypoints(&(service_a("") + &mesh_route("web")), "web/r");
    assert!(unbound.contains("istio.io/use-waypoint") && unbound.contains("no effect"), "{unbound}");
    let waiting = waypoints(&(service_a(BOUND) + &mesh_route("web")), "web/r");
    assert!(waiting.contains("until its waypoint is there"), "{waiting}");
    assert!(waypoints(&mesh_route("web"), "web/r").contains("does not exist"));
}

#[test]
fn a_parent_that_does_not_exist_is_no_match() {
    let mut model = model(&mesh_route("web"));
    assert_eq!(says(&model, "web/r", words::ACCEPTED), "False NoMatchingParent");
    fixture::changes(&service_a("")).into_iter().for_each(|change| model.apply(change));
    model.flush();
    assert_eq!(says(&model, "web/r", words::ACCEPTED), "True Accepted", "as soon as it is there");
}

#[test]
fn a_waypoint_of_somebody_else_is_left_alone() {
    let theirs = "kind: GatewayClass\nmetadata: {name: theirs}\nspec: {controllerName: example.com/theirs}\n---\n"
        .to_owned()
        + &WAYPOINT.replace("gatewayClassName: istio-waypoint", "gatewayClassName: theirs");
    assert!(parents(&model(&(theirs + &service_a(BOUND) + &mesh_route("web"))), Kind::HttpRoute, "web/r").is_empty());
}

#[test]
fn the_generation_that_was_judged_is_told_and_what_cannot_be_read_too() {
    let target = StatusTarget { kind: Kind::HttpRoute, key: key("web/r"), manager: ROUTE_MANAGER };
    let mut model = model(&(service_a("") + &mesh_route("web")));
    assert_eq!(model.statuses()[&target].generation, 7);
    model.apply(crate::world::Change::Broken {
        kind: Kind::HttpRoute,
        key: key("web/r"),
        generation: 8,
        reason: "spec.rules: no list".into(),
        stand_in: None,
    });
    model.flush();
    assert_eq!(model.statuses()[&target].generation, 8);
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False InvalidConfiguration");
    assert!(service(&model, "web/a", 80).routed.http.is_some(), "the last readable version stays");
    model.apply(crate::world::Change::Delete(Kind::HttpRoute, key("web/r")));
    model.flush();
    assert!(!model.statuses().contains_key(&target));
}

#[test]
fn each_parent_has_its_own_verdict() {
    let route = "kind: HTTPRoute\nmetadata: {name: r, namespace: web}\nspec: {parentRefs: [{name: edge}, {name: edge, sectionName: none}, {group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, namespace: far, port: 80}]}]}\n---\n";
    let model = model(&(open_edge() + &services("far") + &service_a("") + route));
    let told: Vec<_> = parents(&model, Kind::HttpRoute, "web/r")
        .into_iter()
        .map(|one| (brief(&one.conditions, words::ACCEPTED), brief(&one.conditions, words::RESOLVED_REFS)))
        .collect();
    let wanted = [
        ("True Accepted", "False RefNotPermitted"),
        ("False NoMatchingParent", "False RefNotPermitted"),
        ("True Accepted", "True ResolvedRefs"),
    ];
    assert_eq!(told, wanted.map(|(accepted, resolved)| (accepted.to_owned(), resolved.to_owned())));
}

#[test]
fn a_udp_route_has_a_place_nowhere() {
    let route = "kind: UDPRoute\nmetadata: {name: u, namespace: web, generation: 2}\nspec: {parentRefs: [{name: edge}, {group: '', kind: Service, name: a}, {name: theirs}], rules: [{backendRefs: [{name: a, port: 80}]}]}\n---\n";
    let theirs = "kind: Gateway\nmetadata: {name: theirs, namespace: web}\nspec: {gatewayClassName: theirs, listeners: []}\n---\n";
    let model = model(&(open_edge() + theirs + &service_a("") + route));
    let told = parents(&model, Kind::UdpRoute, "web/u");
    assert_eq!(told.len(), 2, "nothing of gateways of others");
    for parent in told {
        assert_eq!(brief(&parent.conditions, words::ACCEPTED), "False UnsupportedValue");
    }
    assert!(service(&model, "web/a", 80).routed.is_empty() && listener(&model, "http").routed.is_empty());
}

#[test]
fn a_route_that_fits_no_port_of_its_service_is_told() {
    let ports = |ports: &str| service_a(BOUND).replace("{name: http, port: 80}", ports);
    let told = |ports_of: &str| waypoints(&(WAYPOINT.to_owned() + &ports(ports_of) + &mesh_route("web")), "web/r");
    let opaque = told("{name: tcp, port: 80}, {name: mysql, port: 81}");
    assert!(opaque.contains("no effect") && opaque.contains("HTTPRoute"), "{opaque}");
    assert!(told("{name: tcp, port: 80}, {name: any, port: 81}").contains("resolved: infra/wp"));
    let named = mesh_route("web").replace("namespace: web}], rules", "namespace: web, port: 99}], rules");
    let missing = waypoints(&(WAYPOINT.to_owned() + &service_a(BOUND) + &named), "web/r");
    assert!(missing.contains("no effect") && missing.contains("no port 99"), "{missing}");
}
