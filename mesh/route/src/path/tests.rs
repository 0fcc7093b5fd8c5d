//! Table 7 of the waypoint specification, a corpus of hostile paths, and properties.

use proptest::prelude::*;

use super::Normalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None as Off};
use super::*;

fn all(raw: &str) -> [Result<String, PathError>; 4] {
    [Off, Base, MergeSlashes, DecodeAndMergeSlashes].map(|mode| normalise(raw, mode).map(Cow::into_owned))
}

#[test]
fn waypoint_row_9_dots_and_unreserved_characters() {
    assert_eq!(normalise("/a/./b/../c%2Dd", Base).as_deref(), Ok("/a/c-d"));
}

#[test]
fn waypoint_row_10_slashes_are_merged_and_queries_are_not_touched() {
    let (path, query) = split("//x///y?z=//");
    assert_eq!(normalise(path, MergeSlashes).as_deref(), Ok("/x/y"));
    assert_eq!(query, Some("z=//"));
}

#[test]
fn every_mode_does_what_the_table_says() {
    for (raw, off, base, merge, decode) in [
        ("/", "/", "/", "/", "/"),
        ("/a/b", "/a/b", "/a/b", "/a/b", "/a/b"),
        ("/a/./b", "/a/./b", "/a/b", "/a/b", "/a/b"),
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/../../x", "/../../x", "/x", "/x", "/x"),
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/a/.", "/a/.", "/a/", "/a/", "/a/"),
        ("/a/b/..", "/a/b/..", "/a/", "/a/", "/a/"),
        ("/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b"),
        ("/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"),
        ("/%61dmin", "/%61dmin", "/admin", "/admin", "/admin"),
        ("/%2e%2E/x", "/%2e%2E/x", "/x", "/x", "/x"),
        ("/a/%2e%2e/b", "/a/%2e%2e/b", "/b", "/b", "/b"),
        ("/a/.%2e/b", "/a/.%2e/b", "/b", "/b", "/b"),
        ("//a", "//a", "//a", "/a", "/a"),
        ("/a//b///c", "/a//b///c", "/a//b///c", "/a/b/c", "/a/b/c"),
        ("/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%5cb", "/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
        ("/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"),
        ("/a/..%2Fb", "/a/..%2Fb", "/a/..%2Fb", "/a/..%2Fb", "/b"),
        ("/a%2F%2fb", "/a%2F%2fb", "/a%2F%2fb", "/a%2F%2fb", "/a/b"),
        ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
        ("/%25%32e", "/%25%32e", "/%252e", "/%252e", "/%252e"),
        ("/%c3%a9%3B%20", "/%c3%a9%3B%20", "/%c3%a9%3B%20", "/%c3%a9%3B%20", "/%c3%a9%3B%20"),
        ("/é/x", "/é/x", "/é/x", "/é/x", "/é/x"),
        ("/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b"),
        ("/a/...", "/a/...", "/a/...", "/a/...", "/a/..."),
        ("/.a/..b", "/.a/..b", "/.a/..b", "/.a/..b", "/.a/..b"),
        ("/A/b", "/A/b", "/A/b", "/A/b", "/A/b"),
        ("/100%", "/100%", "/100%", "/100%", "/100%"),
        ("/%zz", "/%zz", "/%zz", "/%zz", "/%zz"),
        ("/%c0%ae%c0%ae/x", "/%c0%ae%c0%ae/x", "/%c0%ae%c0%ae/x", "/%c0%ae%c0%ae/x", "/%c0%ae%c0%ae/x"),
    ] {
        assert_eq!(all(raw), [off, base, merge, decode].map(|path| Ok(path.to_owned())), "{raw}");
    }
}

#[test]
fn hostile_paths_are_refused() {
    for (raw, expected) in [
        ("", PathError::NotRooted),
        ("a", PathError::NotRooted),
        ("*", PathError::NotRooted),
        ("http://h/", PathError::NotRooted),
        ("\\a", PathError::NotRooted),
        ("/a#b", PathError::Fragment),
        ("/a b", PathError::Character),
        ("/a\tb", PathError::Character),
        ("/a\r\nb", PathError::Character),
        ("/a\0b", PathError::Character),
        ("/a\u{7f}b", PathError::Character),
    ] {
        assert_eq!(all(raw), [const { Err(()) }; 4].map(|_: Result<(), ()>| Err(expected)), "{raw:?}");
    }
    for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
        assert_eq!(normalise("/a%00b", mode), Err(PathError::Nul));
        // Decoded once, these would say something else when decoded again.
        for raw in ["/%2%35", "/%%32%65", "/%%61", "/%a%61"] {
            assert_eq!(normalise(raw, mode), Err(PathError::Ambiguous), "{raw}");
        }
        assert!(normalise("/%ag%61", mode).is_ok());
    }
}

#[test]
fn the_star_is_a_path_of_options_only() {
    assert_eq!(canonical("OPTIONS", "*", Base).as_deref(), Ok("*"));
    assert_eq!(canonical("GET", "*", Base), Err(PathError::NotRooted));
    assert_eq!(canonical("OPTIONS", "/a/.", Base).as_deref(), Ok("/a/"));
}

/// A piece of a path that some parser somewhere has stumbled over.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "/", "//", ".", "..", "...", "\\", "%2e", "%2E", "%2f", "%2F", "%5c", "%25", "%", "%%", "%2", "%3", "2e", "2f",
        "a", "A", "admin", "%61", ";", "..;", "~", "%7e", "%00", "%0a", "é", "%c0%ae", "%u002e", "0", "f", "%c3%a9",
        "*",
    ];
    prop_oneof![20 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "\\PC{1,3}"]
}

/// What any lenient reader would make of a path: everything decoded, once.
fn decoded_once(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match triplet(path.get(at + 1..).unwrap_or_default()) {
            Some((byte, _)) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_canonical_path_is_canonical(pieces in proptest::collection::vec(piece(), 0..12)) {
        let raw = format!("/{}", pieces.concat());
        for mode in [Off, Base, MergeSlashes, DecodeAndMergeSlashes] {
            if let Ok(once) = normalise(&raw, mode) {
                let twice = normalise(&once, mode);
                prop_assert_eq!(twice.as_deref(), Ok(&*once), "{} {:?}", raw, mode);
                prop_assert!(once.starts_with('/'));
            }
        }
    }

    /// No dot segment is left, whoever decodes the rest; in the strictest mode no slash either.
    #[test]
    fn nothing_climbs(pieces in proptest::collection::vec(piece(), 0..12)) {
        let raw = format!("/{}", pieces.concat());
        if let Ok(path) = normalise(&raw, Base) {
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{} {}", raw, path);
            prop_assert!(!path.contains('\\'));
        }
        if let Ok(path) = normalise(&raw, DecodeAndMergeSlashes) {
            let decoded = decoded_once(&path);
            let mut segments = decoded.split(|byte| *byte == b'/');
            prop_assert!(segments.all(|segment| segment != b"." && segment != b".."), "{} {}", raw, path);
            prop_assert!(!path.contains("//"));
        }
    }

    /// Whoever encodes characters that need no encoding says the same.
    #[test]
    fn encoding_what_needs_none_changes_nothing(path in "(/[a-z.]{0,3}){1,4}", which in proptest::collection::vec(any::<bool>(), 20)) {
        let encode = |(c, encode): (char, &bool)| if *encode && c != '/' { format!("%{:02x}", u32::from(c)) } else { c.to_string() };
        let encoded: String = path.chars().zip(which.iter().cycle()).map(encode).collect();
        for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
            prop_assert_eq!(normalise(&encoded, mode), normalise(&path, mode));
        }
    }
}
