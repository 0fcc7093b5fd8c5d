//! Matches, filters, timeouts and the like: tables 2.1 to 2.8 of the routing spec.

use super::*;

fn served(rules: &str) -> Served {
    let yaml = open_edge() + &services("web") + &http_route("r", &format!("  rules:\n{rules}"));
    listener(&model(&yaml), "http")
}

#[test]
fn routing_row_1_a_longer_prefix_wins() {
    let served = served(
        "  - {matches: [{path: {value: /shop}}], backendRefs: [{name: a, port: 80}]}\n  - {matches: [{path: {value: /shop/cart}}], backendRefs: [{name: b, port: 80}]}",
    );
    assert_eq!(served.get("http://h/shop/cart/7"), "web/b.web:80");
    assert_eq!(served.get("http://h/shop/cars"), "web/a.web:80");
}

#[test]
fn routing_row_2_a_prefix_is_one_of_whole_segments() {
    let served = served("  - {matches: [{path: {type: PathPrefix, value: /v1/}}], backendRefs: [{name: a, port: 80}]}");
    assert_eq!(served.get("http://h/v10"), "404");
    for path in ["/v1", "/v1/", "/v1/x"] {
        assert_eq!(served.get(&format!("http://h{path}")), "web/a.web:80", "{path}");
    }
}

#[test]
fn routing_row_3_an_exact_path_has_no_final_slash() {
    let served = served("  - {matches: [{path: {type: Exact, value: /v1}}], backendRefs: [{name: a, port: 80}]}");
    assert_eq!(served.get("http://h/v1/"), "404");
    assert_eq!(served.get("http://h/v1?x=/"), "web/a.web:80");
}

#[test]
fn routing_row_4_a_pattern_is_for_the_whole_path() {
    let served = served(
        "  - {matches: [{path: {type: RegularExpression, value: '/v[0-9]+'}}], backendRefs: [{name: a, port: 80}]}\n  - {matches: [{path: {value: /}}], backendRefs: [{name: b, port: 80}]}",
    );
    assert_eq!(served.get("http://h/v2/x"), "web/b.web:80");
}

#[test]
fn routing_row_5_values_of_headers_have_case_and_their_names_do_not() {
    let served = served(
        "  - matches: [{headers: [{name: X-Env, value: blue}, {name: x-env, value: red}]}]\n    backendRefs: [{name: a, port: 80}]",
    );
    assert_eq!(served.ask("GET", "http://h/", &[("x-env", "Blue")]), "404");
    assert_eq!(
        served.ask("GET", "http://h/", &[("x-env", "blue")]),
        "web/a.web:80",
        "the first entry of a name counts"
    );
    assert_eq!(served.ask("GET", "http://h/", &[("x-env", "red")]), "404");
}

#[test]
fn all_conditions_of_a_match_hold_and_any_match_does() {
    let served = served(
        "  - matches:\n    - {path: {value: /x}, method: POST, queryParams: [{name: Q, value: '1'}]}\n    - {headers: [{name: a, type: RegularExpression, value: 'v[12]'}]}\n    backendRefs: [{name: a, port: 80}]",
    );
    for (method, url, headers, wanted) in [
        ("POST", "http://h/x/y?Q=1", vec![], "web/a.web:80"),
        ("POST", "http://h/x?q=1", vec![], "404"),
        ("POST", "http://h/x?Q=2&Q=1", vec![], "404"),
        ("GET", "http://h/x?Q=1", vec![], "404"),
        ("GET", "http://h/", vec![("a", "v2")], "web/a.web:80"),
        ("GET", "http://h/", vec![("a", "v22")], "404"),
    ] {
        assert_eq!(served.ask(method, url, &headers), wanted, "{method} {url} {headers:?}");
    }
}

#[test]
fn routing_row_9_a_prefix_is_replaced_by_whole_segments() {
    // Table 2.5.
    for (prefix, replacement, path, wanted) in [
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", "", "/foo/bar", "/bar"),
        ("/foo", "/", "/foo/bar", "/bar"),
        ("/foo", "/", "/foo/", "/"),
        ("/foo", "", "/foo", "/"),
        ("/api", "/", "/api?q=1", "/"),
        ("/", "/x", "/y", "/x/y"),
    ] {
        let served = served(&format!(
            "  - matches: [{{path: {{value: {prefix}}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{replacement}'}}}}}}]\n    backendRefs: [{{name: a, port: 80}}]"
        ));
        assert_eq!(served.get(&format!("http://h{path}")), format!("web/a.web:80 {wanted}"), "{prefix} {replacement}");
    }
    let served = served(
        "  - filters: [{type: URLRewrite, urlRewrite: {hostname: in.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]\n    backendRefs: [{name: a, port: 80}]",
    );
    assert_eq!(served.get("http://h/y"), "web/a.web:80 in.example /x/y", "no match is the prefix of everything");
}

#[test]
fn routing_row_10_a_redirect_to_https_loses_the_port() {
    let redirect = |fields: &str| {
        served(&format!("  - filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]"))
            .get("http://h:8080/x?y")
    };
    assert_eq!(redirect("scheme: https"), "302 https://h/x?y");
    assert_eq!(redirect("statusCode: 308"), "308 http://h:8080/x?y");
    assert_eq!(redirect("port: 8443, scheme: https"), "302 https://h:8443/x?y");
    assert_eq!(redirect("hostname: o.example, statusCode: 303"), "303 http://o.example:8080/x?y");
    assert_eq!(redirect("path: {type: ReplaceFullPath, replaceFullPath: /z}"), "302 http://h:8080/z?y");
}

#[test]
fn routing_row_19_origins_have_wildcards() {
    let filter = "{type: CORS, cors: {allowOrigins: ['https://*.shop.io', 'http://*:*'], allowMethods: [GET], allowCredentials: true}}";
    let served = served(&format!("  - {{filters: [{filter}], backendRefs: [{{name: a, port: 80}}]}}"));
    let limits = Limits { backends: 1, ..Limits::default() };
    let table = Table::compile(served.table(), &limits).unwrap();
    let cors = table.rules()[0].cors.as_ref().unwrap();
    let allowed = |origin: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_str(origin).unwrap());
        match mesh_route::cors::judge(cors, "GET", &headers) {
            mesh_route::cors::CorsVerdict::Actual(answer) => {
                answer.get("access-control-allow-origin").map(|one| one.to_str().unwrap().to_owned())
            }
            _ => None,
        }
    };
    assert_eq!(allowed("https://a.b.shop.io").as_deref(), Some("https://a.b.shop.io"));
    assert_eq!(allowed("https://shop.io"), None);
    assert_eq!(allowed("http://any.example:81").as_deref(), Some("http://any.example:81"));
    let wire = served.rule("http://h/").cors.unwrap();
    assert_eq!((wire.max_age.unwrap().seconds, wire.credentials, wire.forward_unmatched_preflights), (5, true, false));
}

#[test]
fn header_edits_are_taken_literally_and_the_first_of_a_name_counts() {
    let served = served(
        "  - filters:\n    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '%REQ(b)%'}, {name: x-a, value: two}], add: [{name: Host, value: h.example}], remove: [X-Gone, Host]}}\n    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Server]}}\n    backendRefs:\n    - {name: a, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-b, value: b}]}}]}",
    );
    let rule = served.rule("http://h/");
    let edits = rule.request_headers.unwrap();
    let [set] = edits.set.as_slice() else { panic!("{edits:?}") };
    assert_eq!((set.name.as_str(), set.value.as_str(), set.template), ("x-a", "%REQ(b)%", false));
    assert_eq!((edits.add[0].name.as_str(), edits.remove), ("host", vec!["x-gone".to_owned()]));
    assert_eq!(rule.response_headers.unwrap().remove, ["server"]);
    let Some(l7::http_rule::Action::Forward(forward)) = rule.action else { panic!() };
    assert_eq!(forward.backends[0].request_headers.as_ref().unwrap().add[0].name, "x-b");
}

#[test]
fn mirrors_have_shares_and_disturb_nothing() {
    let yaml = open_edge()
        + &services("web")
        + &http_route(
            "r",
            "  rules:\n  - backendRefs: [{name: a, port: 80}]\n    filters:\n    - {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}\n    - {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}, percent: 0}}\n    - {type: RequestMirror, requestMirror: {backendRef: {name: c, port: 80}, fraction: {numerator: 1, denominator: 8}}}\n    - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}, percent: 50}}",
        );
    let model = model(&yaml);
    let served = listener(&model, "http");
    assert_eq!(served.get("http://h/"), "web/a.web:80");
    let mirrors = served.rule("http://h/").mirrors;
    let shares: Vec<_> = mirrors.iter().map(|one| one.per_million).collect();
    assert_eq!(shares, [1_000_000, 125_000, 500_000]);
    assert!(matches!(&mirrors[2].target, Some(l7::mirror::Target::Unusable(one)) if one.reason.contains("gone")));
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False BackendNotFound");
}

#[test]
fn timeouts_and_retries_follow_the_table() {
    let rule =
        |fields: &str| served(&format!("  - {{backendRefs: [{{name: a, port: 80}}], {fields}}}")).rule("http://h/");
    let millis =
        |one: Option<prost_types::Duration>| one.map(|one| one.seconds * 1000 + i64::from(one.nanos) / 1_000_000);
    let plain = rule("timeouts: {request: 0s}");
    assert_eq!(millis(plain.timeout), None, "zero is no limit");
    let retry = plain.retry.unwrap();
    assert_eq!((retry.attempts, retry.per_try_timeout, retry.backoff_is_minimum), (2, None, false));
    assert_eq!(retry.conditions, ["connect-failure", "refused-stream", "unavailable", "cancelled"]);
    assert_eq!(millis(rule("timeouts: {request: 1s}").timeout), Some(1000));
    assert_eq!(millis(rule("timeouts: {backendRequest: 250ms}").timeout), Some(250), "it acts as that of the route");
    assert_eq!(millis(rule("timeouts: {request: 1m30s, backendRequest: 2s}").timeout), Some(2000));
    let both = rule("timeouts: {request: 3s, backendRequest: 1s}, retry: {codes: [503], backoff: 100ms}");
    let retry = both.retry.unwrap();
    assert_eq!((millis(both.timeout), millis(retry.per_try_timeout), retry.attempts), (Some(3000), Some(1000), 2));
    assert_eq!((retry.status_codes, millis(retry.backoff), retry.backoff_is_minimum), (vec![503], Some(100), true));
    assert!(
        retry.conditions.contains(&"reset".to_owned())
            && retry.conditions.contains(&"retriable-status-codes".to_owned())
    );
    let bare = rule("retry: {attempts: 5}").retry.unwrap();
    assert_eq!((bare.attempts, bare.status_codes.len()), (5, 0));
    assert!(!bare.conditions.contains(&"retriable-status-codes".to_owned()));
}

#[test]
fn sessions_stick_by_cookie_or_header() {
    let session = |matches: &str, fields: &str| {
        let rule = format!(
            "  - {{matches: [{matches}], backendRefs: [{{name: a, port: 80}}], sessionPersistence: {{{fields}}}}}"
        );
        served(&rule).table().rules[0].session.clone()
    };
    let plain = session("{path: {value: /shop/a}}, {path: {value: /shop/b}}", "sessionName: sid").unwrap();
    assert_eq!((plain.name.as_str(), plain.path.as_str(), plain.kind, plain.lifetime), ("sid", "/shop", 0, None));
    let permanent = session(
        "{path: {type: RegularExpression, value: '/.*'}}",
        "absoluteTimeout: 1h, idleTimeout: 1m, cookieConfig: {lifetimeType: Permanent}",
    );
    let permanent = permanent.unwrap();
    assert_eq!((permanent.path.as_str(), permanent.lifetime.unwrap().seconds), ("/", 3600));
    assert_eq!(permanent.idle_timeout.unwrap().seconds, 60);
    assert!(!permanent.name.is_empty());
    // A session may end before the client forgets it.
    let ends = session("{path: {value: /}}", "absoluteTimeout: 1h").unwrap();
    assert_eq!((ends.lifetime, ends.absolute_timeout.unwrap().seconds), (None, 3600));
    let header = session("{path: {value: /}}", "type: Header, sessionName: x-sid").unwrap();
    assert_eq!((header.kind, header.name.as_str()), (1, "x-sid"));
    assert!(session("{path: {value: /}}", "cookieConfig: {lifetimeType: Permanent}").is_none());
}

/// What cannot be honoured keeps its place and answers 500, and the status names it.
#[test]
fn a_bad_rule_answers_500_and_the_others_work() {
    let bad = [
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: x, kind: Other, name: z}}], backendRefs: [{name: a, port: 80}]",
            "InvalidFilter",
        ),
        (
            "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: b, port: 80}}}], backendRefs: [{name: a, port: 80}]",
            "InvalidFilter",
        ),
        ("filters: [{type: Magic}], backendRefs: [{name: a, port: 80}]", "InvalidFilter"),
        ("filters: [{type: URLRewrite}], backendRefs: [{name: a, port: 80}]", "InvalidFilter"),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \"x\\ny\"}]}}], backendRefs: [{name: a, port: 80}]",
            "InvalidFilter",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: x}]}}], backendRefs: [{name: a, port: 80}]",
            "InvalidFilter",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, requestHeaderModifier: {}}]",
            "InvalidFilter",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]",
            "InvalidFilter",
        ),
        ("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]", "InvalidFilter"),
        ("timeouts: {request: soon}, backendRefs: [{name: a, port: 80}]", "InvalidConfiguration"),
        ("timeouts: {request: 1s, backendRequest: 2s}, backendRefs: [{name: a, port: 80}]", "InvalidConfiguration"),
        ("retry: {codes: [200]}, backendRefs: [{name: a, port: 80}]", "InvalidConfiguration"),
        ("sessionPersistence: {sessionName: 'a b'}, backendRefs: [{name: a, port: 80}]", "InvalidConfiguration"),
        ("backendRefs: [{name: a}]", "InvalidDestination"),
        ("backendRefs: [{name: a.web, port: 80}]", "InvalidDestination"),
    ];
    for (rule, reason) in bad {
        let rules = format!(
            "  rules:\n  - {{matches: [{{path: {{value: /bad}}}}], {rule}}}\n  - {{backendRefs: [{{name: b, port: 80}}]}}"
        );
        let model = model(&(open_edge() + &services("web") + &http_route("r", &rules)));
        let served = listener(&model, "http");
        assert!(served.get("http://h/bad/x").starts_with("500 rule 0: "), "{rule}: {}", served.get("http://h/bad/x"));
        assert_eq!(served.get("http://h/good"), "web/b.web:80", "{rule}");
        assert_eq!(says(&model, "web/r", words::ACCEPTED), "True Accepted", "{rule}");
        assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), format!("False {reason}"), "{rule}");
    }
}

#[test]
fn a_match_that_cannot_be_evaluated_answers_500_where_it_would_have_matched() {
    let served = served(
        "  - matches: [{path: {value: /x}, headers: [{name: h, type: RegularExpression, value: '('}]}, {path: {value: /y}}]\n    backendRefs: [{name: a, port: 80}]\n  - {matches: [{path: {type: RegularExpression, value: '['}}], backendRefs: [{name: b, port: 80}]}\n  - {matches: [{path: {type: Exact, value: z}}], backendRefs: [{name: c, port: 80}]}",
    );
    assert!(served.get("http://h/x").contains("value \"(\" for header h"));
    assert_eq!(served.get("http://h/y"), "web/a.web:80", "other matches of the rule work");
    assert!(served.get("http://h/anything").contains("path value \"[\""));
    assert!(served.get("http://h/z").contains("does not begin with"));
}

#[test]
fn a_prefix_can_only_be_replaced_where_one_is_matched() {
    let served = served(
        "  - matches: [{path: {value: /x}}, {path: {type: Exact, value: /y}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /z}}}]\n    backendRefs: [{name: a, port: 80}]",
    );
    assert!(served.get("http://h/x").starts_with("500 "), "{}", served.get("http://h/x"));
    assert!(served.get("http://h/x").contains("ReplacePrefixMatch"));
}

#[test]
fn routing_row_17_a_grpc_method_of_any_service() {
    let yaml = open_edge()
        + &services("web")
        + "kind: GRPCRoute\nmetadata: {name: g, namespace: web}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n  - {name: ping, matches: [{method: {method: Ping}}], backendRefs: [{name: a, port: 80}]}\n";
    let served = listener(&model(&yaml), "http");
    assert_eq!(served.ask("POST", "http://h/x.Y/Ping", &[]), "web/a.web:80 h2");
    assert_eq!(served.ask("POST", "http://h/x.Y/Pong", &[]), "404");
    assert_eq!(served.ask("POST", "http://h/x.Y/z/Ping", &[]), "404");
    let rule = &served.table().rules[0];
    assert!(rule.grpc);
    assert_eq!(
        (rule.origin.as_ref().unwrap().kind.as_str(), rule.origin.as_ref().unwrap().rule_name.as_str()),
        ("GRPCRoute", "ping")
    );
}

#[test]
fn grpc_methods_are_matched_as_the_table_says() {
    for (method, path, holds) in [
        ("{service: a.B, method: C}", "/a.B/C", true),
        ("{service: a.B, method: C}", "/a.B/D", false),
        ("{service: a.B}", "/a.B/C", true),
        ("{service: a.B}", "/a.BB/C", false),
        ("{type: RegularExpression, service: 'a\\.[BC]'}", "/a.C/D", true),
        ("{type: RegularExpression, service: 'a\\.[BC]'}", "/xa.C/D", false),
        ("{type: RegularExpression, service: 'a|b', method: 'x|y'}", "/b/y", true),
        ("{type: RegularExpression, service: 'a|b', method: 'x|y'}", "/b/z", false),
        ("{type: RegularExpression, method: 'Get.*'}", "/any/GetIt", true),
    ] {
        let yaml = open_edge()
            + &services("web")
            + &format!(
                "kind: GRPCRoute\nmetadata: {{name: g, namespace: web}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - {{matches: [{{method: {method}}}], backendRefs: [{{name: a, port: 80}}]}}\n"
            );
        let served = listener(&model(&yaml), "http");
        let wanted = if holds { "web/a.web:80 h2" } else { "404" };
        assert_eq!(served.ask("POST", &format!("http://h{path}"), &[]), wanted, "{method} {path}");
    }
}
