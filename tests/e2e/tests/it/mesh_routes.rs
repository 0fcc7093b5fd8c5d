//! Routes of the Gateway API with Services as their parents: what the API's own tests ask of a mesh.

use anyhow::{Context, Result, ensure};

use crate::features::{Feature, Want, answered, check_all, named, stall, stall_with_route};
use crate::market::{Market, Said};

/// The features of the mesh profiles, in one sandbox.
#[test]
fn features_of_the_mesh_profiles() -> Result<()> {
    let market = Market::with_waypoint()?;
    let features = [basic(), headers(), redirects()].into_iter().flatten().collect();
    check_all(&market, features)
}

fn basic() -> Vec<Feature> {
    vec![
        named!(mesh_basic, stall("basic", "v1")),
        named!(
            mesh_http_route_simple_same_namespace,
            stall_with_route("HTTPRoute", "simple", "  - backendRefs: [{name: shop-v1, port: 80}]")
        ),
        named!(
            mesh_http_route_matching,
            stall_with_route(
                "HTTPRoute",
                "matching",
                "  - matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}]\n    \
                 backendRefs: [{name: shop-v1, port: 80}]\n  \
                 - matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}]\n    \
                 backendRefs: [{name: shop-v2, port: 80}]"
            )
        ),
        named!(
            mesh_http_route_weight,
            stall_with_route(
                "HTTPRoute",
                "weight",
                "  - backendRefs:\n    - {name: shop-v1, port: 80, weight: 70}\n    \
                 - {name: shop-v2, port: 80, weight: 30}\n    - {name: nobody, port: 80, weight: 0}"
            )
        ),
        named!(
            mesh_traffic_split,
            stall_with_route(
                "HTTPRoute",
                "split",
                "  - backendRefs: [{name: shop-v1, port: 80}, {name: shop-v2, port: 80}]"
            )
        ),
        named!(mesh_frontend, stall_with_route("HTTPRoute", "front", &answers_with("front", "front"))),
        named!(mesh_frontend_hostname, stall_with_route("HTTPRoute", "by-address", &answers_with("mark", "shop"))),
        named!(mesh_ports, ports()),
        named!(mesh_consumer_route_is_accepted_and_applied_to_nobody, consumer()),
        named!(
            mesh_http_route_query_param_matching,
            stall_with_route(
                "HTTPRoute",
                "query",
                "  - matches: [{queryParams: [{name: animal, value: whale}]}]\n    \
                 backendRefs: [{name: shop-v1, port: 80}]\n  \
                 - matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}]\n    \
                 backendRefs: [{name: shop-v2, port: 80}]"
            )
        ),
        named!(
            mesh_http_route_named_rule,
            stall_with_route(
                "HTTPRoute",
                "named",
                "  - name: named-rule\n    matches: [{path: {value: /named}}]\n    \
                 backendRefs: [{name: shop-v1, port: 80}]\n  \
                 - matches: [{path: {value: /unnamed}}]\n    backendRefs: [{name: shop-v2, port: 80}]"
            )
        ),
    ]
}

fn headers() -> Vec<Feature> {
    let edits = "set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Remove]";
    vec![
        named!(
            mesh_http_route_request_header_modifier,
            stall_with_route(
                "HTTPRoute",
                "request-headers",
                &format!(
                    "  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{edits}}}}}]\n    \
                     backendRefs: [{{name: shop, port: 80}}]"
                )
            )
        ),
        named!(
            mesh_http_route_backend_request_header_modifier,
            stall_with_route(
                "HTTPRoute",
                "backend-headers",
                &format!(
                    "  - backendRefs:\n    - name: shop-v1\n      port: 80\n      \
                     filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{edits}}}}}]\n    \
                     - {{name: shop-v2, port: 80}}"
                )
            )
        ),
        named!(
            mesh_http_route_rewrite_path,
            stall_with_route(
                "HTTPRoute",
                "rewrite",
                "  - matches: [{path: {value: /prefix/one}}]\n    filters:\n    - type: URLRewrite\n      \
                 urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}\n    \
                 backendRefs: [{name: shop, port: 80}]\n  \
                 - matches: [{path: {value: /full}}]\n    filters:\n    - type: URLRewrite\n      \
                 urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /whole}}\n    \
                 backendRefs: [{name: shop, port: 80}]"
            )
        ),
        named!(
            mesh_grpc_route_weight,
            stall_with_route(
                "GRPCRoute",
                "grpc-weight",
                "  - backendRefs:\n    - {name: shop-v1, port: 81, weight: 70}\n    \
                 - {name: shop-v2, port: 81, weight: 30}\n    - {name: nobody, port: 80, weight: 0}"
            )
        ),
        named!(
            mesh_grpc_route_request_header_modifier,
            stall_with_route(
                "GRPCRoute",
                "grpc-headers",
                &format!(
                    "  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{edits}}}}}]\n    \
                     backendRefs: [{{name: shop, port: 81}}]"
                )
            )
        ),
    ]
}

fn redirects() -> Vec<Feature> {
    let status = |code: u16| {
        let rule = format!("{{scheme: https, statusCode: {code}}}");
        stall_with_route("HTTPRoute", &format!("redirect-{code}"), &redirect("/", &rule))
    };
    vec![
        named!(
            mesh_http_route_redirect_host_and_status,
            stall_with_route(
                "HTTPRoute",
                "redirect-host",
                &(redirect("/host", "{hostname: example.org}")
                    + &redirect("/moved", "{hostname: example.org, statusCode: 301}"))
            )
        ),
        named!(
            mesh_http_route_redirect_path,
            stall_with_route(
                "HTTPRoute",
                "redirect-path",
                &(redirect("/old", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}")
                    + &redirect("/full", "{path: {type: ReplaceFullPath, replaceFullPath: /whole}}"))
            )
        ),
        named!(
            mesh_http_route_redirect_port,
            stall_with_route(
                "HTTPRoute",
                "redirect-port",
                &(redirect("/port", "{port: 8083}") + &redirect("/same", "{hostname: example.org}"))
            )
        ),
        named!(
            mesh_http_route_scheme_redirect,
            stall_with_route(
                "HTTPRoute",
                "redirect-scheme",
                &(redirect("/secure", "{scheme: https}") + &redirect("/both", "{scheme: https, port: 8443}"))
            )
        ),
        named!(mesh_http_route_303_redirect, status(303)),
        named!(mesh_http_route_307_redirect, status(307)),
        named!(mesh_http_route_308_redirect, status(308)),
    ]
}

/// A rule that answers with a header more.
fn answers_with(name: &str, value: &str) -> String {
    format!(
        "  - filters:\n    - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-{name}, \
         value: '{value}'}}]}}}}\n    backendRefs: [{{name: shop-v1, port: 80}}]"
    )
}

/// A rule that redirects what begins with a path.
fn redirect(path: &str, redirect: &str) -> String {
    format!(
        "  - matches: [{{path: {{value: {path}}}}}]\n    \
         filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]\n"
    )
}

fn ports() -> String {
    let route = |name: &str, port: u16| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: market}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: ports, port: {port}}}]\n  rules:\n{}\n",
            answers_with("port", &port.to_string())
        )
    };
    let both = [stall("ports", ""), route("ports-80", 80), route("ports-8080", 8080)];
    both.join("---\n")
}

fn consumer() -> String {
    format!(
        "{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: consumer, namespace: outside}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: consumed, namespace: market}}]\n  rules:\n\
         {}\n",
        stall("consumed", "v1"),
        "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-consumer, value: a}]}}]"
    )
}

fn mesh_basic(market: &Market) -> Result<()> {
    answered(market, &[("http://basic/ -n 5", Want::From("v1"))]).map(drop)
}

fn mesh_http_route_simple_same_namespace(market: &Market) -> Result<()> {
    answered(market, &[("http://simple/ -n 20", Want::From("v1"))]).map(drop)
}

fn mesh_http_route_matching(market: &Market) -> Result<()> {
    let (one, two) = (|| Want::From("v1"), || Want::From("v2"));
    answered(
        market,
        &[
            ("http://matching/", one()),
            ("http://matching/example", one()),
            ("http://matching/ -H Version:one", one()),
            ("http://matching/v2", two()),
            ("http://matching/v2/", two()),
            ("http://matching/v2example", one()),
            ("http://matching/ -H Version:two", two()),
            // The longer prefix comes before any header.
            ("http://matching/v2 -H Version:one", two()),
        ],
    )
    .map(drop)
}

fn mesh_http_route_weight(market: &Market) -> Result<()> {
    split(&soon(market, &["http://weight/", "-n", "500", "-c", "4"])?, "v2", 500, 0.30)
}

fn mesh_traffic_split(market: &Market) -> Result<()> {
    split(&soon(market, &["http://split/", "-n", "500", "-c", "4"])?, "v1", 500, 0.50)
}

fn mesh_grpc_route_weight(market: &Market) -> Result<()> {
    let calls = ["grpc://grpc-weight:81/shop.Till/Ping", "-n", "500", "-c", "4"];
    split(&soon(market, &calls)?, "v2", 500, 0.30)
}

/// All calls of a split are answered from the first on.
fn soon(market: &Market, args: &[&str]) -> Result<Said> {
    market.soon("every share is served", args, |said| {
        let good = said.statuses().iter().all(|(status, _)| status == "200" || status == "grpc 0");
        Ok(good && said.errors().is_empty())
    })
}

/// A backend has its share of so many requests, within five standard deviations.
fn split(said: &Said, backend: &str, requests: u32, share: f64) -> Result<()> {
    let (requests, got) = (f64::from(requests), said.backend(backend) as f64);
    let deviation = (requests * share * (1.0 - share)).sqrt();
    ensure!((got - requests * share).abs() < 5.0 * deviation, "{backend} got {got} of {requests}: {said:?}");
    Ok(())
}

fn mesh_frontend(market: &Market) -> Result<()> {
    let said = answered(market, &[("http://front/", Want::From("v1"))])?;
    ensure!(said[0].header("x-front") == ["front"], "{said:?}");
    // The pod by its own address, and another Service of the same pods: nothing of the route.
    let path = "jsonpath={.items[0].status.podIP}";
    let pod = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=shop,version=v1", "-o", path])?;
    let pod = format!("http://{pod}:8080/ --host front");
    let said = answered(market, &[(&pod, Want::From("v1")), ("http://shop-v1/ --host front", Want::From("v1"))])?;
    ensure!(said.iter().all(|one| one.header("x-front").is_empty()), "{said:?}");
    Ok(())
}

fn mesh_frontend_hostname(market: &Market) -> Result<()> {
    let address = market.lab.field("market", "service/by-address", ".spec.clusterIP")?;
    let address = format!("http://{address}/ --host some.example.com");
    let said = answered(
        market,
        &[
            ("http://by-address/ --host shop", Want::From("v1")),
            (&address, Want::From("v1")),
            ("http://shop-v2/ --host by-address", Want::From("v2")),
        ],
    )?;
    let marks: Vec<_> = said.iter().map(|one| one.header("x-mark").len()).collect();
    ensure!(marks == [1, 1, 0], "{said:?}");
    Ok(())
}

fn mesh_ports(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://ports/", Want::From("v1")),
            ("http://ports:8080/", Want::From("v1")),
            ("http://ports:81/ --http2", Want::Status("200")),
        ],
    )?;
    let ports: Vec<_> = said.iter().map(|one| one.header("x-port").join(",")).collect();
    ensure!(ports == ["80", "8080", ""], "{said:?}");
    Ok(())
}

/// A route of another namespace would have to be for the clients of that namespace alone: it is for nobody.
fn mesh_consumer_route_is_accepted_and_applied_to_nobody(market: &Market) -> Result<()> {
    let path = ".status.parents[0].conditions[?(@.type==\"ResolvedWaypoints\")].message";
    let message = tests_support::eventually("the route's status is there", crate::town::SOON, || {
        let message = market.lab.field("outside", "httproute/consumer", path)?;
        ensure!(!message.is_empty(), "no message yet");
        Ok(message)
    })?;
    ensure!(message.contains("no effect"), "{message}");
    let path = ".status.parents[0].conditions[?(@.type==\"Accepted\")].status";
    ensure!(market.lab.field("outside", "httproute/consumer", path)? == "True");
    let said = answered(market, &[("http://consumed/", Want::From("v1"))])?;
    ensure!(said[0].header("x-consumer").is_empty(), "{said:?}");
    Ok(())
}

fn mesh_http_route_query_param_matching(market: &Market) -> Result<()> {
    answered(
        market,
        &[
            ("http://query/?animal=whale", Want::From("v1")),
            ("http://query/?animal=dolphin&color=blue", Want::From("v2")),
            ("http://query/?color=blue&animal=dolphin&more=1", Want::From("v2")),
            ("http://query/?animal=dolphin", Want::Status("404")),
            ("http://query/?ANIMAL=whale", Want::Status("404")),
            ("http://query/?animal=whales", Want::Status("404")),
            ("http://query/", Want::Status("404")),
        ],
    )
    .map(drop)
}

fn mesh_http_route_named_rule(market: &Market) -> Result<()> {
    answered(market, &[("http://named/named", Want::From("v1")), ("http://named/unnamed", Want::From("v2"))]).map(drop)
}

const SENT: &str = "-H x-set:original -H X-Add:original -H x-remove:original";

/// What the server saw of the headers that are set, added to, and removed.
fn edited(said: &Said) -> [String; 3] {
    ["x-set", "x-add", "x-remove"].map(|name| said.request_header(name))
}

fn mesh_http_route_request_header_modifier(market: &Market) -> Result<()> {
    let full = format!("http://request-headers/ {SENT}");
    let said = answered(market, &[("http://request-headers/", Want::Status("200")), (&full, Want::Status("200"))])?;
    ensure!(edited(&said[0]) == ["set", "added", ""], "{:?}", said[0]);
    ensure!(edited(&said[1]) == ["set", "original,added", ""], "{:?}", said[1]);
    Ok(())
}

fn mesh_http_route_backend_request_header_modifier(market: &Market) -> Result<()> {
    let full = format!("http://backend-headers/ {SENT}");
    let full: Vec<&str> = full.split(' ').collect();
    for (backend, wanted) in [("v1", ["set", "original,added", ""]), ("v2", ["original", "original", "original"])] {
        let said = market.soon(&format!("{backend} answers"), &full, |said| Ok(said.backend(backend) == 1))?;
        ensure!(edited(&said) == wanted, "{said:?}");
    }
    Ok(())
}

fn mesh_grpc_route_request_header_modifier(market: &Market) -> Result<()> {
    let full = format!("grpc://grpc-headers:81/shop.Till/Ping {SENT}");
    let said = answered(market, &[(&full, Want::Status("grpc 0"))])?;
    ensure!(edited(&said[0]) == ["set", "original,added", ""], "{said:?}");
    Ok(())
}

fn mesh_http_route_rewrite_path(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://rewrite/prefix/one/two?a=b", Want::Status("200")),
            ("http://rewrite/prefix/one", Want::Status("200")),
            ("http://rewrite/full/of/words?a=b", Want::Status("200")),
            ("http://rewrite/prefix/other", Want::Status("404")),
        ],
    )?;
    let paths: Vec<_> = said.iter().filter_map(|one| one.seen_maybe("/path")).collect();
    ensure!(paths == ["/one/two?a=b", "/one", "/whole?a=b"], "{paths:?}");
    Ok(())
}

/// Each URL is redirected to the one beside it.
fn redirected(market: &Market, status: &str, table: &[(&str, &str)]) -> Result<()> {
    let wanted: Vec<(&str, Want<'_>)> = table.iter().map(|(url, _)| (*url, Want::Status(status))).collect();
    for (said, (url, wanted)) in answered(market, &wanted)?.iter().zip(table) {
        let location = said.header("location").pop().context("no location")?;
        ensure!(location == *wanted, "{url} is redirected to {location}, wanted {wanted}");
    }
    Ok(())
}

fn mesh_http_route_redirect_host_and_status(market: &Market) -> Result<()> {
    redirected(market, "302", &[("http://redirect-host/host?a=b", "http://example.org/host?a=b")])?;
    redirected(market, "301", &[("http://redirect-host/moved/on", "http://example.org/moved/on")])
}

fn mesh_http_route_redirect_path(market: &Market) -> Result<()> {
    redirected(
        market,
        "302",
        &[
            ("http://redirect-path/old/lemon", "http://redirect-path/new/lemon"),
            ("http://redirect-path/full/of/words", "http://redirect-path/whole"),
        ],
    )
}

fn mesh_http_route_redirect_port(market: &Market) -> Result<()> {
    redirected(
        market,
        "302",
        &[
            ("http://redirect-port/port", "http://redirect-port:8083/port"),
            ("http://redirect-port:8080/port", "http://redirect-port:8083/port"),
            ("http://redirect-port/same", "http://example.org/same"),
            ("http://redirect-port:8080/same", "http://example.org:8080/same"),
        ],
    )
}

fn mesh_http_route_scheme_redirect(market: &Market) -> Result<()> {
    redirected(
        market,
        "302",
        &[
            ("http://redirect-scheme/secure", "https://redirect-scheme/secure"),
            ("http://redirect-scheme:8080/secure", "https://redirect-scheme/secure"),
            ("http://redirect-scheme/both", "https://redirect-scheme:8443/both"),
        ],
    )
}

fn mesh_http_route_303_redirect(market: &Market) -> Result<()> {
    redirected(market, "303", &[("http://redirect-303/a", "https://redirect-303/a")])
}

fn mesh_http_route_307_redirect(market: &Market) -> Result<()> {
    redirected(market, "307", &[("http://redirect-307/a", "https://redirect-307/a")])
}

fn mesh_http_route_308_redirect(market: &Market) -> Result<()> {
    redirected(market, "308", &[("http://redirect-308/a", "https://redirect-308/a")])
}
