//! HTTP/1.1.

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::*;
use crate::report::Flags;
use crate::upstream::body::RequestBody;
use crate::upstream::host::testing::publish;
use crate::upstream::*;

/// Reads a request without body.
async fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn requests_in_sequence_share_a_connection() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], |_| ());
        for body in ["one", "", "two"] {
            assert_eq!(upstream.exchange(body).await.unwrap(), body);
        }
        assert_eq!((*seen.connections.borrow(), seen.requests.borrow().len()), (1, 3));
        assert_eq!(seen.hosts.borrow()[0], "shop.example");
        assert_eq!((upstream.gauge("upstream_rq_active"), upstream.gauge("upstream_cx_active")), (0, 1));
        assert_eq!((upstream.count("upstream_rq_total"), upstream.count("upstream_cx_total")), (3, 1));
        assert_eq!(upstream.count("upstream_rq_2xx"), 3);
    })
    .await;
}

#[tokio::test]
async fn a_request_counts_until_its_response_has_ended() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], |_| ());
        let first = upstream.send(post("first")).await.unwrap();
        assert!(first.local.is_some());
        assert_eq!((upstream.gauge("upstream_rq_active"), first.endpoint.host().active()), (1, 1));
        assert_eq!(upstream.exchange("second").await.unwrap(), "second");
        assert_eq!(*seen.connections.borrow(), 2, "the first is not free");
        assert_eq!(first.response.into_body().collect().await.unwrap().to_bytes(), "first");
        assert_eq!(upstream.gauge("upstream_rq_active"), 0);
        // The one used last is used first.
        upstream.exchange("third").await.unwrap();
        assert_eq!(*seen.requests.borrow(), [0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn a_response_that_nobody_wants_closes_its_connection() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], |_| ());
        drop(upstream.send(post("dropped")).await.unwrap());
        assert_eq!((upstream.gauge("upstream_rq_active"), upstream.gauge("upstream_cx_active")), (0, 0));
        upstream.exchange("again").await.unwrap();
        assert_eq!(*seen.connections.borrow(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    worker(async {
        let closed = std::rc::Rc::new(std::cell::Cell::new(false));
        let told = closed.clone();
        let address = by_hand(move |mut tcp, number| {
            let told = told.clone();
            async move {
                head(&mut tcp).await;
                tcp.write_all(OK).await.unwrap();
                if number == 0 {
                    drop(tcp);
                    told.set(true);
                }
            }
        })
        .await;
        let upstream = upstream(vec![at(address)], |_| ());
        assert_eq!(upstream.exchange("").await.unwrap(), "ok");
        until(|| closed.get()).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(upstream.exchange("").await.unwrap(), "ok");
        assert_eq!(upstream.count("upstream_cx_total"), 2);
    })
    .await;
}

#[tokio::test]
async fn a_connection_closes_after_as_many_requests_as_it_may_serve() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_requests_per_connection = 2));
        for _ in 0..5 {
            upstream.exchange("x").await.unwrap();
        }
        assert_eq!(*seen.requests.borrow(), [0, 0, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn failures_say_what_happened() {
    worker(async {
        let (listener, refused) = listen().await;
        drop(listener);
        let silent = by_hand(|mut tcp, _| async move {
            head(&mut tcp).await;
        })
        .await;
        let nonsense = by_hand(|mut tcp, _| async move {
            head(&mut tcp).await;
            tcp.write_all(b"SSH-2.0-what\r\n\r\n").await.unwrap();
        })
        .await;
        for (address, flag, text) in [
            (refused, Flags::UF, "transport failure reason: Connection refused (os error 111)"),
            (silent, Flags::UC, "reset reason: connection termination"),
            (nonsense, Flags::UPE, "reset reason: protocol error"),
        ] {
            let upstream = upstream(vec![at(address)], |_| ());
            let failure = upstream.exchange("").await.unwrap_err();
            assert_eq!(failure.error.flag(), flag, "{failure}");
            assert!(failure.error.body_text().ends_with(text), "{}", failure.error.body_text());
            assert_eq!(failure.endpoint.unwrap().host().address(), address);
            assert_eq!((upstream.gauge("upstream_rq_active"), upstream.gauge("upstream_cx_active")), (0, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn resilience_row_10_the_second_endpoint_answers_when_the_first_refuses() {
    worker(async {
        let (listener, refused) = listen().await;
        drop(listener);
        let (address, _) = echo().await;
        let upstream = upstream(vec![at(refused), at(address)], |_| ());
        for _ in 0..10 {
            let mut tried = Vec::new();
            let reply = loop {
                let context = PickContext { tried: &tried, ..Default::default() };
                match upstream.upstreams.request(&upstream.cluster, post(""), &context).await {
                    Ok(reply) => break reply,
                    Err(failure) => {
                        assert!(failure.error.is_connect_failure() && tried.is_empty(), "{failure}");
                        tried.push(failure.endpoint.unwrap());
                    }
                }
            };
            assert_eq!(reply.endpoint.host().address(), address);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_held_against_the_endpoint() {
    worker(async {
        let slow = by_hand(|mut tcp, _| async move {
            head(&mut tcp).await;
            std::future::pending::<()>().await;
        })
        .await;
        let upstream = upstream(vec![at(slow)], |backend| {
            let detection =
                mesh_wire::l7::OutlierDetection { consecutive_5xx: 1, max_ejection_percent: 100, ..Default::default() };
            backend.policy.as_mut().unwrap().outlier_detection = Some(detection);
        });
        let timeout = Some(std::time::Duration::from_millis(30));
        let context = PickContext { timeout, ..Default::default() };
        let failure = upstream.upstreams.request(&upstream.cluster, post(""), &context).await.unwrap_err();
        assert_eq!((failure.error.flag(), failure.error.status()), (Flags::UT, 504));
        let failure = upstream.exchange("").await.unwrap_err();
        assert_eq!(failure.error.flag(), Flags::UH);
        assert_eq!(upstream.gauge("upstream_cx_active"), 0);
    })
    .await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    worker(async {
        let (address, _) = echo().await;
        let upstream = upstream(vec![at(address)], |_| ());
        let (sender, receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let frames = tokio_stream::StreamExt::map(frames, |bytes| Ok::<_, BoxError>(http_body::Frame::data(bytes)));
        let body = RequestBody::Boxed(Box::pin(http_body_util::StreamBody::new(frames)));
        let request = http::Request::post("http://a/").body(body).unwrap();
        let sending = async {
            sender.send("first".into()).await.unwrap();
            upstream.send(request).await.unwrap().response.into_body()
        };
        let mut answer = sending.await;
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        for _ in 0..64 {
            let chunk = bytes::Bytes::from(vec![7; 100_000]);
            let (sent, mut received) = (sender.send(chunk), 0);
            sent.await.unwrap();
            while received < 100_000 {
                received += answer.frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
        }
        drop(sender);
        assert!(answer.frame().await.is_none());
        upstream.exchange("and the connection is free").await.unwrap();
        assert_eq!(upstream.count("upstream_cx_total"), 1);
    })
    .await;
}

#[tokio::test]
async fn what_follows_a_101_is_handed_over() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            assert!(head(&mut tcp).await.contains("upgrade: websocket"));
            tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhey")
                .await
                .unwrap();
            let mut answer = [0; 2];
            tcp.read_exact(&mut answer).await.unwrap();
            tcp.write_all(&answer).await.unwrap();
        })
        .await;
        let upstream = upstream(vec![at(address)], http2);
        let mut request = post("");
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        let reply = upstream.send(request).await.unwrap();
        assert_eq!(reply.response.status(), 101);
        let mut io = reply.upgraded.unwrap();
        assert_eq!(upstream.gauge("upstream_rq_active"), 1);
        let mut hey = [0; 3];
        io.read_exact(&mut hey).await.unwrap();
        io.write_all(b"yo").await.unwrap();
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&hey, rest.as_slice()), (b"hey", &b"yo"[..]));
        drop(io);
        assert_eq!((upstream.gauge("upstream_rq_active"), upstream.gauge("upstream_cx_active")), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn answers_to_head_and_without_content_free_their_connection() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            while !head(&mut tcp).await.is_empty() {
                let _ = tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        })
        .await;
        let upstream = upstream(vec![at(address)], |_| ());
        for _ in 0..3 {
            // Not read at all: there is nothing to read.
            let reply = upstream.send(post("")).await.unwrap();
            assert_eq!(reply.response.status(), 204);
        }
        assert_eq!(upstream.count("upstream_cx_total"), 1);
    })
    .await;
}

#[tokio::test]
async fn connections_to_an_endpoint_that_is_gone_close_when_idle() {
    worker(async {
        let (address, _) = echo().await;
        let list = vec![at(address)];
        let shared = host::testing::shared();
        let view = host::testing::view(list);
        let cluster = shared.cluster(&host::testing::backend(Default::default()), view.clone()).unwrap();
        let upstream = Upstream { upstreams: WorkerUpstreams::of(shared), cluster };
        upstream.exchange("x").await.unwrap();
        let running = upstream.send(post("still")).await.unwrap();
        publish(&view, Vec::new());
        upstream.sweep();
        let failure = upstream.exchange("x").await.unwrap_err();
        assert_eq!((failure.error.flag(), failure.error.body_text().as_str()), (Flags::UH, "no healthy upstream"));
        assert_eq!(running.response.into_body().collect().await.unwrap().to_bytes(), "still");
        upstream.sweep();
        assert_eq!(upstream.gauge("upstream_cx_active"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_nothing_uses_any_more_closes_its_connections() {
    worker(async {
        let (address, _) = echo().await;
        let Upstream { upstreams, cluster } = upstream(vec![at(address)], |_| ());
        let reply = upstreams.request(&cluster, post("x"), &PickContext::default()).await.unwrap();
        reply.response.into_body().collect().await.unwrap();
        let ledger = cluster.ledger.clone();
        assert_eq!(ledger.breakers.connections.used(), 1);
        drop(cluster);
        upstreams.inner.sweep();
        assert_eq!(ledger.breakers.connections.used(), 0);
    })
    .await;
}
