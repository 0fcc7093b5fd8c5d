//! Table 2.8 of the routing specification.

use super::*;

fn cors(change: impl FnOnce(&mut l7::Cors)) -> Cors {
    let mut wire = l7::Cors {
        origins: vec![origin(Kind::Exact("https://*.shop.io".into())), origin(Kind::Exact("http://a.com:8080".into()))],
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["x-a".into(), "x-b".into()],
        expose_headers: vec!["x-c".into()],
        max_age: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..Default::default()
    };
    change(&mut wire);
    Cors::compile(&wire, &mut Cache::new(8)).unwrap()
}

fn origin(kind: Kind) -> l7::StringMatch {
    l7::StringMatch { kind: Some(kind), ignore_case: false }
}

fn request(origin: &str, preflight: bool) -> (&'static str, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, origin.parse().unwrap());
    if preflight {
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, "DELETE".parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, "x-z".parse().unwrap());
        return ("OPTIONS", headers);
    }
    ("GET", headers)
}

/// The headers of an answer, sorted; `None`: nothing to do with it.
fn judged(cors: &Cors, origin: &str, preflight: bool) -> Option<Vec<String>> {
    let (method, headers) = request(origin, preflight);
    let (is_preflight, headers) = match judge(cors, method, &headers) {
        CorsVerdict::Preflight(headers) => (true, headers),
        CorsVerdict::Actual(headers) => (false, headers),
        CorsVerdict::None => return None,
    };
    assert_eq!(is_preflight, preflight);
    let short = |name: &str| name.strip_prefix("access-control-").unwrap_or(name).to_owned();
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{}: {}", short(name.as_str()), value.to_str().unwrap())).collect();
    lines.sort();
    Some(lines)
}

#[test]
fn routing_row_19_origins_below_a_domain() {
    let cors = cors(|_| ());
    let answer = judged(&cors, "https://a.b.shop.io", false).unwrap();
    assert!(answer.contains(&"allow-origin: https://a.b.shop.io".to_owned()), "{answer:?}");
    for refused in [
        "https://shop.io",
        "https://.shop.io",
        "http://a.shop.io",
        "https://a.shop.io:8443",
        "https://a.shop.io.evil.com",
        "https://evil.com/.shop.io:x",
        "https://ashop.io",
        "HTTPS://a.shop.io",
        "null",
    ] {
        assert_eq!(judged(&cors, refused, false), None, "{refused}");
    }
    assert!(judged(&cors, "http://a.com:8080", false).is_some());
    assert!(judged(&cors, "http://a.com", false).is_none());
}

#[test]
fn a_preflight_is_answered() {
    assert_eq!(
        judged(&cors(|_| ()), "https://a.shop.io", true).unwrap(),
        [
            "allow-headers: x-a,x-b",
            "allow-methods: GET,PUT",
            "allow-origin: https://a.shop.io",
            "expose-headers: x-c",
            "max-age: 5",
            "vary: Origin",
        ]
    );
    let all = |wire: &mut l7::Cors| {
        wire.credentials = true;
        wire.methods = vec!["*".into()];
        wire.headers = vec!["*".into()];
        wire.expose_headers = vec![];
        wire.max_age = None;
    };
    assert_eq!(
        judged(&cors(all), "https://a.shop.io", true).unwrap(),
        [
            "allow-credentials: true",
            "allow-headers: x-z",
            "allow-methods: DELETE",
            "allow-origin: https://a.shop.io",
            "vary: Origin",
        ]
    );
}

#[test]
fn a_preflight_of_another_origin_is_answered_without_headers_or_forwarded() {
    assert_eq!(judged(&cors(|_| ()), "https://evil.com", true), Some(vec![]));
    assert_eq!(judged(&cors(|wire| wire.forward_unmatched_preflights = true), "https://evil.com", true), None);
}

#[test]
fn any_origin_is_a_star_unless_credentials_are_sent() {
    let star = |wire: &mut l7::Cors| wire.origins = vec![origin(Kind::Exact("*".into()))];
    let answer = judged(&cors(star), "https://x.y", false).unwrap();
    assert_eq!(answer, ["allow-origin: *", "expose-headers: x-c"]);
    let with_credentials = |wire: &mut l7::Cors| {
        wire.any_origin = true;
        wire.credentials = true;
    };
    let answer = judged(&cors(with_credentials), "https://x.y", false).unwrap();
    assert_eq!(answer, ["allow-credentials: true", "allow-origin: https://x.y", "expose-headers: x-c", "vary: Origin"]);
}

#[test]
fn virtual_services_match_prefixes_and_patterns() {
    let set = |kind: Kind| cors(move |wire| wire.origins = vec![origin(kind)]);
    assert!(judged(&set(Kind::Prefix("https://a.".into())), "https://a.b", false).is_some());
    assert!(judged(&set(Kind::Regex("https://[a-z]+".into())), "https://abc", false).is_some());
    assert!(judged(&set(Kind::Regex("https://[a-z]+".into())), "https://abc.evil", false).is_none());
}

#[test]
fn what_is_no_cross_origin_request_is_left_alone() {
    let cors = cors(|_| ());
    assert!(matches!(judge(&cors, "GET", &HeaderMap::new()), CorsVerdict::None));
    let (_, mut headers) = request("https://a.shop.io", true);
    headers.remove(ACCESS_CONTROL_REQUEST_METHOD);
    assert!(matches!(judge(&cors, "OPTIONS", &headers), CorsVerdict::Actual(_)), "OPTIONS alone is no preflight");
}

#[test]
fn the_upstreams_own_headers_are_replaced() {
    let cors = cors(|_| ());
    let (method, request) = request("https://a.shop.io", false);
    let CorsVerdict::Actual(added) = judge(&cors, method, &request) else { panic!("an actual request") };
    let mut response = HeaderMap::new();
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, "*".parse().unwrap());
    response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".parse().unwrap());
    response.insert(VARY, "accept".parse().unwrap());
    decorate(&added, &mut response);
    assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.shop.io");
    assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    assert_eq!(response.get_all(VARY).iter().collect::<Vec<_>>(), ["accept", "Origin"]);
}

#[test]
fn origins_that_mean_nothing_are_refused() {
    for text in ["https://*", "*.shop.io", "https://a.*.io", "https://*.*.io"] {
        let wire = l7::Cors { origins: vec![origin(Kind::Exact(text.into()))], ..Default::default() };
        assert!(Cors::compile(&wire, &mut Cache::new(8)).is_err(), "{text}");
    }
}
