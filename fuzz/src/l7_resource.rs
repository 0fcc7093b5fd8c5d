//! Routes and policies of layer 7, from the control plane.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use mesh_policy::l7::{Http, L7Request, Policies};
use mesh_route::{Action, Limits, RequestView, Table, cors, fault, header, redirect, retry, rewrite};
use mesh_wire::l7::{Resource, resource::Kind};
use prost::Message;

/// Whatever compiles gives every request one rule, the same as its explanation names, and a verdict.
pub fn run(bytes: &[u8]) {
    let Ok(Resource { kind: Some(kind) }) = Resource::decode(bytes) else { return };
    let (http, authorizations) = match kind {
        Kind::Proxy(proxy) => (None, proxy.authorizations),
        Kind::Port(port) => (port.http, port.authorizations),
        Kind::Listener(listener) => (listener.http, listener.authorizations),
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("anna"));
    headers.insert("origin", HeaderValue::from_static("https://a.shop.io"));
    if let Some(table) = http.and_then(|http| Table::compile(&http, &Limits { backends: 4, ..Limits::default() }).ok())
    {
        for path in ["/", "/shop/cart/7", "/a.B/Ping"] {
            route(&table, &view(path, &headers));
        }
    }
    if let Ok(policies) = Policies::compile(&authorizations, &["cluster.local".to_owned()]) {
        for path in [None, Some("/"), Some("/v1/7/items")] {
            authorize(&policies, path, &headers);
        }
    }
}

fn view<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    let (method, scheme, authority) = ("GET", "http", "shop.example:8080");
    RequestView { method, scheme, authority, path, query: Some("v=1"), headers, port: 8080, claims: None }
}

fn route(table: &Table, view: &RequestView<'_>) {
    let found = table.find(view);
    let explained = table.explain(view);
    assert_eq!(found.map(|found| found.rule_index), explained.choice().map(|candidate| candidate.rule));
    let Some(found) = found else { return };
    let rule = found.rule;
    let mut headers = view.headers.clone();
    let mut authority = None;
    header::apply(&rule.request_headers, &mut headers, &mut authority, &header::TemplateContext::default());
    if let Some(path) = rule.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref())
        && let Ok(path) = rewrite::path(path, view.path, found.entry)
    {
        assert!(path.starts_with('/') && !path.contains([' ', '\r', '\n', '?', '#']), "{path}");
    }
    match &rule.action {
        Action::Redirect(to) => {
            let location = redirect::location(to, view, found.entry);
            assert!(location.is_ok_and(|location| HeaderValue::from_str(&location).is_ok()));
        }
        Action::Forward(forward) => {
            for random in [0, u64::MAX / 2, u64::MAX] {
                let _ = forward.pick(random);
            }
        }
        _ => {}
    }
    if let Some(rules) = &rule.cors {
        let _ = cors::judge(rules, view.method, view.headers);
    }
    if let Some(trouble) = &rule.fault {
        let _ = fault::sample(trouble, 7);
    }
    if let Some(again) = &rule.retry {
        let _ = (retry::retriable(again, &retry::Outcome::RefusedStream), retry::backoff(again, u32::MAX, u64::MAX));
    }
}

fn authorize(policies: &Policies, path: Option<&str>, headers: &HeaderMap) {
    let address: IpAddr = "10.2.0.8".parse().expect("is an address");
    let http = path.map(|path| Http { host: "shop.example", method: "GET", path, headers, token: None });
    for identity in [None, Some("spiffe://cluster.local/ns/web/sa/api")] {
        let identity = identity.map(|identity| identity.parse().expect("is an identity"));
        let request = L7Request {
            source: identity.as_ref(),
            source_ip: address,
            remote_ip: address,
            destination_ip: Some(address),
            destination_port: 8080,
            sni: None,
            http,
        };
        let allowed = policies.evaluate(&request).allowed();
        assert_eq!(policies.nearest_allow(&request).is_none(), allowed);
    }
}
