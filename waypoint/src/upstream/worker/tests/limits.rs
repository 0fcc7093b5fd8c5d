//! Circuit breakers, TCP connections and the PROXY protocol.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::*;
use crate::limits::UPSTREAM_WAITING_MAX;
use crate::report::Flags;
use crate::upstream::host::testing;
use crate::upstream::*;

/// Answers after a while.
async fn slow() -> std::net::SocketAddr {
    by_hand(|mut tcp, _| async move {
        let mut buffer = [0; 4096];
        while matches!(tcp.read(&mut buffer).await, Ok(1..)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await
}

#[tokio::test]
async fn resilience_row_14_what_exceeds_connections_and_waiting_places_is_refused() {
    worker(async {
        let limits = pool(|pool| (pool.max_connections, pool.max_pending_requests) = (2, 3));
        let upstream = upstream(vec![at(slow().await)], limits);
        let answers = futures::future::join_all((0..20).map(|_| upstream.exchange(""))).await;
        let served = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((3..=5).contains(&served), "{served} were served");
        for failure in answers.into_iter().filter_map(Result::err) {
            assert_eq!((failure.error.flag(), failure.error.status()), (Flags::UO, 503));
            assert!(failure.error.is_overflow());
        }
        assert_eq!(upstream.count("upstream_rq_pending_overflow"), 20 - served as u64);
        assert!(upstream.gauge("upstream_cx_active") <= 2);
        assert_eq!((upstream.gauge("upstream_rq_pending_active"), upstream.gauge("upstream_rq_active")), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn those_that_wait_are_served_one_after_another() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_connections = 1));
        let answers = futures::future::join_all((0..20).map(|_| upstream.exchange("x"))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == "x"));
        assert_eq!(*seen.connections.borrow(), 1);
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_connection_that_breaks_gets_another_one() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            let mut buffer = [0; 4096];
            let _ = tcp.read(&mut buffer).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        })
        .await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_connections = 1));
        let answers = futures::future::join_all((0..5).map(|_| upstream.exchange(""))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == "ok"));
        assert_eq!(upstream.gauge("upstream_cx_active"), 0);
    })
    .await;
}

#[tokio::test]
async fn active_requests_have_a_limit() {
    worker(async {
        let (address, _) = echo().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_requests = 1));
        let first = upstream.send(post("first")).await.unwrap();
        assert_eq!(upstream.exchange("x").await.unwrap_err().error.flag(), Flags::UO);
        assert_eq!(upstream.gauge("circuit_breakers_default_rq_open"), 1);
        drop(first);
        upstream.exchange("x").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn resilience_row_17_a_tcp_connection_outlives_its_endpoint() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            let mut byte = [0];
            while tcp.read_exact(&mut byte).await.is_ok() {
                let _ = tcp.write_all(&byte).await;
            }
        })
        .await;
        let (shared, view) = (testing::shared(), testing::view(vec![at(address)]));
        let cluster = shared.cluster(&testing::backend(Default::default()), view.clone()).unwrap();
        let upstream = Upstream { upstreams: WorkerUpstreams::of(shared), cluster };
        let context = PickContext::default();
        let (mut io, picked) = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap();
        assert_eq!((picked.host().active(), upstream.gauge("upstream_cx_active")), (1, 1));
        testing::publish(&view, Vec::new());
        upstream.sweep();
        let failure = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap_err();
        assert_eq!(failure.error.flag(), Flags::UH);
        io.write_all(b"!").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'!');
        drop(io);
        assert_eq!((picked.host().active(), upstream.gauge("upstream_cx_active")), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn tcp_connections_have_a_limit() {
    worker(async {
        let (_listener, address) = listen().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_connections = 1));
        let context = PickContext::default();
        let (io, _) = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap();
        assert!(io.tcp().is_some() && io.local().is_some());
        let failure = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap_err();
        assert_eq!(failure.error.flag(), Flags::UO);
        assert_eq!(upstream.count("upstream_cx_overflow"), 1);
    })
    .await;
}

#[tokio::test]
async fn the_proxy_header_comes_first_and_its_connection_serves_one_client() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(tcp.read_u8().await.unwrap());
            }
            let mut request = [0; 4096];
            let _ = tcp.read(&mut request).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", line.len());
            tcp.write_all(answer.as_bytes()).await.unwrap();
            tcp.write_all(&line).await.unwrap();
            let _ = tcp.read(&mut request).await;
        })
        .await;
        let upstream = upstream(vec![at(address)], |backend| backend.policy.as_mut().unwrap().proxy_protocol = 1);
        for client in ["10.9.9.9:1234", "10.9.9.8:1235"] {
            let source = Some(client.parse().unwrap());
            let context =
                PickContext { source, destination: Some("10.8.8.8:80".parse().unwrap()), ..Default::default() };
            let reply = upstream.upstreams.request(&upstream.cluster, post(""), &context).await.unwrap();
            let body = reply.response.into_body().collect().await.unwrap().to_bytes();
            let (ip, port) = client.split_once(':').unwrap();
            assert_eq!(body, format!("PROXY TCP4 {ip} 10.8.8.8 {port} 80\r\n"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_must_not_be_called_is_not_called() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], |backend| backend.refuse = "its certificate is missing".into());
        let failure = upstream.exchange("x").await.unwrap_err();
        assert!(failure.to_string().contains("its certificate is missing"), "{failure}");
        assert!(upstream.upstreams.connect(&upstream.cluster, &PickContext::default()).await.is_err());
        assert_eq!(*seen.connections.borrow(), 0);
    })
    .await;
}

#[tokio::test]
async fn nobody_answers_a_connect_in_time() {
    worker(async {
        // Full: the kernel drops what does not fit.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        for _ in 0..2 {
            let connecting = tokio::net::TcpStream::connect(address);
            held.push(tokio::time::timeout(Duration::from_millis(50), connecting).await);
        }
        let budget = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
        let upstream = upstream(vec![at(address)], pool(|pool| pool.connect_timeout = Some(budget)));
        let failure = upstream.exchange("").await.unwrap_err();
        assert!(failure.error.is_connect_failure() && failure.error.flag() == Flags::UF, "{failure}");
        assert_eq!(upstream.count("upstream_cx_connect_timeout"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_under_way_is_small() {
    worker(async {
        let upstream = upstream(Vec::new(), |_| ());
        let context = PickContext::default();
        let pending = upstream.upstreams.request(&upstream.cluster, post(""), &context);
        // Every connection and stream from a client keeps room for one.
        assert!(size_of_val(&pending) <= 3072, "{} bytes", size_of_val(&pending));
    })
    .await;
}

#[tokio::test]
async fn who_waits_and_leaves_does_not_stop_the_others() {
    worker(async {
        let (address, seen) = echo().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_connections = 1));
        for _ in 0..3 {
            let held = upstream.send(post("held")).await.unwrap();
            let mut leaving = Box::pin(upstream.exchange("leaving"));
            let mut staying = Box::pin(upstream.exchange("staying"));
            for waiting in [&mut leaving, &mut staying] {
                assert!(futures::poll!(waiting).is_pending());
            }
            // The connection is handed to the first in line, who leaves without having noticed.
            held.response.into_body().collect().await.unwrap();
            drop(leaving);
            assert_eq!(staying.await.unwrap(), "staying");
        }
        assert_eq!((upstream.gauge("upstream_cx_active"), upstream.gauge("upstream_rq_pending_active")), (1, 0));
        assert!(*seen.connections.borrow() <= 4);
    })
    .await;
}

#[tokio::test]
async fn not_more_than_a_bound_wait_for_one_endpoint() {
    worker(async {
        let (address, _) = echo().await;
        let upstream = upstream(vec![at(address)], pool(|pool| pool.max_connections = 1));
        let held = upstream.send(post("held")).await.unwrap();
        let mut waiting: Vec<_> = (0..UPSTREAM_WAITING_MAX).map(|_| Box::pin(upstream.exchange("x"))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        let failure = upstream.exchange("one too many").await.unwrap_err();
        assert_eq!(failure.error.flag(), Flags::UO);
        waiting.pop();
        waiting.push(Box::pin(upstream.exchange("x")));
        drop(held);
        for one in waiting.drain(..3) {
            assert_eq!(one.await.unwrap(), "x");
        }
    })
    .await;
}
