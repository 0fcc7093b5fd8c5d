//! HTTPRoutes at gateways: parents and backends that there are not, or that may not be named.

use anyhow::{Result, ensure};

use crate::edge::{FINE, Site, object, part, patch, route, route_at, rule, says};
use crate::features::{Feature, named};
use crate::market::Market;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(http_route_observed_generation_bump, route("bumped", &[&rule("{path: {value: /}}", "v1")])),
        named!(http_route_invalid_parent_ref_not_matching_listener_port, with_parent("port", "port: 81")),
        named!(http_route_invalid_parent_ref_not_matching_section_name, with_parent("section", "sectionName: other")),
        named!(
            http_route_invalid_parent_ref_section_name_not_matching_port,
            with_parent("neither", "sectionName: http, port: 8080")
        ),
        named!(http_route_cross_namespace, of_the_street("crossing", "edge")),
        named!(http_route_invalid_cross_namespace_parent_ref, of_the_street("refused", "second")),
        named!(http_route_disallowed_kind, route_at("disallowed", "{name: passing}", "[]", &[ONE])),
        named!(
            http_route_invalid_backend_ref_unknown_kind,
            route("unknown-kind", &["backendRefs: [{group: example.com, kind: Nothing, name: shop-v1, port: 80}]"])
        ),
        named!(
            http_route_invalid_non_existent_backend_ref,
            route("nonexistent", &["backendRefs: [{name: nonexistent, port: 80}]"])
        ),
        named!(
            http_route_invalid_cross_namespace_backend_ref,
            route("abroad", &["backendRefs: [{name: stall, namespace: street, port: 80}]"])
        ),
        named!(http_route_invalid_reference_grant, wrong_grants()),
        named!(
            http_route_reference_grant,
            route("granted", &["backendRefs: [{name: revoked, namespace: street, port: 80}]"])
        ),
        named!(http_route_partially_invalid_via_invalid_reference_grant, partly()),
        named!(
            http_route_no_backend_refs,
            route(
                "no-backends",
                &["matches: [{path: {value: /omitted}}]", "matches: [{path: {value: /empty}}], backendRefs: []", TWO]
            )
        ),
    ]
}

const ONE: &str = "backendRefs: [{name: shop-v1, port: 80}]";
const TWO: &str = "matches: [{path: {value: /two}}], backendRefs: [{name: shop-v2, port: 80}]";

fn http_route_observed_generation_bump(market: &Market) -> Result<()> {
    let name = ("market", "httproute/bumped");
    let before = says(market, name, "parents/0", FINE)?;
    patch(market, name.1, r#"[{"op": "replace", "path": "/spec/rules/0/backendRefs/0/name", "value": "shop-v2"}]"#)?;
    let after = says(market, name, "parents/0", FINE)?;
    let generation = |object: &serde_json::Value| object["metadata"]["generation"].as_u64();
    ensure!(generation(&after) > generation(&before), "{after}");
    Site::new(market, "edge", "bumped.example.com")?.answers(&[("GET /", "v2")])
}

fn with_parent(name: &str, more: &str) -> String {
    let parent = format!("{{name: edge, {more}}}");
    route_at(&format!("no-{name}"), &parent, &format!("[no-{name}.example.com]"), &[ONE])
}

/// No listener is what the parentRef says: the status says so, and nothing is served at any port.
fn has_no_parent(market: &Market, name: &str) -> Result<()> {
    let refused = ["Accepted=False/NoMatchingParent"];
    says(market, ("market", &format!("httproute/no-{name}")), "parents/0", &refused)?;
    for port in [80, 8080] {
        Site::new(market, "edge", &format!("no-{name}.example.com"))?.at(port).answers(&[("GET /", "404")])?;
    }
    Ok(())
}

fn http_route_invalid_parent_ref_not_matching_listener_port(market: &Market) -> Result<()> {
    has_no_parent(market, "port")
}

fn http_route_invalid_parent_ref_not_matching_section_name(market: &Market) -> Result<()> {
    has_no_parent(market, "section")
}

fn http_route_invalid_parent_ref_section_name_not_matching_port(market: &Market) -> Result<()> {
    has_no_parent(market, "neither")
}

fn of_the_street(name: &str, gateway: &str) -> String {
    let text = route_at(
        name,
        &format!("{{name: {gateway}, namespace: market}}"),
        &format!("[{name}.example.com]"),
        &["backendRefs: [{name: stall, port: 80}]"],
    );
    text.replace("namespace: market}\nspec", "namespace: street}\nspec")
}

fn http_route_cross_namespace(market: &Market) -> Result<()> {
    says(market, ("street", "httproute/crossing"), "parents/0", FINE)?;
    Site::new(market, "edge", "crossing.example.com")?.answers(&[("GET /", "stall")])
}

fn http_route_invalid_cross_namespace_parent_ref(market: &Market) -> Result<()> {
    says(market, ("street", "httproute/refused"), "parents/0", &["Accepted=False/NotAllowedByListeners"])?;
    Site::new(market, "second", "refused.example.com")?.answers(&[("GET /", "404")])
}

fn http_route_disallowed_kind(market: &Market) -> Result<()> {
    let refused = ["Accepted=False/NotAllowedByListeners"];
    says(market, ("market", "httproute/disallowed"), "parents/0", &refused)?;
    let gateway = object(market, "market", "gateway/passing")?;
    let kinds = part(&gateway, "listeners/tls/supportedKinds")?.as_array().cloned().unwrap_or_default();
    ensure!(kinds.len() == 1 && kinds[0]["kind"] == "TLSRoute", "{kinds:?}");
    Ok(())
}

/// A route is attached, but something that it names cannot be used; requests are answered with 500.
fn is_unresolved(market: &Market, name: &str, reason: &str) -> Result<()> {
    let wanted = ["Accepted=True/Accepted", &format!("ResolvedRefs=False/{reason}")];
    says(market, ("market", &format!("httproute/{name}")), "parents/0", &wanted)?;
    Site::new(market, "edge", &format!("{name}.example.com"))?.answers(&[("GET /", "500")])
}

fn http_route_invalid_backend_ref_unknown_kind(market: &Market) -> Result<()> {
    is_unresolved(market, "unknown-kind", "InvalidKind")
}

fn http_route_invalid_non_existent_backend_ref(market: &Market) -> Result<()> {
    is_unresolved(market, "nonexistent", "BackendNotFound")
}

fn http_route_invalid_cross_namespace_backend_ref(market: &Market) -> Result<()> {
    is_unresolved(market, "abroad", "RefNotPermitted")
}

/// A route to a Service that grants speak of, each wrong in one thing.
fn wrong_grants() -> String {
    let grant = |namespace: &str, name: &str, from: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{from: [{{{from}}}], to: [{{{to}}}]}}\n---\n"
        )
    };
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: market";
    let to = "group: '', kind: Service, name: wrong";
    [
        grant("street", "wrong-from-kind", &from.replace("HTTPRoute", "GRPCRoute"), to),
        grant("street", "wrong-from-group", &from.replace("gateway.networking.k8s.io", "example.com"), to),
        grant("street", "wrong-from-namespace", &from.replace("market", "outside"), to),
        grant("street", "wrong-to-kind", from, &to.replace("Service", "Secret")),
        grant("street", "wrong-to-group", from, &to.replace("''", "example.com")),
        grant("street", "wrong-to-name", from, &to.replace("wrong", "other")),
        grant("market", "wrong-namespace", from, to),
        route("wrong", &["backendRefs: [{name: wrong, namespace: street, port: 80}]"]),
    ]
    .concat()
}

fn http_route_invalid_reference_grant(market: &Market) -> Result<()> {
    is_unresolved(market, "wrong", "RefNotPermitted")
}

fn http_route_reference_grant(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "granted.example.com")?;
    site.answers(&[("GET /", "stall")])?;
    says(market, ("market", "httproute/granted"), "parents/0", FINE)?;
    market.lab.kubectl(&["delete", "-n", "street", "referencegrant/revoked"])?;
    is_unresolved(market, "granted", "RefNotPermitted")
}

fn partly() -> String {
    route(
        "partly",
        &[
            "matches: [{path: {value: /bad}}], backendRefs: [{name: stall, namespace: street, port: 80}]",
            "matches: [{path: {value: /good}}], backendRefs: [{name: granted, namespace: street, port: 80}]",
            TWO,
        ],
    )
}

fn http_route_partially_invalid_via_invalid_reference_grant(market: &Market) -> Result<()> {
    let wanted = ["Accepted=True/Accepted", "ResolvedRefs=False/RefNotPermitted"];
    says(market, ("market", "httproute/partly"), "parents/0", &wanted)?;
    let site = Site::new(market, "edge", "partly.example.com")?;
    site.answers(&[("GET /bad", "500"), ("GET /good", "stall"), ("GET /two", "v2")])
}

fn http_route_no_backend_refs(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "no-backends.example.com")?;
    site.answers(&[("GET /omitted", "500"), ("GET /empty", "500"), ("GET /two", "v2")])?;
    says(market, ("market", "httproute/no-backends"), "parents/0", &["Accepted=True/Accepted"]).map(drop)
}
