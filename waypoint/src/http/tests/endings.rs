//! How connections end, and what must not end them.

use std::time::Duration;

use bytes::Bytes;
use h2::Ping;
use http::Request;
use mesh_core::drain::DrainMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{Fixture, Server, Setup, on_worker, raw_server, read_head};
use crate::overload::Level;

/// A preface, settings, and `GET /` with the authority `a`.
const HTTP2_GET: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";

#[test]
fn clients_that_come_while_the_process_drains_are_served_and_told_to_go() {
    on_worker(async {
        let server = Server::ok().await;
        let mut proxy = Setup::to(&[server.address]).start();
        let drain = proxy.drain.take().unwrap();
        drain.start(DrainMode::Graceful);
        for _ in 0..10 {
            let mut client = proxy.connect();
            // It is looked at before it says anything.
            tokio::time::sleep(Duration::from_millis(1)).await;
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut seen = String::new();
            client.read_to_string(&mut seen).await.unwrap();
            assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("connection: close"), "{seen:?}");
        }
        let mut client = proxy.connect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.write_all(HTTP2_GET).await.unwrap();
        let mut seen = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(1), client.read_to_end(&mut seen)).await;
        let status_200 = [1, 4, 0, 0, 0, 1, 0x88];
        assert!(seen.windows(7).any(|window| window == status_200), "{}", seen.escape_ascii());
        assert!(seen.windows(5).any(|window| window == [8, 7, 0, 0, 0]), "no GOAWAY: {}", seen.escape_ascii());
    });
}

#[test]
fn requests_are_refused_while_memory_runs_out_and_served_again_after_it() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        for (level, expected) in [(Level::Full, 200), (Level::Over, 503), (Level::Calm, 200)] {
            proxy.overload().set(level);
            let response = proxy.get("/").await;
            let closes = response.headers().get("connection").is_some_and(|value| value == "close");
            assert_eq!((response.status().as_u16(), closes), (expected, expected == 503), "{level:?}");
        }
        assert_eq!(server.count(), 2);
    });
}

/// As clients of gRPC do that measure the link.
#[test]
fn a_ping_for_each_answer_is_no_flood() {
    on_worker(async {
        let proxy = Setup::to(&[]).start();
        let (mut send, mut connection) = h2::client::handshake(proxy.connect()).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let driver = tokio::task::spawn_local(connection);
        for _ in 0..2_500 {
            let request = Request::post("http://cart/a.B/C").header("content-type", "application/grpc");
            let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            pings.ping(Ping::opaque()).await.unwrap();
            send = send.ready().await.unwrap();
        }
        driver.abort();
    });
}

#[test]
fn a_client_may_send_all_before_it_reads_anything() {
    on_worker(async {
        const BYTES: usize = 8 << 20;
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            let (mut from, mut to) = io.split();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
            let reading = async {
                let mut left = vec![0; BYTES];
                from.read_exact(&mut left).await.unwrap();
            };
            let writing = async {
                to.write_all(head.as_bytes()).await.unwrap();
                to.write_all(&vec![7; BYTES]).await.unwrap();
            };
            tokio::join!(reading, writing);
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![1; BYTES]).await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 OK"));
        let mut body = vec![0; BYTES];
        client.read_exact(&mut body).await.unwrap();
        assert!(body.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn a_body_of_a_get_request_is_not_lost() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let chunks = "3\r\nabc\r\n0\r\n\r\n";
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert!(proxy.raw(request.as_bytes()).await.contains(" 200 OK"));
        assert_eq!(server.last().body, Bytes::from_static(b"abc"));
        assert!(proxy.raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.contains(" 200 OK"));
        assert!(!server.last().headers.contains_key("transfer-encoding"), "without a body there is nothing to say");
    });
}

/// POST whose answer is complete before its body is: the stream, and what became of it in `within`.
async fn answered_early(proxy: &Fixture, length: u64, within: Duration) -> (h2::SendStream<Bytes>, Option<h2::Reason>) {
    let (mut send, connection) = h2::client::handshake(proxy.connect()).await.unwrap();
    tokio::task::spawn_local(connection);
    let request = Request::post("http://cart/").header("content-length", length).body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    while let Some(data) = response.body_mut().data().await {
        data.unwrap();
    }
    let reset = tokio::time::timeout(within, std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
    (stream, reset.ok().map(Result::unwrap))
}

#[test]
fn a_client_may_finish_a_short_body_that_nobody_wants() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let _ = io.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let (mut stream, reset) = answered_early(&proxy, 3, Duration::from_millis(100)).await;
        assert_eq!(reset, None, "given a moment");
        stream.send_data(Bytes::from_static(b"x=y"), true).unwrap();
        let reset =
            tokio::time::timeout(Duration::from_millis(1_500), std::future::poll_fn(|cx| stream.poll_reset(cx)));
        assert!(!matches!(reset.await, Ok(Ok(_))), "both sides have ended");
        // It does not wait for ever, nor for much.
        let (_, reset) = answered_early(&proxy, 3, Duration::from_secs(2)).await;
        assert_eq!(reset, Some(h2::Reason::NO_ERROR));
        let (_, reset) = answered_early(&proxy, 1 << 20, Duration::from_millis(500)).await;
        assert_eq!(reset, Some(h2::Reason::NO_ERROR));
    });
}
