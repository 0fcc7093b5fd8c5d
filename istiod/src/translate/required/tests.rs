//! What guards a service, and what does not.

use super::*;
use crate::translate::fixture;
use crate::world::{MeshSettings, Promise, Promises};

const TOWN: &str = "
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.1}]}
---
kind: Gateway
metadata: {name: next, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.2}]}
---
kind: Gateway
metadata: {name: pods, namespace: ns, labels: {istio.io/waypoint-for: workload}}
spec: {gatewayClassName: istio-waypoint}
status: {addresses: [{value: 10.0.0.3}]}
---
kind: Gateway
metadata: {name: typo, namespace: ns, labels: {istio.io/waypoint-for: servcie}}
spec: {gatewayClassName: istio-waypoint}
status: {addresses: [{value: 10.0.0.4}]}
---
kind: Gateway
metadata: {name: closed, namespace: infra}
spec: {gatewayClassName: istio-waypoint}
status: {addresses: [{value: 10.0.0.5}]}
---
";

fn is_required(settings: MeshSettings, wide: &str, own: &str, policies: &str) -> bool {
    let objects = format!(
        "kind: Namespace\nmetadata: {{name: ns, labels: {{{wide}}}}}\n---\n\
         kind: Service\nmetadata: {{name: web, namespace: ns, labels: {{{own}}}}}\n---\n\
         kind: ServiceEntry\nmetadata: {{name: api, namespace: ns}}\nspec: {{hosts: [api.example.com], resolution: DNS}}\n---\n{policies}"
    );
    let model = fixture::model(&format!("{TOWN}{objects}"), settings);
    required(model.world(), &HostKey::new("ns", "web.ns.svc.cluster.local"))
}

fn policy(kind: &str, namespace: &str, target: &str, rest: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{targetRefs: [{{{target}}}]{rest}}}\n---\n"
    )
}

const SERVICE: &str = "kind: Service, name: web";
const WP: &str = "istio.io/use-waypoint: wp";

fn gateway(name: &str) -> String {
    format!("group: gateway.networking.k8s.io, kind: Gateway, name: {name}")
}

#[test]
fn what_makes_a_waypoint_required() {
    let ap = |target: &str| policy("AuthorizationPolicy", "ns", target, ", rules: [{}]");
    let class = "group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint";
    let rows = [
        ("no policy", "", WP, String::new(), false),
        ("on the service", "", WP, ap(SERVICE), true),
        ("on the service, without any waypoint", "", "", ap(SERVICE), true),
        ("on the service, which opted out", WP, "istio.io/use-waypoint: none", ap(SERVICE), true),
        ("on another service", "", WP, ap("kind: Service, name: other"), false),
        ("on a ServiceEntry of that name", "", WP, ap("group: networking.istio.io, kind: ServiceEntry, name: web"), false),
        ("request authentication", "", WP, policy("RequestAuthentication", "ns", SERVICE, ""), true),
        ("on its waypoint", "", WP, ap(&gateway("wp")), true),
        ("on its namespace's waypoint", WP, "", ap(&gateway("wp")), true),
        ("on its waypoint, which it opted out of", WP, "istio.io/use-waypoint: none", ap(&gateway("wp")), false),
        ("on another waypoint", "", WP, ap(&gateway("next")), false),
        ("on its canary", "", "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next", ap(&gateway("next")), true),
        ("on its waypoint, which is missing", "", "istio.io/use-waypoint: ghost", ap(&gateway("ghost")), true),
        ("on the namespace's waypoint for workloads", "istio.io/use-waypoint: pods", "", ap(&gateway("pods")), false),
        ("on its own waypoint, for workloads only", "", "istio.io/use-waypoint: pods", ap(&gateway("pods")), true),
        ("on a waypoint for nobody knows what", "istio.io/use-waypoint: typo", "", ap(&gateway("typo")), true),
        ("on the class", "", WP, policy("AuthorizationPolicy", "istio-system", class, ""), true),
        ("on the class, waypoint missing", "", "istio.io/use-waypoint: ghost", policy("AuthorizationPolicy", "istio-system", class, ""), true),
        ("on the class, no waypoint asked for", "", "", policy("AuthorizationPolicy", "istio-system", class, ""), false),
        ("on the class, outside the root namespace", "", WP, ap(class), false),
        ("for node proxies", "", WP, "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns}\nspec: {rules: [{}]}\n---\n".to_owned(), false),
        ("an audit", "", WP, policy("AuthorizationPolicy", "ns", SERVICE, ", action: AUDIT, rules: [{}]"), false),
        ("an external authorizer", "", WP, policy("AuthorizationPolicy", "ns", SERVICE, ", action: CUSTOM, provider: {name: x}, rules: [{}]"), true),
        ("the older single target", "", WP, "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns}\nspec: {targetRef: {kind: Service, name: web}}\n---\n".to_owned(), true),
        ("an unreadable policy", "", WP, policy("AuthorizationPolicy", "ns", SERVICE, ", rules: 7"), true),
        ("another revision's", "", WP, "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns, labels: {istio.io/rev: other}}\nspec: {targetRefs: [{kind: Service, name: web}]}\n---\n".to_owned(), false),
        ("a dry run", "", WP, "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns, annotations: {istio.io/dry-run: 'true'}}\nspec: {targetRefs: [{kind: Service, name: web}]}\n---\n".to_owned(), false),
        ("the waypoint's own service", WP, "gateway.istio.io/managed: istio.io-mesh-controller", ap(&gateway("wp")), false),
        (
            "a waypoint that does not let it in",
            "",
            "istio.io/use-waypoint: closed, istio.io/use-waypoint-namespace: infra",
            policy("AuthorizationPolicy", "infra", &gateway("closed"), ""),
            true,
        ),
    ];
    for (row, wide, own, policies, expected) in rows {
        assert_eq!(is_required(MeshSettings::default(), wide, own, &policies), expected, "{row}");
        let promises = Promises { waypoint_required: Promise::Reference, ..Promises::default() };
        let settings = MeshSettings { promises, ..MeshSettings::default() };
        assert!(!is_required(settings, wide, own, &policies), "{row}, as the reference has it");
    }
}

#[test]
fn a_gateway_that_is_gone_may_have_been_of_any_class() {
    let class = "kind: GatewayClass\nmetadata: {name: own}\nspec: {controllerName: istio.io/mesh-controller}\n---\n";
    let target = "group: gateway.networking.k8s.io, kind: GatewayClass, name: own";
    let guarded = format!("{class}{}", policy("AuthorizationPolicy", "istio-system", target, ", rules: [{}]"));
    let settings = MeshSettings::default;
    assert!(is_required(settings(), "", "istio.io/use-waypoint: gone", &guarded));
    assert!(!is_required(settings(), "", WP, &guarded), "that Gateway is of another class");
    assert!(!is_required(settings(), "", "", &guarded), "nothing is asked for");
    let ingress = guarded.replace("mesh-controller", "gateway-controller");
    assert!(!is_required(settings(), "", "istio.io/use-waypoint: gone", &ingress), "not a class of waypoints");
}
