//! HTTPRoutes at gateways: copies, time limits, retries, and what is spoken with backends.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::edge::{FINE, Site, outcome, route, says};
use crate::features::{Feature, named};
use crate::market::{Market, Said};
use crate::town::SOON;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(http_route_request_mirror, mirror()),
        named!(http_route_request_multiple_mirrors, mirrors()),
        named!(http_route_request_percentage_mirror, percentages()),
        named!(http_route_timeout_request, timeouts("timeout-request", "request")),
        named!(http_route_timeout_backend_request, timeouts("timeout-backend", "backendRequest")),
        named!(http_route_retry, retry()),
        named!(http_route_retry_with_timeouts, retry_timeouts()),
        named!(http_route_retry_connection_error, connection_errors()),
        named!(http_route_backend_protocol_h2c, h2c()),
        named!(http_route_backend_protocol_web_socket, web_socket()),
    ]
}

/// A rule for a path: its filters and other fields, and its backends.
fn ruled(path: &str, more: &str, backends: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("matches: [{{path: {{value: {path}}}}}]{comma}{more}, backendRefs: [{backends}]")
}

fn mirror_to(backend: &str, more: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {{{backend}, port: 80}}{more}}}}}")
}

const ONE: &str = "{name: shop-v1, port: 80}";
const TWO: &str = "{name: shop-v2, port: 80}";
const STALL: &str = "{name: granted, namespace: street, port: 80}";

/// Paths that lead to one server each, and to what it has recorded.
fn records(rules: &[String]) -> Vec<String> {
    let one = |path: &str, backend: &str| {
        let rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, \
                       replacePrefixMatch: /echo/recorded}}}";
        ruled(path, &format!("filters: [{rewrite}]"), backend)
    };
    let mut all = rules.to_vec();
    all.extend([one("/of-v1", ONE), one("/of-v2", TWO), one("/of-stall", STALL)]);
    all
}

/// What a server has recorded under a name.
fn recorded(site: &Site<'_>, server: &str, name: &str) -> Result<Vec<Value>> {
    let said = site.ask(&format!("GET /of-{server}/{name}"))?;
    Ok(said.last()["json"].as_array().cloned().unwrap_or_default())
}

/// Waits until a server has recorded so many requests, and returns them.
fn soon_recorded(site: &Site<'_>, server: &str, name: &str, count: usize) -> Result<Vec<Value>> {
    eventually(&format!("{server} has {count} requests"), SOON, || {
        let found = recorded(site, server, name)?;
        ensure!(found.len() == count, "{} of {count}", found.len());
        Ok(found)
    })
}

fn mirror() -> String {
    let edit = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-edited, value: before}]}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /changed}}}";
    let to_two = mirror_to("name: shop-v2", "");
    let nobody = mirror_to("name: nonexistent", "");
    let rules = [
        ruled("/mirror", &format!("filters: [{to_two}]"), ONE),
        ruled("/edited", &format!("filters: [{edit}, {rewrite}, {to_two}]"), ONE),
        ruled("/to-nobody", &format!("filters: [{nobody}]"), ONE),
    ];
    route("mirror", &records(&rules))
}

fn http_route_request_mirror(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "mirror.example.com")?;
    site.answers(&[("GET /mirror", "v1"), ("GET /edited", "v1")])?;
    let said = site.ask("POST /mirror/a?echo-record=plain -d text")?;
    ensure!(outcome(&said) == "v1", "{said:?}");
    let copies = soon_recorded(&site, "v2", "plain", 1)?;
    let copy = &copies[0];
    ensure!(
        copy["method"] == "POST" && copy["body"] == "text" && copy["path"] == "/mirror/a?echo-record=plain",
        "{copy}"
    );
    // The copy is one of what was sent, not of what came.
    site.ask("GET /edited/a?echo-record=edited x-edited:no")?;
    let copies = soon_recorded(&site, "v2", "edited", 1)?;
    let copy = &copies[0];
    ensure!(copy["path"] == "/changed/a?echo-record=edited" && copy["headers"]["x-edited"] == "before", "{copy}");
    ensure!(recorded(&site, "v1", "edited")?.len() == 1);
    // A copy that cannot be sent harms nobody, and is told.
    site.answers(&[("GET /to-nobody", "v1")])?;
    let told = ["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"];
    says(market, ("market", "httproute/mirror"), "parents/0", &told).map(drop)
}

fn mirrors() -> String {
    let filters =
        format!("filters: [{}, {}]", mirror_to("name: shop-v2", ""), mirror_to("name: granted, namespace: street", ""));
    route("mirrors", &records(&[ruled("/mirrors", &filters, ONE)]))
}

fn http_route_request_multiple_mirrors(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "mirrors.example.com")?;
    site.answers(&[("GET /mirrors", "v1")])?;
    let said = site.ask("GET /mirrors?echo-record=several -n 3")?;
    ensure!(said.backend("v1") == 3, "{said:?}");
    for server in ["v1", "v2", "stall"] {
        soon_recorded(&site, server, "several", 3)?;
    }
    says(market, ("market", "httproute/mirrors"), "parents/0", FINE).map(drop)
}

fn percentages() -> String {
    let rule = |path: &str, share: &str| {
        ruled(path, &format!("filters: [{}]", mirror_to("name: shop-v2", &format!(", {share}"))), ONE)
    };
    let rules = [
        rule("/none", "percent: 0"),
        rule("/fifth", "percent: 20"),
        rule("/half", "fraction: {numerator: 1, denominator: 2}"),
    ];
    route("percentages", &records(&rules))
}

fn http_route_request_percentage_mirror(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "percentages.example.com")?;
    site.answers(&[("GET /none", "v1"), ("GET /fifth", "v1"), ("GET /half", "v1")])?;
    // Within four times the standard deviation.
    let table = [("none", 0, 0), ("fifth", 32, 88), ("half", 115, 185)];
    let requests = table.map(|(path, _, _)| format!("GET /{path}?echo-record={path} -n 300 -c 4"));
    let said = site.all(&requests.each_ref().map(String::as_str))?;
    for ((path, least, most), said) in table.iter().zip(&said) {
        ensure!(said.backend("v1") == 300, "{said:?}");
        eventually(&format!("copies of {path}"), SOON, || {
            let copies = recorded(&site, "v2", path)?.len();
            ensure!((*least..=*most).contains(&copies), "{copies} copies");
            Ok(())
        })?;
    }
    Ok(())
}

fn timeouts(name: &str, field: &str) -> String {
    let rule = |path: &str, limit: &str| ruled(path, &format!("timeouts: {{{field}: {limit}}}"), ONE);
    route(name, &[rule("/limited", "500ms"), rule("/unlimited", "0s")])
}

fn within(said: &Said, least_ms: u64, most_ms: u64) -> Result<()> {
    let took = said.longest();
    let range = Duration::from_millis(least_ms)..Duration::from_millis(most_ms);
    ensure!(range.contains(&took), "took {took:?}");
    Ok(())
}

fn is_limited(market: &Market, host: &str) -> Result<()> {
    let site = Site::new(market, "edge", host)?;
    site.answers(&[
        ("GET /limited", "v1"),
        ("GET /limited?echo-delay=3000", "504"),
        ("GET /unlimited?echo-delay=700", "v1"),
    ])?;
    within(&site.ask("GET /limited?echo-delay=3000")?, 450, 2000)
}

fn http_route_timeout_request(market: &Market) -> Result<()> {
    is_limited(market, "timeout-request.example.com")
}

fn http_route_timeout_backend_request(market: &Market) -> Result<()> {
    is_limited(market, "timeout-backend.example.com")
}

fn retry() -> String {
    let rules = [
        ruled("/codes", "retry: {codes: [500, 503], attempts: 2, backoff: 10ms}", ONE),
        ruled("/once", "retry: {codes: [503], attempts: 1, backoff: 10ms}", ONE),
        ruled("/slow", "retry: {codes: [503], attempts: 1, backoff: 500ms}", ONE),
        ruled("/never", "", ONE),
    ];
    route("retry", &records(&rules))
}

fn http_route_retry(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "retry.example.com")?;
    site.answers(&[("GET /codes", "v1"), ("GET /never", "v1")])?;
    // What is asked, how it ends, and after how many requests to the server.
    let table = [
        ("/codes?echo-statuses=500,503,200&echo-key=a&echo-record=ra", "v1", 3),
        ("/codes?echo-statuses=500,500,503,200&echo-key=b&echo-record=rb", "503", 3),
        ("/codes?echo-statuses=501,200&echo-key=c&echo-record=rc", "501", 1),
        ("/once?echo-statuses=503,200&echo-key=d&echo-record=rd", "v1", 2),
        ("/once?echo-statuses=503,503,200&echo-key=e&echo-record=re", "503", 2),
        ("/once?echo-statuses=500,200&echo-key=f&echo-record=rf", "500", 1),
        ("/never?echo-statuses=503,200&echo-key=g&echo-record=rg", "503", 1),
    ];
    let said = site.all(&table.map(|(target, _, _)| format!("GET {target}")).each_ref().map(String::as_str))?;
    let names = table.map(|(target, _, _)| target.rsplit('=').next().unwrap_or_default());
    let records = site.all(&names.map(|name| format!("GET /of-v1/{name}")).each_ref().map(String::as_str))?;
    for (((target, wanted, count), said), records) in table.iter().zip(&said).zip(&records) {
        ensure!(outcome(said) == *wanted, "{target}: not {wanted}: {said:?}");
        let found = records.last()["json"].as_array().map_or(0, Vec::len);
        ensure!(found == *count, "{target}: {found} requests, not {count}");
    }
    let said = site.ask("GET /slow?echo-statuses=503,200&echo-key=h")?;
    ensure!(outcome(&said) == "v1", "{said:?}");
    within(&said, 500, 3000)
}

fn retry_timeouts() -> String {
    let retry = "retry: {codes: [503], attempts: 2, backoff: 10ms}";
    route(
        "retry-timeouts",
        &[
            ruled("/each", &format!("{retry}, timeouts: {{backendRequest: 800ms}}"), ONE),
            ruled("/whole", &format!("{retry}, timeouts: {{request: 1200ms, backendRequest: 800ms}}"), ONE),
            ruled("/long", &format!("{retry}, timeouts: {{request: 5s, backendRequest: 2s}}"), ONE),
        ],
    )
}

fn http_route_retry_with_timeouts(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "retry-timeouts.example.com")?;
    site.answers(&[("GET /each", "v1"), ("GET /whole", "v1"), ("GET /long", "v1")])?;
    let table = [
        // Each of three attempts has its own limit.
        ("GET /each?echo-delay=5000", "504", 2350, 7000),
        // The second attempt is cut short by the limit of the whole.
        ("GET /whole?echo-delay=5000", "504", 1150, 2350),
        ("GET /long?echo-statuses=503,503,200&echo-key=k&echo-delay=100", "v1", 300, 5000),
    ];
    for ((request, wanted, least, most), said) in table.iter().zip(site.all(&table.map(|row| row.0))?) {
        ensure!(outcome(&said) == *wanted, "{request}: {said:?}");
        within(&said, *least, *most).map_err(|error| error.context(*request))?;
    }
    Ok(())
}

fn connection_errors() -> String {
    route("broken", &[ruled("/healed", "retry: {attempts: 2, backoff: 10ms}", ONE), ruled("/broken", "", ONE)])
}

fn http_route_retry_connection_error(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "broken.example.com")?;
    site.answers(&[("GET /healed", "v1"), ("GET /broken", "v1")])?;
    let said = site.all(&[
        "GET /healed?echo-reset-first=2&echo-key=twice",
        "GET /healed?echo-reset-first=3&echo-key=thrice",
        "GET /broken?echo-reset-first=1&echo-key=once",
    ])?;
    let found: Vec<String> = said.iter().map(outcome).collect();
    // A request without retries that may have been worked on is not sent again.
    ensure!(found == ["v1", "503", "503"], "{said:?}");
    Ok(())
}

fn h2c() -> String {
    let backend = "{name: shop-v1, port: 82}";
    route("h2c", &[ruled("/h2c", "", backend), ruled("/plain", "", ONE)])
}

fn http_route_backend_protocol_h2c(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "h2c.example.com")?;
    site.answers(&[("GET /h2c", "v1"), ("GET /plain", "v1")])?;
    for (path, protocol) in [("/h2c", "HTTP/2.0"), ("/plain", "HTTP/1.1")] {
        let said = site.ask(&format!("GET {path}"))?;
        ensure!(said.seen("/protocol")? == protocol, "{said:?}");
    }
    Ok(())
}

fn web_socket() -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: shop-ws, namespace: market}}\nspec:\n  \
         selector: {{app: shop}}\n  \
         ports: [{{name: sockets, port: 80, targetPort: http, appProtocol: kubernetes.io/ws}}]\n---\n{}",
        route("ws", &["backendRefs: [{name: shop-ws, port: 80}]"])
    )
}

fn http_route_backend_protocol_web_socket(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "ws.example.com")?;
    let url = format!("http://{}/ws", crate::edge::address(market, "market", "edge")?);
    eventually("texts come back", SOON, || {
        let argv = ["load", "ws", &url, "--host", "ws.example.com", "--count", "20"];
        let said = market.lab.exec("outside", "deploy/stranger", &argv)?.ok()?;
        ensure!(said.contains("20 texts came back"), "{said}");
        Ok(())
    })?;
    // Plain requests are served as well.
    site.soon("GET /", |said| Ok(outcome(said).starts_with('v'))).map(drop)
}
