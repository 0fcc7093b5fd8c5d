//! Ports, schemes, paths and queries of redirects.

use mesh_wire::l7::path_rewrite::Kind;

use super::*;
use crate::table::tests::{below, entries, get};

fn to(call: crate::table::tests::Call, wire: l7::Redirect) -> String {
    let redirect = Redirect::compile(&wire).unwrap();
    let table = entries(vec![below("/x"), below("/")]);
    call.view(|view| location(&redirect, view, table.find(view).unwrap().entry).unwrap())
}

fn path_to(kind: Kind) -> Option<l7::PathRewrite> {
    Some(l7::PathRewrite { kind: Some(kind) })
}

#[test]
fn routing_row_10_a_scheme_brings_its_own_port() {
    let call = get("/x?y");
    let wire = l7::Redirect { scheme: "https".into(), ..Default::default() };
    assert_eq!(to(crate::table::tests::Call { authority: "h:8080", ..call }, wire.clone()), "https://h/x?y");
    assert_eq!(Redirect::compile(&wire).unwrap().status, 302);
}

#[test]
fn ports_follow_the_gateway_rules() {
    use crate::table::tests::Call;
    let call = |scheme: &'static str, port: u16| Call { scheme, port, authority: "h.example:1234", ..get("/x") };
    let wire = |scheme: &str, port: Option<u32>| l7::Redirect { scheme: scheme.into(), port, ..Default::default() };
    for (from, port, to_scheme, to_port, expected) in [
        ("http", 80, "", None, "http://h.example/x"),
        ("http", 8080, "", None, "http://h.example:8080/x"),
        ("https", 443, "", None, "https://h.example/x"),
        ("http", 8080, "http", None, "http://h.example/x"),
        ("http", 8080, "https", None, "https://h.example/x"),
        ("http", 80, "", Some(80), "http://h.example/x"),
        ("http", 80, "", Some(8080), "http://h.example:8080/x"),
        ("http", 80, "https", Some(443), "https://h.example/x"),
        ("http", 80, "https", Some(8443), "https://h.example:8443/x"),
        ("https", 443, "http", Some(443), "http://h.example:443/x"),
        ("https", 443, "", Some(80), "https://h.example:80/x"),
    ] {
        assert_eq!(to(call(from, port), wire(to_scheme, to_port)), expected, "{from} {port} {to_scheme} {to_port:?}");
    }
}

#[test]
fn ports_that_are_derived_as_virtual_services_say() {
    use crate::table::tests::Call;
    let call = |authority| Call { port: 8080, authority, ..get("/x") };
    let wire = |derive: DerivePort, scheme: &str, hostname: &str| l7::Redirect {
        scheme: scheme.into(),
        hostname: hostname.into(),
        derive_port: derive.into(),
        ..Default::default()
    };
    for (authority, derive, scheme, hostname, expected) in [
        ("h", DerivePort::FromScheme, "", "", "http://h/x"),
        ("h", DerivePort::FromRequest, "", "", "http://h:8080/x"),
        ("h:99", DerivePort::NoPort, "", "", "http://h:99/x"),
        ("h:80", DerivePort::NoPort, "https", "", "https://h/x"),
        ("h:99", DerivePort::NoPort, "https", "", "https://h:99/x"),
        ("h:99", DerivePort::NoPort, "", "new.example", "http://new.example/x"),
        ("h:99", DerivePort::NoPort, "", "new.example:7", "http://new.example:7/x"),
        ("[::1]:99", DerivePort::NoPort, "", "", "http://[::1]:99/x"),
        ("[::1]:99", DerivePort::Gateway, "https", "", "https://[::1]/x"),
    ] {
        assert_eq!(to(call(authority), wire(derive, scheme, hostname)), expected, "{authority} {derive:?} {scheme}");
    }
}

#[test]
fn paths_change_and_queries_stay() {
    for (kind, target, expected) in [
        (Kind::Full("/new".to_owned()), "/x/y?q=1", "http://h:8080/new?q=1"),
        (Kind::Full("/new?own=1".to_owned()), "/x/y?q=1", "http://h:8080/new?own=1"),
        (Kind::Prefix("/new".to_owned()), "/x/y?q=1", "http://h:8080/new/y?q=1"),
        (Kind::Prefix("/".to_owned()), "/x", "http://h:8080/"),
        (Kind::Prefix("/".to_owned()), "/x/y?", "http://h:8080/y?"),
    ] {
        assert_eq!(to(get(target), l7::Redirect { path: path_to(kind), ..Default::default() }), expected);
    }
}

#[test]
fn statuses_and_hosts_are_checked() {
    for (status, expected) in [(0, 302), (301, 301), (302, 302), (303, 303), (307, 307), (308, 308)] {
        let redirect = Redirect::compile(&l7::Redirect { status, ..Default::default() }).unwrap();
        assert_eq!(redirect.status, expected);
    }
    for status in [200, 300, 304, 400] {
        assert!(Redirect::compile(&l7::Redirect { status, ..Default::default() }).is_err(), "{status}");
    }
    for hostname in ["a b", "a/b", "a\r\nb", "u@h"] {
        let wire = l7::Redirect { hostname: hostname.into(), ..Default::default() };
        assert!(Redirect::compile(&wire).is_err(), "{hostname}");
    }
    assert!(Redirect::compile(&l7::Redirect { scheme: "java script".into(), ..Default::default() }).is_err());
    assert!(Redirect::compile(&l7::Redirect { port: Some(0), ..Default::default() }).is_err());
}
