//! Routes that lead to a guarded service: its policies come along, or nobody is sent on.

use super::*;
use crate::translate::l7::fixture::listener;
use crate::world::{Promise, Promises};

/// Two tenants share a waypoint; another has one of its own. Gateways are ready.
const TOWN: &str = "
kind: Gateway
metadata: {name: wp, namespace: infra}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
status: {addresses: [{value: 10.9.0.1}]}
---
kind: Gateway
metadata: {name: other, namespace: infra}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
status: {addresses: [{value: 10.9.0.2}]}
---
kind: Gateway
metadata: {name: edge, namespace: infra}
spec: {gatewayClassName: istio, listeners: [{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
status: {addresses: [{value: 10.9.0.3}]}
---
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}}
spec: {clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9], selector: {app: cart}, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: far, namespace: shop, labels: {istio.io/use-waypoint: other, istio.io/use-waypoint-namespace: infra}}
spec: {clusterIP: 10.0.0.8, clusterIPs: [10.0.0.8], selector: {app: far}, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: x, namespace: evil, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}}
spec: {clusterIP: 10.0.0.7, clusterIPs: [10.0.0.7], selector: {app: x}, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
---
kind: HTTPRoute
metadata: {name: r, namespace: evil}
spec:
  parentRefs: [{group: '', kind: Service, name: x, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /far}}]
    backendRefs: [{name: far, namespace: shop, port: 80}]
  - backendRefs: [{name: x, port: 80}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: cart, namespace: shop, port: 80}}}]
---
kind: TCPRoute
metadata: {name: t, namespace: evil}
spec: {parentRefs: [{group: '', kind: Service, name: x, port: 81}], rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]}
---
kind: HTTPRoute
metadata: {name: public, namespace: shop}
spec: {parentRefs: [{name: edge, namespace: infra}], rules: [{backendRefs: [{name: cart, port: 80}]}]}
";
const X: &str = "infra/wp/evil/x.evil.svc.cluster.local:80";
const X_TCP: &str = "infra/wp/evil/x.evil.svc.cluster.local:81";
const CART: &str = "infra/wp/shop/cart.shop.svc.cluster.local:80";

fn policy(name: &str, namespace: &str, target: &str) -> String {
    format!(
        "---\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{{{target}}}], action: DENY, rules: [{{to: [{{operation: {{paths: [/admin]}}}}]}}]}}\n"
    )
}

fn guarded(target: &str) -> String {
    policy("p", "shop", &format!("kind: Service, name: {target}"))
}

fn backend(model: &Model, resource: &str, hostname: &str) -> l7::Backend {
    let backends = match resource.contains("/listener/") {
        true => listener(model, resource).unwrap().backends,
        false => port(model, resource).unwrap().backends,
    };
    backends.into_iter().find(|one| one.hostname.starts_with(hostname)).unwrap()
}

/// Names of the policies, and why nobody may.
fn guard(model: &Model, resource: &str, hostname: &str) -> Option<(Vec<String>, String)> {
    let guard = backend(model, resource, hostname).guard?;
    Some((guard.authorizations.into_iter().map(|one| one.name).collect(), guard.refuse_all))
}

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

#[test]
fn the_policies_of_a_service_come_along_with_every_route_that_leads_to_it() {
    let mut model = world(TOWN);
    assert_eq!((guard(&model, X, "cart"), guard(&model, X, "far"), guard(&model, X_TCP, "cart")), (None, None, None));
    apply(&mut model, &guarded("cart"));
    for resource in [X, X_TCP] {
        assert_eq!(guard(&model, resource, "cart"), Some((vec!["p".to_owned()], String::new())), "{resource}");
        assert_eq!(backend(&model, resource, "cart").guard.unwrap().address, [10, 0, 0, 9]);
    }
    assert_eq!((guard(&model, X, "x."), guard(&model, X, "far")), (None, None), "nothing guards these");
    assert_eq!(guard(&model, CART, "cart"), None, "its own port has the policies itself");
    assert_eq!(port(&model, CART).unwrap().authorizations.len(), 1);
    // What cannot be enforced closes the way, too.
    apply(
        &mut model,
        "kind: RequestAuthentication\nmetadata: {name: j, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: cart}]}\n",
    );
    assert!(guard(&model, X, "cart").unwrap().1.contains("RequestAuthentication shop/j"));
    model.apply(crate::world::Change::Delete(Kind::Request, mesh_core::names::NamespacedName::new("shop", "j")));
    model.apply(crate::world::Change::Delete(Kind::Authorization, mesh_core::names::NamespacedName::new("shop", "p")));
    model.flush();
    assert_eq!(guard(&model, X, "cart"), None);
}

#[test]
fn virtual_services_lead_past_no_policy_either() {
    let model = world(&format!(
        "{}{}
---
kind: VirtualService
metadata: {{name: vs, namespace: evil}}
spec: {{hosts: [x], http: [{{route: [{{destination: {{host: cart.shop.svc.cluster.local}}}}]}}]}}
",
        TOWN.replace(
            "kind: HTTPRoute\nmetadata: {name: r,",
            "kind: HTTPRoute\nmetadata: {name: r, labels: {istio.io/rev: nobody},"
        ),
        guarded("cart")
    ));
    assert_eq!(guard(&model, X, "cart"), Some((vec!["p".to_owned()], String::new())));
}

#[test]
fn a_guarded_service_behind_another_waypoint_is_not_reached_by_a_route() {
    let mut model = world(TOWN);
    apply(&mut model, &guarded("far"));
    let refused = |model: &Model| {
        guard(model, X, "far").is_some_and(|(policies, why)| policies.is_empty() && why.contains("its own waypoint"))
    };
    assert!(refused(&model));
    // Through its waypoint's policies it is guarded as well.
    apply(&mut model, &guarded("nobody"));
    assert_eq!(guard(&model, X, "far"), None);
    apply(&mut model, &policy("g", "infra", "group: gateway.networking.k8s.io, kind: Gateway, name: other"));
    assert!(refused(&model));
    // Once it has the same waypoint, that asks its own policies anyway.
    let moved =
        TOWN.split("---").find(|one| one.contains("name: far,")).unwrap().replace("waypoint: other", "waypoint: wp");
    apply(&mut model, &moved);
    assert_eq!(guard(&model, X, "far"), None);
}

#[test]
fn gateways_reach_a_guarded_service_through_its_waypoint_or_not_at_all() {
    const EDGE: &str = "infra/edge/listener/web";
    let mut model = world(TOWN);
    assert_eq!(guard(&model, EDGE, "cart"), None);
    apply(&mut model, &guarded("cart"));
    let (policies, why) = guard(&model, EDGE, "cart").unwrap();
    assert!(policies.is_empty() && why.contains("istio.io/ingress-use-waypoint=true"), "{why}");
    let cart = TOWN.split("---").find(|one| one.contains("name: cart, namespace")).unwrap();
    apply(&mut model, &cart.replace("labels: {", "labels: {istio.io/ingress-use-waypoint: 'true', "));
    let through = backend(&model, EDGE, "cart");
    assert!(through.via_waypoint && through.guard.is_none());
}

#[test]
fn as_the_reference_has_it_routes_lead_anywhere() {
    let promises = Promises { waypoint_required: Promise::Reference, ..Promises::default() };
    let settings = MeshSettings { promises, ..MeshSettings::default() };
    let model = crate::translate::fixture::model(&format!("{TOWN}{}", guarded("cart")), settings);
    assert_eq!((guard(&model, X, "cart"), guard(&model, "infra/edge/listener/web", "cart")), (None, None));
    assert_eq!(port(&model, CART).unwrap().authorizations.len(), 1);
}

/// What the route says of what it leads to.
fn refs(model: &Model, route: &str) -> (bool, String) {
    let of_route =
        |target: &&conditions::StatusTarget| target.kind == Kind::HttpRoute && target.key.to_string() == route;
    let target = model.statuses().keys().find(of_route).unwrap_or_else(|| panic!("no status of {route}"));
    let all = model.statuses()[target].all_conditions();
    let one = all.iter().find(|one| one.type_ == "ResolvedRefs").unwrap();
    (one.holds, one.message.clone())
}

#[test]
fn a_route_says_that_it_leads_to_a_service_that_another_waypoint_guards() {
    let mut model = world(TOWN);
    assert!(refs(&model, "evil/r").0);
    apply(&mut model, &guarded("far"));
    let (holds, message) = refs(&model, "evil/r");
    assert!(!holds && message.contains("backend far.shop.svc.cluster.local") && message.contains("403"), "{message}");
    assert!(message.contains("give both the same waypoint") && !message.contains("cart"), "{message}");
    assert!(refs(&model, "shop/public").0, "it does not lead there");
    // A mirror leads there as well, and what has the same waypoint is asked on the way.
    apply(&mut model, &guarded("cart"));
    assert!(refs(&model, "evil/r").0, "one policy, now for cart");
    let moved =
        TOWN.split("---").find(|one| one.contains("name: cart,")).unwrap().replace("waypoint: wp", "waypoint: other");
    apply(&mut model, &moved);
    let (holds, message) = refs(&model, "evil/r");
    assert!(!holds && message.contains("backend cart.shop"), "as soon as it has another waypoint: {message}");
    model.apply(crate::world::Change::Delete(Kind::Authorization, mesh_core::names::NamespacedName::new("shop", "p")));
    model.flush();
    assert!(refs(&model, "evil/r").0);
}

#[test]
fn a_route_of_a_gateway_says_that_a_guarded_service_wants_its_waypoint_in_between() {
    let mut model = world(TOWN);
    assert!(refs(&model, "shop/public").0);
    apply(&mut model, &guarded("cart"));
    let (holds, message) = refs(&model, "shop/public");
    assert!(!holds && message.contains("istio.io/ingress-use-waypoint=true"), "{message}");
    let through = TOWN.split("---").find(|one| one.contains("name: cart,")).unwrap();
    apply(&mut model, &through.replace("labels: {", "labels: {istio.io/ingress-use-waypoint: 'true', "));
    assert!(refs(&model, "shop/public").0);
}
