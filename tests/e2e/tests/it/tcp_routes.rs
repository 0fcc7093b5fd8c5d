//! TCPRoutes at the edge and at a waypoint: what the API's own tests ask. They share the sandbox of the TLSRoutes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tests_support::eventually;

use crate::features::{Feature, named, stall};
use crate::market::Market;
use crate::town::SOON;

/// Listeners of the edge that these features need.
pub(crate) const LISTENERS: &str = "  \
  - {name: by-port, port: 7001, protocol: TCP}
  - {name: by-name, port: 7002, protocol: TCP}
  - {name: weighted, port: 7003, protocol: TCP}
  - {name: granted, port: 7004, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
  - {name: shared, port: 7005, protocol: TCP}
  - {name: lost, port: 7006, protocol: TCP}
  - {name: datagrams, port: 7007, protocol: UDP}
";

/// A gateway of TCP listeners only.
pub(crate) const QUAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: quay, namespace: market}
spec:
  gatewayClassName: istio
  listeners:
  - {name: one, port: 7001, protocol: TCP}
  - {name: two, port: 7002, protocol: TCP}
";

/// The features of the TCP profile.
pub(crate) fn features() -> Vec<Feature> {
    let both = "{name: shop-v1, port: 9001, weight: 70}, {name: shop-v2, port: 9001, weight: 30}, \
                {name: nobody, port: 80, weight: 0}";
    let half = "{name: shop-v1, port: 9001}, {name: missing, port: 9001}";
    vec![
        named!(tcp_route_parent_ref_attach_all, route("attach-all", "name: quay", &backend("v2"))),
        named!(
            tcp_route_parent_ref_port_and_section_name,
            [
                route("by-port", "name: edge, port: 7001", &backend("v1")),
                route("by-name", "name: edge, sectionName: by-name", &backend("v2")),
            ]
            .join("---\n")
        ),
        named!(tcp_route_weighted_routing, route("weighted", "name: edge, sectionName: weighted", both)),
        named!(tcp_route_invalid_cross_namespace_backend_ref_and_tcp_route_reference_grant, abroad()),
        named!(tcp_route_multiple_routes_attachment, route("older", "name: edge, sectionName: shared", &backend("v1"))),
        named!(tcp_route_invalid_non_tcp_listener, route("at-http", "name: edge, sectionName: http", &backend("v1"))),
        named!(tcp_route_invalid_backend_ref_nonexistent, route("lost", "name: edge, sectionName: lost", half)),
        named!(tcp_route_of_a_service_moves_its_connections, at_the_waypoint()),
        named!(
            udp_route_is_not_served_and_both_sides_say_so,
            route("datagrams", "name: edge, sectionName: datagrams", &backend("v1")).replace("TCPRoute", "UDPRoute")
        ),
    ]
}

fn backend(version: &str) -> String {
    format!("{{name: shop-{version}, port: 9001}}")
}

fn route(name: &str, parent: &str, backends: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  parentRefs: [{{{parent}}}]\n  rules: [{{backendRefs: [{backends}]}}]\n"
    )
}

fn abroad() -> String {
    let parent = "name: edge, namespace: market, sectionName: granted";
    let route = route("abroad", parent, "{name: shop-v1, namespace: market, port: 9001}");
    let route = route.replace("{name: abroad, namespace: market}", "{name: abroad, namespace: street}");
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: street}}\n---\n{route}")
}

fn at_the_waypoint() -> String {
    let parent = "group: '', kind: Service, name: moved, port: 9001";
    format!("{}---\n{}", stall("moved", "v1"), route("moved", parent, &backend("v2")))
}

/// How often each version of the shop answers so many connections; those that nobody answers are `closed`.
fn answers(market: &Market, from: (&str, &str), target: &str, count: u32) -> Result<BTreeMap<String, u32>> {
    let script = format!("for i in $(seq {count}); do load banner {target} 2>/dev/null || echo from closed-; done");
    let said = market.lab.exec(from.0, from.1, &["sh", "-c", &script])?.ok()?;
    let mut all = BTreeMap::new();
    for line in said.lines() {
        let (_, who) = line.split_once("from ").with_context(|| line.to_owned())?;
        let who = who.strip_prefix("shop-").unwrap_or(who).split('-').next().unwrap_or_default();
        *all.entry(who.to_owned()).or_default() += 1;
    }
    Ok(all)
}

const STRANGER: (&str, &str) = ("outside", "deploy/stranger");

/// Waits until all connections to a port of a gateway are answered by these.
fn reaches(market: &Market, target: &str, wanted: &[&str]) -> Result<BTreeMap<String, u32>> {
    eventually(&format!("{target} is answered by {wanted:?}"), SOON, || {
        let found = answers(market, STRANGER, target, 8)?;
        ensure!(found.keys().eq(wanted.iter()), "{found:?}");
        Ok(found)
    })
}

fn tcp_route_parent_ref_attach_all(market: &Market) -> Result<()> {
    let quay = market.lab.field("market", "service/quay-istio", ".status.loadBalancer.ingress[0].ip")?;
    reaches(market, &format!("{quay}:7001"), &["v2"])?;
    reaches(market, &format!("{quay}:7002"), &["v2"])?;
    let path = ".status.listeners[*].attachedRoutes";
    let attached = market.lab.field("market", "gateway/quay", path)?;
    ensure!(attached == "1 1", "{attached}");
    Ok(())
}

fn tcp_route_parent_ref_port_and_section_name(market: &Market) -> Result<()> {
    reaches(market, &format!("{}:7001", market.edge()), &["v1"])?;
    reaches(market, &format!("{}:7002", market.edge()), &["v2"]).map(drop)
}

fn tcp_route_weighted_routing(market: &Market) -> Result<()> {
    let target = format!("{}:7003", market.edge());
    reaches(market, &target, &["v1", "v2"])?;
    let found = answers(market, STRANGER, &target, 150)?;
    let of = |who: &str| found.get(who).copied().unwrap_or_default();
    // Five standard deviations are 28.
    ensure!((17..=73).contains(&of("v2")) && of("v1") + of("v2") == 150, "{found:?}");
    Ok(())
}

fn tcp_route_invalid_cross_namespace_backend_ref_and_tcp_route_reference_grant(market: &Market) -> Result<()> {
    let target = format!("{}:7004", market.edge());
    let says = |reason: &str| {
        let path = ".status.parents[0].conditions[?(@.type==\"ResolvedRefs\")].reason";
        eventually(&format!("the route says {reason}"), SOON, || {
            let found = market.lab.field("street", "tcproute/abroad", path)?;
            ensure!(found == reason, "{found}");
            Ok(())
        })
    };
    says("RefNotPermitted")?;
    reaches(market, &target, &["closed"])?;
    market.lab.apply(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: tcp, namespace: market}\n\
         spec:\n  from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: street}]\n  \
         to: [{group: '', kind: Service, name: shop-v1}]\n",
    )?;
    says("ResolvedRefs")?;
    reaches(market, &target, &["v1"])?;
    market.lab.kubectl(&["delete", "-n", "market", "referencegrant/tcp"])?;
    says("RefNotPermitted")?;
    reaches(market, &target, &["closed"]).map(drop)
}

fn tcp_route_multiple_routes_attachment(market: &Market) -> Result<()> {
    let target = format!("{}:7005", market.edge());
    reaches(market, &target, &["v1"])?;
    // A later one is accepted and carries nothing while the older one is there.
    market.route(&route("a-younger", "name: edge, sectionName: shared", &backend("v2")))?;
    let path = ".status.listeners[?(@.name==\"shared\")].attachedRoutes";
    eventually("both routes are counted", SOON, || {
        let attached = market.lab.field("market", "gateway/edge", path)?;
        ensure!(attached == "2", "{attached}");
        Ok(())
    })?;
    let found = answers(market, STRANGER, &target, 20)?;
    ensure!(found.keys().eq(["v1"].iter()), "{found:?}");
    market.lab.kubectl(&["delete", "-n", "market", "tcproute/older"])?;
    reaches(market, &target, &["v2"]).map(drop)
}

fn tcp_route_invalid_non_tcp_listener(market: &Market) -> Result<()> {
    market.condition("tcproute/at-http", "Accepted", "False", "NotAllowedByListeners")
}

fn tcp_route_invalid_backend_ref_nonexistent(market: &Market) -> Result<()> {
    market.condition("tcproute/lost", "Accepted", "True", "Accepted")?;
    market.condition("tcproute/lost", "ResolvedRefs", "False", "BackendNotFound")?;
    let target = format!("{}:7006", market.edge());
    eventually("half of the connections are closed", SOON, || {
        let found = answers(market, STRANGER, &target, 20)?;
        ensure!(found.keys().eq(["closed", "v1"].iter()), "{found:?}");
        Ok(())
    })
}

fn tcp_route_of_a_service_moves_its_connections(market: &Market) -> Result<()> {
    eventually("the route of the service is in force", SOON, || {
        let found = answers(market, ("market", "deploy/client"), "moved:9001", 8)?;
        ensure!(found.keys().eq(["v2"].iter()), "{found:?}");
        Ok(())
    })
}

fn udp_route_is_not_served_and_both_sides_say_so(market: &Market) -> Result<()> {
    let path = ".status.listeners[?(@.name==\"datagrams\")].conditions[?(@.type==\"Accepted\")].reason";
    eventually("the listener says why", SOON, || {
        let reason = market.lab.field("market", "gateway/edge", path)?;
        ensure!(reason == "UnsupportedProtocol", "{reason:?}");
        Ok(())
    })?;
    market.condition("udproute/datagrams", "Accepted", "False", "UnsupportedValue")
}
