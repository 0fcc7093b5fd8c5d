//! Rows of the waypoint specification, and what clients are told.

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use mesh_route::path::Normalization;
use mesh_wire::l7;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{Server, Setup, answer, forward, get, h1_client, h2_client, nobody, on_worker, read_head, text};
use crate::snapshot::Settings;

#[test]
fn waypoint_row_5_what_a_client_says_of_its_certificate_is_dropped() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let mut request = get("/x");
        request.headers_mut().insert("x-forwarded-client-cert", "By=evil".parse().unwrap());
        assert_eq!(proxy.send(request).await.status(), 200);
        assert!(!server.last().headers.contains_key("x-forwarded-client-cert"));
    });
}

#[test]
fn waypoint_row_6_the_proven_identity_is_passed_on_where_that_is_wanted() {
    on_worker(async {
        let server = Server::ok().await;
        let mut setup = Setup::to(&[server.address]);
        setup.forward_client_identity = true;
        let mut request = get("/x");
        request.headers_mut().insert("x-forwarded-client-cert", "By=evil".parse().unwrap());
        setup.start().send(request).await;
        let expected = "By=spiffe://cluster.local/ns/shop/sa/wp;URI=spiffe://cluster.local/ns/shop/sa/web";
        assert_eq!(server.last().headers["x-forwarded-client-cert"], expected);
    });
}

#[test]
fn waypoint_row_8_http2_is_spoken_with_prior_knowledge_on_both_sides() {
    on_worker(async {
        let server = Server::ok().await;
        let mut setup = Setup::to(&[server.address]);
        setup.backends[0].0.http = l7::backend::Http::Http2.into();
        let proxy = setup.start();
        let mut client = h2_client(proxy.connect()).await;
        let request = Request::get("http://cart/x?y").body(Full::<bytes::Bytes>::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        let seen = server.last();
        assert_eq!((seen.version, seen.target.as_str()), (Version::HTTP_2, "http://cart/x?y"));
        assert_eq!(proxy.get("/z").await.status(), 200, "and of an HTTP/1 client too");
        assert_eq!(server.last().version, Version::HTTP_2);
    });
}

#[test]
fn waypoint_row_9_and_waypoint_row_10_the_upstream_sees_the_canonical_path() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        proxy.get("/a/./b/../c%2Dd").await;
        assert_eq!(server.last().target, "/a/c-d");
        let mut setup = Setup::to(&[server.address]);
        setup.settings = Settings { normalization: Normalization::MergeSlashes, ..Settings::default() };
        setup.start().get("//x///y?z=//").await;
        assert_eq!(server.last().target, "/x/y?z=//");
    });
}

#[test]
fn waypoint_row_12_without_endpoints_nobody_answers() {
    on_worker(async {
        let response = Setup::to(&[]).start().get("/").await;
        assert_eq!(
            (response.status(), response.headers()["content-type"].clone()),
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain".parse().unwrap())
        );
        assert_eq!(text(response).await, "no healthy upstream");
    });
}

#[test]
fn waypoint_row_16_grpc_without_endpoints_is_unavailable() {
    on_worker(async {
        let proxy = Setup::to(&[]).start();
        let mut client = h2_client(proxy.connect()).await;
        let request = Request::post("http://cart/pkg.Cart/Add").header("content-type", "application/grpc");
        let response = client.send_request(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "no healthy upstream");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    });
}

#[test]
fn waypoint_row_17_retries_that_a_client_asks_for_are_not_heard() {
    on_worker(async {
        let server = Server::start(|_, _| answer(StatusCode::SERVICE_UNAVAILABLE, "")).await;
        let proxy = Setup::to(&[server.address]).start();
        let mut request = get("/");
        for (name, value) in [("x-envoy-max-retries", "10"), ("x-envoy-retry-on", "5xx")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(proxy.send(request).await.status(), 503);
        assert_eq!(server.count(), 1);
        let headers = server.last().headers;
        assert!(!headers.contains_key("x-envoy-max-retries") && !headers.contains_key("x-envoy-retry-on"));
    });
}

#[test]
fn waypoint_row_19_http_1_0_is_told_to_upgrade_and_goes() {
    on_worker(async {
        let server = Server::ok().await;
        let seen = Setup::to(&[server.address]).start().raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(seen.contains(" 426 Upgrade Required\r\n"), "{seen}");
        assert_eq!(server.count(), 0);
    });
}

#[test]
fn waypoint_row_15_a_drain_finishes_what_runs_and_tells_the_client_to_go() {
    on_worker(async {
        let server = Server::start_slow(|_, _| async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            answer(StatusCode::OK, "done")
        })
        .await;
        let mut proxy = Setup::to(&[server.address]).start();
        let mut one = h1_client(proxy.connect()).await;
        let mut two = h2_client(proxy.connect()).await;
        let running = one.send_request(get("/"));
        let also = two.send_request(Request::get("http://cart/").body(Full::<bytes::Bytes>::default()).unwrap());
        let drain = proxy.drain.take().unwrap();
        let signal = async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            drain.start(mesh_core::drain::DrainMode::Graceful);
        };
        let (running, also, ()) = tokio::join!(running, also, signal);
        let (running, also) = (running.unwrap(), also.unwrap());
        assert_eq!(running.headers()["connection"], "close");
        assert_eq!((text(running).await, text(also).await), ("done".to_owned(), "done".to_owned()));
        let more = Request::get("http://cart/").body(Full::<bytes::Bytes>::default()).unwrap();
        assert!(two.send_request(more).await.is_err(), "GOAWAY was seen");
    });
}

#[test]
fn the_headers_that_operators_know_are_there() {
    on_worker(async {
        let server = Server::ok().await;
        let mut setup = Setup::to(&[server.address]);
        setup.settings.server_header = Some("istio-envoy".parse().unwrap());
        let response = setup.start().get("/").await;
        assert_eq!(response.headers()["server"], "istio-envoy");
        assert!(response.headers().contains_key("x-envoy-upstream-service-time"));
        let seen = server.last().headers;
        assert_eq!(
            (&seen["x-forwarded-proto"], &seen["x-envoy-attempt-count"]),
            (&"http".parse().unwrap(), &"1".parse().unwrap())
        );
        assert_eq!(seen["x-request-id"].len(), 36);
        assert!(!seen.contains_key("x-forwarded-for"));
        let mut quiet = Setup::to(&[server.address]);
        quiet.settings =
            Settings { debug_headers: false, attempt_count: false, request_id: false, ..Settings::default() };
        let response = quiet.start().get("/").await;
        assert!(!response.headers().contains_key("x-envoy-upstream-service-time"));
        let seen = server.last().headers;
        assert!(!seen.contains_key("x-envoy-attempt-count") && !seen.contains_key("x-request-id"));
    });
}

#[test]
fn a_denied_request_learns_nothing_and_reaches_nobody() {
    on_worker(async {
        let server = Server::ok().await;
        let mut setup = Setup::to(&[server.address]);
        let operation = l7::AuthorizationOperation { paths: vec!["/admin*".into()], ..Default::default() };
        setup.policies = vec![l7::Authorization {
            namespace: "shop".into(),
            name: "no-admin".into(),
            action: l7::authorization::Action::Deny.into(),
            dry_run: false,
            rules: vec![l7::AuthorizationRule { to: vec![operation], ..Default::default() }],
        }];
        let proxy = setup.start();
        let denied = proxy.get("/x/../admin/y").await;
        assert_eq!(denied.status(), 403);
        assert_eq!(text(denied).await, "RBAC: access denied");
        assert_eq!(server.count(), 0);
        assert_eq!(proxy.get("/admi").await.status(), 200);
    });
}

#[test]
fn the_next_request_of_a_connection_takes_the_new_configuration() {
    on_worker(async {
        let (old, new) = (Server::ok().await, Server::ok().await);
        let proxy = Setup::to(&[old.address]).start();
        let mut client = h1_client(proxy.connect()).await;
        text(client.send_request(get("/1")).await.unwrap()).await;
        let mut rule = forward();
        rule.response_headers = Some(l7::HeaderEdits {
            set: vec![l7::Header { name: "x-new".into(), value: "1".into(), template: false }],
            ..Default::default()
        });
        proxy.replace(Setup::to(&[new.address]).rule(rule));
        let response = client.send_request(get("/2")).await.unwrap();
        assert_eq!(response.headers()["x-new"], "1");
        assert_eq!((old.count(), new.count()), (1, 1));
    });
}

#[test]
fn a_refused_connection_is_told_as_such() {
    on_worker(async {
        let mut setup = Setup::to(&[nobody().await]);
        setup = setup.rule(forward());
        let response = setup.start().get("/").await;
        assert_eq!(response.status(), 503);
        let body = text(response).await;
        assert!(
            body.starts_with(
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            ),
            "{body}"
        );
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_worker(async {
        let server = Server::start(|number, _| answer(StatusCode::OK, if number == 1 { "one" } else { "two" })).await;
        let proxy = Setup::to(&[server.address]).start();
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let seen = proxy.raw(format!("{request}{last}").as_bytes()).await;
        assert!(seen.find("one").unwrap() < seen.find("two").unwrap(), "{seen}");
    });
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    on_worker(async {
        let (told, mut gone) = tokio::sync::mpsc::channel(1);
        let address = super::fixture::raw_server(move |mut io| {
            let told = told.clone();
            async move {
                read_head(&mut io).await;
                told.send("came").await.unwrap();
                // The end of the connection.
                let _ = io.read_u8().await;
                told.send("left").await.unwrap();
            }
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(gone.recv().await, Some("came"));
        drop(client);
        assert_eq!(gone.recv().await, Some("left"));
    });
}
