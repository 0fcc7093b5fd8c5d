//! GRPCRoutes at a gateway: what the API's own tests ask, and what clients of gRPC see when there is no way.

use anyhow::{Result, ensure};

use crate::features::{Want, check_all, named, outside};
use crate::market::Market;

/// The features of the gRPC profile, in one sandbox.
#[test]
fn features_of_grpc_routes() -> Result<()> {
    let market = Market::found()?;
    market.add_edge(EDGE)?;
    let features = vec![
        named!(grpc_exact_method_matching, route("exact", "grpc", "exact.example.com", EXACT)),
        named!(grpc_route_header_matching, route("headers", "grpc", "headers.example.com", HEADERS)),
        named!(grpc_route_listener_hostname_matching, hostnames()),
        named!(
            grpc_route_weight,
            route(
                "weight",
                "grpc",
                "weight.example.com",
                "  - backendRefs: [{name: shop-v1, port: 81, weight: 70}, {name: shop-v2, port: 81, weight: 30}, \
                 {name: nobody, port: 80, weight: 0}]"
            )
        ),
        named!(grpc_route_request_header_modifier, route("edits", "grpc", "edits.example.com", EDITS)),
        named!(grpc_route_named_rule, route("named", "grpc", "named.example.com", NAMED)),
        named!(
            routing_row_17_a_method_alone_is_matched_in_every_service,
            route("ping", "grpc", "ping.example.com", PING)
        ),
        named!(a_grpc_route_without_a_usable_backend_is_unavailable, route("lost", "grpc", "lost.example.com", LOST)),
        named!(a_grpc_deadline_ends_a_slow_call, String::new()),
        named!(an_http_route_for_the_host_of_an_older_grpc_route_is_refused, String::new()),
    ];
    check_all(&market, features)
}

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: market}
spec:
  gatewayClassName: istio
  listeners:
  - {name: grpc, port: 80, protocol: HTTP}
  - {name: apex, port: 8080, protocol: HTTP, hostname: bar.com}
  - {name: exact, port: 8080, protocol: HTTP, hostname: foo.bar.com}
  - {name: bars, port: 8080, protocol: HTTP, hostname: '*.bar.com'}
  - {name: foos, port: 8080, protocol: HTTP, hostname: '*.foo.com'}
";

const EXACT: &str = "
  - matches: [{method: {service: shop.Till, method: Ping}}]
    backendRefs: [{name: shop-v1, port: 81}]
  - matches: [{method: {service: shop.Till, method: Pong}}]
    backendRefs: [{name: shop-v2, port: 81}]";

const HEADERS: &str = "
  - matches: [{headers: [{name: version, value: one}]}]
    backendRefs: [{name: shop-v1, port: 81}]
  - matches: [{headers: [{name: version, value: two}]}]
    backendRefs: [{name: shop-v2, port: 81}]
  - matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}]
    backendRefs: [{name: shop-v1, port: 81}]
  - matches: [{headers: [{name: color, value: blue}]}, {headers: [{name: color, value: green}]}]
    backendRefs: [{name: shop-v1, port: 81}]";

const EDITS: &str = "
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Remove]}
    backendRefs: [{name: shop-v1, port: 81}]";

const NAMED: &str = "
  - name: ping
    matches: [{method: {method: Ping}}]
    backendRefs: [{name: shop-v1, port: 81}]
  - matches: [{method: {method: Pong}}]
    backendRefs: [{name: shop-v2, port: 81}]";

const PING: &str = "
  - matches: [{method: {method: Ping}}]
    backendRefs: [{name: shop-v1, port: 81}]";

const LOST: &str = "
  - matches: [{method: {method: Missing}}]
    backendRefs: [{name: missing, port: 81}]
  - matches: [{method: {method: Zero}}]
    backendRefs: [{name: shop-v1, port: 81, weight: 0}]
  - matches: [{method: {method: None}}]";

/// A GRPCRoute at a listener of the edge; without hosts for all that the listener has.
fn route(name: &str, listener: &str, host: &str, rules: &str) -> String {
    let hosts = if host.is_empty() { String::new() } else { format!("  hostnames: [{host}]\n") };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  parentRefs: [{{name: edge, sectionName: {listener}}}]\n{hosts}  rules:\n{}\n",
        rules.trim_start_matches('\n')
    )
}

fn hostnames() -> String {
    let rule = |version: &str| format!("  - backendRefs: [{{name: shop-{version}, port: 81}}]");
    let marked = "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-wild, value: a}]}}]\n    \
                  backendRefs: [{name: shop-v1, port: 81}]";
    [
        route("apex", "apex", "", &rule("v1")),
        route("host", "exact", "", &rule("v2")),
        route("bars", "bars", "", marked),
        route("foos", "foos", "", marked),
    ]
    .join("---\n")
}

const UNIMPLEMENTED: Want<'_> = Want::Status("grpc 12");
const UNAVAILABLE: Want<'_> = Want::Status("grpc 14");

fn grpc_exact_method_matching(market: &Market) -> Result<()> {
    outside(
        market,
        &[
            ("grpc://EDGE:80/shop.Till/Ping --host exact.example.com", Want::From("v1")),
            ("grpc://EDGE:80/shop.Till/Pong --host exact.example.com", Want::From("v2")),
            ("grpc://EDGE:80/shop.Till/ping --host exact.example.com", UNIMPLEMENTED),
            ("grpc://EDGE:80/shop.Tills/Ping --host exact.example.com", UNIMPLEMENTED),
            ("grpc://EDGE:80/shop.Till/Other --host exact.example.com", UNIMPLEMENTED),
        ],
    )
    .map(drop)
}

fn grpc_route_header_matching(market: &Market) -> Result<()> {
    const PING: &str = "grpc://EDGE:80/shop.Till/Ping --host headers.example.com";
    let with = |headers: &[&str]| headers.iter().fold(PING.to_owned(), |line, header| format!("{line} -H {header}"));
    let lines = [
        with(&["version:one"]),
        with(&["Version:two"]),
        with(&["version:two", "color:orange"]),
        with(&["version:two", "color:red"]),
        with(&["color:blue"]),
        with(&["color:green"]),
        with(&["color:purple"]),
        with(&[]),
    ];
    let wants = [
        Want::From("v1"),
        Want::From("v2"),
        Want::From("v1"),
        Want::From("v2"),
        Want::From("v1"),
        Want::From("v1"),
        UNIMPLEMENTED,
        UNIMPLEMENTED,
    ];
    let table: Vec<_> = lines.iter().map(String::as_str).zip(wants).collect();
    outside(market, &table).map(drop)
}

fn grpc_route_listener_hostname_matching(market: &Market) -> Result<()> {
    let said = outside(
        market,
        &[
            ("grpc://EDGE:8080/a.B/C --host bar.com", Want::From("v1")),
            ("grpc://EDGE:8080/a.B/C --host bar.com:8080", Want::From("v1")),
            ("grpc://EDGE:8080/a.B/C --host foo.bar.com", Want::From("v2")),
            ("grpc://EDGE:8080/a.B/C --host baz.bar.com", Want::From("v1")),
            ("grpc://EDGE:8080/a.B/C --host several.words.bar.com", Want::From("v1")),
            ("grpc://EDGE:8080/a.B/C --host several.words.foo.com", Want::From("v1")),
            ("grpc://EDGE:8080/a.B/C --host foo.com", UNIMPLEMENTED),
            ("grpc://EDGE:8080/a.B/C --host no.matching.host", UNIMPLEMENTED),
        ],
    )?;
    let marks: Vec<bool> = said.iter().map(|one| !one.request_header("x-wild").is_empty()).collect();
    ensure!(marks == [false, false, false, true, true, true, false, false], "{marks:?}");
    Ok(())
}

fn grpc_route_weight(market: &Market) -> Result<()> {
    let call = "grpc://EDGE:80/shop.Till/Ping --host weight.example.com -n 500 -c 4";
    let said = &outside(market, &[(call, Want::Status("grpc 0"))])?[0];
    // Five standard deviations are 51.
    ensure!((99..=201).contains(&said.backend("v2")) && said.backend("v1") + said.backend("v2") == 500, "{said:?}");
    Ok(())
}

fn grpc_route_request_header_modifier(market: &Market) -> Result<()> {
    let said = outside(
        market,
        &[
            ("grpc://EDGE:80/a.B/C --host edits.example.com", Want::From("v1")),
            (
                "grpc://EDGE:80/a.B/C --host edits.example.com -H x-set:original -H x-add:original -H x-remove:original",
                Want::From("v1"),
            ),
        ],
    )?;
    for (said, added) in said.iter().zip(["added", "original,added"]) {
        let seen = ["x-set", "x-add", "x-remove"].map(|name| said.request_header(name));
        ensure!(seen == ["set", added, ""], "{said:?}");
    }
    Ok(())
}

fn grpc_route_named_rule(market: &Market) -> Result<()> {
    outside(
        market,
        &[
            ("grpc://EDGE:80/shop.Till/Ping --host named.example.com", Want::From("v1")),
            ("grpc://EDGE:80/shop.Till/Pong --host named.example.com", Want::From("v2")),
        ],
    )
    .map(drop)
}

fn routing_row_17_a_method_alone_is_matched_in_every_service(market: &Market) -> Result<()> {
    outside(
        market,
        &[
            ("grpc://EDGE:80/x.Y/Ping --host ping.example.com", Want::From("v1")),
            ("grpc://EDGE:80/Z/Ping --host ping.example.com", Want::From("v1")),
            ("grpc://EDGE:80/x.Y/Pong --host ping.example.com", UNIMPLEMENTED),
        ],
    )
    .map(drop)
}

fn a_grpc_route_without_a_usable_backend_is_unavailable(market: &Market) -> Result<()> {
    market.condition("grpcroute/lost", "ResolvedRefs", "False", "BackendNotFound")?;
    outside(
        market,
        &[
            ("grpc://EDGE:80/a.B/Missing --host lost.example.com", UNAVAILABLE),
            ("grpc://EDGE:80/a.B/Zero --host lost.example.com", UNAVAILABLE),
            ("grpc://EDGE:80/a.B/None --host lost.example.com", UNAVAILABLE),
        ],
    )
    .map(drop)
}

fn a_grpc_deadline_ends_a_slow_call(market: &Market) -> Result<()> {
    let slow = "grpc://EDGE:80/a.B/Ping --host ping.example.com -H grpc-timeout:300m -H x-echo-delay:3000";
    let said = &outside(market, &[(slow, Want::Status("grpc 4"))])?[0];
    let took = said.longest().as_millis();
    ensure!((280..1500).contains(&took), "{took} ms");
    Ok(())
}

fn an_http_route_for_the_host_of_an_older_grpc_route_is_refused(market: &Market) -> Result<()> {
    market.lab.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: late, namespace: market}\n\
         spec:\n  parentRefs: [{name: edge, sectionName: grpc}]\n  hostnames: [ping.example.com]\n  \
         rules: [{backendRefs: [{name: shop-v2, port: 80}]}]\n",
    )?;
    market.condition("httproute/late", "Accepted", "False", "ParentRefConflict")?;
    outside(market, &[("grpc://EDGE:80/x.Y/Ping --host ping.example.com", Want::From("v1"))]).map(drop)
}
