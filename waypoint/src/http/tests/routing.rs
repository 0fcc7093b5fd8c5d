//! Rows of the routing specification that need the pipeline.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use mesh_wire::l7;
use tokio::io::AsyncWriteExt;

use super::fixture::{Server, Setup, answer, forward, get, millis, on_worker, raw_server, read_head, text};

#[test]
fn routing_row_11_a_timeout_after_the_headers_resets_the_response() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            while io.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let proxy = Setup::to(&[address]).rule(l7::HttpRule { timeout: millis(200), ..forward() }).start();
        let began = Instant::now();
        let response = proxy.get("/").await;
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err());
        let took = began.elapsed();
        assert!((Duration::from_millis(190)..Duration::from_millis(800)).contains(&took), "{took:?}");
    });
}

#[test]
fn routing_row_12_a_retry_heals_and_is_counted_for_the_upstream() {
    on_worker(async {
        let server = Server::start(|number, _| match number {
            1 => answer(StatusCode::SERVICE_UNAVAILABLE, ""),
            _ => answer(StatusCode::OK, ""),
        })
        .await;
        let retry = l7::Retry {
            attempts: 1,
            conditions: vec!["retriable-status-codes".into()],
            status_codes: vec![503],
            ..Default::default()
        };
        let proxy = Setup::to(&[server.address]).rule(l7::HttpRule { retry: Some(retry), ..forward() }).start();
        assert_eq!(proxy.get("/").await.status(), 200);
        assert_eq!((server.count(), server.last().headers["x-envoy-attempt-count"].as_bytes()), (2, &b"2"[..]));
    });
}

#[test]
fn routing_row_18_mirrors_get_their_share_and_delay_nobody() {
    on_worker(async {
        let primary = Server::ok().await;
        let mirror = Server::start_slow(|_, _| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            answer(StatusCode::INTERNAL_SERVER_ERROR, "")
        })
        .await;
        let mut rule = forward();
        rule.mirrors = vec![l7::Mirror { per_million: 500_000, target: Some(l7::mirror::Target::Backend(1)) }];
        let mut setup = Setup::to(&[primary.address]);
        setup.backends.push((l7::Backend::default(), vec![mirror.address]));
        let proxy = setup.rule(rule).start();
        let began = Instant::now();
        let mut client = super::fixture::h1_client(proxy.connect()).await;
        for _ in 0..400 {
            let post = Request::post("/m").header("host", "a").body(Full::new(Bytes::from_static(b"body"))).unwrap();
            let response = client.send_request(post).await.unwrap();
            assert_eq!(text(response).await, "ok");
        }
        assert!(began.elapsed() < Duration::from_secs(8), "the mirror delays the primary");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(primary.count(), 400);
        assert!((140..260).contains(&mirror.count()), "{}", mirror.count());
        assert_eq!((mirror.last().body.as_ref(), mirror.last().target.as_str()), (&b"body"[..], "/m"));
    });
}

#[test]
fn routing_row_19_cors_echoes_origins_that_match() {
    on_worker(async {
        let server = Server::ok().await;
        let origin = l7::StringMatch {
            kind: Some(l7::string_match::Kind::Exact("https://*.shop.io".into())),
            ignore_case: false,
        };
        let cors =
            l7::Cors { origins: vec![origin], methods: vec!["PUT".into()], credentials: true, ..Default::default() };
        let proxy = Setup::to(&[server.address]).rule(l7::HttpRule { cors: Some(cors), ..forward() }).start();
        let from = |method: &str, origin: &'static str| {
            let request = Request::builder().method(method).uri("/").header("host", "a").header("origin", origin);
            request.header("access-control-request-method", "PUT").body(Full::default()).unwrap()
        };
        let good = proxy.send(from("GET", "https://a.b.shop.io")).await;
        assert_eq!(good.headers()["access-control-allow-origin"], "https://a.b.shop.io");
        assert_eq!(good.headers()["access-control-allow-credentials"], "true");
        let bad = proxy.send(from("GET", "https://shop.io")).await;
        assert!(bad.status() == 200 && !bad.headers().contains_key("access-control-allow-origin"));
        assert_eq!(server.count(), 2);
        let preflight = proxy.send(from("OPTIONS", "https://x.shop.io")).await;
        assert_eq!(
            (preflight.status().as_u16(), preflight.headers()["access-control-allow-methods"].as_bytes()),
            (200, &b"PUT"[..])
        );
        assert_eq!(server.count(), 2, "answered by the proxy");
    });
}

#[test]
fn rewrites_keep_the_original_for_the_upstream() {
    on_worker(async {
        let server = Server::ok().await;
        let kind = l7::path_rewrite::Kind::Prefix("/".into());
        let rewrite = l7::Rewrite { authority: "new.example".into(), path: Some(l7::PathRewrite { kind: Some(kind) }) };
        let mut setup = Setup::to(&[server.address]).rule(l7::HttpRule {
            rewrite: Some(rewrite),
            timeout: millis(5000),
            ..forward()
        });
        let path = l7::PathMatch { kind: Some(l7::path_match::Kind::SegmentPrefix("/api".into())), ignore_case: false };
        setup.http.as_mut().unwrap().hosts[0].entries[0].r#match =
            Some(l7::HttpMatch { path: Some(path), ..Default::default() });
        let proxy = setup.start();
        proxy.get("/api?q=1").await;
        let seen = server.last();
        assert_eq!((seen.target.as_str(), seen.headers["host"].as_bytes()), ("/?q=1", &b"new.example"[..]));
        assert_eq!(seen.headers["x-envoy-original-path"], "/api?q=1");
        assert_eq!(seen.headers["x-envoy-original-host"], "cart");
        assert_eq!(seen.headers["x-envoy-expected-rq-timeout-ms"], "5000");
        assert_eq!(proxy.get("/other").await.status(), 404);
    });
}

#[test]
fn header_edits_reach_both_sides_and_local_answers() {
    on_worker(async {
        let server = Server::ok().await;
        let header = |name: &str, value: &str| l7::Header {
            name: name.into(),
            value: value.into(),
            template: value.contains('%'),
        };
        let mut rule = forward();
        rule.request_headers = Some(l7::HeaderEdits {
            set: vec![header("x-path", "%REQ(:path)%"), header("host", "edited")],
            add: vec![header("x-multi", "two")],
            remove: vec!["x-gone".into()],
        });
        rule.response_headers = Some(l7::HeaderEdits { set: vec![header("x-answer", "42")], ..Default::default() });
        let proxy = Setup::to(&[server.address]).rule(rule.clone()).start();
        let mut request = get("/p?q");
        request.headers_mut().insert("x-gone", "1".parse().unwrap());
        request.headers_mut().insert("x-multi", "one".parse().unwrap());
        assert_eq!(proxy.send(request).await.headers()["x-answer"], "42");
        let seen = server.last().headers;
        assert_eq!((seen["x-path"].as_bytes(), seen["host"].as_bytes()), (&b"/p?q"[..], &b"edited"[..]));
        let multi: Vec<_> = seen.get_all("x-multi").iter().collect();
        assert!(multi == ["one", "two"] && !seen.contains_key("x-gone"));
        let nobody = Setup::to(&[]).rule(rule).start().get("/").await;
        assert_eq!((nobody.status().as_u16(), nobody.headers()["x-answer"].as_bytes()), (503, &b"42"[..]));
    });
}

#[test]
fn redirects_and_fixed_answers_need_no_upstream() {
    on_worker(async {
        let redirect = l7::Redirect { scheme: "https".into(), status: 302, ..Default::default() };
        let rule = l7::HttpRule { action: Some(l7::http_rule::Action::Redirect(redirect)), ..Default::default() };
        let response = Setup::to(&[]).rule(rule).start().get("/x?y").await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["location"].as_bytes()),
            (302, &b"https://cart/x?y"[..])
        );
        let direct = l7::DirectResponse { status: 299, body: b"fixed".to_vec() };
        let rule = l7::HttpRule { action: Some(l7::http_rule::Action::DirectResponse(direct)), ..Default::default() };
        let response = Setup::to(&[]).rule(rule).start().get("/").await;
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (299, "fixed"));
        let empty =
            l7::HttpRule { action: Some(l7::http_rule::Action::Forward(l7::Forward::default())), ..Default::default() };
        assert_eq!(Setup::to(&[]).rule(empty).start().get("/").await.status(), 500);
    });
}

#[test]
fn a_session_comes_back_to_its_endpoint() {
    on_worker(async {
        let (one, two) = (Server::ok().await, Server::ok().await);
        let session = l7::SessionPersistence { name: "sid".into(), ..Default::default() };
        let proxy =
            Setup::to(&[one.address, two.address]).rule(l7::HttpRule { session: Some(session), ..forward() }).start();
        let first = proxy.get("/").await;
        let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let before = (one.count(), two.count());
        for _ in 0..20 {
            let mut request = get("/");
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
            assert!(!proxy.send(request).await.headers().contains_key("set-cookie"), "it knows already");
        }
        let after = (one.count() - before.0, two.count() - before.1);
        assert!(after == (20 * before.0, 20 * before.1), "{after:?}");
    });
}
