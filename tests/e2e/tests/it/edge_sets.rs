//! ListenerSets: which Gateways take them, what they add, and how routes attach to them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests_support::eventually;

use crate::edge::{FINE, Site, object, outcome, part, patch, route_at, rule, says};
use crate::edge_gateways::{SERVED, gateway, idle, supported};
use crate::features::{Feature, named};
use crate::market::Market;
use crate::town::SOON;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(listener_set_allowed_namespace_none, closed("none", "allowedListeners: {namespaces: {from: None}}")),
        named!(listener_set_default_not_allowed, closed("default", "")),
        named!(listener_set_allowed_namespace_same, closed("same", "allowedListeners: {namespaces: {from: Same}}")),
        named!(
            listener_set_allowed_namespace_selector,
            closed(
                "selector",
                "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {row: east}}}}"
            )
        ),
        named!(listener_set_allowed_routes_namespaces, namespaces()),
        named!(listener_set_allowed_routes_supported_kinds, kinds()),
        named!(listener_set_hostname_conflict, hostnames()),
        named!(listener_set_protocol_conflict, protocols()),
        named!(listener_set_http_routing, routing()),
        named!(listener_set_reference_grant, granted()),
        named!(listener_set_dual_parent_ref_independence, dual()),
        named!(listener_set_gateway_parent_section_name_not_found, section()),
        named!(listener_set_route_status_scoped_to_parent_ref, scoped()),
    ]
}

/// A ListenerSet.
fn set(namespace: &str, name: &str, gateway: &str, listeners: &[String]) -> String {
    let listeners: String = listeners.iter().map(|listener| format!("  - {{{listener}}}\n")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRef: {{name: {gateway}, namespace: market}}\n  listeners:\n{listeners}"
    )
}

/// An HTTP listener of a set.
fn http(name: &str, host: &str, more: &str) -> String {
    format!("name: {name}, port: 80, protocol: HTTP, hostname: {host}{more}")
}

const ACCEPTED: &[&str] = &["Accepted=True/Accepted", "Programmed=True/Programmed"];
const NOT_ALLOWED: &[&str] = &["Accepted=False/NotAllowed", "Programmed=False/NotAllowed"];
const ONE: &str = "backendRefs: [{name: shop-v1, port: 80}]";
const ALL: &str = ", allowedRoutes: {namespaces: {from: All}}";

/// A Gateway that takes some sets, and a set in each of two namespaces.
fn closed(name: &str, allowed: &str) -> String {
    let listener = [http("more", &format!("{name}.example.com"), "")];
    [
        idle(&format!("from-{name}"), allowed, &["name: http, port: 80, protocol: HTTP, hostname: own.example.com"]),
        set("market", &format!("from-{name}"), &format!("from-{name}"), &listener),
        set("street", &format!("from-{name}"), &format!("from-{name}"), &listener),
    ]
    .join("---\n")
}

/// Which of the two sets is taken.
fn takes(market: &Market, name: &str, of_the_market: bool, of_the_street: bool) -> Result<()> {
    market.programmed(&format!("from-{name}"))?;
    let set = format!("listenerset/from-{name}");
    for (namespace, taken) in [("market", of_the_market), ("street", of_the_street)] {
        says(market, (namespace, &set), "", if taken { ACCEPTED } else { NOT_ALLOWED })?;
        if taken {
            says(market, (namespace, &set), "listeners/more", SERVED)?;
        }
    }
    let count = u8::from(of_the_market) + u8::from(of_the_street);
    eventually("sets are counted", SOON, || {
        let gateway = object(market, "market", &format!("gateway/from-{name}"))?;
        let found = &gateway["status"]["attachedListenerSets"];
        ensure!(found.as_u64().unwrap_or_default() == u64::from(count), "{found}");
        Ok(())
    })?;
    // The Gateway itself is as good as before.
    says(market, ("market", &format!("gateway/from-{name}")), "listeners/http", SERVED).map(drop)
}

fn listener_set_allowed_namespace_none(market: &Market) -> Result<()> {
    takes(market, "none", false, false)
}

fn listener_set_default_not_allowed(market: &Market) -> Result<()> {
    takes(market, "default", false, false)
}

fn listener_set_allowed_namespace_same(market: &Market) -> Result<()> {
    takes(market, "same", true, false)
}

fn listener_set_allowed_namespace_selector(market: &Market) -> Result<()> {
    takes(market, "selector", false, true)
}

fn to_set(name: &str, namespace: &str, section: &str) -> String {
    format!("{{group: gateway.networking.k8s.io, kind: ListenerSet, name: {name}, namespace: {namespace}{section}}}")
}

fn namespaces() -> String {
    let from = |name: &str, from: &str| {
        http(name, &format!("{name}.routes.example.com"), &format!(", allowedRoutes: {{namespaces: {{{from}}}}}"))
    };
    let listeners = [
        from("same", "from: Same"),
        from("all", "from: All"),
        from("some", "from: Selector, selector: {matchLabels: {row: west}}"),
    ];
    let route = |section: &str| {
        let parent = to_set("by-namespace", "street", &format!(", sectionName: {section}"));
        route_at(&format!("of-{section}"), &parent, "[]", &[ONE])
    };
    [set("street", "by-namespace", "open", &listeners), route("same"), route("all"), route("some")].join("---\n")
}

fn listener_set_allowed_routes_namespaces(market: &Market) -> Result<()> {
    says(market, ("market", "httproute/of-all"), "parents/0", FINE)?;
    for refused in ["httproute/of-same", "httproute/of-some"] {
        says(market, ("market", refused), "parents/0", &["Accepted=False/NotAllowedByListeners"])?;
    }
    Site::new(market, "open", "all.routes.example.com")?.answers(&[
        ("GET /", "v1"),
        ("GET same.routes.example.com/", "404"),
        ("GET some.routes.example.com/", "404"),
    ])?;
    // A label of the namespace is enough.
    market.lab.kubectl(&["label", "namespace/market", "row=west"])?;
    says(market, ("market", "httproute/of-some"), "parents/0", FINE)?;
    Site::new(market, "open", "some.routes.example.com")?.answers(&[("GET /", "v1")])
}

fn kinds() -> String {
    let kinds = |name: &str, kinds: &str| {
        http(name, &format!("{name}.kinds.example.com"), &format!(", allowedRoutes: {{kinds: [{kinds}]}}"))
    };
    let listeners = [
        kinds("grpc", "{kind: GRPCRoute}"),
        kinds("partly", "{kind: Nothing}, {kind: HTTPRoute}"),
        kinds("nothing", "{kind: Nothing}"),
        http("usual", "usual.kinds.example.com", ""),
    ];
    let route = |section: &str| {
        let parent = to_set("by-kind", "market", &format!(", sectionName: {section}"));
        route_at(&format!("of-kind-{section}"), &parent, "[]", &[ONE])
    };
    [set("market", "by-kind", "open", &listeners), route("grpc"), route("partly")].join("---\n")
}

fn listener_set_allowed_routes_supported_kinds(market: &Market) -> Result<()> {
    let name = ("market", "listenerset/by-kind");
    let unresolved = &["ResolvedRefs=False/InvalidRouteKinds"][..];
    let table: [(&str, &[&str], &[&str]); 4] = [
        ("grpc", SERVED, &["GRPCRoute"]),
        ("partly", unresolved, &["HTTPRoute"]),
        ("nothing", unresolved, &[]),
        ("usual", SERVED, &["HTTPRoute", "GRPCRoute"]),
    ];
    for (listener, conditions, kinds) in table {
        let path = format!("listeners/{listener}");
        let set = says(market, name, &path, conditions)?;
        ensure!(supported(&set, &path)? == kinds, "{listener}: {set}");
    }
    says(market, ("market", "httproute/of-kind-grpc"), "parents/0", &["Accepted=False/NotAllowedByListeners"])?;
    says(market, ("market", "httproute/of-kind-partly"), "parents/0", FINE).map(drop)
}

const CONFLICT: &[&str] =
    &["Accepted=False/HostnameConflict", "Programmed=False/HostnameConflict", "Conflicted=True/HostnameConflict"];

fn hostnames() -> String {
    let taken = http("taken", "taken.example.com", "");
    [
        set("market", "conflict-a", "open", &[taken.clone(), http("fine", "fine.example.com", "")]),
        // By name it comes after the other one.
        set("market", "conflict-b", "open", &[http("late", "fine.example.com", "")]),
        route_at("of-taken", "{name: open, sectionName: taken}", "[]", &[ONE]),
        route_at("of-fine", &to_set("conflict-a", "market", ", sectionName: fine"), "[]", &[ONE]),
    ]
    .join("---\n")
}

fn listener_set_hostname_conflict(market: &Market) -> Result<()> {
    let (a, b) = (("market", "listenerset/conflict-a"), ("market", "listenerset/conflict-b"));
    says(market, a, "listeners/taken", CONFLICT)?;
    says(market, a, "listeners/fine", SERVED)?;
    says(market, a, "", &["Accepted=True/ListenersNotValid", "Programmed=True/Programmed"])?;
    says(market, b, "listeners/late", CONFLICT)?;
    says(market, b, "", &["Accepted=False/ListenersNotValid", "Programmed=False/ListenersNotValid"])?;
    // Who was there first is served, and the Gateway has nothing to do with it.
    says(market, ("market", "gateway/open"), "listeners/taken", SERVED)?;
    says(market, ("market", "gateway/open"), "", &["Accepted=True/Accepted"])?;
    Site::new(market, "open", "taken.example.com")?.answers(&[("GET /", "v1"), ("GET fine.example.com/", "v1")])?;
    // When the place is free, the next one has it.
    patch(market, "listenerset/conflict-a", r#"[{"op": "remove", "path": "/spec/listeners/1"}]"#)?;
    says(market, b, "listeners/late", SERVED).map(drop)
}

fn protocols() -> String {
    let tcp = "name: tcp, port: 80, protocol: TCP".to_owned();
    let https = "name: https, port: 80, protocol: HTTPS, hostname: s.example.com, \
                 tls: {certificateRefs: [{name: edge}]}"
        .to_owned();
    set("market", "protocols", "open", &[tcp, https, http("fine", "protocols.example.com", "")])
}

fn listener_set_protocol_conflict(market: &Market) -> Result<()> {
    let set = ("market", "listenerset/protocols");
    let conflict =
        ["Accepted=False/ProtocolConflict", "Programmed=False/ProtocolConflict", "Conflicted=True/ProtocolConflict"];
    for listener in ["listeners/tcp", "listeners/https"] {
        says(market, set, listener, &conflict)?;
    }
    says(market, set, "listeners/fine", SERVED)?;
    says(market, set, "", &["Accepted=True/ListenersNotValid"]).map(drop)
}

fn routing() -> String {
    let all = |path: &str, version: &str| rule(&format!("{{path: {{value: {path}}}}}"), version);
    [
        set(
            "market",
            "first-set",
            "open",
            &[http("first", "first.example.com", ALL), http("both", "both.example.com", ALL)],
        ),
        set(
            "street",
            "second-set",
            "open",
            &[
                http("second", "second.example.com", ALL),
                "name: alone, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}".to_owned(),
            ],
        ),
        route_at("at-gateway", "{name: open, sectionName: http}", "[]", &[all("/", "v1")]),
        route_at("at-first", &to_set("first-set", "market", ", sectionName: first"), "[]", &[all("/", "v2")]),
        route_at("at-whole-set", &to_set("first-set", "market", ""), "[both.example.com]", &[all("/", "v1")]),
        route_at("at-second", &to_set("second-set", "street", ", sectionName: second"), "[]", &[all("/", "v2")]),
        route_at("at-alone", &to_set("second-set", "street", ", port: 8080"), "[]", &[all("/", "v1")]),
    ]
    .join("---\n")
}

fn listener_set_http_routing(market: &Market) -> Result<()> {
    Site::new(market, "open", "own.example.com")?.answers(&[
        ("GET /", "v1"),
        ("GET first.example.com/", "v2"),
        ("GET both.example.com/", "v1"),
        ("GET second.example.com/", "v2"),
        ("GET third.example.com/", "404"),
    ])?;
    Site::new(market, "open", "any.example.com")?.at(8080).answers(&[("GET /", "v1")])?;
    // A set that goes takes its listeners along, and no others.
    market.lab.kubectl(&["delete", "-n", "street", "listenerset/second-set"])?;
    Site::new(market, "open", "second.example.com")?.answers(&[("GET /", "404"), ("GET first.example.com/", "v2")])
}

fn granted() -> String {
    let https = |name: &str, secret: &str| {
        format!(
            "name: {name}, port: 443, protocol: HTTPS, hostname: {name}.example.com, \
             tls: {{certificateRefs: [{{{secret}}}]}}, allowedRoutes: {{namespaces: {{from: All}}}}"
        )
    };
    let abroad = "name: edge, namespace: street";
    let grant = |name: &str, kind: &str, namespace: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: {name}, namespace: street}}\nspec:\n  \
             from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}]\n  \
             to: [{{group: '', kind: Secret, name: edge}}]\n"
        )
    };
    [
        set("market", "certified", "open", &[https("certified", abroad)]),
        // Certificates of its own namespace need no grant, whatever the namespace of the Gateway.
        set("street", "at-home", "open", &[https("at-home", "name: edge")]),
        // A grant for the Gateway is none for the set.
        grant("for-gateways", "Gateway", "market"),
        grant("for-others", "ListenerSet", "outside"),
        route_at("at-certified", &to_set("certified", "market", ""), "[]", &[ONE]),
        route_at("at-home", &to_set("at-home", "street", ""), "[]", &[ONE]),
    ]
    .join("---\n")
}

fn listener_set_reference_grant(market: &Market) -> Result<()> {
    let certified = ("market", "listenerset/certified");
    let refused = ["ResolvedRefs=False/RefNotPermitted", "Programmed=False/Invalid"];
    says(market, certified, "listeners/certified", &refused)?;
    says(market, ("street", "listenerset/at-home"), "listeners/at-home", SERVED)?;
    let site = Site::new(market, "open", "at-home.example.com")?.tls(443);
    site.answers(&[("GET /", "v1"), ("GET certified.example.com/", "nothing")])?;
    patch_grant(market, "market")?;
    says(market, certified, "listeners/certified", SERVED)?;
    site.answers(&[("GET certified.example.com/", "v1")])?;
    patch_grant(market, "outside")?;
    says(market, certified, "listeners/certified", &refused)?;
    site.answers(&[("GET /", "v1"), ("GET certified.example.com/", "nothing")])
}

/// Lets ListenerSets of a namespace name the certificate of the street.
fn patch_grant(market: &Market, namespace: &str) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec/from/0/namespace", "value": namespace}]).to_string();
    market.lab.kubectl(&["patch", "-n", "street", "referencegrant/for-others", "--type=json", "-p", &patch]).map(drop)
}

fn dual() -> String {
    let parents = format!("{{name: dual}}, {}", to_set("dual", "market", ""));
    [
        gateway(
            "dual",
            "allowedListeners: {namespaces: {from: Same}}",
            &["name: http, port: 80, protocol: HTTP, hostname: gateway.example.com"],
        ),
        set("market", "dual", "dual", &[http("more", "set.example.com", "")]),
        route_at("dual", &parents, "[]", &[ONE]),
    ]
    .join("---\n")
}

fn listener_set_dual_parent_ref_independence(market: &Market) -> Result<()> {
    market.programmed("dual")?;
    let route = ("market", "httproute/dual");
    for parent in ["parents/0", "parents/1"] {
        says(market, route, parent, FINE)?;
    }
    let site = Site::new(market, "dual", "gateway.example.com")?;
    site.answers(&[("GET /", "v1"), ("GET set.example.com/", "v1")])?;
    // One parent refuses the route, the other goes on.
    patch(
        market,
        "listenerset/dual",
        r#"[{"op": "add", "path": "/spec/listeners/0/allowedRoutes", "value": {"kinds": [{"kind": "GRPCRoute"}]}}]"#,
    )?;
    eventually("the set refuses the route", SOON, || {
        let object = object(market, route.0, route.1)?;
        let of_set = parents(&object).into_iter().find(|one| one["parentRef"]["kind"] == "ListenerSet");
        ensure!(of_set.is_some_and(|one| one.to_string().contains("NotAllowedByListeners")), "{object}");
        Ok(())
    })?;
    says(market, route, "parents/0", FINE)?;
    site.answers(&[("GET /", "v1"), ("GET set.example.com/", "404")])
}

fn parents(route: &Value) -> Vec<&Value> {
    route["status"]["parents"].as_array().into_iter().flatten().collect()
}

fn section() -> String {
    [
        set("market", "hidden", "open", &[http("of-the-set", "hidden.example.com", "")]),
        route_at("hidden", "{name: open, sectionName: of-the-set}", "[]", &[ONE]),
    ]
    .join("---\n")
}

fn listener_set_gateway_parent_section_name_not_found(market: &Market) -> Result<()> {
    says(market, ("market", "listenerset/hidden"), "listeners/of-the-set", SERVED)?;
    says(market, ("market", "httproute/hidden"), "parents/0", &["Accepted=False/NoMatchingParent"])?;
    let site = Site::new(market, "open", "hidden.example.com")?;
    site.soon("GET /", |said| Ok(outcome(said) == "404")).map(drop)
}

fn scoped() -> String {
    [
        set(
            "market",
            "scoped",
            "open",
            &[http("scoped", "scoped.example.com", ""), http("idle", "idle.example.com", "")],
        ),
        route_at("scoped", &to_set("scoped", "market", ", sectionName: scoped"), "[]", &[ONE]),
    ]
    .join("---\n")
}

fn listener_set_route_status_scoped_to_parent_ref(market: &Market) -> Result<()> {
    let route = says(market, ("market", "httproute/scoped"), "parents/0", FINE)?;
    let all = parents(&route);
    ensure!(all.len() == 1, "{all:?}");
    let parent = &all[0]["parentRef"];
    let found = (parent["kind"].as_str(), parent["name"].as_str(), parent["sectionName"].as_str());
    ensure!(found == (Some("ListenerSet"), Some("scoped"), Some("scoped")), "{parent}");
    eventually("the route is counted where it is attached", SOON, || {
        let set = object(market, "market", "listenerset/scoped")?;
        let count = |listener: &str| part(&set, &format!("listeners/{listener}/attachedRoutes")).cloned();
        let found = (count("scoped")?, count("idle")?);
        ensure!(found == (json!(1), json!(0)), "{found:?}");
        Ok(())
    })?;
    Site::new(market, "open", "scoped.example.com")?.answers(&[("GET /", "v1")])
}
