//! Retries and timeouts.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use mesh_wire::l7;

use super::fixture::{Server, Setup, answer, forward, get, h2_client, millis, nobody, on_worker, text};

fn retry(attempts: u32, conditions: &[&str], codes: &[u32]) -> l7::Retry {
    l7::Retry {
        attempts,
        conditions: conditions.iter().map(|name| (*name).to_owned()).collect(),
        status_codes: codes.to_vec(),
        backoff: millis(1),
        ..l7::Retry::default()
    }
}

fn retrying(retry: l7::Retry) -> l7::HttpRule {
    l7::HttpRule { retry: Some(retry), ..forward() }
}

#[test]
fn resilience_row_8_listed_codes_are_tried_again_elsewhere() {
    on_worker(async {
        let count = Rc::new(Cell::new(0));
        let flaky = || {
            let count = count.clone();
            Server::start(move |_, _| {
                count.set(count.get() + 1);
                if count.get() < 3 {
                    answer(StatusCode::SERVICE_UNAVAILABLE, "no")
                } else {
                    answer(StatusCode::OK, "yes")
                }
            })
        };
        let (one, two) = (flaky().await, flaky().await);
        let proxy = Setup::to(&[one.address, two.address])
            .rule(retrying(retry(2, &["retriable-status-codes"], &[503])))
            .start();
        let response = proxy.get("/").await;
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "yes"));
        assert_eq!(one.count() + two.count(), 3);
        assert!(one.count() > 0 && two.count() > 0, "only one host was tried");
        let last = [one, two]
            .iter()
            .filter(|server| server.count() > 0)
            .map(|server| server.last())
            .find(|seen| seen.headers["x-envoy-attempt-count"] == "3");
        assert!(last.is_some());
    });
}

#[test]
fn resilience_row_9_a_response_is_not_retried_by_default() {
    on_worker(async {
        let server = Server::start(|_, _| answer(StatusCode::SERVICE_UNAVAILABLE, "mine")).await;
        let response = Setup::to(&[server.address]).start().get("/").await;
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "mine"));
        assert_eq!(server.count(), 1);
    });
}

#[test]
fn resilience_row_10_a_host_that_refuses_is_left_for_another() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[nobody().await, server.address]).start();
        for _ in 0..10 {
            assert_eq!(proxy.get("/").await.status(), 200);
        }
    });
}

#[test]
fn resilience_row_11_the_route_bounds_all_attempts_together() {
    on_worker(async {
        let server = Server::start_slow(|_, _| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            answer(StatusCode::OK, "late")
        })
        .await;
        let mut rule = retrying(l7::Retry { per_try_timeout: millis(120), ..retry(3, &["5xx"], &[]) });
        rule.timeout = millis(200);
        let proxy = Setup::to(&[server.address]).rule(rule).start();
        let began = Instant::now();
        let response = proxy.get("/").await;
        let took = began.elapsed();
        assert_eq!(
            (response.status(), text(response).await.as_str()),
            (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
        );
        assert!((Duration::from_millis(190)..Duration::from_millis(600)).contains(&took), "{took:?}");
        assert_eq!(server.count(), 2);
    });
}

#[test]
fn resilience_row_12_a_body_beyond_the_buffer_is_sent_once() {
    on_worker(async {
        let server = Server::start(|_, _| answer(StatusCode::SERVICE_UNAVAILABLE, "")).await;
        let proxy = Setup::to(&[server.address]).rule(retrying(retry(2, &["5xx"], &[]))).start();
        let post =
            |bytes: usize| Request::post("/").header("host", "a").body(Full::new(Bytes::from(vec![7; bytes]))).unwrap();
        assert_eq!(proxy.send(post(5 << 20)).await.status(), 503);
        assert_eq!((server.count(), server.last().body.len()), (1, 5 << 20));
        assert_eq!(proxy.send(post(1 << 10)).await.status(), 503);
        assert_eq!((server.count(), server.last().body.len()), (4, 1 << 10), "a small one is replayed");
    });
}

#[test]
fn resilience_row_13_grpc_that_is_unavailable_is_tried_again() {
    on_worker(async {
        let server = Server::start(|number, _| {
            let mut response = answer(StatusCode::OK, "");
            let status = if number == 1 { "14" } else { "0" };
            response.headers_mut().insert("grpc-status", status.parse().unwrap());
            response
        })
        .await;
        let mut setup = Setup::to(&[server.address]).rule(retrying(retry(1, &["unavailable"], &[])));
        setup.backends[0].0.http = l7::backend::Http::Http2.into();
        let proxy = setup.start();
        let mut client = h2_client(proxy.connect()).await;
        let request = Request::post("http://cart/a.B/C").header("content-type", "application/grpc");
        let response = client.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!((response.headers()["grpc-status"].as_bytes(), server.count()), (&b"0"[..], 2));
    });
}

#[test]
fn resilience_row_18_a_delay_on_purpose_does_not_count() {
    on_worker(async {
        let server = Server::ok().await;
        let mut rule = forward();
        rule.fault = Some(l7::Fault { delay: millis(150), delay_per_million: 1_000_000, ..l7::Fault::default() });
        rule.timeout = millis(100);
        let began = Instant::now();
        let response = Setup::to(&[server.address]).rule(rule).start().get("/").await;
        assert_eq!(response.status(), 200);
        assert!(began.elapsed() >= Duration::from_millis(150));
    });
}

#[test]
fn aborts_on_purpose_speak_the_language_of_the_client() {
    on_worker(async {
        let mut rule = forward();
        rule.fault = Some(l7::Fault { abort_http_status: 418, abort_per_million: 1_000_000, ..l7::Fault::default() });
        let response = Setup::to(&[]).rule(rule).start().get("/").await;
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (418, "fault filter abort"));
        let mut rule = forward();
        rule.fault =
            Some(l7::Fault { abort_grpc_status: Some(8), abort_per_million: 1_000_000, ..l7::Fault::default() });
        let response = Setup::to(&[]).rule(rule).start().get("/").await;
        assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].as_bytes()), (200, &b"8"[..]));
    });
}

#[test]
fn the_deadline_of_a_grpc_client_is_kept_and_passed_on() {
    on_worker(async {
        let server = Server::start_slow(|_, _| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            answer(StatusCode::OK, "late")
        })
        .await;
        let proxy = Setup::to(&[server.address]).start();
        let mut client = h2_client(proxy.connect()).await;
        let request = Request::post("http://cart/a.B/C")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "100m")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].as_bytes()), (200, &b"4"[..]));
        let passed = server.last().headers["grpc-timeout"].to_str().unwrap().to_owned();
        let passed = mesh_route::grpc::parse_timeout(&passed).unwrap();
        assert!(passed <= Duration::from_millis(100) && passed > Duration::from_millis(50), "{passed:?}");
    });
}

#[test]
fn how_little_time_a_client_gives_ejects_nobody() {
    on_worker(async {
        let server = Server::start_slow(|_, seen| {
            let hurried = seen.headers.contains_key("grpc-timeout");
            async move {
                if hurried {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                answer(StatusCode::OK, "")
            }
        })
        .await;
        let mut setup = Setup::to(&[server.address]);
        let detection = l7::OutlierDetection { consecutive_5xx: 1, max_ejection_percent: 100, ..Default::default() };
        setup.backends[0].0.policy =
            Some(l7::TrafficPolicy { outlier_detection: Some(detection), ..Default::default() });
        let proxy = setup.start();
        for _ in 0..3 {
            let request = Request::post("/a.B/C").header("host", "cart").header("content-type", "application/grpc");
            let request = request.header("grpc-timeout", "1m").body(Full::<Bytes>::default()).unwrap();
            assert_eq!(proxy.send(request).await.headers()["grpc-status"], "4");
        }
        assert_eq!(proxy.get("/").await.status(), 200, "the endpoint was ejected");
    });
}

#[test]
fn a_response_that_has_begun_is_never_replaced() {
    on_worker(async {
        let address = super::fixture::raw_server(|mut io| async move {
            use tokio::io::AsyncWriteExt;
            super::fixture::read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        })
        .await;
        let proxy = Setup::to(&[address]).rule(retrying(retry(2, &["5xx"], &[]))).start();
        let response = proxy.send(get("/")).await;
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err(), "the client must learn that it is not whole");
    });
}
