//! Services that claim what is others'.

use super::*;

const TOWN: &str = "
kind: Gateway
metadata: {name: wp, namespace: infra}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
---
kind: Gateway
metadata: {name: own, namespace: aaa}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}}
spec: {clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9], selector: {app: cart}, ports: [{name: http, port: 80}]}
";

/// A ServiceEntry of the shared waypoint, or of another one.
fn entry(name: &str, namespace: &str, day: u8, waypoint: &str, spec: &str) -> String {
    format!(
        "---\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-0{day}T00:00:00Z', \
         labels: {{istio.io/use-waypoint: {waypoint}}}}}\nspec: {{resolution: STATIC, {spec}}}\n"
    )
}

fn shared(name: &str, namespace: &str, day: u8, spec: &str) -> String {
    entry(name, namespace, day, "wp, istio.io/use-waypoint-namespace: infra", spec)
}

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

/// Addresses of a port; nothing where there is no such resource.
fn addresses(model: &Model, resource: &str) -> Option<Vec<String>> {
    let port = port(model, resource)?;
    let ips = port.addresses.iter().filter_map(|bytes| mesh_core::addr::ip_from_bytes(bytes));
    Some(ips.map(|ip| ip.to_string()).collect())
}

fn has(ips: &[&str]) -> Option<Vec<String>> {
    Some(ips.iter().map(ToString::to_string).collect())
}

const PORT: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

#[test]
fn an_entry_never_takes_over_the_address_of_a_service() {
    let evil = shared("evil", "aaa", 1, &format!("hosts: [evil.example], addresses: [10.0.0.9, 10.5.5.5], {PORT}"));
    let mut model = world(&format!("{TOWN}{evil}"));
    assert_eq!(addresses(&model, "infra/wp/shop/cart.shop.svc.cluster.local:80"), has(&["10.0.0.9"]));
    assert_eq!(addresses(&model, "infra/wp/aaa/evil.example:80"), has(&["10.5.5.5"]));
    let (holds, why) = said(&model, Kind::ServiceEntry, "evil", "istio.io/Served");
    assert!(!holds && why.contains("address 10.0.0.9 is shop/cart's at infra/wp"), "{why}");
    // When the Service goes, the address is free.
    let cart = mesh_core::names::NamespacedName::new("shop", "cart");
    model.apply(crate::world::Change::Delete(Kind::Service, cart));
    model.flush();
    assert_eq!(addresses(&model, "infra/wp/aaa/evil.example:80"), has(&["10.0.0.9", "10.5.5.5"]));
    assert!(!model.statuses().iter().any(|(target, status)| {
        target.kind == Kind::ServiceEntry && status.conditions.iter().any(|one| one.type_ == "istio.io/Served")
    }));
}

#[test]
fn of_entries_that_share_a_waypoint_the_oldest_has_the_address() {
    let first = shared("first", "shop", 1, &format!("hosts: [a.example], addresses: [10.5.5.5], {PORT}"));
    let spec = |ports: &str| format!("hosts: [b.example], addresses: [10.5.5.5], {ports}");
    let mut model = world(&format!("{TOWN}{first}"));
    apply(&mut model, &shared("late", "aaa", 2, &spec(PORT)));
    let late = "infra/wp/aaa/b.example:80";
    assert_eq!(
        (addresses(&model, "infra/wp/shop/a.example:80"), addresses(&model, late)),
        (has(&["10.5.5.5"]), has(&[]))
    );
    // Another port of the address is another matter, and so is another waypoint.
    apply(&mut model, &shared("late", "aaa", 2, &spec("ports: [{number: 81, name: http, protocol: HTTP}]")));
    assert_eq!(addresses(&model, "infra/wp/aaa/b.example:81"), has(&["10.5.5.5"]));
    apply(&mut model, &entry("late", "aaa", 2, "own", &spec(PORT)));
    assert_eq!(addresses(&model, "aaa/own/aaa/b.example:80"), has(&["10.5.5.5"]));
    // Entries of one namespace share.
    apply(&mut model, &shared("late", "shop", 2, &spec(PORT)));
    assert_eq!(addresses(&model, "infra/wp/shop/b.example:80"), has(&["10.5.5.5"]));
    // An older one that comes takes it, and the status of the younger one says so.
    apply(&mut model, &shared("older", "bbb", 0, &spec(PORT)).replace("2026-01-00", "2025-01-01"));
    assert_eq!(addresses(&model, "infra/wp/bbb/b.example:80"), has(&["10.5.5.5"]));
    assert_eq!(addresses(&model, "infra/wp/shop/a.example:80"), has(&[]));
    assert!(!said(&model, Kind::ServiceEntry, "first", "istio.io/Served").0);
}

#[test]
fn an_allocated_address_is_not_lost_to_whoever_writes_it_down() {
    let victim = shared("victim", "shop", 2, &format!("hosts: [a.example], {PORT}"));
    let victim = format!("{victim}status: {{addresses: [{{host: a.example, value: 240.240.0.1}}]}}\n");
    let evil = shared("evil", "aaa", 1, &format!("hosts: [b.example], addresses: [240.240.0.1], {PORT}"));
    let model = world(&format!("{TOWN}{victim}{evil}"));
    assert_eq!(addresses(&model, "infra/wp/shop/a.example:80"), has(&["240.240.0.1"]));
    assert_eq!(addresses(&model, "infra/wp/aaa/b.example:80"), has(&[]));
}

#[test]
fn over_networks_a_hostname_is_its_owners() {
    let evil = shared("evil", "aaa", 1, &format!("hosts: [cart.shop.svc.cluster.local], {PORT}"));
    let first = shared("first", "shop", 1, &format!("hosts: [a.example], {PORT}"));
    let late = shared("late", "aaa", 2, &format!("hosts: [a.example], {PORT}"));
    let settings = MeshSettings { multi_network: true, ..MeshSettings::default() };
    let model = crate::translate::fixture::model(&format!("{TOWN}{evil}{first}{late}"), settings);
    let by_hostname = |resource: &str| port(&model, resource).unwrap().by_hostname;
    assert!(by_hostname("infra/wp/shop/cart.shop.svc.cluster.local:80") && by_hostname("infra/wp/shop/a.example:80"));
    assert!(!by_hostname("infra/wp/aaa/cart.shop.svc.cluster.local:80") && !by_hostname("infra/wp/aaa/a.example:80"));
    let (holds, why) = said(&model, Kind::ServiceEntry, "late", "istio.io/Served");
    assert!(!holds && why.contains("host a.example is shop/first's"), "{why}");
}
