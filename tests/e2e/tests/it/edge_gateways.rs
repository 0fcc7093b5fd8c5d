//! Gateways: what their status says, what is made for them, and what happens when they change.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests_support::eventually;

use crate::edge::{FINE, Site, address, object, outcome, part, patch, route_at, rule, says};
use crate::features::{Feature, named};
use crate::market::Market;
use crate::town::SOON;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(gateway_class_observed_generation_bump, CLASS),
        named!(gateway_observed_generation_bump, still("bumped", "", &[HTTP])),
        named!(gateway_invalid_parameters_ref, with_parameters()),
        named!(gateway_invalid_route_kind, kinds()),
        named!(gateway_listener_unsupported_protocol, protocols()),
        named!(gateway_modify_listeners, modified()),
        named!(gateway_name_maximum_length, idle(&long_name(), "", &[HTTP])),
        named!(gateway_with_attached_routes, attached("attached", 80)),
        named!(gateway_with_attached_routes_with_port_8080, attached("attached-8080", 8080)),
        named!(gateway_static_addresses, static_addresses()),
        named!(gateway_optional_address_value, gateway("optional", "addresses: [{type: IPAddress}]", &[HTTP])),
        named!(gateway_infrastructure, infrastructure()),
    ]
}

const HTTP: &str = "name: http, port: 80, protocol: HTTP";

/// A Gateway of the market with fields and listeners more.
pub(crate) fn gateway(name: &str, more: &str, listeners: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  gatewayClassName: istio\n"
    );
    more.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str("  listeners:\n");
    listeners.iter().for_each(|listener| text.push_str(&format!("  - {{{listener}}}\n")));
    text
}

/// One that is made, but has no pods.
pub(crate) fn idle(name: &str, more: &str, listeners: &[&str]) -> String {
    let none = "infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: still}}";
    gateway(name, &format!("{none}\n{more}"), listeners)
}

/// One for which nothing is made: only what is said of its listeners matters.
pub(crate) fn still(name: &str, more: &str, listeners: &[&str]) -> String {
    gateway(name, &format!("addresses: [{{type: Hostname, value: elsewhere.example.com}}]\n{more}"), listeners)
}

/// Conditions of a listener that is served.
pub(crate) const SERVED: &[&str] = &[
    "Accepted=True/Accepted",
    "Programmed=True/Programmed",
    "ResolvedRefs=True/ResolvedRefs",
    "Conflicted=False/NoConflicts",
];

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: own}\n\
                     spec: {controllerName: istio.io/gateway-controller}\n";

/// The generation rises with a change of the specification, and every condition follows.
fn rises(market: &Market, name: &str, paths: &[&str], change: &str) -> Result<()> {
    let name = ("market", name);
    let generation = |object: &Value| object["metadata"]["generation"].as_u64();
    let before = says(market, name, "", &["Accepted=True/Accepted"])?;
    patch(market, name.1, change)?;
    for path in paths {
        let after = says(market, name, path, &["Accepted=True/Accepted"])?;
        ensure!(generation(&after) > generation(&before), "{after}");
    }
    Ok(())
}

fn gateway_class_observed_generation_bump(market: &Market) -> Result<()> {
    rises(market, "gatewayclass/own", &[""], r#"{"spec": {"description": "bumped"}}"#)
}

fn gateway_observed_generation_bump(market: &Market) -> Result<()> {
    let change = json!([{"op": "add", "path": "/spec/listeners/-", "value": {"name": "more", "port": 8080, "protocol": "HTTP"}}]);
    rises(market, "gateway/bumped", &["", "listeners/http", "listeners/more"], &change.to_string())
}

fn with_parameters() -> String {
    let one = |name: &str, reference: &str| {
        gateway(name, &format!("infrastructure: {{parametersRef: {{{reference}}}}}"), &[HTTP])
    };
    [
        one("no-map", "group: '', kind: ConfigMap, name: nothing-of-this-name"),
        one("no-kind", "group: example.com, kind: Parameters, name: still"),
    ]
    .join("---\n")
}

fn gateway_invalid_parameters_ref(market: &Market) -> Result<()> {
    for name in ["no-map", "no-kind"] {
        let gateway = format!("gateway/{name}");
        says(market, ("market", &gateway), "", &["Accepted=False/InvalidParameters"])?;
        let said = market.lab.kubectl_raw(&["get", "-n", "market", &format!("deployment/{name}-istio")], "")?;
        ensure!(said.failed()?.contains("not found"));
    }
    // It is looked at again when the map is there.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: nothing-of-this-name, namespace: market}\n\
               data: {deployment: 'spec: {replicas: 0}'}\n";
    market.lab.apply(map)?;
    says(market, ("market", "gateway/no-map"), "", &["Accepted=True/Accepted"]).map(drop)
}

fn kinds() -> String {
    let listener = |name: &str, port: u16, kinds: &str| {
        format!("name: {name}, port: {port}, protocol: HTTP, allowedRoutes: {{kinds: [{kinds}]}}")
    };
    let (none, one) =
        (listener("none", 80, "{kind: Nothing}"), listener("one", 81, "{kind: Nothing}, {kind: HTTPRoute}"));
    let group = listener("group", 82, "{kind: HTTPRoute, group: example.com}");
    still("kinds", "", &[&none, &one, &group])
}

/// Names of the kinds of routes that a listener says it takes.
pub(crate) fn supported(object: &Value, path: &str) -> Result<Vec<String>> {
    let kinds = part(object, &format!("{path}/supportedKinds"))?.as_array().context("supportedKinds")?;
    Ok(kinds.iter().filter_map(|one| one["kind"].as_str().map(str::to_owned)).collect())
}

fn gateway_invalid_route_kind(market: &Market) -> Result<()> {
    for (listener, wanted) in [("none", &[][..]), ("one", &["HTTPRoute"]), ("group", &[])] {
        let path = format!("listeners/{listener}");
        let gateway = says(market, ("market", "gateway/kinds"), &path, &["ResolvedRefs=False/InvalidRouteKinds"])?;
        ensure!(supported(&gateway, &path)? == wanted, "{gateway}");
    }
    Ok(())
}

fn protocols() -> String {
    let (odd, udp) = ("name: odd, port: 8000, protocol: example.com/odd", "name: udp, port: 53, protocol: UDP");
    [still("odd-and-http", "", &[odd, udp, HTTP]), still("odd", "", &[odd])].join("---\n")
}

fn gateway_listener_unsupported_protocol(market: &Market) -> Result<()> {
    let refused = ["Accepted=False/UnsupportedProtocol", "Programmed=False/Invalid"];
    let some = ("market", "gateway/odd-and-http");
    for listener in ["listeners/odd", "listeners/udp"] {
        let gateway = says(market, some, listener, &refused)?;
        ensure!(supported(&gateway, listener)?.is_empty(), "{gateway}");
    }
    says(market, some, "listeners/http", SERVED)?;
    says(market, some, "", &["Accepted=True/ListenersNotValid"])?;
    says(market, ("market", "gateway/odd"), "", &["Accepted=False/ListenersNotValid"]).map(drop)
}

fn modified() -> String {
    route_at("modified", "{name: modified}", "[modified.example.com]", &[rule("{path: {value: /}}", "v1")])
}

fn gateway_modify_listeners(market: &Market) -> Result<()> {
    let name = ("market", "gateway/modified");
    let site = || Site::new(market, "modified", "modified.example.com");
    site()?.answers(&[("GET /", "v1")])?;
    std::thread::scope(|scope| {
        // Requests that are under way while listeners come and go.
        let slow = scope.spawn(|| site()?.ask("GET /?echo-delay=400 -n 32 -c 4"));
        patch(
            market,
            name.1,
            r#"[{"op": "add", "path": "/spec/listeners/-", "value": {"name": "added", "port": 8080, "protocol": "HTTP"}}]"#,
        )?;
        says(market, name, "listeners/added", SERVED)?;
        site()?.at(8080).answers(&[("GET /", "v1")])?;
        patch(market, name.1, r#"[{"op": "remove", "path": "/spec/listeners/1"}]"#)?;
        site()?.at(8080).answers(&[("GET / --timeout 1", "nothing")])?;
        let said = slow.join().map_err(|_| anyhow::anyhow!("the requests panicked"))??;
        ensure!(said.backend("v1") == 32 && said.errors().is_empty(), "{said:?}");
        anyhow::Ok(())
    })?;
    site()?.answers(&[("GET /", "v1")])?;
    let gateway = says(market, name, "listeners/http", SERVED)?;
    ensure!(part(&gateway, "listeners")?.as_array().is_some_and(|all| all.len() == 1), "{gateway}");
    Ok(())
}

/// As long as a name can be.
fn long_name() -> String {
    format!("long-{}-end", "x".repeat(253 - 9))
}

fn gateway_name_maximum_length(market: &Market) -> Result<()> {
    let (name, wanted) = (format!("gateway/{}", long_name()), ["Accepted=True/Accepted", "Programmed=True/Programmed"]);
    market.programmed(&long_name())?;
    says(market, ("market", &name), "", &wanted).map(drop)
}

fn attached(name: &str, port: u16) -> String {
    let listener = |name: &str, port: u16, more: &str| format!("name: {name}, port: {port}, protocol: HTTP{more}");
    let route = |suffix: &str, section: &str, backend: &str| {
        let backends = format!("backendRefs: [{{name: {backend}, port: 80}}]");
        route_at(&format!("{name}-{suffix}"), &format!("{{name: {name}, sectionName: {section}}}"), "[]", &[backends])
    };
    [
        still(
            name,
            "",
            &[
                &listener("one", port, ""),
                &listener("host", port, ", hostname: a.example.com"),
                &listener("none", port + 1, ""),
            ],
        ),
        route("first", "one", "shop-v1"),
        // Backends that there are not do not keep a route from being attached.
        route("second", "one", "nothing-of-this-name"),
        route_at(
            &format!("{name}-third"),
            &format!("{{name: {name}}}"),
            "[a.example.com]",
            &[rule("{path: {value: /}}", "v1")],
        ),
        route_at(
            &format!("{name}-other"),
            &format!("{{name: {name}, sectionName: host}}"),
            "[b.example.com]",
            &[rule("{path: {value: /}}", "v1")],
        ),
    ]
    .join("---\n")
}

fn counts(market: &Market, name: &str) -> Result<()> {
    let name = format!("gateway/{name}");
    eventually("routes are counted", SOON, || {
        let gateway = object(market, "market", &name)?;
        let count = |listener: &str| part(&gateway, &format!("listeners/{listener}/attachedRoutes")).cloned();
        let found = [count("one")?, count("host")?, count("none")?];
        ensure!(found == [json!(3), json!(1), json!(1)], "{found:?}");
        Ok(())
    })
}

fn gateway_with_attached_routes(market: &Market) -> Result<()> {
    counts(market, "attached")?;
    says(market, ("market", "httproute/attached-first"), "parents/0", FINE)?;
    let unresolved = ["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"];
    says(market, ("market", "httproute/attached-second"), "parents/0", &unresolved)?;
    market.lab.kubectl(&["delete", "-n", "market", "httproute/attached-first"])?;
    eventually("one route less is counted", SOON, || {
        let gateway = object(market, "market", "gateway/attached")?;
        ensure!(*part(&gateway, "listeners/one/attachedRoutes")? == 2, "{gateway}");
        Ok(())
    })
}

fn gateway_with_attached_routes_with_port_8080(market: &Market) -> Result<()> {
    counts(market, "attached-8080")?;
    says(market, ("market", "gateway/attached-8080"), "listeners/one", SERVED).map(drop)
}

/// One that can be had, one that cannot.
const STATIC: (&str, &str) = ("203.0.113.177", "198.51.100.1");

fn static_addresses() -> String {
    let one = |name: &str, address: &str| {
        gateway(name, &format!("addresses: [{{type: IPAddress, value: {address}}}]"), &[HTTP])
    };
    let other = "addresses: [{type: IPAddress, value: 203.0.113.178}, {type: example.com/odd, value: odd}]";
    [
        one("static", STATIC.0),
        one("elsewhere", STATIC.1),
        gateway("odd-address", other, &[HTTP]),
        route_at("static", "{name: static}", "[static.example.com]", &[rule("{path: {value: /}}", "v1")]),
    ]
    .join("---\n")
}

fn gateway_static_addresses(market: &Market) -> Result<()> {
    market.programmed("static")?;
    let gateway = says(market, ("market", "gateway/static"), "", &["Programmed=True/Programmed"])?;
    let wanted = json!([{"type": "IPAddress", "value": STATIC.0}]);
    ensure!(*part(&gateway, "addresses")? == wanted, "{gateway}");
    ensure!(address(market, "market", "static")? == STATIC.0);
    Site::new(market, "static", "static.example.com")?.answers(&[("GET /", "v1")])?;
    says(
        market,
        ("market", "gateway/elsewhere"),
        "",
        &["Accepted=True/Accepted", "Programmed=False/AddressNotAssigned"],
    )?;
    says(market, ("market", "gateway/odd-address"), "", &["Accepted=False/UnsupportedAddress"])?;
    // An address that can be had takes the place of one that cannot.
    patch(
        market,
        "gateway/elsewhere",
        r#"{"spec": {"addresses": [{"type": "IPAddress", "value": "203.0.113.179"}]}}"#,
    )?;
    let gateway = says(market, ("market", "gateway/elsewhere"), "", &["Programmed=True/Programmed"])?;
    ensure!(part(&gateway, "addresses/0/value")? == "203.0.113.179", "{gateway}");
    Ok(())
}

fn gateway_optional_address_value(market: &Market) -> Result<()> {
    market.programmed("optional")?;
    let gateway = says(market, ("market", "gateway/optional"), "", &["Programmed=True/Programmed"])?;
    let first = part(&gateway, "addresses/0")?;
    let value = first["value"].as_str().unwrap_or_default();
    ensure!(first["type"] == "IPAddress" && value.parse::<std::net::IpAddr>().is_ok(), "{gateway}");
    let said = Site::new(market, "optional", "nobody.example.com")?.soon("GET /", |said| Ok(outcome(said) == "404"))?;
    ensure!(said.errors().is_empty(), "{said:?}");
    Ok(())
}

fn infrastructure() -> String {
    let more = "infrastructure: {labels: {team: b}, annotations: {example.com/note: hello}, \
                parametersRef: {group: '', kind: ConfigMap, name: still}}";
    gateway("dressed", more, &[HTTP]).replace(
        "{name: dressed,",
        "{name: dressed, labels: {team: a, more: 'yes'}, annotations: {example.com/own: x},",
    )
}

fn gateway_infrastructure(market: &Market) -> Result<()> {
    market.programmed("dressed")?;
    for kind in ["service", "deployment", "serviceaccount"] {
        let made = object(market, "market", &format!("{kind}/dressed-istio"))?;
        let metadata = &made["metadata"];
        ensure!(metadata["labels"]["team"] == "b" && metadata["annotations"]["example.com/note"] == "hello", "{made}");
        ensure!(metadata["labels"]["gateway.networking.k8s.io/gateway-name"] == "dressed", "{made}");
        let own = [&metadata["labels"]["more"], &metadata["annotations"]["example.com/own"]];
        ensure!(own.iter().all(|one| one.is_null()), "{made}");
    }
    let deployment = object(market, "market", "deployment/dressed-istio")?;
    let pod = &deployment["spec"]["template"]["metadata"];
    ensure!(pod["labels"]["team"] == "b" && pod["annotations"]["example.com/note"] == "hello", "{pod}");
    // They follow what the Gateway says.
    patch(market, "gateway/dressed", r#"{"spec": {"infrastructure": {"labels": {"team": "c"}}}}"#)?;
    eventually("labels follow", SOON, || {
        let service = object(market, "market", "service/dressed-istio")?;
        ensure!(service["metadata"]["labels"]["team"] == "c", "{}", service["metadata"]);
        Ok(())
    })
}
