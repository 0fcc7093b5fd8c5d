use http::Request;
use mesh_route::path::Normalization;

use super::*;

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn with(mode: Normalization, uri: &str) -> Result<String, u16> {
    let settings = Settings { normalization: mode, ..Settings::default() };
    let mut parts = parts("GET", uri, &[("host", "a")]);
    let canonical = Canonical::of(&mut parts, false, &settings);
    canonical.map(|canonical| canonical.target.to_string()).map_err(|local| local.status.as_u16())
}

fn of(parts: &mut Parts) -> Result<Canonical, Local> {
    Canonical::of(parts, false, &Settings::default())
}

fn status(parts: &mut Parts) -> u16 {
    of(parts).map_or_else(|local| local.status.as_u16(), |_| 0)
}

#[test]
fn waypoint_row_9_dots_and_encoded_characters_are_resolved() {
    assert_eq!(with(Normalization::Base, "/a/./b/../c%2Dd").unwrap(), "/a/c-d");
    assert_eq!(with(Normalization::Base, "/../../x?y=/../").unwrap(), "/x?y=/../");
}

#[test]
fn waypoint_row_10_slashes_are_merged_in_the_path_only() {
    assert_eq!(with(Normalization::MergeSlashes, "//x///y?z=//").unwrap(), "/x/y?z=//");
    assert_eq!(with(Normalization::Base, "//x///y?z=//").unwrap(), "//x///y?z=//");
}

#[test]
fn waypoint_row_19_http_1_0_is_told_to_upgrade() {
    let mut old = parts("GET", "/", &[("host", "a")]);
    old.version = Version::HTTP_10;
    let local = of(&mut old).unwrap_err();
    assert_eq!((local.status.as_u16(), local.close), (426, true));
    let settings = Settings { http10: true, ..Settings::default() };
    assert!(Canonical::of(&mut old, false, &settings).is_ok());
}

#[test]
fn there_is_one_host() {
    assert_eq!(status(&mut parts("GET", "/", &[])), 400);
    assert_eq!(status(&mut parts("GET", "/", &[("host", "a"), ("host", "a")])), 400);
    for host in ["a,b", "u@a", "a b", "", "a:x", "a/b"] {
        assert_eq!(status(&mut parts("GET", "/", &[("host", host)])), 400, "{host}");
    }
    let mut upper = parts("GET", "/", &[("host", "Reviews:9080")]);
    of(&mut upper).unwrap();
    assert_eq!(authority(&upper.headers), "reviews:9080");
}

#[test]
fn the_absolute_form_names_the_host() {
    let mut absolute = parts("GET", "http://real:80/p?q", &[("host", "other")]);
    assert_eq!(of(&mut absolute).unwrap().target, "/p?q");
    assert_eq!(authority(&absolute.headers), "real:80");
    let mut bare = parts("GET", "http://real", &[("host", "real")]);
    assert_eq!(of(&mut bare).unwrap().path(), "/");
    assert_eq!(status(&mut parts("GET", "http://real/", &[])), 400, "host is missing");
    assert_eq!(status(&mut parts("GET", "ftp://real/", &[("host", "real")])), 400);
    assert_eq!(status(&mut parts("GET", "real:80", &[("host", "real")])), 400);
}

#[test]
fn http2_has_its_host_in_the_authority() {
    let request = |host: &[(&str, &str)]| {
        let mut parts = parts("GET", "http://Real/p", host);
        parts.version = Version::HTTP_2;
        parts
    };
    let mut plain = request(&[]);
    of(&mut plain).unwrap();
    assert_eq!(authority(&plain.headers), "real");
    assert_eq!(status(&mut request(&[("host", "real")])), 0);
    assert_eq!(status(&mut request(&[("host", "other")])), 400);
}

#[test]
fn cookies_of_http2_come_as_one_field() {
    let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    let mut request = parts("GET", "http://a/", &crumbs);
    request.version = Version::HTTP_2;
    of(&mut request).unwrap();
    let cookies: Vec<_> = request.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
}

#[test]
fn methods_are_those_that_are_registered() {
    for method in ["GET", "PATCH", "PROPFIND", "M-SEARCH", "ACL", "UPDATE", "QUERY"] {
        assert_eq!(status(&mut parts(method, "/", &[("host", "a")])), 0, "{method}");
    }
    for method in ["get", "Get", "GETS", "BREW"] {
        assert_eq!(status(&mut parts(method, "/", &[("host", "a")])), 400, "{method}");
    }
    assert!(EXTENSION_METHODS.is_sorted());
}

#[test]
fn a_tunnel_to_anywhere_is_not_there() {
    let local = of(&mut parts("CONNECT", "a:80", &[("host", "a:80")])).unwrap_err();
    assert_eq!((local.status.as_u16(), local.close), (404, true));
}

#[test]
fn only_websocket_is_an_upgrade() {
    let upgrade =
        |to: &str| parts("GET", "/", &[("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", to)]);
    let mut socket = upgrade("WebSocket");
    assert_eq!(of(&mut socket).unwrap().upgrade, Some(Upgrade::WebSocket));
    assert!(socket.headers.contains_key(UPGRADE));
    let mut clear = upgrade("h2c");
    clear.headers.insert("http2-settings", HeaderValue::from_static("x"));
    assert_eq!(of(&mut clear).unwrap().upgrade, None);
    assert_eq!(clear.headers.len(), 1, "{:?}", clear.headers);
    for other in ["tls/1.0", "websocket, h2c", "foo"] {
        let local = of(&mut upgrade(other)).unwrap_err();
        assert_eq!((local.status.as_u16(), local.details.as_ref(), local.close), (403, "upgrade_failed", true));
    }
    assert_eq!(Canonical::of(&mut upgrade("websocket"), true, &Settings::default()).unwrap_err().status, 400);
    let mut unnamed = parts("GET", "/", &[("host", "a"), ("upgrade", "websocket")]);
    assert_eq!(of(&mut unnamed).unwrap().upgrade, None);
    assert!(!unnamed.headers.contains_key(UPGRADE));
}

#[test]
fn what_concerns_one_hop_stays_there() {
    let hop =
        [("host", "a"), ("connection", "x-secret, close"), ("x-secret", "1"), ("keep-alive", "5"), ("te", "gzip")];
    let mut request = parts("GET", "/", &hop);
    of(&mut request).unwrap();
    assert_eq!(request.headers.len(), 1, "{:?}", request.headers);
    for token in ["host", "Authorization", "x-forwarded-for", "content-length"] {
        assert_eq!(status(&mut parts("GET", "/", &[("host", "a"), ("connection", token)])), 400, "{token}");
    }
}

#[test]
fn too_many_fields_are_refused() {
    let many = |count: usize| {
        let mut parts = parts("GET", "/", &[("host", "a")]);
        for n in 1..count {
            parts.headers.append("x", HeaderValue::from(n));
        }
        parts
    };
    assert_eq!(status(&mut many(REQUEST_FIELDS_MAX)), 0);
    assert_eq!(status(&mut many(REQUEST_FIELDS_MAX + 1)), 431);
}

#[test]
fn paths_that_nobody_should_send_are_refused() {
    assert_eq!(with(Normalization::Base, "/%00"), Err(400));
    assert_eq!(with(Normalization::Base, "*"), Err(400));
    let mut options = parts("OPTIONS", "*", &[("host", "a")]);
    assert_eq!(of(&mut options).unwrap().target, "*");
}
