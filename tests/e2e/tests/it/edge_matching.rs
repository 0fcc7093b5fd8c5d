//! HTTPRoutes at gateways: which requests reach which backends.

use anyhow::{Context, Result, ensure};

use crate::edge::{FINE, Site, matching, outcome, route, route_at, rule, says};
use crate::features::{Feature, named};
use crate::market::Market;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(http_route_exact_path_matching, exact()),
        named!(http_route_header_matching, headers()),
        named!(http_route_matching, paths_and_headers()),
        named!(http_route_matching_across_routes, across()),
        named!(http_route_path_match_order, order()),
        named!(http_route_method_matching, methods()),
        named!(http_route_query_param_matching, queries()),
        named!(http_route_named_rule, named()),
        named!(http_route_weight, weights()),
        named!(http_route_service_types, service_types()),
        named!(http_route_multiple_gateways, gateways()),
        named!(http_route_listener_port_matching, ports()),
        named!(http_route_listener_hostname_matching, listener_hostnames()),
        named!(http_route_hostname_intersection, intersections()),
        named!(gateway_http_listener_isolation, isolation()),
    ]
}

fn exact() -> String {
    let exact = |path: &str| format!("{{path: {{type: Exact, value: {path}}}}}");
    matching("exact", &[(&exact("/one"), "v1"), (&exact("/two"), "v2")])
}

fn http_route_exact_path_matching(market: &Market) -> Result<()> {
    Site::new(market, "edge", "exact.example.com")?.answers(&[
        ("GET /one", "v1"),
        ("GET /two", "v2"),
        ("GET /one?a=/two", "v1"),
        ("GET /", "404"),
        ("GET /one/", "404"),
        ("GET /one/example", "404"),
        ("GET /ones", "404"),
        ("GET /ONE", "404"),
    ])
}

fn headers() -> String {
    matching(
        "headers",
        &[
            ("{headers: [{name: version, value: one}]}", "v1"),
            ("{headers: [{name: version, value: two}]}", "v2"),
            ("{headers: [{name: version, value: two}, {name: color, value: orange}]}", "v1"),
            ("{headers: [{name: color, value: blue}]}, {headers: [{name: color, value: green}]}", "v1"),
            ("{headers: [{name: color, value: red}]}, {headers: [{name: color, value: yellow}]}", "v2"),
        ],
    )
}

fn http_route_header_matching(market: &Market) -> Result<()> {
    Site::new(market, "edge", "headers.example.com")?.answers(&[
        ("GET / version:one", "v1"),
        ("GET / version:two", "v2"),
        ("GET / VERSION:two", "v2"),
        // Both conditions hold: more of them win.
        ("GET / version:two color:orange", "v1"),
        ("GET / color:blue", "v1"),
        ("GET / color:green", "v1"),
        ("GET / color:red", "v2"),
        ("GET / color:yellow", "v2"),
        // As many conditions each: the first rule wins.
        ("GET / color:blue version:two", "v2"),
        ("GET / color:red version:one", "v1"),
        ("GET / color:orange", "404"),
        ("GET / color:purple", "404"),
        ("GET / version:One", "404"),
        ("GET /", "404"),
    ])
}

fn paths_and_headers() -> String {
    matching(
        "matching",
        &[
            ("{path: {value: /}}, {headers: [{name: version, value: one}]}", "v1"),
            ("{path: {value: /v2}}, {headers: [{name: version, value: two}]}", "v2"),
        ],
    )
}

fn http_route_matching(market: &Market) -> Result<()> {
    Site::new(market, "edge", "matching.example.com")?.answers(&[
        ("GET /", "v1"),
        ("GET /example", "v1"),
        ("GET / version:one", "v1"),
        ("GET /v2", "v2"),
        ("GET /v2/", "v2"),
        ("GET /v2/example", "v2"),
        ("GET / version:two", "v2"),
        // A prefix is one of whole segments.
        ("GET /v2example", "v1"),
        ("GET /foo/v2/example", "v1"),
    ])
}

fn across() -> String {
    let first = rule("{path: {value: /}}, {headers: [{name: version, value: one}]}", "v1");
    let second = rule("{path: {value: /v2}}, {headers: [{name: version, value: two}]}", "v2");
    let parent = "{name: edge, sectionName: http}";
    format!(
        "{}---\n{}",
        route_at("across-first", parent, "[across.example.com, across.example.net]", &[&first]),
        route_at("across-second", parent, "[across.example.com]", &[&second])
    )
}

fn http_route_matching_across_routes(market: &Market) -> Result<()> {
    Site::new(market, "edge", "across.example.com")?.answers(&[
        ("GET /", "v1"),
        ("GET /example", "v1"),
        ("GET / version:one", "v1"),
        ("GET /v2", "v2"),
        ("GET /v2/example", "v2"),
        ("GET / version:two", "v2"),
        ("GET across.example.net/", "v1"),
        ("GET across.example.net/v2", "v1"),
        ("GET across.example.net/ version:two", "v1"),
        ("GET across.example.org/", "404"),
    ])
}

fn order() -> String {
    let path = |type_: &str, path: &str| format!("{{path: {{type: {type_}, value: {path}}}}}");
    matching(
        "order",
        &[
            (&path("PathPrefix", "/match"), "v1"),
            (&path("PathPrefix", "/match/exact/one"), "v2"),
            (&path("Exact", "/match/exact/one"), "v1"),
            (&path("Exact", "/match/exact"), "v2"),
            (&path("PathPrefix", "/match/prefix"), "v1"),
            (&path("PathPrefix", "/match/prefix/one"), "v2"),
        ],
    )
}

fn http_route_path_match_order(market: &Market) -> Result<()> {
    Site::new(market, "edge", "order.example.com")?.answers(&[
        ("GET /match/exact/one", "v1"),
        ("GET /match/exact/one/any", "v2"),
        ("GET /match/exact", "v2"),
        ("GET /match/exact/two", "v1"),
        ("GET /match/prefix/one/any", "v2"),
        ("GET /match/prefix/two/any", "v1"),
        ("GET /match/any", "v1"),
        ("GET /", "404"),
    ])
}

fn methods() -> String {
    matching(
        "methods",
        &[
            ("{method: POST}", "v1"),
            ("{method: GET}", "v2"),
            ("{method: GET, path: {value: /path1}}", "v1"),
            ("{method: PUT, headers: [{name: version, value: one}]}", "v2"),
            ("{method: POST, path: {value: /path2}, headers: [{name: version, value: two}]}", "v2"),
            ("{headers: [{name: version, value: three}, {name: color, value: blue}]}", "v2"),
            ("{method: PATCH}", "v1"),
            ("{path: {value: /path3}, method: DELETE}, {path: {value: /path4}, method: OPTIONS}", "v1"),
            ("{path: {value: /path3/deep}}", "v2"),
        ],
    )
}

fn http_route_method_matching(market: &Market) -> Result<()> {
    Site::new(market, "edge", "methods.example.com")?.answers(&[
        ("POST /", "v1"),
        ("GET /", "v2"),
        ("GET /path1", "v1"),
        ("PUT / version:one", "v2"),
        ("POST /path2 version:two", "v2"),
        ("POST /path2", "v1"),
        // A method outranks headers, and a longer path outranks a method.
        ("PATCH / version:three color:blue", "v1"),
        ("DELETE / version:three color:blue", "v2"),
        ("DELETE /path3", "v1"),
        ("OPTIONS /path4", "v1"),
        ("DELETE /path3/deep", "v2"),
        ("PUT /", "404"),
        ("DELETE /path4", "404"),
        ("HEAD /", "404"),
    ])
}

fn queries() -> String {
    matching(
        "queries",
        &[
            ("{queryParams: [{name: animal, value: whale}]}", "v1"),
            ("{queryParams: [{name: animal, value: dolphin}]}", "v2"),
            ("{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}", "v1"),
            ("{queryParams: [{name: ANIMAL, value: Whale}]}", "v2"),
            ("{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}", "v2"),
            ("{headers: [{name: version, value: one}]}", "v2"),
            ("{path: {value: /path5}}", "v1"),
            ("{queryParams: [{name: color, value: red}]}, {queryParams: [{name: color, value: yellow}]}", "v2"),
        ],
    )
}

fn http_route_query_param_matching(market: &Market) -> Result<()> {
    Site::new(market, "edge", "queries.example.com")?.answers(&[
        ("GET /?animal=whale", "v1"),
        ("GET /?animal=dolphin", "v2"),
        ("GET /?animal=dolphin&color=blue", "v1"),
        ("GET /?color=blue&animal=dolphin", "v1"),
        ("GET /?ANIMAL=Whale", "v2"),
        ("GET /?animal=whale&other=param", "v1"),
        ("GET /?animal=whale&animal=dolphin", "v1"),
        ("GET /?color=yellow", "v2"),
        // Paths outrank headers, and headers outrank parameters.
        ("GET /path1?animal=whale", "v2"),
        ("GET /path5?animal=dolphin version:one", "v1"),
        ("GET /?animal=whale version:one", "v2"),
        ("GET /?animal=Whale", "404"),
        ("GET /?Animal=whale", "404"),
        ("GET /?animal=shark", "404"),
        ("GET /?animal=whales", "404"),
        ("GET /?color=blue", "404"),
        ("GET /", "404"),
    ])
}

fn named() -> String {
    let named = |name: &str, path: &str, version: &str| {
        format!("name: {name}, {}", rule(&format!("{{path: {{value: {path}}}}}"), version))
    };
    route("named", &[&named("named-rule", "/named", "v1"), &rule("{path: {value: /unnamed}}", "v2")])
}

fn http_route_named_rule(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "named.example.com")?;
    site.answers(&[("GET /named", "v1"), ("GET /unnamed", "v2")])?;
    let route = says(market, ("market", "httproute/named"), "parents/0", FINE)?;
    ensure!(route["spec"]["rules"][0]["name"] == "named-rule", "{route}");
    // Two rules of one name are refused.
    let twice = named().replace("- {matches", "- {name: named-rule, matches");
    let said = market.lab.kubectl_raw(&["apply", "-f", "-"], &twice)?.failed()?;
    ensure!(said.contains("rules must not have the same name"), "{said}");
    Ok(())
}

fn weights() -> String {
    let backends = "[{name: shop-v1, port: 80, weight: 7}, {name: shop-v2, port: 80, weight: 3}, \
                    {name: nobody, port: 80, weight: 0}]";
    route("weights", &[&format!("backendRefs: {backends}")])
}

fn http_route_weight(market: &Market) -> Result<()> {
    let site = Site::new(market, "edge", "weights.example.com")?;
    site.soon("GET /", |said| Ok(outcome(said).starts_with('v')))?;
    let said = site.ask("GET / -n 600 -c 8")?;
    let (one, two) = (said.backend("v1"), said.backend("v2"));
    // Within four times the standard deviation.
    ensure!(one + two == 600 && (135..=225).contains(&two), "{said:?}");
    Ok(())
}

fn service_types() -> String {
    let service = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: market}}\nspec:\n{more}  \
             ports: [{{name: http, port: 8080, targetPort: 8080}}]\n---\n"
        )
    };
    let rule = |path: &str, name: &str| {
        format!("matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {name}, port: 8080}}]")
    };
    [
        service("headless", "  clusterIP: None\n  selector: {app: shop, version: v1}\n"),
        service("by-hand", ""),
        service("headless-by-hand", "  clusterIP: None\n"),
        route(
            "types",
            &[&rule("/headless", "headless"), &rule("/manual", "by-hand"), &rule("/both", "headless-by-hand")],
        ),
    ]
    .concat()
}

fn http_route_service_types(market: &Market) -> Result<()> {
    let path = "jsonpath={.items[0].status.podIP}";
    let ip = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=shop,version=v2", "-o", path])?;
    let slice = |service: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata:\n  name: {service}\n  \
             namespace: market\n  labels: {{kubernetes.io/service-name: {service}}}\nports:\n\
             - {{name: http, port: 8080, protocol: TCP}}\n\
             endpoints:\n- {{addresses: [{ip}], conditions: {{ready: true}}}}\n"
        )
    };
    market.lab.apply(&[slice("by-hand"), slice("headless-by-hand")].join("---\n"))?;
    let site = Site::new(market, "edge", "types.example.com")?;
    site.answers(&[("GET /headless", "v1"), ("GET /manual", "v2"), ("GET /both", "v2")])
}

fn gateways() -> String {
    let both = "{name: edge, sectionName: http}, {name: second}";
    [
        route_at("both-gateways", both, "[both.example.com]", &[&rule("{path: {value: /}}", "v1")]),
        route_at("second-gateway", "{name: second}", "[one.example.com]", &[&rule("{path: {value: /}}", "v2")]),
    ]
    .join("---\n")
}

fn http_route_multiple_gateways(market: &Market) -> Result<()> {
    let second = Site::new(market, "second", "both.example.com")?;
    second.answers(&[("GET /", "v1"), ("GET one.example.com/", "v2")])?;
    let first = Site::new(market, "edge", "both.example.com")?;
    first.answers(&[("GET /", "v1"), ("GET one.example.com/", "404")])?;
    for parent in ["parents/0", "parents/1"] {
        says(market, ("market", "httproute/both-gateways"), parent, FINE)?;
    }
    Ok(())
}

fn ports() -> String {
    let at = |name: &str, parent: &str, path: &str, version: &str| {
        route_at(name, parent, "[ports.example.com]", &[&rule(&format!("{{path: {{value: {path}}}}}"), version)])
    };
    [
        at("ports-by-name", "{name: edge, sectionName: http}", "/", "v1"),
        at("ports-by-port", "{name: edge, port: 8080}", "/", "v2"),
        at("ports-by-both", "{name: edge, port: 8090, sectionName: third}", "/three", "v2"),
    ]
    .join("---\n")
}

fn http_route_listener_port_matching(market: &Market) -> Result<()> {
    let site = || Site::new(market, "edge", "ports.example.com");
    site()?.answers(&[("GET /", "v1"), ("GET /three", "v1")])?;
    site()?.at(8080).answers(&[("GET /", "v2"), ("GET /three", "v2"), ("GET ports.example.com:8080/", "v2")])?;
    site()?.at(8090).answers(&[("GET /three", "v2"), ("GET /", "404")])
}

fn listener_hostnames() -> String {
    let at = |name: &str, parents: &str, version: &str| {
        route_at(name, parents, "[]", &[&rule("{path: {value: /}}", version)])
    };
    [
        at("at-bar", "{name: hosts, sectionName: bar}", "v1"),
        at("at-foo-bar", "{name: hosts, sectionName: foo-bar}", "v2"),
        at("at-wildcards", "{name: hosts, sectionName: any-bar}, {name: hosts, sectionName: any-foo}", "v1"),
    ]
    .join("---\n")
}

fn http_route_listener_hostname_matching(market: &Market) -> Result<()> {
    Site::new(market, "hosts", "bar.com")?.answers(&[
        ("GET bar.com/", "v1"),
        ("GET bar.com:80/", "v1"),
        ("GET BAR.com/", "v1"),
        ("GET foo.bar.com/", "v2"),
        ("GET baz.bar.com/", "v1"),
        ("GET many.labels.bar.com/", "v1"),
        ("GET foo.foo.com/", "v1"),
        // A wildcard does not cover the domain itself.
        ("GET foo.com/", "404"),
        ("GET no.matching.host/", "404"),
    ])
}

fn intersections() -> String {
    let at = |name: &str, hosts: &str, path: &str, version: &str| {
        route_at(name, "{name: hosts}", hosts, &[&rule(&format!("{{path: {{value: {path}}}}}"), version)])
    };
    [
        at("specific-specific", "[non.matching.com, '*.nonmatching.io', very.specific.com]", "/s1", "v1"),
        at("wildcard-specific", "[non.matching.com, '*.specific.com']", "/s3", "v2"),
        at("specific-wildcard", "[wildcard.io, foo.wildcard.io, bar.wildcard.io, a.b.wildcard.io]", "/s2", "v2"),
        at("wildcard-wildcard", "['*.anotherwildcard.io']", "/s4", "v1"),
        at("no-intersection", "[specific.but.wrong.com, wildcard.io]", "/s5", "v1"),
    ]
    .join("---\n")
}

fn http_route_hostname_intersection(market: &Market) -> Result<()> {
    Site::new(market, "hosts", "very.specific.com")?.answers(&[
        ("GET /s1", "v1"),
        ("GET very.specific.com:1234/s1", "v1"),
        ("GET /s3", "v2"),
        ("GET non.matching.com/s1", "404"),
        ("GET foo.nonmatching.io/s1", "404"),
        ("GET foo.specific.com/s3", "404"),
        ("GET /non-matching-prefix", "404"),
        ("GET foo.wildcard.io/s2", "v2"),
        ("GET bar.wildcard.io/s2", "v2"),
        ("GET a.b.wildcard.io/s2", "v2"),
        ("GET wildcard.io/s2", "404"),
        ("GET other.wildcard.io/s2", "404"),
        ("GET one.anotherwildcard.io/s4", "v1"),
        ("GET one.two.anotherwildcard.io/s4", "v1"),
        ("GET anotherwildcard.io/s4", "404"),
        ("GET specific.but.wrong.com/s5", "404"),
        ("GET wildcard.io/s5", "404"),
    ])?;
    let refused = ["Accepted=False/NoMatchingListenerHostname"];
    let route = says(market, ("market", "httproute/no-intersection"), "parents/0", &refused)?;
    let parents = route["status"]["parents"].as_array().context("parents")?;
    ensure!(parents.len() == 1, "{parents:?}");
    says(market, ("market", "httproute/specific-wildcard"), "parents/0", FINE).map(drop)
}

fn isolation() -> String {
    let at = |section: &str| {
        let rule = rule(&format!("{{path: {{value: /{section}}}}}"), "v1");
        route_at(&format!("isolated-{section}"), &format!("{{name: isolated, sectionName: {section}}}"), "[]", &[&rule])
    };
    [at("empty"), at("wildcard"), at("narrower"), at("exact")].join("---\n")
}

fn gateway_http_listener_isolation(market: &Market) -> Result<()> {
    let sections = ["empty", "wildcard", "narrower", "exact"];
    let hosts = [
        ("bar.com", "empty"),
        ("bar.example.com", "wildcard"),
        ("bar.foo.example.com", "narrower"),
        ("abc.foo.example.com", "exact"),
    ];
    let rows = hosts.iter().flat_map(|(host, owner)| {
        let row = move |section: &&str| (format!("GET {host}/{section}"), if section == owner { "v1" } else { "404" });
        sections.iter().map(row)
    });
    let rows: Vec<(String, &str)> = rows.collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(request, wanted)| (request.as_str(), *wanted)).collect();
    Site::new(market, "isolated", "bar.com")?.answers(&rows)
}
