//! Edits, templates, and what a client may not say.

use std::time::Duration;

use super::*;

fn wire(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)], template: bool) -> l7::HeaderEdits {
    let list = |list: &[(&str, &str)]| {
        let header = |&(name, value): &(&str, &str)| l7::Header { name: name.into(), value: value.into(), template };
        list.iter().map(header).collect()
    };
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    l7::HeaderEdits { remove, set: list(set), add: list(add) }
}

fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn edited(
    wire: &l7::HeaderEdits,
    headers: &[(&'static str, &str)],
    context: &TemplateContext<'_>,
) -> (Vec<String>, Option<String>) {
    let mut headers = map(headers);
    let mut authority = None;
    apply(&Edits::compile(Some(wire)).unwrap(), &mut headers, &mut authority, context);
    (lines(&headers), authority)
}

fn plain(wire: &l7::HeaderEdits, headers: &[(&'static str, &str)]) -> Vec<String> {
    edited(wire, headers, &TemplateContext::default()).0
}

#[test]
fn remove_then_set_then_add() {
    let before = [("x-a", "1"), ("x-a", "2"), ("x-b", "1")];
    assert_eq!(plain(&wire(&["X-A"], &[], &[], false), &before), ["x-b: 1"]);
    assert_eq!(plain(&wire(&[], &[("X-A", "3")], &[], false), &before), ["x-a: 3", "x-b: 1"]);
    assert_eq!(plain(&wire(&[], &[], &[("x-B", "2")], false), &before), ["x-a: 1", "x-a: 2", "x-b: 1", "x-b: 2"]);
    assert_eq!(plain(&wire(&["x-a"], &[], &[("x-a", "9")], false), &before), ["x-a: 9", "x-b: 1"]);
    assert_eq!(plain(&wire(&[], &[("x-a", "8")], &[("x-a", "9")], false), &before), ["x-a: 8", "x-a: 9", "x-b: 1"]);
    assert_eq!(plain(&wire(&["x-none"], &[], &[], false), &before).len(), 3);
}

#[test]
fn the_first_of_a_name_in_a_list_counts() {
    let edits = wire(&[], &[("x-a", "1"), ("X-A", "2")], &[("x-b", "1"), ("x-b", "2")], false);
    assert_eq!(plain(&edits, &[]), ["x-a: 1", "x-b: 1"]);
}

#[test]
fn host_is_the_authority_and_pseudo_headers_are_left_alone() {
    let authority = |edits: &l7::HeaderEdits| edited(edits, &[], &TemplateContext::default());
    assert_eq!(authority(&wire(&[], &[("Host", "New.example")], &[], false)), (vec![], Some("new.example".into())));
    assert_eq!(authority(&wire(&[], &[(":authority", "a:80")], &[], false)).1.as_deref(), Some("a:80"));
    assert_eq!(authority(&wire(&[], &[("host", "set")], &[("host", "add")], false)).1.as_deref(), Some("set"));
    assert_eq!(authority(&wire(&[], &[], &[("host", "add")], false)).1.as_deref(), Some("add"));
    assert_eq!(
        authority(&wire(&["host", ":path"], &[(":path", "/x"), (":method", "PUT")], &[], false)),
        (vec![], None)
    );
}

#[test]
fn what_cannot_be_sent_is_refused() {
    for (name, value) in
        [("x a", "1"), ("", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "\0"), ("host", "a b"), ("x-a:", "1")]
    {
        assert!(Edits::compile(Some(&wire(&[], &[(name, value)], &[], false))).is_err(), "{name:?} {value:?}");
    }
    assert!(Edits::compile(Some(&wire(&[], &[("x-a", "a\tb")], &[], false))).is_ok());
    assert!(Edits::compile(None).unwrap().is_empty());
}

#[test]
fn literal_values_are_not_expanded() {
    assert_eq!(plain(&wire(&[], &[("x-a", "%REQ(x-b)%")], &[], false), &[("x-b", "1")]), ["x-a: %REQ(x-b)%", "x-b: 1"]);
}

fn expanded(template: &str) -> Option<String> {
    let request = map(&[("x-user", "anna"), ("x-two", "1"), ("x-two", "2")]);
    let context = TemplateContext {
        method: "GET",
        scheme: "http",
        authority: "shop.example",
        path: "/a?b=1",
        request_headers: Some(&request),
        protocol: "HTTP/2",
        started: Duration::new(1_795_272_742, 500_000_000),
        remote: Some("10.1.0.8:4711".parse().unwrap()),
        direct_remote: Some("[2001:db8::1]:80".parse().unwrap()),
        upstream: Some("10.2.0.9:8080".parse().unwrap()),
        hostname: "waypoint-1",
        status: Some(503),
        edits_response: true,
        ..TemplateContext::default()
    };
    let (lines, _) = edited(&wire(&[], &[("x-out", template)], &[], true), &[("x-answer", "42")], &context);
    lines.iter().find_map(|line| line.strip_prefix("x-out: ")).map(str::to_owned)
}

#[test]
fn templates_expand() {
    for (template, expected) in [
        ("%REQ(x-user)%", "anna"),
        ("user=%REQ(X-User)%;", "user=anna;"),
        ("%REQ(x-two)%", "1,2"),
        ("%REQ(x-none?x-user)%", "anna"),
        ("%REQ(x-user):2%", "an"),
        ("%REQ(:METHOD)% %REQ(:path)% %REQ(:authority)% %REQ(:scheme)%", "GET /a?b=1 shop.example http"),
        ("%RESP(x-answer)%", "42"),
        ("100%%", "100%"),
        ("%%REQ(x)%%", "%REQ(x)%"),
        ("%PROTOCOL%", "HTTP/2"),
        ("%START_TIME%", "2026-11-21T14:52:22.500Z"),
        ("%START_TIME(%s)%", "1795272742"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.1.0.8"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "10.1.0.8:4711"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "2001:db8::1"),
        ("%UPSTREAM_HOST%", "10.2.0.9:8080"),
        ("%HOSTNAME%", "waypoint-1"),
        ("%RESPONSE_CODE%", "503"),
        ("[%REQ(x-none)%]", "[]"),
    ] {
        assert_eq!(expanded(template).as_deref(), Some(expected), "{template}");
    }
    assert_eq!(expanded("%REQ(x-none)%"), None, "nothing is set");
}

#[test]
fn templates_speak_of_the_message_as_it_came() {
    let edits = wire(&["x-gone"], &[("x-a", "%REQ(x-b)%"), ("x-b", "%REQ(x-a)%"), ("x-c", "%REQ(x-gone)%")], &[], true);
    let found = plain(&edits, &[("x-a", "1"), ("x-b", "2"), ("x-gone", "3")]);
    assert_eq!(found, ["x-a: 2", "x-b: 1"]);
}

#[test]
fn templates_that_mean_nothing_are_refused() {
    for template in [
        "50%",
        "%",
        "%REQ(x-a)",
        "%REQ%",
        "%REQ()%",
        "%REQ(a b)%",
        "%NOPE%",
        "%NOPE(x)%",
        "%REQ(x):y%",
        "%REQ(x)y%",
        "a%b",
        "%START_TIME(%Q)%",
        "%ENVIRONMENT(HOME)%",
        "%%%",
        "\n",
    ] {
        assert!(Template::compile(template).is_err(), "{template}");
    }
}

#[test]
fn values_that_templates_make_are_bounded() {
    use crate::limits::TEMPLATE_VALUE_BYTES_MAX;
    for (bytes, expected) in [(TEMPLATE_VALUE_BYTES_MAX, 1), (TEMPLATE_VALUE_BYTES_MAX + 1, 0)] {
        let path = "x".repeat(bytes);
        let context = TemplateContext { path: &path, ..TemplateContext::default() };
        let edits = wire(&[], &[("x-a", "%REQ(:path)%")], &[], true);
        assert_eq!(edited(&edits, &[], &context).0.len(), expected, "{bytes}");
    }
}

#[test]
fn a_header_value_cannot_split_a_message() {
    let context = TemplateContext { path: "/a\r\nx-evil: 1", ..TemplateContext::default() };
    let edits = wire(&[], &[("x-a", "%REQ(:path)%")], &[], true);
    assert_eq!(edited(&edits, &[], &context).0, Vec::<String>::new());
}

#[test]
fn connection_may_not_name_what_others_need() {
    for (value, expected) in [
        ("close", true),
        ("keep-alive, x-hop", true),
        ("", true),
        ("upgrade", true),
        ("host", false),
        ("Host", false),
        ("close, Content-Length", false),
        ("authorization", false),
        ("x-forwarded-for", false),
        ("X-Forwarded-Proto", false),
        (":path", false),
        ("a b", false),
    ] {
        assert_eq!(check_connection(&map(&[("connection", value)])).is_ok(), expected, "{value}");
    }
    assert!(check_connection(&map(&[("connection", "close"), ("connection", "host")])).is_err());
}

#[test]
fn what_concerns_one_hop_goes_no_further() {
    let mut headers = map(&[
        ("connection", "close, X-Hop, te"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("http2-settings", "x"),
        ("upgrade", "websocket"),
        ("x-hop", "1"),
        ("te", "gzip, Trailers"),
        ("x-stays", "1"),
    ]);
    let mut upgrading = headers.clone();
    strip_hop_by_hop(&mut headers, false).unwrap();
    assert_eq!(lines(&headers), ["te: trailers", "x-stays: 1"]);
    strip_hop_by_hop(&mut upgrading, true).unwrap();
    assert_eq!(lines(&upgrading), ["te: trailers", "upgrade: websocket", "x-stays: 1"]);
    let mut other = map(&[("te", "gzip")]);
    strip_hop_by_hop(&mut other, false).unwrap();
    assert!(other.is_empty());
    let mut refused = map(&[("connection", "host"), ("x-a", "1")]);
    assert!(strip_hop_by_hop(&mut refused, false).is_err());
    assert_eq!(refused.len(), 2);
}

/// Row W17: a client's control headers are neither honoured nor forwarded.
#[test]
fn waypoint_row_17_control_headers_are_removed() {
    let sent = [
        ("x-envoy-max-retries", "10"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-original-path", "/x"),
        ("x-envoy-peer-metadata", "x"),
        ("x-request-id", "1"),
    ];
    let mut headers = map(&sent);
    sanitise(&mut headers, Edge::Mesh);
    assert_eq!(lines(&headers), ["x-envoy-original-path: /x", "x-request-id: 1"]);
    let mut headers = map(&sent);
    sanitise(&mut headers, Edge::External);
    assert_eq!(lines(&headers), ["x-request-id: 1"]);
}

proptest::proptest! {
    #[test]
    fn no_template_panics(text in "\\PC{0,20}|[%()A-Z:?0-9]{0,24}") {
        if let Ok(template) = Template::compile(&text) {
            template.expand(&HeaderMap::new(), &TemplateContext::default());
        }
    }
}

#[test]
fn rules_do_not_write_how_messages_end() {
    for name in ["Content-Length", "transfer-encoding", "connection", "Upgrade", "keep-alive", "proxy-connection"] {
        for edits in [wire(&[], &[(name, "1")], &[], false), wire(&[], &[], &[(name, "1")], false)] {
            assert!(Edits::compile(Some(&edits)).is_err(), "{name}");
        }
        assert!(Edits::compile(Some(&wire(&[name], &[], &[], false))).is_ok(), "{name} may go");
    }
}
