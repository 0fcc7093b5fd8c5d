//! Table 9.2 of the waypoint specification, deadlines, methods.

use super::*;
use crate::table::tests::{entries, get};

#[test]
fn local_replies_have_grpc_statuses() {
    for (http, expected) in [
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (502, 14),
        (503, 14),
        (504, 14),
        (500, 2),
        (431, 2),
        (408, 2),
        (200, 2),
    ] {
        assert_eq!(of_local_reply(http), expected, "{http}");
    }
}

#[test]
fn content_types_of_grpc() {
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/GRPC", true),
        ("application/grpc;charset=x", true),
        ("application/grpc-web", false),
        ("application/grpc-web-text", false),
        ("application/grpcx", false),
        ("application/json", false),
        ("", false),
    ] {
        assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
    }
}

#[test]
fn names_are_numbers() {
    for (name, expected) in
        [("OK", Some(0)), ("UNAVAILABLE", Some(14)), ("UNAUTHENTICATED", Some(16)), ("unavailable", None), ("", None)]
    {
        assert_eq!(status_of_name(name), expected, "{name}");
    }
}

#[test]
fn messages_are_percent_encoded() {
    assert_eq!(encode_message("no healthy upstream"), "no healthy upstream");
    assert_eq!(encode_message("100%\n\u{e9}"), "100%25%0A%C3%A9");
}

#[test]
fn deadlines_survive() {
    for (text, expected) in [
        ("1S", Some(Duration::from_secs(1))),
        ("500m", Some(Duration::from_millis(500))),
        ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
        ("0n", Some(Duration::ZERO)),
        ("100000000S", None),
        ("S", None),
        ("", None),
        ("1", None),
        ("-1S", None),
        ("1s", None),
        ("1.5S", None),
        ("1é", None),
    ] {
        assert_eq!(parse_timeout(text), expected, "{text}");
    }
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(1500),
        Duration::from_secs(10_000),
        Duration::MAX,
    ] {
        let text = format_timeout(timeout);
        let back = parse_timeout(&text).unwrap();
        let most = timeout.saturating_add(timeout / 1_000_000);
        assert!(timeout == Duration::MAX || (back >= timeout && back <= most), "{timeout:?} {text}");
    }
}

#[test]
fn methods_are_paths() {
    for (service, method, regex, target, expected) in [
        (Some("a.B"), Some("Get"), false, "/a.B/Get", true),
        (Some("a.B"), Some("Get"), false, "/a.B/get", false),
        (Some("a.B"), Some("Get"), false, "/aXB/Get", false),
        (Some("a.B"), None, false, "/a.B/Any", true),
        (Some("a.B"), None, false, "/a.Bc/Any", false),
        (Some("a.B"), Some(""), false, "/a.B/Any", true),
        (None, Some("G.t"), false, "/x/G.t", true),
        (None, Some("G.t"), false, "/x/Get", false),
        (Some("a\\.[A-Z]"), Some("G.*"), true, "/a.B/Get", true),
        (Some("a\\.[A-Z]"), Some("G.*"), true, "/a.b/Get", false),
        (Some("a|b"), None, true, "/b/Get", true),
        (Some("a|b"), None, true, "/b/Get/x", false),
        (None, Some("Get"), true, "/x/Get", true),
        (None, None, false, "/x/Get", true),
    ] {
        let matching = mesh_wire::l7::HttpMatch { path: method_path(service, method, regex), ..Default::default() };
        assert_eq!(get(target).rule(&entries(vec![matching])).is_some(), expected, "{service:?} {method:?} {target}");
    }
}
