//! Every kind of condition, hosts, and what cannot be compiled.

use super::*;

#[test]
fn segment_prefixes() {
    for (prefix, target, expected) in [
        ("/foo", "/foo", true),
        ("/foo", "/foo/", true),
        ("/foo", "/foo/x", true),
        ("/foo", "/foobar", false),
        ("/foo", "/foo?x=/", true),
        ("/foo/", "/foo", true),
        ("/foo/", "/foo/x", true),
        ("/foo/", "/foobar", false),
        ("/", "/", true),
        ("/", "/anything", true),
        ("/a/b", "/a", false),
        ("/a/b", "/a/b/c/d", true),
        ("/a/b", "/a//b", false),
        ("/é", "/é/x", true),
    ] {
        assert_eq!(get(target).rule(&entries(vec![below(prefix)])).is_some(), expected, "{prefix} {target}");
    }
    let deep = "/x".repeat(100);
    assert_eq!(get(format!("{deep}/y")).rule(&entries(vec![below(&deep), below("/")])), Some(0));
    assert_eq!(get("/y".repeat(100)).rule(&entries(vec![below(&deep), below("/")])), Some(1));
}

#[test]
fn paths_in_any_case() {
    let folded = |kind| l7::HttpMatch {
        path: Some(l7::PathMatch { kind: Some(kind), ignore_case: true }),
        ..Default::default()
    };
    let table = entries(vec![
        folded(PathKind::Exact("/Foo".into())),
        folded(PathKind::Prefix("/Ba".into())),
        folded(PathKind::Regex("/Q[a-z]".into())),
    ]);
    for (target, expected) in
        [("/fOO", Some(0)), ("/foo/", None), ("/bAr", Some(1)), ("/B", None), ("/qX", Some(2)), ("/q1", None)]
    {
        assert_eq!(get(target).rule(&table), expected, "{target}");
    }
}

fn with(change: impl FnOnce(&mut l7::HttpMatch)) -> Table {
    let mut matching = l7::HttpMatch::default();
    change(&mut matching);
    entries(vec![matching])
}

#[test]
fn header_conditions() {
    let call = || get("/p?q=1").header("x-a", "one").header("x-two", "1").header("x-two", "2");
    for (name, value, expected) in [
        ("x-a", exact("one"), true),
        ("X-A", exact("one"), true),
        ("x-a", exact("two"), false),
        ("x-a", text(TextKind::Prefix("on".into())), true),
        ("x-a", text(TextKind::Suffix("ne".into())), true),
        ("x-a", text(TextKind::Regex("o.e".into())), true),
        ("x-a", text(TextKind::Regex("o".into())), false),
        ("x-a", text(TextKind::Present(true)), true),
        ("x-none", text(TextKind::Present(true)), false),
        ("x-none", text(TextKind::Present(false)), true),
        ("x-none", text(TextKind::Regex(".*".into())), false),
        ("x-a", None, true),
        ("x-none", None, false),
        ("x-two", exact("1,2"), true),
        ("x-two", exact("1"), false),
        (":authority", exact("h"), true),
        ("host", exact("h"), true),
        (":method", exact("GET"), true),
        (":scheme", exact("http"), true),
        (":path", exact("/p?q=1"), true),
    ] {
        let table = with(|matching| matching.headers = vec![header(name, value.clone())]);
        assert_eq!(call().rule(&table).is_some(), expected, "{name} {value:?}");
        let table = with(|matching| matching.without_headers = vec![header(name, value.clone())]);
        assert_eq!(call().rule(&table).is_some(), !expected, "without {name} {value:?}");
    }
}

#[test]
fn texts_in_any_case() {
    let folded = |kind| Some(l7::StringMatch { kind: Some(kind), ignore_case: true });
    for (value, expected) in [
        (folded(TextKind::Exact("ABC".into())), true),
        (folded(TextKind::Prefix("AB".into())), true),
        (folded(TextKind::Suffix("BC".into())), true),
        (folded(TextKind::Regex("A.C".into())), true),
        (folded(TextKind::Suffix("xABC".into())), false),
        (folded(TextKind::Prefix("ABCD".into())), false),
    ] {
        let table = with(|matching| matching.headers = vec![header("x-a", value.clone())]);
        assert_eq!(get("/").header("x-a", "aBc").rule(&table).is_some(), expected, "{value:?}");
    }
}

#[test]
fn query_conditions() {
    for (name, value, target, expected) in [
        ("a", exact("1"), "/?a=1", true),
        ("a", exact("1"), "/?b=2&a=1", true),
        ("a", exact("1"), "/?a=1&a=2", true),
        ("a", exact("2"), "/?a=1&a=2", false),
        ("A", exact("1"), "/?a=1", false),
        ("a", exact("1"), "/?a=%31", false),
        ("a", exact("x y"), "/?a=x+y", false),
        ("a b", exact("1"), "/?a%20b=1", false),
        ("a", exact("1=2"), "/?a=1=2", true),
        ("a", exact(""), "/?a", true),
        ("a", exact(""), "/?a=", true),
        ("a", text(TextKind::Present(true)), "/?a", true),
        ("a", text(TextKind::Present(true)), "/?ab", false),
        ("a", text(TextKind::Present(true)), "/", false),
        ("a", text(TextKind::Regex("[0-9]+".into())), "/?a=12", true),
        ("a", text(TextKind::Regex("[0-9]+".into())), "/?a=12x", false),
        ("a", text(TextKind::Prefix("1".into())), "/?a=12", true),
    ] {
        let table = with(|matching| matching.queries = vec![query(name, value.clone())]);
        assert_eq!(get(target).rule(&table).is_some(), expected, "{name} {value:?} {target}");
    }
}

#[test]
fn method_scheme_authority_and_port() {
    let method = with(|matching| matching.method = exact("GET"));
    assert_eq!(get("/").rule(&method), Some(0));
    assert_eq!(Call { method: "HEAD", ..get("/") }.rule(&method), None);
    let scheme = with(|matching| matching.scheme = exact("https"));
    assert_eq!(get("/").rule(&scheme), None);
    assert_eq!(Call { scheme: "https", ..get("/") }.rule(&scheme), Some(0));
    let authority = with(|matching| matching.authority = exact("shop.example:8080"));
    assert_eq!(Call { authority: "shop.example:8080", ..get("/") }.rule(&authority), Some(0));
    assert_eq!(Call { authority: "shop.example", ..get("/") }.rule(&authority), None);
    let port = with(|matching| matching.port = 9090);
    assert_eq!(get("/").rule(&port), None);
    assert_eq!(Call { port: 9090, ..get("/") }.rule(&port), Some(0));
}

#[test]
fn claims_of_a_token() {
    let claim = |path: &[&str], value: &str, invert| l7::ClaimMatch {
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        value: exact(value),
        invert,
    };
    let with_claims = |claims| Call { claims: Some(TestClaims(claims)), ..get("/") };
    let table = with(|matching| matching.claims = vec![claim(&["groups"], "ops", false)]);
    assert_eq!(with_claims(vec![("groups", vec!["dev", "ops"])]).rule(&table), Some(0));
    assert_eq!(with_claims(vec![("groups", vec!["dev"])]).rule(&table), None);
    assert_eq!(with_claims(vec![]).rule(&table), None);
    assert_eq!(get("/").rule(&table), None, "no token");
    assert_eq!(get("/").header("groups", "ops").rule(&table), None, "a header is no claim");
    let table = with(|matching| matching.claims = vec![claim(&["a", "b"], "x", true)]);
    assert_eq!(with_claims(vec![("a.b", vec!["x"])]).rule(&table), None);
    assert_eq!(with_claims(vec![("a.b", vec!["y"])]).rule(&table), Some(0));
    assert_eq!(get("/").rule(&table), Some(0), "no token");
}

/// Gateway API: a host keeps a request even when none of its routes takes it.
#[test]
fn the_most_specific_host_keeps_the_request() {
    let table = compile(&l7::HttpTable {
        hosts: vec![
            virtual_host(&["*"], vec![(below("/"), 0)]),
            virtual_host(&["*.shop.io", "x.example"], vec![(below("/"), 1)]),
            virtual_host(&["a.shop.io"], vec![(below("/only"), 2)]),
        ],
        rules: vec![forward(0), forward(1), forward(2)],
    });
    for (authority, target, expected) in [
        ("other", "/", Some(0)),
        ("shop.io", "/", Some(0)),
        ("b.shop.io", "/", Some(1)),
        ("c.b.SHOP.io:8080", "/", Some(1)),
        ("x.example.", "/", Some(1)),
        ("a.shop.io", "/only", Some(2)),
        ("a.shop.io:80", "/other", None),
    ] {
        assert_eq!(Call { authority, ..get(target) }.rule(&table), expected, "{authority} {target}");
    }
}

#[test]
fn what_cannot_be_compiled_names_its_field() {
    let table = |change: fn(&mut l7::HttpTable)| {
        let host = virtual_host(&["*"], vec![(below("/"), 0)]);
        let mut table = l7::HttpTable { hosts: vec![host], rules: vec![forward(0)] };
        change(&mut table);
        Table::compile(&table, &Limits { backends: 1, ..Limits::default() }).map(|_| ()).unwrap_err().field
    };
    fn matching(table: &mut l7::HttpTable) -> &mut l7::HttpMatch {
        table.hosts[0].entries[0].r#match.as_mut().unwrap()
    }
    assert_eq!(table(|table| table.hosts[0].entries[0].rule = 1), "hosts[0].entries[0].rule");
    assert_eq!(table(|table| *matching(table) = regex("(")), "hosts[0].entries[0].match.path.regex");
    assert_eq!(table(|table| *matching(table) = exact_path("x")), "hosts[0].entries[0].match.path");
    assert_eq!(
        table(|table| matching(table).headers = vec![header("a b", None)]),
        "hosts[0].entries[0].match.headers[0].name"
    );
    assert_eq!(table(|table| matching(table).port = 70_000), "hosts[0].entries[0].match.port");
    assert_eq!(table(|table| table.hosts[0].hostnames.push("a.*".into())), "hosts[0].hostnames[1]");
    assert_eq!(table(|table| table.hosts.push(virtual_host(&["*"], vec![]))), "hosts[1].hostnames[0]");
    assert_eq!(table(|table| table.rules.push(forward(1))), "rules[1].forward.backends[0].backend");
    assert_eq!(
        table(|table| {
            let retry = l7::Retry { conditions: vec!["5xx".into(), "luck".into()], ..Default::default() };
            table.rules[0].retry = Some(retry);
        }),
        "rules[0].retry.conditions[1]"
    );
    assert_eq!(
        table(|table| table.rules[0].timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 })),
        "rules[0].timeout"
    );
}

#[test]
fn limits_hold_at_the_bound_and_one_past_it() {
    let limits = Limits { entries: 2, rules: 2, conditions: 1, patterns: 1, ..Limits::default() };
    let table = |matches: Vec<l7::HttpMatch>| {
        let rules = (0..).map(forward).take(matches.len()).collect();
        let host = virtual_host(&["*"], matches.into_iter().zip(0..).collect());
        Table::compile(&l7::HttpTable { hosts: vec![host], rules }, &limits).is_ok()
    };
    assert!(table(vec![below("/"); 2]));
    assert!(!table(vec![below("/"); 3]));
    assert!(table(vec![regex("a"), regex("a")]));
    assert!(!table(vec![regex("a"), regex("b")]));
    let headers = |n| l7::HttpMatch { headers: vec![header("a", None); n], ..Default::default() };
    assert!(table(vec![headers(1)]));
    assert!(!table(vec![headers(2)]));
}
