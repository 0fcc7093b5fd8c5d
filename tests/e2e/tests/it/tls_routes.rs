//! TLSRoutes: connections by the server name that clients ask for, passed through or ended at the edge, and at a waypoint.

use anyhow::{Result, ensure};

use crate::features::{Feature, Want, answered, check_all, named, outside};
use crate::market::Market;
use crate::servers::{secret, vault};
use crate::tcp_routes;

/// The features of the TLS and TCP profiles, in one sandbox.
#[test]
fn features_of_tls_and_tcp_routes() -> Result<()> {
    let market = Market::with_waypoint()?;
    secret(&market, "market", "vault", &["*.example.com", "*.market.svc.cluster.local"])?;
    secret(&market, "market", "ended", &["*.example.com"])?;
    market.lab.apply(&[vault("market", "v1"), vault("market", "v2"), tcp_routes::QUAY.to_owned()].join("---\n"))?;
    market.add_edge(&format!("{EDGE}{}", tcp_routes::LISTENERS))?;
    market.programmed("quay")?;
    for version in ["v1", "v2"] {
        market.lab.rolled_out("market", &format!("vault-{version}"))?;
    }
    let features = [traffic(), status(), tcp_routes::features()].into_iter().flatten().collect();
    check_all(&market, features)
}

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: market}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: pass, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}}
  - {name: exact, port: 6443, protocol: TLS, hostname: one.example.com, tls: {mode: Passthrough}}
  - {name: wide, port: 6443, protocol: TLS, hostname: '*.wide.example.com', tls: {mode: Passthrough}}
  - {name: ended, port: 8443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: ended}]}}
  - {name: mixed-pass, port: 9443, protocol: TLS, hostname: pass.example.com, tls: {mode: Passthrough}}
  - name: mixed-end
    port: 9443
    protocol: TLS
    hostname: end.example.com
    tls: {mode: Terminate, certificateRefs: [{name: ended}]}
";

fn traffic() -> Vec<Feature> {
    vec![
        named!(tls_route_simple_same_namespace, route("simple", "pass", "[simple.example.com]", "vault-v1", 443)),
        named!(tls_route_hostname_intersection, hostnames()),
        named!(
            tls_route_terminate_simple_same_namespace,
            route("ended", "ended", "[ended.example.com]", "shop-v1", 80)
        ),
        named!(tls_route_mixed_termination_same_namespace, mixed()),
        named!(tls_route_weights_are_shares_of_connections, weights()),
        named!(tls_route_of_a_service_is_for_its_own_name, at_the_waypoint()),
    ]
}

fn status() -> Vec<Feature> {
    vec![
        named!(
            tls_route_invalid_backend_ref_nonexistent,
            route("missing", "pass", "[missing.example.com]", "missing", 443)
        ),
        named!(
            tls_route_invalid_backend_ref_unknown_kind,
            route("kind", "pass", "[kind.example.com]", "vault-v1, group: example.com, kind: Vault", 443)
        ),
        named!(
            tls_route_invalid_no_matching_listener,
            [
                route("nowhere", "nothing-of-this-name", "[nowhere.example.com]", "vault-v1", 443),
                route("at-http", "http", "[at-http.example.com]", "vault-v1", 443),
            ]
            .join("---\n")
        ),
        named!(
            tls_route_invalid_no_matching_listener_hostname,
            route("stranger", "pass", "[stranger.example.org]", "vault-v1", 443)
        ),
        named!(
            tls_route_invalid_reference_grant,
            route("abroad", "pass", "[abroad.example.com]", "vault-v1, namespace: outside", 443)
        ),
        named!(tls_route_listener_passthrough_supported_kinds, String::new()),
        named!(tls_route_listener_terminate_supported_kinds, String::new()),
    ]
}

/// A TLSRoute at a listener of the edge.
fn route(name: &str, listener: &str, hosts: &str, backend: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  parentRefs: [{{name: edge, sectionName: {listener}}}]\n  hostnames: {hosts}\n  \
         rules: [{{backendRefs: [{{name: {backend}, port: {port}}}]}}]\n"
    )
}

fn hostnames() -> String {
    [
        route("exact", "exact", "['*.example.com']", "vault-v1", 443),
        route("wide-host", "wide", "[a.wide.example.com, elsewhere.example.com]", "vault-v1", 443),
        route("wide-narrow", "wide", "['*.b.wide.example.com']", "vault-v2", 443),
    ]
    .join("---\n")
}

fn mixed() -> String {
    [
        route("mixed-pass", "mixed-pass", "[pass.example.com]", "vault-v2", 443),
        route("mixed-end", "mixed-end", "[end.example.com]", "shop-v2", 80),
    ]
    .join("---\n")
}

fn weights() -> String {
    route("weights", "pass", "[weights.example.com]", "vault-v1", 443).replace(
        "[{name: vault-v1, port: 443}]",
        "[{name: vault-v1, port: 443, weight: 3}, {name: vault-v2, port: 443, weight: 1}, \
         {name: nobody, port: 80, weight: 0}]",
    )
}

fn at_the_waypoint() -> String {
    "apiVersion: v1\nkind: Service\nmetadata: {name: vault, namespace: market}\n\
     spec: {selector: {app: vault}, ports: [{name: tls, port: 443, targetPort: 8443}]}\n---\n\
     apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: vault, namespace: market}\n\
     spec:\n  parentRefs: [{group: '', kind: Service, name: vault}]\n  \
     hostnames: [vault.market.svc.cluster.local]\n  rules: [{backendRefs: [{name: vault-v2, port: 443}]}]\n"
        .to_owned()
}

fn tls_route_simple_same_namespace(market: &Market) -> Result<()> {
    let said = outside(
        market,
        &[
            ("https://EDGE/a --host simple.example.com", Want::From("v1")),
            ("https://EDGE/a --host simple.example.com --http2", Want::From("v1")),
            // Nobody is there for another name, or for none.
            ("https://EDGE/a --host other.example.com", Want::Nothing),
            ("https://EDGE/a --host simple.example.com --sni 10.9.9.9", Want::Nothing),
        ],
    )?;
    ensure!(said[0].seen("/tls/sni")? == "simple.example.com" && said[0].seen("/path")? == "/a", "{said:?}");
    Ok(())
}

fn tls_route_hostname_intersection(market: &Market) -> Result<()> {
    outside(
        market,
        &[
            ("https://EDGE:6443/ --host one.example.com", Want::From("v1")),
            ("https://EDGE:6443/ --host ONE.example.com", Want::From("v1")),
            ("https://EDGE:6443/ --host two.example.com", Want::Nothing),
            ("https://EDGE:6443/ --host a.wide.example.com", Want::From("v1")),
            ("https://EDGE:6443/ --host elsewhere.example.com", Want::Nothing),
            ("https://EDGE:6443/ --host c.b.wide.example.com", Want::From("v2")),
            ("https://EDGE:6443/ --host d.c.b.wide.example.com", Want::From("v2")),
            ("https://EDGE:6443/ --host b.wide.example.com", Want::Nothing),
            ("https://EDGE:6443/ --host wide.example.com", Want::Nothing),
        ],
    )
    .map(drop)
}

/// SHA-256 of the certificate that the client was shown.
fn shown(said: &crate::market::Said) -> String {
    said.last().pointer("/tls/certificate").map(ToString::to_string).unwrap_or_default()
}

fn tls_route_terminate_simple_same_namespace(market: &Market) -> Result<()> {
    let said = outside(
        market,
        &[
            ("https://EDGE:8443/a?b --host ended.example.com", Want::From("v1")),
            ("https://EDGE/ --host simple.example.com", Want::From("v1")),
            ("https://EDGE:8443/ --host other.example.com", Want::Nothing),
        ],
    )?;
    // The server behind saw no TLS, and the client another certificate than that of a server.
    ensure!(said[0].seen_maybe("/tls").is_none() && said[0].seen("/path")? == "/a?b", "{said:?}");
    ensure!(!shown(&said[0]).is_empty() && shown(&said[0]) != shown(&said[1]), "{said:?}");
    Ok(())
}

fn tls_route_mixed_termination_same_namespace(market: &Market) -> Result<()> {
    let said = outside(
        market,
        &[
            ("https://EDGE:9443/ --host pass.example.com", Want::From("v2")),
            ("https://EDGE:9443/ --host end.example.com", Want::From("v2")),
        ],
    )?;
    ensure!(said[0].seen_maybe("/tls/sni").is_some() && said[1].seen_maybe("/tls").is_none(), "{said:?}");
    ensure!(shown(&said[0]) != shown(&said[1]), "{said:?}");
    Ok(())
}

fn tls_route_weights_are_shares_of_connections(market: &Market) -> Result<()> {
    let call = "https://EDGE/ --host weights.example.com -n 200 -c 4 --new-connections";
    let said = &outside(market, &[(call, Want::Status("200"))])?[0];
    // Five standard deviations are 30.
    ensure!((20..=80).contains(&said.backend("v2")) && said.backend("v1") + said.backend("v2") == 200, "{said:?}");
    Ok(())
}

fn tls_route_of_a_service_is_for_its_own_name(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("https://vault/ --host vault.market.svc.cluster.local -n 10 --new-connections", Want::From("v2")),
            ("https://vault/ --host other.example.com -n 20 --new-connections", Want::Status("200")),
        ],
    )?;
    ensure!(said[1].backend("v1") > 0 && said[1].backend("v2") > 0, "{said:?}");
    Ok(())
}

fn tls_route_invalid_backend_ref_nonexistent(market: &Market) -> Result<()> {
    market.condition("tlsroute/missing", "Accepted", "True", "Accepted")?;
    market.condition("tlsroute/missing", "ResolvedRefs", "False", "BackendNotFound")?;
    outside(market, &[("https://EDGE/ --host missing.example.com", Want::Nothing)]).map(drop)
}

fn tls_route_invalid_backend_ref_unknown_kind(market: &Market) -> Result<()> {
    market.condition("tlsroute/kind", "Accepted", "True", "Accepted")?;
    market.condition("tlsroute/kind", "ResolvedRefs", "False", "InvalidKind")?;
    outside(market, &[("https://EDGE/ --host kind.example.com", Want::Nothing)]).map(drop)
}

fn tls_route_invalid_no_matching_listener(market: &Market) -> Result<()> {
    market.condition("tlsroute/nowhere", "Accepted", "False", "NoMatchingParent")?;
    market.condition("tlsroute/at-http", "Accepted", "False", "NotAllowedByListeners")?;
    outside(market, &[("https://EDGE/ --host nowhere.example.com", Want::Nothing)]).map(drop)
}

fn tls_route_invalid_no_matching_listener_hostname(market: &Market) -> Result<()> {
    market.condition("tlsroute/stranger", "Accepted", "False", "NoMatchingListenerHostname")?;
    outside(market, &[("https://EDGE/ --host stranger.example.org", Want::Nothing)]).map(drop)
}

fn tls_route_invalid_reference_grant(market: &Market) -> Result<()> {
    // What is granted is something else: HTTPRoutes of this namespace, and TLSRoutes of another.
    let from = |kind: &str, namespace: &str| {
        format!("{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}")
    };
    market.lab.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {{name: others, namespace: outside}}\nspec:\n  from: [{}, {}]\n  to: [{{group: '', kind: Service}}]\n",
        from("HTTPRoute", "market"),
        from("TLSRoute", "street")
    ))?;
    market.condition("tlsroute/abroad", "ResolvedRefs", "False", "RefNotPermitted")?;
    outside(market, &[("https://EDGE/ --host abroad.example.com", Want::Nothing)]).map(drop)
}

/// The kinds that the status of a listener names.
fn supported(market: &Market, listener: &str) -> Result<String> {
    let path = format!(".status.listeners[?(@.name==\"{listener}\")].supportedKinds[*].kind");
    market.lab.field("market", "gateway/edge", &path)
}

fn tls_route_listener_passthrough_supported_kinds(market: &Market) -> Result<()> {
    let kinds = supported(market, "pass")?;
    ensure!(kinds == "TLSRoute", "{kinds}");
    Ok(())
}

fn tls_route_listener_terminate_supported_kinds(market: &Market) -> Result<()> {
    let kinds = supported(market, "ended")?;
    ensure!(kinds == "TLSRoute TCPRoute", "{kinds}");
    Ok(())
}
