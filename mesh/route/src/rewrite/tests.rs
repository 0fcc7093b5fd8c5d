//! Table 2.5 of the routing specification, and the others' ways to rewrite.

use mesh_wire::l7;

use super::*;
use crate::pattern::Cache;
use crate::table::tests::{below, exact_path, regex, starting};

fn entry(matching: l7::HttpMatch) -> Entry {
    Entry::compile(&l7::HttpEntry { r#match: Some(matching), rule: 0 }, 16, &mut Cache::new(16)).unwrap()
}

fn rewritten(kind: Kind, original: &str, matching: l7::HttpMatch) -> String {
    let rewrite = PathRewrite::compile(&l7::PathRewrite { kind: Some(kind) }, false).unwrap().unwrap();
    path(&rewrite, original, &entry(matching)).unwrap().into_owned()
}

fn prefix(replacement: &str, original: &str, matching: l7::HttpMatch) -> String {
    rewritten(Kind::Prefix(replacement.to_owned()), original, matching)
}

#[test]
fn segment_prefixes_are_replaced_with_one_slash_between() {
    for (original, matched, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/a%2Fb/", "/foo", "/x", "/x/a%2Fb/"),
        ("/x", "/", "/v1", "/v1/x"),
        ("/", "/", "/v1", "/v1/"),
        ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
    ] {
        assert_eq!(prefix(replacement, original, below(matched)), expected, "{original} {matched} {replacement}");
    }
}

#[test]
fn routing_row_9_a_prefix_becomes_the_root() {
    assert_eq!(prefix("/", "/api", below("/api")), "/");
    assert_eq!(prefix("/", "/api/x", below("/api")), "/x");
}

#[test]
fn plain_prefixes_are_replaced_as_characters() {
    assert_eq!(prefix("/bar", "/foobar", starting("/foo")), "/barbar");
    assert_eq!(prefix("/", "/foo/x", starting("/foo/")), "/x");
    assert_eq!(prefix("", "/foo/x", starting("/foo")), "/x");
    assert_eq!(prefix("", "/foox", starting("/foo")), "/x");
}

#[test]
fn other_matches_are_replaced_as_a_whole() {
    assert_eq!(prefix("/new", "/old", exact_path("/old")), "/new");
    assert_eq!(prefix("/new", "/old/7", regex("/old/[0-9]+")), "/new");
    assert_eq!(prefix("/v1", "/x", l7::HttpMatch::default()), "/v1/x");
    assert_eq!(rewritten(Kind::Full("/new".into()), "/old/x", below("/old")), "/new");
    assert_eq!(rewritten(Kind::Full(String::new()), "/old/x", below("/old")), "/");
}

#[test]
fn patterns_are_replaced_with_what_groups_matched() {
    let kind = |pattern: &str, substitution: &str| {
        Kind::Regex(l7::RegexRewrite { pattern: pattern.into(), substitution: substitution.into() })
    };
    assert_eq!(
        rewritten(kind("^/service/([^/]+)(/.*)$", r"\2/instance/\1"), "/service/foo/v1/api", below("/")),
        "/v1/api/instance/foo"
    );
    assert_eq!(rewritten(kind("one", "two"), "/xxx/one/yyy/one/zzz", below("/")), "/xxx/two/yyy/two/zzz");
    assert_eq!(rewritten(kind("^/", ""), "/x", below("/")), "/x", "a path begins with a slash");
    assert_eq!(rewritten(kind("(?i)^/AAA/", "/ccc/"), "/aaa/bbb", below("/")), "/ccc/bbb");
}

#[test]
fn what_cannot_be_sent_is_refused_before_or_after() {
    for text in ["/a b", "/a\r\nx: y", "/a#b", "/a?b"] {
        assert!(
            PathRewrite::compile(&l7::PathRewrite { kind: Some(Kind::Full(text.into())) }, false).is_err(),
            "{text}"
        );
        assert!(PathRewrite::compile(&l7::PathRewrite { kind: Some(Kind::Prefix(text.into())) }, false).is_err());
    }
    let grow = l7::RegexRewrite { pattern: "a".into(), substitution: "b".repeat(1000) };
    let rewrite = PathRewrite::compile(&l7::PathRewrite { kind: Some(Kind::Regex(grow)) }, false).unwrap().unwrap();
    let matching = entry(below("/"));
    assert!(path(&rewrite, &format!("/{}", "a".repeat(60)), &matching).is_ok());
    assert!(path(&rewrite, &format!("/{}", "a".repeat(70)), &matching).is_err());
}

proptest::proptest! {
    /// Whatever is rewritten how, a path comes out.
    #[test]
    fn a_rewritten_path_begins_with_a_slash(
        matched in "(/[ab]{0,2}){1,3}", rest in "(/[ab]{0,2}){0,3}", replacement in "[a/]{0,4}",
    ) {
        let original = format!("{}{rest}", matched.trim_end_matches('/'));
        let original = if original.is_empty() { "/".to_owned() } else { original };
        let path = prefix(&replacement, &original, below(&matched));
        proptest::prop_assert!(path.starts_with('/'));
        proptest::prop_assert!(path.ends_with(&rest));
    }
}
