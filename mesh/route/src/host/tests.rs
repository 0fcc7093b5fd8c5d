//! Canonical hosts, a corpus of hostile ones, and table 1.1 of the routing specification.

use super::*;

#[test]
fn hosts_have_one_form() {
    for (raw, expected) in [
        ("a.example", "a.example"),
        ("A.Example:8080", "a.example:8080"),
        ("a.example.", "a.example."),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::1]:443", "[::1]:443"),
        ("a_b-c~", "a_b-c~"),
    ] {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
    }
}

/// Each must be refused: two parties could read it in two ways.
#[test]
fn hostile_hosts_are_refused() {
    for (raw, expected) in [
        ("", HostError::Missing),
        ("a,b", HostError::Several),
        ("a, b", HostError::Several),
        ("user@a", HostError::UserInfo),
        ("a@b:80@c", HostError::UserInfo),
        (":80", HostError::Length),
        (".", HostError::Length),
        ("...", HostError::Length),
        ("a:", HostError::Port),
        ("a:0x50", HostError::Port),
        ("a:+80", HostError::Port),
        ("a:-1", HostError::Port),
        ("a:65536", HostError::Port),
        ("a:000080", HostError::Port),
        ("a:80:90", HostError::Port),
        ("::1", HostError::Port),
        ("a b", HostError::Character),
        (" a", HostError::Character),
        ("a\t", HostError::Character),
        ("a\r\nx: y", HostError::Port),
        ("a\r\nx", HostError::Character),
        ("a\0", HostError::Character),
        ("a/b", HostError::Character),
        ("a?b", HostError::Character),
        ("a#b", HostError::Character),
        ("a\\b", HostError::Character),
        ("a%2e.b", HostError::Character),
        ("a\u{3002}b", HostError::Character),
        ("ä.example", HostError::Character),
        ("[::1", HostError::Brackets),
        ("[::1]x", HostError::Brackets),
        ("[a.b]", HostError::Brackets),
        ("[fe80::1%eth0]", HostError::Brackets),
        ("[]", HostError::Brackets),
        ("a]", HostError::Character),
    ] {
        assert_eq!(canonical(raw), Err(expected), "{raw:?}");
    }
    assert!(canonical(&"a".repeat(HOST_BYTES_MAX)).is_ok());
    assert_eq!(canonical(&"a".repeat(HOST_BYTES_MAX + 1)), Err(HostError::Length));
}

#[test]
fn a_name_has_neither_port_nor_dot() {
    for (authority, expected) in
        [("A.b:80", "a.b"), ("a.b.", "a.b"), ("a.b.:1", "a.b"), ("[::1]:80", "[::1]"), ("a", "a"), ("", "")]
    {
        assert_eq!(name(authority), expected, "{authority}");
    }
    assert_eq!(split("a:80"), ("a", Some(80)));
    assert_eq!(split("[::1]:80"), ("[::1]", Some(80)));
    assert_eq!(split("a"), ("a", None));
}

#[test]
fn listener_and_route_meet_in_the_more_specific_host() {
    for (listener, route, expected) in [
        ("", "", Some("*")),
        ("", "a.b", Some("a.b")),
        ("", "*.b", Some("*.b")),
        ("a.b", "", Some("a.b")),
        ("a.b", "a.b", Some("a.b")),
        ("a.b", "*.b", Some("a.b")),
        ("a.b", "*", Some("a.b")),
        ("*.b", "x.b", Some("x.b")),
        ("*.b", "x.y.b", Some("x.y.b")),
        ("*.b", "b", None),
        ("*.b", "*.b", Some("*.b")),
        ("*.b", "*.y.b", Some("*.y.b")),
        ("*.y.b", "*.b", Some("*.y.b")),
        ("*.y.b", "x.b", None),
        ("a.b", "c.b", None),
        ("a.b", "*.c", None),
        ("*.b", "*.c", None),
        ("*.b", "ab", None),
        ("*.ab", "x.cab", None),
        ("b", "*.b", None),
    ] {
        assert_eq!(intersection(listener, route), expected, "{listener:?} {route:?}");
    }
}

#[test]
fn patterns_cover_names() {
    for (pattern, name, expected) in [
        ("*.b", "a.b", true),
        ("*.b", "x.a.b", true),
        ("*.b", "b", false),
        ("*.b", ".b", false),
        ("*", "anything", true),
        ("", "anything", true),
        ("a.b", "a.b", true),
        ("a.b", "x.a.b", false),
    ] {
        assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
    }
}

proptest::proptest! {
    #[test]
    fn a_canonical_host_is_canonical(raw in "\\PC{0,12}|[a-zA-Z0-9.:\\[\\]%@-]{0,20}") {
        let _ = name(&raw);
        let _ = split(&raw);
        if let Ok(once) = canonical(&raw) {
            let twice = canonical(&once);
            proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
            proptest::prop_assert!(raw.eq_ignore_ascii_case(&once));
            proptest::prop_assert_eq!(name(&raw), name(&once));
        }
    }

    /// What both cover, the intersection covers; and nothing else.
    #[test]
    fn the_intersection_is_what_both_cover(
        listener in "(\\*\\.)?[ab](\\.[ab]){0,2}", route in "(\\*\\.)?[ab](\\.[ab]){0,2}", host in "[ab](\\.[ab]){0,4}",
    ) {
        let both = covers(&listener, &host) && covers(&route, &host);
        let found = intersection(&listener, &route).is_some_and(|pattern| covers(pattern, &host));
        proptest::prop_assert_eq!(found, both);
    }
}
