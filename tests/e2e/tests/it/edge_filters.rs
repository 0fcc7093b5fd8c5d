//! HTTPRoutes at gateways: what filters do to requests and responses.

use anyhow::{Result, ensure};

use crate::edge::{FINE, Site, outcome, route, route_at, rule, says};
use crate::features::{Feature, named};
use crate::market::{Market, Said};

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(http_route_request_header_modifier, route("request-headers", &at_rule(&edits("requestHeaderModifier")))),
        named!(
            http_route_backend_request_header_modifier,
            route("backend-headers", &at_backend(&edits("requestHeaderModifier")))
        ),
        named!(http_route_request_header_modifier_backend_weights, marked()),
        named!(
            http_route_response_header_modifier,
            route("response-headers", &at_rule(&edits("responseHeaderModifier")))
        ),
        named!(http_route_redirect_host_and_status, redirects("redirect-host", HOSTS)),
        named!(http_route_redirect_path, redirects("redirect-path", PATHS)),
        named!(http_route_redirect_port, redirects("redirect-port", PORTS)),
        named!(http_route_redirect_scheme, redirects("redirect-scheme", SCHEMES)),
        named!(http_route_redirect_port_and_scheme, everywhere("redirect-both", SCHEMES_AND_PORTS)),
        named!(http_route_303_redirect, redirects("redirect-303", &[("/a", "statusCode: 303")])),
        named!(http_route_307_redirect, redirects("redirect-307", &[("/a", "statusCode: 307")])),
        named!(http_route_308_redirect, redirects("redirect-308", &[("/a", "statusCode: 308")])),
        named!(http_route_rewrite_host, rewrites("rewrite-host", REWRITTEN_HOSTS, at_rule)),
        named!(http_route_rewrite_path, rewrites("rewrite-path", REWRITTEN_PATHS, at_rule)),
        named!(http_route_backend_url_rewrite, backend_rewrites()),
        named!(http_route_backend_request_redirect, backend_redirect()),
        named!(http_route_cors, cors()),
    ]
}

/// A path and the filters for requests to it.
type Filtered = (String, String);

fn at_rule(filtered: &[Filtered]) -> Vec<String> {
    let rule = |(path, filters): &Filtered| format!("{}, filters: [{filters}]", to_one(path));
    filtered.iter().map(rule).collect()
}

fn at_backend(filtered: &[Filtered]) -> Vec<String> {
    let rule = |(path, filters): &Filtered| {
        let backend = format!("{{name: shop-v1, port: 80, filters: [{filters}]}}");
        format!("matches: [{{path: {{value: {path}}}}}], backendRefs: [{backend}]")
    };
    filtered.iter().map(rule).collect()
}

fn to_one(path: &str) -> String {
    rule(&format!("{{path: {{value: {path}}}}}"), "v1")
}

fn edits(field: &str) -> Vec<Filtered> {
    let set = "set: [{name: X-Header-Set, value: set-overwrites}]";
    let add = "add: [{name: X-Header-Add, value: added}]";
    let remove = "remove: [X-Header-Remove]";
    let both = "set: [{name: X-Both, value: set}], add: [{name: x-both, value: added}]";
    let again = "remove: [X-Again], add: [{name: x-again, value: added}]";
    let all = format!("{set}, {add}, {remove}");
    let type_ = format!("{}{}", field[..1].to_uppercase(), &field[1..]);
    let filter = |path: &str, edits: &str| (path.to_owned(), format!("{{type: {type_}, {field}: {{{edits}}}}}"));
    vec![
        filter("/set", set),
        filter("/add", add),
        filter("/remove", remove),
        filter("/all", &all),
        filter("/both", both),
        filter("/again", again),
    ]
}

/// What edits make of headers: path, header before, and how it ends; empty where there is none.
const EDITED: &[(&str, &str, &str)] = &[
    ("/set", "X-Header-Set:", "set-overwrites"),
    ("/set", "x-header-set:old", "set-overwrites"),
    ("/add", "X-Header-Add:", "added"),
    ("/add", "x-header-add:old", "old,added"),
    ("/remove", "X-Header-Remove:old", ""),
    ("/remove", "x-header-remove:old", ""),
    ("/remove", "X-Header-Keep:old", "old"),
    ("/all", "X-Header-Set:old", "set-overwrites"),
    ("/all", "X-Header-Add:old", "old,added"),
    ("/all", "X-Header-Remove:old", ""),
    ("/both", "X-Both:old", "set,added"),
    ("/again", "X-Again:old", "added"),
];

/// All values of a header of the last request as the server saw it.
fn arrived(said: &Said, name: &str) -> Result<String> {
    let list: Vec<(String, String)> = serde_json::from_str(&said.seen("/header_list")?)?;
    let values: Vec<String> = list.into_iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect();
    Ok(values.join(","))
}

/// Checks every row of a table by the request that it makes and what it reads of the answer.
fn edited(
    market: &Market,
    host: &str,
    ask: fn(&str, &str) -> String,
    read: fn(&Said, &str) -> Result<String>,
) -> Result<()> {
    let site = Site::new(market, "edge", &format!("{host}.example.com"))?;
    site.answers(&[("GET /set", "v1"), ("GET /again", "v1")])?;
    let requests: Vec<String> = EDITED.iter().map(|(path, before, _)| ask(path, before)).collect();
    let said = site.all(&requests.iter().map(String::as_str).collect::<Vec<_>>())?;
    for ((path, before, after), said) in EDITED.iter().zip(&said) {
        let name = before.split(':').next().unwrap_or_default().to_lowercase();
        let found = read(said, &name)?;
        ensure!(found.replace(", ", ",") == *after, "{path} with {before}: {name} is {found:?}, not {after:?}");
    }
    Ok(())
}

fn in_request(path: &str, header: &str) -> String {
    if header.ends_with(':') { format!("GET {path}") } else { format!("GET {path} {header}") }
}

fn http_route_request_header_modifier(market: &Market) -> Result<()> {
    edited(market, "request-headers", in_request, arrived)
}

fn http_route_backend_request_header_modifier(market: &Market) -> Result<()> {
    edited(market, "backend-headers", in_request, arrived)
}

fn http_route_response_header_modifier(market: &Market) -> Result<()> {
    // The server puts the header into its answer.
    let ask = |path: &str, header: &str| {
        if header.ends_with(':') { format!("GET {path}") } else { format!("GET {path}?echo-header={header}") }
    };
    edited(market, "response-headers", ask, |said, name| Ok(said.header(name).join(",")))
}

fn marked() -> String {
    let backend = |version: &str| {
        format!(
            "{{name: shop-{version}, port: 80, weight: 1, filters: [{{type: RequestHeaderModifier, \
             requestHeaderModifier: {{set: [{{name: x-backend, value: {version}}}]}}}}]}}"
        )
    };
    route("marked", &[format!("backendRefs: [{}, {}]", backend("v1"), backend("v2"))])
}

fn http_route_request_header_modifier_backend_weights(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "marked.example.com")?;
    site.soon("GET /", |said| Ok(outcome(said).starts_with('v')))?;
    let said = site.all(&["GET /"; 24])?;
    for said in &said {
        ensure!(arrived(said, "x-backend")? == outcome(said), "{said:?}");
    }
    for version in ["v1", "v2"] {
        ensure!(said.iter().any(|said| outcome(said) == version), "nobody has reached {version}");
    }
    Ok(())
}

const HOSTS: &[(&str, &str)] = &[
    ("/host", "hostname: example.org"),
    ("/status", "statusCode: 301"),
    ("/host-and-status", "hostname: example.org, statusCode: 301"),
];
const PATHS: &[(&str, &str)] = &[
    ("/original", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}"),
    ("/full", "path: {type: ReplaceFullPath, replaceFullPath: /whole/path}"),
    ("/gone", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
    ("/host", "hostname: example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}"),
    ("/status", "statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /whole}"),
];
const PORTS: &[(&str, &str)] = &[
    ("/port", "port: 8083"),
    ("/usual", "port: 80"),
    ("/port-and-host", "port: 8083, hostname: example.org"),
    ("/port-and-status", "port: 8083, statusCode: 301"),
];
const SCHEMES: &[(&str, &str)] = &[
    ("/scheme", "scheme: https"),
    ("/same", "scheme: http"),
    ("/scheme-and-host", "scheme: https, hostname: example.org"),
    ("/scheme-and-status", "scheme: https, statusCode: 301"),
];
const SCHEMES_AND_PORTS: &[(&str, &str)] = &[
    ("/nil-nil", "hostname: example.org"),
    ("/nil-80", "hostname: example.org, port: 80"),
    ("/nil-443", "hostname: example.org, port: 443"),
    ("/nil-8080", "hostname: example.org, port: 8080"),
    ("/http-nil", "hostname: example.org, scheme: http"),
    ("/http-80", "hostname: example.org, scheme: http, port: 80"),
    ("/http-8080", "hostname: example.org, scheme: http, port: 8080"),
    ("/https-nil", "hostname: example.org, scheme: https"),
    ("/https-443", "hostname: example.org, scheme: https, port: 443"),
    ("/https-8443", "hostname: example.org, scheme: https, port: 8443"),
];

fn redirect_rules(redirects: &[(&str, &str)]) -> Vec<String> {
    let rule = |(path, redirect): &(&str, &str)| {
        format!(
            "matches: [{{path: {{value: {path}}}}}], \
             filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]"
        )
    };
    redirects.iter().map(rule).collect()
}

fn redirects(name: &str, redirects: &[(&str, &str)]) -> String {
    route(name, &redirect_rules(redirects))
}

/// At all listeners.
fn everywhere(name: &str, redirects: &[(&str, &str)]) -> String {
    route_at(name, "{name: edge}", &format!("[{name}.example.com]"), &redirect_rules(redirects))
}

fn http_route_redirect_host_and_status(market: &Market) -> Result<()> {
    Site::new(market, "edge", "redirect-host.example.com")?.answers(&[
        ("GET /host", "302 http://example.org/host"),
        ("GET /host/more?a=b", "302 http://example.org/host/more?a=b"),
        ("GET /status", "301 http://redirect-host.example.com/status"),
        ("GET /host-and-status", "301 http://example.org/host-and-status"),
    ])
}

fn http_route_redirect_path(market: &Market) -> Result<()> {
    Site::new(market, "edge", "redirect-path.example.com")?.answers(&[
        ("GET /original/more", "302 http://redirect-path.example.com/replacement/more"),
        ("GET /original", "302 http://redirect-path.example.com/replacement"),
        ("GET /original/?a=b", "302 http://redirect-path.example.com/replacement/?a=b"),
        ("GET /full/more", "302 http://redirect-path.example.com/whole/path"),
        ("GET /gone/more", "302 http://redirect-path.example.com/more"),
        ("GET /gone", "302 http://redirect-path.example.com/"),
        ("GET /host/more", "302 http://example.org/replacement/more"),
        ("GET /status/more", "301 http://redirect-path.example.com/whole"),
    ])
}

fn http_route_redirect_port(market: &Market) -> Result<()> {
    Site::new(market, "edge", "redirect-port.example.com")?.answers(&[
        ("GET /port", "302 http://redirect-port.example.com:8083/port"),
        ("GET redirect-port.example.com:80/port", "302 http://redirect-port.example.com:8083/port"),
        ("GET /usual", "302 http://redirect-port.example.com/usual"),
        ("GET /port-and-host", "302 http://example.org:8083/port-and-host"),
        ("GET /port-and-status", "301 http://redirect-port.example.com:8083/port-and-status"),
    ])
}

fn http_route_redirect_scheme(market: &Market) -> Result<()> {
    Site::new(market, "edge", "redirect-scheme.example.com")?.answers(&[
        ("GET /scheme", "302 https://redirect-scheme.example.com/scheme"),
        ("GET /same", "302 http://redirect-scheme.example.com/same"),
        ("GET /scheme-and-host", "302 https://example.org/scheme-and-host"),
        ("GET /scheme-and-status", "301 https://redirect-scheme.example.com/scheme-and-status"),
    ])
}

fn http_route_redirect_port_and_scheme(market: &Market) -> Result<()> {
    let site = || Site::new(market, "edge", "redirect-both.example.com");
    let common = [
        ("GET /nil-8080", "302 http://example.org:8080/nil-8080"),
        ("GET /http-nil", "302 http://example.org/http-nil"),
        ("GET /http-80", "302 http://example.org/http-80"),
        ("GET /http-8080", "302 http://example.org:8080/http-8080"),
        ("GET /https-nil", "302 https://example.org/https-nil"),
        ("GET /https-443", "302 https://example.org/https-443"),
        ("GET /https-8443", "302 https://example.org:8443/https-8443"),
    ];
    // Without a port it is that of the scheme, without either that of the listener.
    let plain = [
        ("GET /nil-nil", "302 http://example.org/nil-nil"),
        ("GET /nil-80", "302 http://example.org/nil-80"),
        ("GET /nil-443", "302 http://example.org:443/nil-443"),
    ];
    site()?.answers(&[&common[..], &plain].concat())?;
    let alternative =
        [("GET /nil-nil", "302 http://example.org:8080/nil-nil"), ("GET /nil-80", "302 http://example.org/nil-80")];
    site()?.at(8080).answers(&[&common[..], &alternative].concat())?;
    let secure = [
        ("GET /nil-nil", "302 https://example.org/nil-nil"),
        ("GET /nil-443", "302 https://example.org/nil-443"),
        ("GET /nil-8080", "302 https://example.org:8080/nil-8080"),
    ];
    site()?.tls(443).answers(&[&common[1..], &secure].concat())
}

fn http_route_303_redirect(market: &Market) -> Result<()> {
    has_status(market, 303)
}

fn http_route_307_redirect(market: &Market) -> Result<()> {
    has_status(market, 307)
}

fn http_route_308_redirect(market: &Market) -> Result<()> {
    has_status(market, 308)
}

fn has_status(market: &Market, status: u16) -> Result<()> {
    let host = format!("redirect-{status}.example.com");
    let wanted = format!("{status} http://{host}/a");
    Site::new(market, "edge", &host)?.answers(&[("GET /a", &wanted), ("POST /a", &wanted)])
}

const REWRITTEN_HOSTS: &[(&str, &str)] =
    &[("/one", "hostname: one.example.org"), ("/two", "hostname: two.example.org")];
const REWRITTEN_PATHS: &[(&str, &str)] = &[
    ("/prefix/one", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}"),
    ("/strip", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
    ("/full", "path: {type: ReplaceFullPath, replaceFullPath: /one}"),
];
/// A header edit beside a rewrite.
const EDIT: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-edited, value: with}]}}";

fn rewrites(name: &str, rewrites: &[(&str, &str)], place: fn(&[Filtered]) -> Vec<String>) -> String {
    let filter = |rewrite: &str| format!("{{type: URLRewrite, urlRewrite: {{{rewrite}}}}}");
    let mut all: Vec<Filtered> = rewrites.iter().map(|(path, rewrite)| ((*path).to_owned(), filter(rewrite))).collect();
    let rewrite = "hostname: edited.example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /edited}";
    all.push(("/edit".to_owned(), format!("{}, {EDIT}", filter(rewrite))));
    route(name, &place(&all))
}

/// What the server sees: request, host and path.
fn rewritten(market: &Market, name: &str, table: &[(&str, &str, &str)]) -> Result<()> {
    let own = format!("{name}.example.com");
    let site = Site::new(market, "edge", &own)?;
    site.answers(&[("GET /edit", "v1")])?;
    let requests: Vec<&str> = table.iter().map(|(request, _, _)| *request).collect();
    for ((request, host, path), said) in table.iter().zip(site.all(&requests)?) {
        let (found, host) = ((said.seen("/host")?, said.seen("/path")?), if host.is_empty() { &own } else { *host });
        ensure!((found.0.as_str(), found.1.as_str()) == (host, *path), "{request}: {found:?}, not {host} and {path}");
    }
    let said = site.ask("GET /edit/more?a=b x-edited:before")?;
    let found = (said.seen("/host")?, said.seen("/path")?, arrived(&said, "x-edited")?);
    let found = (found.0.as_str(), found.1.as_str(), found.2.as_str());
    ensure!(found == ("edited.example.org", "/edited/more?a=b", "with"), "{found:?}");
    Ok(())
}

fn http_route_rewrite_host(market: &Market) -> Result<()> {
    let table = [("GET /one", "one.example.org", "/one"), ("GET /two/more", "two.example.org", "/two/more")];
    rewritten(market, "rewrite-host", &table)
}

fn http_route_rewrite_path(market: &Market) -> Result<()> {
    let table = [
        ("GET /prefix/one/two", "", "/one/two"),
        ("GET /prefix/one", "", "/one"),
        ("GET /prefix/one/", "", "/one/"),
        ("GET /strip/one?a=%2Fb", "", "/one?a=%2Fb"),
        ("GET /strip/one", "", "/one"),
        ("GET /strip/", "", "/"),
        ("GET /strip", "", "/"),
        ("GET /full/one/two?a=b", "", "/one?a=b"),
        ("GET /full", "", "/one"),
    ];
    rewritten(market, "rewrite-path", &table)
}

fn backend_rewrites() -> String {
    rewrites("backend-rewrite", &[REWRITTEN_HOSTS, REWRITTEN_PATHS].concat(), at_backend)
}

fn http_route_backend_url_rewrite(market: &Market) -> Result<()> {
    let table = [
        ("GET /one", "one.example.org", "/one"),
        ("GET /prefix/one/two", "", "/one/two"),
        ("GET /strip/one", "", "/one"),
        ("GET /full/one/two", "", "/one"),
    ];
    rewritten(market, "backend-rewrite", &table)?;
    says(market, ("market", "httproute/backend-rewrite"), "parents/0", FINE).map(drop)
}

fn backend_redirect() -> String {
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: example.org, statusCode: 301}}";
    let backends = format!("{{name: shop-v1, port: 80, filters: [{redirect}]}}, {{name: shop-v2, port: 80}}");
    let only = format!("{{name: shop-v1, port: 80, filters: [{redirect}]}}");
    let rule =
        |path: &str, backends: &str| format!("matches: [{{path: {{value: {path}}}}}], backendRefs: [{backends}]");
    route("backend-redirect", &[rule("/always", &only), rule("/sometimes", &backends)])
}

fn http_route_backend_request_redirect(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "backend-redirect.example.com")?;
    site.answers(&[("GET /always", "301 http://example.org/always")])?;
    // Only when the backend is the one that is chosen.
    let said = site.ask("GET /sometimes -n 64")?;
    let redirected: u64 = said.statuses().iter().filter(|(status, _)| status == "301").map(|(_, count)| count).sum();
    ensure!(redirected > 0 && redirected + said.backend("v2") == 64 && said.backend("v2") > 0, "{said:?}");
    Ok(())
}

fn cors() -> String {
    let rule = |path: &str, cors: &str| format!("{}, filters: [{{type: CORS, cors: {{{cors}}}}}]", to_one(path));
    route(
        "cors",
        &[
            rule(
                "/listed",
                "allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, PUT], \
             allowHeaders: [x-one, x-two], exposeHeaders: [x-three], allowCredentials: true, maxAge: 3600",
            ),
            rule("/any", "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']"),
        ],
    )
}

/// A header of an answer about other origins, without blanks, in small letters.
fn access(said: &Said, name: &str) -> String {
    let joined = said.header(&format!("access-control-{name}")).join(",");
    joined.replace(' ', "").to_lowercase()
}

fn http_route_cors(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "cors.example.com")?;
    site.answers(&[("GET /listed", "v1"), ("GET /any", "v1")])?;
    let ask = |origin: &str| {
        let asked = "access-control-request-method:PUT access-control-request-headers:x-one";
        [format!("OPTIONS /listed origin:{origin} {asked}"), format!("GET /listed origin:{origin}")]
    };
    let allowed = ["https://www.foo.com", "https://a.b.bar.com"];
    let others = ["https://foo.com", "http://www.foo.com", "https://bar.com", "https://www.foo.com:8443"];
    let requests: Vec<String> = allowed.iter().chain(&others).flat_map(|origin| ask(origin)).collect();
    let said = site.all(&requests.iter().map(String::as_str).collect::<Vec<_>>())?;
    let (of_allowed, of_others) = said.split_at(2 * allowed.len());
    for (origin, said) in allowed.iter().zip(of_allowed.chunks(2)) {
        let (preflight, actual) = (&said[0], &said[1]);
        let answered = matches!(preflight.last()["status"].as_u64(), Some(200 | 204));
        // The gateway answers by itself.
        ensure!(answered && preflight.0["backends"] == serde_json::json!({}), "{preflight:?}");
        let found = ["allow-origin", "allow-methods", "allow-headers", "allow-credentials", "max-age"];
        let found = found.map(|name| access(preflight, name));
        ensure!(found == [*origin, "get,put", "x-one,x-two", "true", "3600"], "{found:?}");
        let found = ["allow-origin", "expose-headers", "allow-credentials"].map(|name| access(actual, name));
        ensure!(outcome(actual) == "v1" && found == [*origin, "x-three", "true"], "{actual:?}");
    }
    for (origin, said) in others.iter().zip(of_others.chunks(2)) {
        let (preflight, actual) = (&said[0], &said[1]);
        ensure!(
            access(preflight, "allow-origin").is_empty() && preflight.backend("v1") == 0,
            "{origin}: {preflight:?}"
        );
        ensure!(access(actual, "allow-origin").is_empty() && actual.backend("v1") == 1, "{origin}: {actual:?}");
    }
    any_origin(&site)
}

/// Everything is allowed, but nobody's credentials.
fn any_origin(site: &Site<'_>) -> Result<()> {
    let said = site.all(&[
        "OPTIONS /any origin:https://other.com access-control-request-method:PUT access-control-request-headers:x-one",
        // What the server says of the matter itself does not count.
        "GET /any?echo-header=access-control-allow-origin:https://evil.com origin:https://other.com",
    ])?;
    let preflight = ["allow-origin", "allow-methods", "allow-headers"].map(|name| access(&said[0], name));
    let [origin, method, name] = preflight.each_ref().map(String::as_str);
    ensure!(["*", "https://other.com"].contains(&origin), "{said:?}");
    ensure!(["*", "put"].contains(&method) && ["*", "x-one"].contains(&name), "{said:?}");
    ensure!(access(&said[0], "allow-credentials").is_empty() && access(&said[0], "max-age") == "5", "{said:?}");
    ensure!(["*", "https://other.com"].contains(&&*access(&said[1], "allow-origin")), "{said:?}");
    Ok(())
}
