//! HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use super::fixture::*;
use crate::report::Flags;
use crate::upstream::body::RequestBody;
use crate::upstream::*;

#[tokio::test]
async fn requests_share_a_connection_as_far_as_the_peer_allows() {
    worker(async {
        let gate = Arc::new(Semaphore::new(0));
        let (address, seen) = two(3, gate.clone()).await;
        let upstream = upstream(vec![at(address)], http2);
        // The peer's limit is known after the first answer.
        gate.add_permits(1);
        assert_eq!(upstream.exchange("first").await.unwrap(), "first");
        gate.acquire().await.unwrap().forget();
        let exchanges = futures::future::join_all((0..5).map(|_| upstream.exchange("x")));
        let open = async {
            until(|| seen.requests.borrow().len() == 6).await;
            assert_eq!(*seen.connections.borrow(), 2);
            gate.add_permits(10);
        };
        let (answers, ()) = tokio::join!(exchanges, open);
        assert!(answers.into_iter().all(|answer| answer.unwrap() == "x"));
        assert_eq!((upstream.gauge("upstream_rq_active"), upstream.gauge("upstream_cx_active")), (0, 2));
    })
    .await;
}

#[tokio::test]
async fn the_policy_may_allow_fewer_streams() {
    worker(async {
        let gate = Arc::new(Semaphore::new(0));
        let (address, seen) = two(100, gate.clone()).await;
        let upstream = upstream(vec![at(address)], |backend| {
            http2(backend);
            pool(|pool| pool.max_concurrent_streams = 1)(backend);
        });
        let exchanges = futures::future::join_all((0..3).map(|_| upstream.exchange("x")));
        let open = async {
            until(|| seen.requests.borrow().len() == 3).await;
            gate.add_permits(10);
        };
        tokio::join!(exchanges, open);
        assert_eq!(*seen.connections.borrow(), 3);
    })
    .await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    worker(async {
        let (address, _) = two(100, Arc::new(Semaphore::new(1))).await;
        let upstream = upstream(vec![at(address)], http2);
        let bytes = Bytes::from((0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        let trailers = async {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", "1".parse().unwrap());
            Some(Ok::<_, std::convert::Infallible>(trailers))
        };
        let body = http_body_util::Full::new(bytes.clone()).with_trailers(trailers).map_err(|never| match never {});
        let mut request = post("");
        *request.body_mut() = RequestBody::Boxed(Box::pin(body));
        request.headers_mut().insert("host", "removed".parse().unwrap());
        let reply = upstream.send(request).await.unwrap();
        let answer = reply.response.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-checksum"], "1");
        assert!(answer.to_bytes() == bytes);
    })
    .await;
}

/// An HTTP/2 server of which each connection does something else with its requests.
async fn odd<F, Fut>(serve: F) -> std::net::SocketAddr
where
    F: Fn(::h2::server::Connection<tokio::net::TcpStream, Bytes>, u32) -> Fut + Copy + 'static,
    Fut: Future<Output = ()> + 'static,
{
    by_hand(move |tcp, number| async move {
        if let Ok(connection) = ::h2::server::handshake(tcp).await {
            serve(connection, number).await;
        }
    })
    .await
}

async fn answer(connection: &mut ::h2::server::Connection<tokio::net::TcpStream, Bytes>) {
    let Some(Ok((_, mut respond))) = connection.accept().await else { return };
    let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
}

#[tokio::test]
async fn a_connection_that_goes_away_finishes_what_it_has_and_is_replaced() {
    worker(async {
        let address = odd(|mut connection, _| async move {
            answer(&mut connection).await;
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        })
        .await;
        let upstream = upstream(vec![at(address)], http2);
        for _ in 0..3 {
            assert_eq!(upstream.exchange("").await.unwrap(), "ok");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(upstream.count("upstream_cx_total"), 3);
    })
    .await;
}

#[tokio::test]
async fn a_refused_stream_may_be_sent_elsewhere_and_a_reset_one_may_not() {
    worker(async {
        for (reason, refused, flag) in
            [(::h2::Reason::REFUSED_STREAM, true, Flags::UR), (::h2::Reason::INTERNAL_ERROR, false, Flags::UR)]
        {
            let address = by_hand(move |tcp, _| async move {
                let mut connection: ::h2::server::Connection<_, Bytes> = ::h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(reason);
                }
            })
            .await;
            let upstream = upstream(vec![at(address)], http2);
            let failure = upstream.exchange("x").await.unwrap_err();
            assert_eq!((failure.error.is_refused_stream(), failure.error.flag()), (refused, flag), "{failure}");
            assert_eq!(upstream.count("upstream_rq_rx_reset"), 1);
            assert_eq!(upstream.gauge("upstream_rq_active"), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_may_begin_before_the_request_has_ended() {
    worker(async {
        let address = odd(|mut connection, _| async move {
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            tokio::task::spawn_local(async move {
                let mut body = request.into_body();
                while let Some(Ok(bytes)) = body.data().await {
                    body.flow_control().release_capacity(bytes.len()).unwrap();
                    stream.send_data(bytes, false).unwrap();
                }
                stream.send_data(Bytes::new(), true).unwrap();
            });
            while connection.accept().await.is_some() {}
        })
        .await;
        let upstream = upstream(vec![at(address)], http2);
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let frames = tokio_stream::StreamExt::map(frames, |bytes| Ok::<_, BoxError>(http_body::Frame::data(bytes)));
        let mut request = post("");
        *request.body_mut() = RequestBody::Boxed(Box::pin(http_body_util::StreamBody::new(frames)));
        let mut answer = upstream.send(request).await.unwrap().response.into_body();
        for word in ["one", "two"] {
            sender.send(word.into()).await.unwrap();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        }
        drop(sender);
        while let Some(frame) = answer.frame().await {
            assert!(frame.unwrap().into_data().unwrap().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream() {
    worker(async {
        let gate = Arc::new(Semaphore::new(0));
        let (address, seen) = two(100, gate.clone()).await;
        let upstream = upstream(vec![at(address)], http2);
        let leaving = tokio::time::timeout(std::time::Duration::from_millis(50), upstream.exchange("x"));
        assert!(leaving.await.is_err());
        assert_eq!((seen.requests.borrow().len(), upstream.gauge("upstream_rq_active")), (1, 0));
        gate.add_permits(2);
        assert_eq!(upstream.exchange("again").await.unwrap(), "again");
        assert_eq!(*seen.connections.borrow(), 1);
    })
    .await;
}

#[tokio::test]
async fn backends_may_be_called_as_their_clients_call() {
    worker(async {
        let (one, _) = echo().await;
        let (two, _) = two(100, Arc::new(Semaphore::new(1))).await;
        for (address, client_http2) in [(one, false), (two, true)] {
            let upstream = upstream(vec![at(address)], |backend| {
                backend.http = mesh_wire::l7::backend::Http::Same.into();
            });
            let context = PickContext { client_http2, ..Default::default() };
            let reply = upstream.upstreams.request(&upstream.cluster, post("x"), &context).await.unwrap();
            assert_eq!(reply.response.into_body().collect().await.unwrap().to_bytes(), "x");
        }
    })
    .await;
}

#[tokio::test]
async fn a_worn_connection_makes_room_for_the_next_under_the_limit() {
    worker(async {
        let (address, seen) = two(100, Arc::new(Semaphore::new(1))).await;
        let upstream = upstream(vec![at(address)], |backend| {
            http2(backend);
            pool(|pool| (pool.max_connections, pool.max_requests_per_connection) = (1, 2))(backend);
        });
        let answers = futures::future::join_all((0..5).map(|_| upstream.exchange("x"))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == "x"));
        assert_eq!(seen.requests.borrow().len(), 5);
        assert_eq!(*seen.requests.borrow(), [0, 0, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_given_up() {
    worker(async {
        let address = by_hand(|mut tcp, _| async move {
            // Settings, and then nothing more, ever.
            tokio::io::AsyncWriteExt::write_all(&mut tcp, &[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let milliseconds = |n: i32| Some(prost_types::Duration { seconds: 0, nanos: n * 1_000_000 });
        let upstream = upstream(vec![at(address)], |backend| {
            http2(backend);
            let keepalive = (milliseconds(20), milliseconds(30));
            pool(|pool| (pool.keepalive_interval, pool.keepalive_timeout) = keepalive)(backend);
        });
        let failure = upstream.exchange("x").await.unwrap_err();
        assert!(failure.error.is_no_response(), "{failure}");
        until(|| upstream.gauge("upstream_cx_active") == 0).await;
    })
    .await;
}

#[tokio::test]
async fn responses_that_nobody_reads_do_not_stall_the_others() {
    worker(async {
        let (address, seen) = two(100, Arc::new(Semaphore::new(100))).await;
        let upstream = upstream(vec![at(address)], http2);
        let big = Bytes::from(vec![7; 1 << 20]);
        let mut unread = Vec::new();
        for _ in 0..40 {
            let mut request = post("");
            *request.body_mut() = RequestBody::Full(big.clone());
            unread.push(upstream.send(request).await.unwrap());
        }
        // Whatever may come has come.
        for _ in 0..50 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(upstream.exchange("x").await.unwrap(), "x");
        assert_eq!(*seen.connections.borrow(), 1);
    })
    .await;
}
