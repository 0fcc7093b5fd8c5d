//! Every precedence rule of waypoint binding.

use mesh_wire::workload::gateway_address::Destination;

use super::*;
use crate::translate::Model;
use crate::translate::fixture;
use crate::world::{HostKey, MeshSettings};

/// Gateways that are ready, one that is not, and one whose listener lets some namespaces in.
const GATEWAYS: &str = "
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.0.0.1}, {type: Hostname, value: wp.ns.svc.cluster.local}]}
---
kind: Gateway
metadata: {name: next, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: fd00::2}, {value: 10.0.0.2}]}
---
kind: Gateway
metadata: {name: pending, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Gateway
metadata: {name: pods, namespace: ns, labels: {istio.io/waypoint-for: workload}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.3}]}
---
kind: Gateway
metadata: {name: all, namespace: ns, labels: {istio.io/waypoint-for: all}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.4}]}
---
kind: Gateway
metadata: {name: shared, namespace: infra}
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}
status: {addresses: [{value: 10.0.0.5}]}
---
kind: Gateway
metadata: {name: closed, namespace: infra}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.6}]}
";

fn model(yaml: &str) -> Model {
    fixture::model(&format!("{GATEWAYS}\n---\n{yaml}"), MeshSettings::default())
}

fn namespace(labels: &str) -> String {
    format!("kind: Namespace\nmetadata: {{name: ns, labels: {{team: a, {labels}}}}}\n---\n")
}

fn service(labels: &str) -> String {
    format!("kind: Service\nmetadata: {{name: web, namespace: ns, labels: {{{labels}}}}}\n---\n")
}

fn pod(labels: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: web, namespace: ns, labels: {{{labels}}}}}\nspec: {{serviceAccountName: sa}}\n\
         status: {{podIPs: [{{ip: 10.1.0.1}}]}}\n---\n"
    )
}

fn bound(yaml: &str) -> Bound {
    let model = model(yaml);
    let world = model.world();
    for_service(world, Subject::of_service(world.service(&NamespacedName::new("ns", "web")).unwrap()))
}

/// Where a service goes, or the reason why it does not.
fn outcome(yaml: &str) -> String {
    let bound = bound(yaml);
    match (bound.waypoint, bound.condition) {
        (Some(address), Some(condition)) if condition.holds => name(&address),
        (None, Some(condition)) if !condition.holds => condition.reason.to_owned(),
        (None, None) => "unbound".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn name(address: &WireAddress) -> String {
    assert_eq!(address.hbone_mtls_port, 15008);
    match address.destination.as_ref().unwrap() {
        Destination::Hostname(host) => format!("{}/{}", host.namespace, host.hostname),
        Destination::Address(ip) => mesh_core::addr::ip_from_bytes(&ip.address).unwrap().to_string(),
    }
}

const WP: &str = "ns/wp.ns.svc.cluster.local";

#[test]
fn model_row_11_an_opt_out_hides_the_namespace_and_leaves_no_condition() {
    let wide = namespace("istio.io/use-waypoint: wp");
    assert_eq!(outcome(&(wide.clone() + &service("istio.io/use-waypoint: none"))), "unbound");
    assert_eq!(outcome(&(wide + &service(""))), WP);
}

#[test]
fn model_row_12_a_missing_waypoint_is_no_reason_to_take_that_of_the_namespace() {
    let wide = namespace("istio.io/use-waypoint: wp");
    assert_eq!(outcome(&(wide + &service("istio.io/use-waypoint: ghost"))), "WaypointIsNotReady");
}

#[test]
fn every_step_of_the_resolution_of_a_service() {
    let rows = [
        ("nothing asked for", "", "", "unbound"),
        ("own label", "", "istio.io/use-waypoint: wp", WP),
        ("namespace label", "istio.io/use-waypoint: wp", "", WP),
        ("own label first", "istio.io/use-waypoint: wp", "istio.io/use-waypoint: next", "fd00::2"),
        ("namespace opts out", "istio.io/use-waypoint: none", "", "unbound"),
        ("not ready", "", "istio.io/use-waypoint: pending", "WaypointIsNotReady"),
        ("namespace not ready", "istio.io/use-waypoint: pending", "", "WaypointIsNotReady"),
        ("only the namespace of the waypoint", "", "istio.io/use-waypoint-namespace: infra", "unbound"),
        ("wrong type", "", "istio.io/use-waypoint: pods", "UnsupportedTrafficType"),
        ("wrong type, inherited", "istio.io/use-waypoint: pods", "", "UnsupportedTrafficType"),
        (
            "wrong type hides the namespace",
            "istio.io/use-waypoint: wp",
            "istio.io/use-waypoint: pods",
            "UnsupportedTrafficType",
        ),
        ("all", "", "istio.io/use-waypoint: all", "10.0.0.4"),
        ("another namespace", "", "istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra", "10.0.0.5"),
        ("not let in", "", "istio.io/use-waypoint: closed, istio.io/use-waypoint-namespace: infra", "AttachmentDenied"),
        (
            "inherited from another namespace",
            "istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra",
            "",
            "10.0.0.5",
        ),
        (
            "service of a waypoint",
            "istio.io/use-waypoint: wp",
            "gateway.istio.io/managed: istio.io-mesh-controller",
            "unbound",
        ),
        (
            "service of an ingress gateway",
            "istio.io/use-waypoint: wp",
            "gateway.istio.io/managed: istio.io-gateway-controller",
            WP,
        ),
    ];
    for (row, wide, own, expected) in rows {
        assert_eq!(outcome(&(namespace(wide) + &service(own))), expected, "{row}");
    }
    // The namespace lost the label that the listener asks for.
    let shared = service("istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra");
    assert_eq!(outcome(&format!("kind: Namespace\nmetadata: {{name: ns}}\n---\n{shared}")), "AttachmentDenied");
}

#[test]
fn every_step_of_the_resolution_of_a_pod() {
    let rows = [
        ("nothing asked for", "", "", None),
        ("own label", "", "istio.io/use-waypoint: pods", Some("10.0.0.3")),
        ("all", "istio.io/use-waypoint: all", "", Some("10.0.0.4")),
        ("namespace for services", "istio.io/use-waypoint: wp", "", None),
        ("own label for services", "istio.io/use-waypoint: all", "istio.io/use-waypoint: wp", None),
        ("opt-out", "istio.io/use-waypoint: all", "istio.io/use-waypoint: none", None),
        ("pod of a waypoint", "istio.io/use-waypoint: all", "gateway.networking.k8s.io/gateway-name: all", None),
        (
            "pod of a waypoint that is not ready",
            "istio.io/use-waypoint: all",
            "gateway.networking.k8s.io/gateway-name: pending",
            Some("10.0.0.4"),
        ),
    ];
    for (row, wide, own, expected) in rows {
        let model = model(&(namespace(wide) + &pod(own)));
        let world = model.world();
        let waypoint = for_pod(world, world.pod(&NamespacedName::new("ns", "web")).unwrap());
        assert_eq!(waypoint.as_ref().map(name).as_deref(), expected, "{row}");
    }
}

#[test]
fn a_workload_that_inherits_the_wrong_type_says_nothing_about_it() {
    let model = model(&namespace("istio.io/use-waypoint: wp"));
    let ns = Arc::from("ns");
    let reason = |binding: Option<&Binding>| {
        for_workload(model.world(), Subject::new(&ns, binding)).condition.map(|one| one.reason)
    };
    assert_eq!(reason(None), None);
    let labels = [("istio.io/use-waypoint".to_owned(), "wp".to_owned())].into();
    assert_eq!(reason(Binding::read(Some(&labels), None).as_deref()), Some("UnsupportedTrafficType"));
}

#[test]
fn the_class_decides_what_the_gateway_does_not_say() {
    let class = |what: &str| {
        format!(
            "kind: GatewayClass\nmetadata: {{name: istio-waypoint, {what}}}\nspec: {{controllerName: istio.io/mesh-controller}}\n---\n"
        )
    };
    let service = service("istio.io/use-waypoint: wp");
    let workloads = class("labels: {istio.io/waypoint-for: workload}");
    assert_eq!(outcome(&(workloads.clone() + &service)), "UnsupportedTrafficType");
    assert_eq!(outcome(&(workloads + &self::service("istio.io/use-waypoint: all"))), "10.0.0.4");
    let unknown = class("labels: {istio.io/waypoint-for: services}");
    assert_eq!(outcome(&(unknown + &service)), "UnsupportedTrafficType");
    let bound = class("annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/15088}");
    let model = model(&(bound + &pod("gateway.networking.k8s.io/gateway-name: wp")));
    let world = model.world();
    let tunnel = application_tunnel(world, world.pod(&NamespacedName::new("ns", "web")).unwrap()).unwrap();
    assert_eq!((tunnel.protocol(), tunnel.port), (Protocol::Proxy, 15088));
}

#[test]
fn the_inbound_binding_decides_which_listener_lets_in() {
    let gateway = |binding: &str| {
        format!(
            "kind: Gateway
metadata: {{name: bound, namespace: infra, annotations: {{ambient.istio.io/waypoint-inbound-binding: {binding}}}}}
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - {{name: proxy, port: 15088, protocol: istio.io/PROXY, allowedRoutes: {{namespaces: {{from: All}}}}}}
  - {{name: other, port: 15089, protocol: TCP}}
status: {{addresses: [{{value: 10.0.0.7}}]}}
---
"
        )
    };
    let service = namespace("") + &service("istio.io/use-waypoint: bound, istio.io/use-waypoint-namespace: infra");
    for (binding, expected) in [
        ("PROXY", "10.0.0.7"),
        ("PROXY/15088", "10.0.0.7"),
        ("PROXY/15089", "AttachmentDenied"),
        ("PROXY/1", "AttachmentDenied"),
        ("NONE", "AttachmentDenied"),
    ] {
        assert_eq!(outcome(&(gateway(binding) + &service)), expected, "{binding}");
    }
}

#[test]
fn what_is_private_keeps_its_waypoint_at_home() {
    let model = model(&namespace(""));
    let ns = Arc::from("ns");
    let reason = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let binding = Binding::read(Some(&labels), None);
        let subject = Subject { private: true, ..Subject::new(&ns, binding.as_deref()) };
        for_service(model.world(), subject).condition.unwrap().reason
    };
    assert_eq!(reason(&[("istio.io/use-waypoint", "wp")]), "WaypointAccepted");
    let far = [("istio.io/use-waypoint", "shared"), ("istio.io/use-waypoint-namespace", "infra")];
    assert_eq!(reason(&far), "CrossNamespaceWaypointForbidden");
}

/// The shares, and the message of the condition.
fn canary(wide: &str, own: &str, weight: &str) -> (Vec<(String, u32)>, String) {
    let annotation = format!("annotations: {{istio.io/use-waypoint-canary-weight: '{weight}'}}");
    let namespace =
        format!("kind: Namespace\nmetadata: {{name: ns, labels: {{team: a, {wide}}}, {annotation}}}\n---\n");
    let service =
        format!("kind: Service\nmetadata: {{name: web, namespace: ns, labels: {{{own}}}, {annotation}}}\n---\n");
    let bound = bound(&(namespace + &service));
    let condition = bound.condition.unwrap();
    assert!(condition.holds && bound.waypoint.is_some(), "a canary never costs the waypoint: {condition:?}");
    let shares = bound.weighted.iter().map(|one| (name(one.destination.as_ref().unwrap()), one.weight));
    (shares.collect(), condition.message)
}

#[test]
fn a_canary_takes_its_share() {
    let shares = |weight: u32| vec![(WP.to_owned(), 100 - weight), ("fd00::2".to_owned(), weight)];
    let both = "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next";
    for (wide, own) in [("", both), (both, ""), ("istio.io/use-waypoint: wp", "istio.io/use-waypoint-canary: next")] {
        let (got, message) = canary(wide, own, "10");
        assert_eq!(got, shares(10), "{wide} / {own}");
        assert!(message.contains("canary waypoint ns/next takes 10%"), "{message}");
    }
    assert_eq!(canary("", both, "0").0, shares(0));
    assert_eq!(canary("", both, "100").0, shares(100));
    // An own waypoint hides the canary of the namespace.
    assert_eq!(canary("istio.io/use-waypoint-canary: next", "istio.io/use-waypoint: wp", "10").0, []);
}

#[test]
fn a_canary_that_cannot_be_used_is_told() {
    let rows = [
        ("wp", "10", "it is the waypoint itself"),
        ("next", "101", r#"its weight "101" is not a number"#),
        ("ghost", "10", "does not exist"),
        ("pods", "10", "takes traffic of type"),
        ("closed, istio.io/use-waypoint-canary-namespace: infra", "10", "takes nothing from namespace ns"),
    ];
    for (name, weight, part) in rows {
        let own = format!("istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: {name}");
        let (shares, message) = canary("", &own, weight);
        assert!(shares.is_empty() && message.contains("is not used") && message.contains(part), "{message}");
    }
}

#[test]
fn ingress_goes_through_the_waypoint_when_somebody_says_so() {
    let ingress = |wide: &str, own: &str| {
        let bound = bound(&(namespace(wide) + &service(&format!("istio.io/use-waypoint: wp, {own}"))));
        (bound.ingress, bound.condition.unwrap().message)
    };
    assert_eq!(ingress("", ""), (false, "bound to waypoint ns/wp".to_owned()));
    let (on, message) = ingress("", "istio.io/ingress-use-waypoint: 'true'");
    assert!(on && message.contains("ingress traffic goes through it"), "{message}");
    let (off, message) = ingress("istio.io/ingress-use-waypoint: 'true'", "istio.io/ingress-use-waypoint: 'false'");
    assert!(!off && message.contains("ingress traffic does not go through it"), "{message}");
    assert!(ingress("istio.io/ingress-use-waypoint: 'true'", "").0);
    assert!(!ingress("", "istio.io/ingress-use-waypoint: 'yes please'").0);
    // Without a waypoint it means nothing.
    let unbound = bound(&(namespace("") + &service("istio.io/ingress-use-waypoint: 'true'")));
    assert_eq!(unbound, Bound::default());
}

#[test]
fn the_implicit_policy_allows_whoever_runs_the_waypoint() {
    let settings = MeshSettings { implicit_waypoint_allow: true, ..MeshSettings::default() };
    let yaml = format!(
        "{GATEWAYS}\n---\n{}{}{}
kind: Pod
metadata: {{name: wp-1, namespace: ns, labels: {{gateway.networking.k8s.io/gateway-name: wp}}}}
spec: {{serviceAccountName: wp}}
status: {{podIPs: [{{ip: 10.1.0.2}}]}}
",
        namespace("istio.io/use-waypoint: wp"),
        "kind: Service\nmetadata: {name: web, namespace: ns}\nspec: {selector: {app: web}}\n---\n",
        pod("app: web"),
    );
    let model = fixture::model(&yaml, settings);
    let policy = implicit_allow(model.world(), &NamespacedName::new("ns", "wp")).unwrap();
    assert_eq!((policy.name.as_str(), policy.action()), ("istio_allow_waypoint_ns_wp", Action::Allow));
    let principals = &policy.rules[0].clauses[0].matches[0].principals;
    let exact = mesh_wire::security::string_match::MatchType::Exact("cluster.local/ns/ns/sa/wp".into());
    assert_eq!(principals.iter().map(|one| one.match_type.clone()).collect::<Vec<_>>(), [Some(exact)]);
    assert!(model.authorizations().contains_key("ns/istio_allow_waypoint_ns_wp"));
    let policies = |uid: &str| {
        let resource = model.addresses().get(uid).unwrap();
        let address = <mesh_wire::workload::Address as prost::Message>::decode(resource.body.clone()).unwrap();
        let Some(mesh_wire::workload::address::Type::Workload(workload)) = address.r#type else {
            panic!("{address:?}")
        };
        workload.authorization_policies
    };
    assert_eq!(policies("Kubernetes//Pod/ns/web"), ["ns/istio_allow_waypoint_ns_wp"]);
    assert_eq!(policies("Kubernetes//Pod/ns/wp-1"), [""; 0]);
    assert_eq!(implicit_allow(self::model("").world(), &NamespacedName::new("ns", "wp")), None);
    assert!(model.world().winner(&HostKey::new("ns", "web.ns.svc.cluster.local")).is_some());
}

use mesh_wire::security::Action;
