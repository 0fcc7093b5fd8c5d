//! Rows of the specification, as statuses.

use super::*;
use crate::translate::conditions::ListenerPart;
use crate::translate::fixture;
use crate::translate::gateway::Kinds;
use crate::translate::plan::Plan;
use crate::world::{Change, Kind, MeshSettings};

use mesh_core::names::NamespacedName;

fn world(yaml: &str) -> crate::translate::Model {
    fixture::model(yaml, MeshSettings::default())
}

/// The status of the first Gateway.
fn status(yaml: &str) -> ObjectStatus {
    let model = world(yaml);
    let one = model.world().gateways().next().expect("a Gateway").clone();
    gateway(model.world(), &one).expect("a status")
}

fn parts(status: &ObjectStatus) -> &GatewayParts {
    match &status.parts {
        Parts::Gateway(parts) => parts,
        other => panic!("{other:?}"),
    }
}

fn said<'a>(conditions: &'a [Condition], type_: &str) -> (bool, &'a str, &'a str) {
    let found = conditions.iter().find(|one| one.type_ == type_).unwrap_or_else(|| panic!("no {type_}"));
    (found.holds, found.reason, &found.message)
}

fn listener<'a>(status: &'a ObjectStatus, name: &str) -> &'a ListenerPart {
    let listeners = match &status.parts {
        Parts::Gateway(parts) => parts.listeners.as_deref().unwrap(),
        Parts::Listeners(listeners) => listeners,
        other => panic!("{other:?}"),
    };
    listeners.iter().find(|one| &*one.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn addresses(status: &ObjectStatus) -> Option<Vec<(String, String)>> {
    let all = parts(status).addresses.as_ref()?;
    Some(all.iter().map(|one| (one.type_.clone().unwrap(), one.value.clone())).collect())
}

fn pair(type_: &str, value: &str) -> (String, String) {
    (type_.to_owned(), value.to_owned())
}

const WAYPOINT: &str = "
kind: Gateway
metadata: {name: wp, namespace: web, uid: u1, generation: 3}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Service
metadata: {name: wp, namespace: web}
spec: {clusterIP: 10.0.0.9, ports: [{name: mesh, port: 15008}]}
---
kind: Pod
metadata: {name: wp-1, namespace: web, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {nodeName: node-1}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: READY}]}
";

#[test]
fn gateway_row_10_a_waypoint_with_a_ready_pod_is_programmed() {
    let status = status(&WAYPOINT.replace("READY", "'True'"));
    assert_eq!(status.generation, 3);
    assert_eq!(
        addresses(&status).unwrap(),
        [pair("Hostname", "wp.web.svc.cluster.local"), pair("IPAddress", "10.0.0.9")]
    );
    let (holds, reason, message) = said(&status.conditions, "Programmed");
    assert!(holds && reason == "Programmed" && message.contains("wp.web.svc.cluster.local:15008"), "{message}");
    assert_eq!(said(&status.conditions, "Accepted").1, "Accepted");
    let mesh = listener(&status, "mesh");
    assert!(mesh.supported_kinds.is_empty() && mesh.attached_routes == 0);
    for type_ in ["Accepted", "Programmed", "ResolvedRefs"] {
        assert!(said(&mesh.conditions, type_).0, "{type_}");
    }
    assert_eq!(said(&mesh.conditions, "Conflicted").1, "NoConflicts");
}

#[test]
fn gateway_row_11_addresses_stay_when_all_pods_are_gone() {
    let dead = status(&WAYPOINT.replace("READY", "'False'"));
    assert_eq!(addresses(&dead), None, "those that are there are not touched");
    let (holds, reason, message) = said(&dead.conditions, "Programmed");
    assert!(!holds && reason == "AddressNotAssigned" && message.contains("no pod"), "{message}");
    assert!(said(&dead.conditions, "Accepted").0);
}

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
kind: Service
metadata: {name: edge-istio, namespace: web}
spec: {type: LoadBalancer, clusterIP: 10.0.0.9, ports: [{name: http, port: 80, targetPort: 8080}]}
status: {loadBalancer: {ingress: INGRESS}}
";

#[test]
fn addresses_from_outside_come_first() {
    let waiting = status(&EDGE.replace("INGRESS", "[]"));
    assert_eq!(said(&waiting.conditions, "Programmed").1, "AddressNotAssigned");
    assert_eq!(addresses(&waiting).unwrap(), [pair("Hostname", "edge-istio.web.svc.cluster.local")]);
    let assigned = status(&EDGE.replace("INGRESS", "[{hostname: lb.example}, {ip: 1.2.3.4}]"));
    assert!(said(&assigned.conditions, "Programmed").0);
    assert_eq!(addresses(&assigned).unwrap(), [pair("IPAddress", "1.2.3.4"), pair("Hostname", "lb.example")]);
    let annotated =
        EDGE.replace("INGRESS", "[]").replace("uid: u1", "annotations: {networking.istio.io/address-type: IPAddress}");
    assert_eq!(addresses(&status(&annotated)).unwrap(), [pair("IPAddress", "10.0.0.9")]);
}

#[test]
fn a_port_that_the_service_lacks_is_named_with_a_hint() {
    let yaml = EDGE.replace("INGRESS", "[{ip: 1.2.3.4}]").replace("port: 80, protocol", "port: 8080, protocol");
    let status = status(&yaml);
    let (holds, reason, message) = said(&status.conditions, "Programmed");
    assert!(!holds && reason == "AddressNotUsable", "{reason}");
    assert!(message.contains("8080") && message.contains("targetPort of service port 80"), "{message}");
    assert!(said(&status.conditions, "Accepted").0, "accepted all the same");
}

#[test]
fn a_listener_that_cannot_be_served_keeps_nobody_from_the_others() {
    for odd in ["{name: odd, port: 53, protocol: UDP}", "{name: odd, port: 15020, protocol: HTTP}"] {
        let yaml = EDGE.replace("INGRESS", "[{ip: 1.2.3.4}]").replace(
            "[{name: http, port: 80, protocol: HTTP}]",
            &format!("[{{name: http, port: 80, protocol: HTTP}}, {odd}]"),
        );
        assert!(yaml.contains(odd));
        let status = status(&yaml);
        assert_eq!(said(&status.conditions, "Programmed").1, "Programmed", "{odd}");
        assert!(!said(&listener(&status, "odd").conditions, "Accepted").0, "{odd}");
    }
}

#[test]
fn services_of_the_user_are_named_as_addresses() {
    let yaml = EDGE
        .replace("INGRESS", "[{ip: 1.2.3.4}]")
        .replace("gatewayClassName: istio\n", "gatewayClassName: istio\n  addresses: [{type: Hostname, value: edge-istio}, {type: IPAddress, value: 9.9.9.9}]\n");
    let status = status(&yaml);
    let (holds, reason, message) = said(&status.conditions, "Accepted");
    assert!(!holds && reason == "UnsupportedAddress" && message.contains("9.9.9.9"), "{message}");
    assert!(said(&status.conditions, "Programmed").0);
    assert_eq!(addresses(&status).unwrap(), [pair("IPAddress", "1.2.3.4")]);
}

#[test]
fn listeners_that_cannot_be_served_say_why() {
    let listeners = "[
    {name: fine, port: 80, protocol: HTTP},
    {name: other, port: 80, protocol: TCP},
    {name: same, port: 80, protocol: HTTP},
    {name: udp, port: 53, protocol: UDP},
    {name: small, port: 81, protocol: http},
    {name: hbone, port: 15008, protocol: HBONE},
    {name: bare, port: 443, protocol: HTTPS},
    {name: secret, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}},
    {name: kinds, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}},
  ]";
    let yaml = EDGE.replace("INGRESS", "[]").replace("[{name: http, port: 80, protocol: HTTP}]", listeners);
    let mut model = world(&yaml);
    model.apply(Change::Delete(Kind::Secret, NamespacedName::new("web", "cert")));
    let one = model.world().gateways().next().unwrap().clone();
    let status = gateway(model.world(), &one).unwrap();
    let reason = |name: &str, type_: &str| said(&listener(&status, name).conditions, type_).1.to_owned();
    assert_eq!(
        (reason("other", "Accepted"), reason("other", "Conflicted")),
        ("ProtocolConflict".into(), "ProtocolConflict".into())
    );
    assert_eq!(
        (reason("same", "Conflicted"), reason("same", "Programmed")),
        ("HostnameConflict".into(), "HostnameConflict".into())
    );
    for name in ["udp", "small", "hbone", "bare"] {
        assert_eq!(
            (reason(name, "Accepted"), reason(name, "Programmed")),
            ("UnsupportedProtocol".into(), "Invalid".into()),
            "{name}"
        );
    }
    assert!(said(&listener(&status, "small").conditions, "Accepted").2.contains("HTTP is written in capitals"));
    assert_eq!(
        (reason("secret", "ResolvedRefs"), reason("secret", "Programmed")),
        ("InvalidCertificateRef".into(), "Invalid".into())
    );
    assert_eq!(reason("secret", "Accepted"), "Accepted");
    assert_eq!(
        (reason("kinds", "ResolvedRefs"), reason("kinds", "Programmed")),
        ("InvalidRouteKinds".into(), "Programmed".into())
    );
    let kinds: Vec<_> = listener(&status, "kinds").supported_kinds.iter().map(|one| one.kind.clone()).collect();
    assert_eq!(kinds, ["HTTPRoute"]);
    assert_eq!(reason("fine", "Accepted"), "Accepted");
    let (holds, reason, message) = said(&status.conditions, "Accepted");
    assert!(holds && reason == "ListenersNotValid" && message.contains("udp"), "{message}");
}

#[test]
fn a_gateway_without_a_valid_listener_is_not_accepted() {
    let yaml = EDGE.replace("INGRESS", "[]").replace("protocol: HTTP", "protocol: UDP");
    assert!(!said(&status(&yaml).conditions, "Accepted").0);
    let inside = WAYPOINT.replace("15008, protocol: HBONE", "80, protocol: HTTP");
    let status = status(&inside);
    assert_eq!(said(&status.conditions, "Accepted").1, "Accepted", "the listener tells of it, and nothing else");
    let mesh = listener(&status, "mesh");
    assert_eq!(said(&mesh.conditions, "Accepted").1, "UnsupportedProtocol");
    assert!(said(&mesh.conditions, "Programmed").0);
}

#[test]
fn a_gateway_of_another_cluster_is_told_as_it_is() {
    let yaml = "
kind: Gateway
metadata: {name: far, namespace: web}
spec: {gatewayClassName: istio-remote, addresses: [{type: IPAddress, value: 1.2.3.4}], listeners: [{name: m, port: 15008, protocol: HBONE}]}
";
    let status = status(yaml);
    assert!(said(&status.conditions, "Programmed").0 && parts(&status).listeners.is_none());
    assert_eq!(addresses(&status).unwrap(), [pair("IPAddress", "1.2.3.4")]);
}

#[test]
fn who_is_not_the_owner_says_nothing() {
    let model = world(&WAYPOINT.replace("uid: u1", "labels: {istio.io/rev: blue}"));
    let one = model.world().gateways().next().unwrap().clone();
    assert_eq!(gateway(model.world(), &one), None);
}

const SET: &str = "
---
kind: ListenerSet
metadata: {name: more, namespace: team, uid: u2, generation: 4}
spec:
  parentRef: {name: edge, namespace: web}
  listeners: [{name: extra, protocol: HTTP, hostname: x.com}, {name: same, port: 80, protocol: HTTP}]
";

fn set_status(yaml: &str) -> ObjectStatus {
    let model = world(yaml);
    let set = model.world().listener_set(&NamespacedName::new("team", "more")).expect("a set").clone();
    listener_set(model.world(), &set).expect("a status")
}

#[test]
fn gateway_row_19_a_listener_set_needs_to_be_allowed() {
    let status = set_status(&(EDGE.replace("INGRESS", "[]") + SET));
    for type_ in ["Accepted", "Programmed"] {
        let (holds, reason, _) = said(&status.conditions, type_);
        assert_eq!((holds, reason), (false, "NotAllowed"));
    }
    let of_waypoint = WAYPOINT.replace("name: wp,", "name: edge,") + SET;
    assert_eq!(said(&set_status(&of_waypoint).conditions, "Accepted").1, "NotAllowed");
}

#[test]
fn an_allowed_listener_set_takes_part() {
    let edge = EDGE.replace("INGRESS", "[{ip: 1.2.3.4}]");
    let edge = edge.replace(
        "gatewayClassName: istio\n",
        "gatewayClassName: istio\n  allowedListeners: {namespaces: {from: All}}\n",
    );
    let yaml = edge + SET;
    let set = set_status(&yaml);
    assert_eq!(
        said(&set.conditions, "Accepted"),
        (true, "ListenersNotValid", "accepted, but not all listeners are valid")
    );
    assert!(said(&set.conditions, "Programmed").0);
    assert!(said(&listener(&set, "extra").conditions, "Accepted").0, "its port is the usual one");
    assert_eq!(said(&listener(&set, "same").conditions, "Conflicted").1, "HostnameConflict");
    let of_gateway = status(&yaml);
    assert_eq!(
        (parts(&of_gateway).attached_listener_sets, said(&of_gateway.conditions, "Accepted").1),
        (1, "Accepted")
    );
    assert_eq!(parts(&of_gateway).listeners.as_ref().unwrap().len(), 1);
    let broken = set_status(
        &yaml.replace("[{name: http, port: 80, protocol: HTTP}]", "[{name: http, port: 80, protocol: UDP}]"),
    );
    let (holds, reason, message) = said(&broken.conditions, "Accepted");
    assert!(!holds && reason == "ListenersNotValid" && message.starts_with("parent not accepted"), "{message}");
}

#[test]
fn classes_of_ours_list_their_features() {
    let yaml =
        "kind: GatewayClass\nmetadata: {name: mine, generation: 2}\nspec: {controllerName: istio.io/mesh-controller}\n";
    let model = world(yaml);
    let status = class(model.world(), model.world().gateway_class("mine").unwrap()).unwrap();
    assert_eq!((status.generation, said(&status.conditions, "Accepted").1), (2, "Accepted"));
    let Parts::Features(features) = &status.parts else { panic!("{status:?}") };
    assert!(features.is_sorted() && features.len() <= 64 && features.contains(&"HTTPRoute"));
    let foreign = world(&yaml.replace("istio.io/mesh", "example.com/mesh"));
    assert_eq!(class(foreign.world(), foreign.world().gateway_class("mine").unwrap()), None);
}

#[test]
fn passing_tls_between_networks_is_refused_and_says_so() {
    let passing = |options: &str, labels: &str| {
        let yaml = format!(
            "kind: Gateway\nmetadata: {{name: edge, namespace: web, uid: u1, labels: {{{labels}}}}}\nspec:\n  gatewayClassName: istio\n  \
             listeners: [{{name: tls, port: 15443, protocol: TLS, tls: {{mode: Passthrough, options: {{{options}}}}}}}]\n"
        );
        let status = status(&yaml);
        let conditions = listener(&status, "tls").conditions.clone();
        (said(&conditions, "Accepted").1.to_owned(), said(&conditions, "Programmed").0)
    };
    assert_eq!(passing("", ""), ("Accepted".to_owned(), true));
    let yaml = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  listeners: [{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough, options: {example.com/new: 'on'}}}]
";
    let conditions = listener(&status(yaml), "tls").conditions.clone();
    let (holds, _, message) = said(&conditions, "Programmed");
    assert!(holds && message.contains("example.com/new"), "an option that nobody knows is told: {message}");
    let refused = ("UnsupportedValue".to_owned(), false);
    assert_eq!(passing("gateway.istio.io/listener-protocol: auto-passthrough", ""), refused);
    assert_eq!(passing("", "networking.istio.io/gatewayPort: '15443'"), refused);
    assert_eq!(passing("", "networking.istio.io/gatewayPort: '443'"), ("Accepted".to_owned(), true));
}

#[test]
fn an_east_west_gateway_takes_tunnels_and_says_that_it_passes_no_tls() {
    let yaml = "
kind: Gateway
metadata: {name: ew, namespace: web, uid: u1}
spec:
  gatewayClassName: istio-east-west
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE, tls: {mode: Terminate}}
  - {name: tls, port: 15443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: http, port: 80, protocol: HTTP}
";
    let model = fixture::model(yaml, MeshSettings { multi_network: true, ..MeshSettings::default() });
    let one = model.world().gateways().next().unwrap().clone();
    let status = gateway(model.world(), &one).unwrap();
    let of = |name: &str| {
        let conditions = &listener(&status, name).conditions;
        (said(conditions, "Accepted").1.to_owned(), said(conditions, "Programmed").0)
    };
    assert_eq!(of("mesh"), ("Accepted".to_owned(), true));
    assert_eq!(of("tls"), ("Accepted".to_owned(), false));
    assert_eq!(of("http"), ("UnsupportedProtocol".to_owned(), true));
    assert!(said(&status.conditions, "Accepted").0);
}

#[test]
fn a_port_that_the_proxy_has_for_itself_takes_no_listener() {
    for (port, free) in [(15000, false), (15020, false), (15021, false), (15090, false), (15022, true)] {
        let yaml = format!(
            "kind: Gateway\nmetadata: {{name: edge, namespace: web, uid: u1}}\nspec: {{gatewayClassName: istio, listeners: \
             [{{name: http, port: 80, protocol: HTTP}}, {{name: odd, port: {port}, protocol: HTTP}}]}}\n"
        );
        let model = world(&yaml);
        let one = model.world().gateways().next().unwrap().clone();
        let status = gateway(model.world(), &one).unwrap();
        let (holds, reason, _) = said(&listener(&status, "odd").conditions, words::ACCEPTED);
        assert_eq!((holds, reason), if free { (true, "Accepted") } else { (false, "PortUnavailable") }, "{port}");
        let told = model.layer7().resources().contains_key("web/edge/listener/odd");
        assert_eq!(told, free, "{port}");
        let Some(Plan::Deploy(plan)) = plan::plan(model.world(), &one) else { panic!("no plan") };
        let ports = &plan.objects[&Kinds::Service]["spec"]["ports"];
        let published = ports.as_array().unwrap().iter().filter(|one| one["name"] == "odd").count();
        assert_eq!(published == 1, free, "{port}");
    }
}

#[test]
fn names_under_which_nothing_can_be_made_are_told() {
    let one = |name: &str, annotation: &str, created: u8| {
        format!(
            "kind: Gateway\nmetadata: {{name: {name}, namespace: web, uid: {name}, creationTimestamp: \
             '1970-01-01T00:00:0{created}Z', annotations: {{{annotation}}}}}\nspec: {{gatewayClassName: istio-waypoint, \
             listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n---\n"
        )
    };
    let other = |name: &str| format!("gateway.istio.io/name-override: {name}");
    let judge = |yaml: &str, name: &str| {
        let model = world(yaml);
        let one = model.world().gateway(&NamespacedName::new("web", name)).unwrap().clone();
        let status = gateway(model.world(), &one).unwrap();
        let (holds, reason, message) = said(&status.conditions, words::ACCEPTED);
        let refused = matches!(plan::plan(model.world(), &one), Some(Plan::Refused(_)));
        assert_eq!(refused, !holds, "{message}");
        (holds, reason.to_owned(), message.to_owned())
    };
    for (yaml, name, part) in [
        (one("a.b", "", 1), "a.b", "the name \"a.b\""),
        (one("1a", "", 1), "1a", "a letter first"),
        (one("a", &other("A_b"), 1), "a", "the name \"A_b\""),
        (one("a", &other(&"x".repeat(64)), 1), "a", "no more than 63"),
        (one("a", "gateway.istio.io/service-account: 'a b'", 1), "a", "service account"),
        (one("a", &other("b"), 2) + &one("b", "", 1), "a", "older Gateway web/b"),
    ] {
        let (holds, reason, message) = judge(&yaml, name);
        assert!(!holds && reason == "Invalid" && message.contains(part), "{name}: {message}");
    }
    assert!(judge(&one("a.b", &other("a-b"), 1), "a.b").0, "another name helps");
    assert!(judge(&(one("a", &other("b"), 1) + &one("b", "", 2)), "a").0, "who was there first");
    assert!(judge(&one(&"x".repeat(100), "", 1), &"x".repeat(100)).0, "a long name is cut");
}
