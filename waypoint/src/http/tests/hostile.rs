//! What must never reach an upstream.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::fixture::{Server, Setup, on_worker, raw_server};

#[test]
fn waypoint_row_11_smuggling_is_refused_and_the_connection_ends() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for head in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, host\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let seen = proxy.raw(format!("{head}{smuggled}").as_bytes()).await;
            assert!(seen.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head:?}: {seen:?}");
            assert_eq!(seen.matches("HTTP/1.1 ").count(), 1, "{head:?}: {seen:?}");
            assert_eq!(server.count(), 0, "{head:?}");
        }
    });
}

#[test]
fn a_bad_request_after_a_good_one_spoils_only_itself() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let seen = proxy.raw(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nHost: a\n\n").await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("HTTP/1.1 400 Bad Request\r\n"), "{seen}");
        assert_eq!(server.count(), 1);
    });
}

#[test]
fn bad_chunks_end_the_request() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        for body in ["zz\r\nabc", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let seen = proxy.raw(format!("{head}{body}").as_bytes()).await;
            assert!(!seen.contains(" 200 "), "{body:?}: {seen}");
        }
    });
}

#[test]
fn heads_have_a_size() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let fields = |count: usize| (1..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
        let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n");
        assert!(proxy.raw(with(&fields(99)).as_bytes()).await.contains(" 200 OK"));
        assert!(proxy.raw(with(&fields(100)).as_bytes()).await.contains(" 431 "));
        let long = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
        assert!(proxy.raw(with(&long(59 << 10)).as_bytes()).await.contains(" 200 OK"));
        assert!(proxy.raw(with(&long(60 << 10)).as_bytes()).await.contains(" 431 "));
        assert_eq!(server.count(), 2);
    });
}

#[test]
fn a_tunnel_to_anywhere_is_refused() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let seen =
            proxy.raw(b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(seen.starts_with("HTTP/1.1 404 ") && seen.matches("HTTP/1.1 ").count() == 1, "{seen}");
        assert_eq!(server.count(), 0);
    });
}

#[test]
fn floods_end_their_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let mut client = proxy.connect();
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(30_000);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let flood = [super::super::preface::PREFACE, &settings, &ping].concat();
        let (mut from, mut to) = tokio::io::split(&mut client);
        let mut seen = Vec::new();
        let (_, _) = tokio::join!(to.write_all(&flood), from.read_to_end(&mut seen));
        assert!(seen.len() < flood.len(), "answered all of it");
        assert_eq!(server.count(), 0);
    });
}

/// Requests and resets of them, in one go: all of that is known before the first request is looked at.
#[test]
fn who_gives_up_requests_costs_no_connection_for_each() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    on_worker(async {
        let (connections, open) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counted = (connections.clone(), open.clone());
        let address = raw_server(move |mut io| {
            let (all, open) = counted.clone();
            all.set(all.get() + 1);
            async move {
                let mut head = [0; 1024];
                if io.read(&mut head).await.is_ok_and(|read| read > 0) {
                    open.set(open.get() + 1);
                    while io.read(&mut head).await.is_ok_and(|read| read > 0) {}
                    open.set(open.get() - 1);
                }
            }
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        let head = [0x83, 0x86, 0x84, 0x41, 1, b'a'];
        let mut flood = [super::super::preface::PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        for number in 0..50_u32 {
            let stream = (2 * number + 1).to_be_bytes();
            // A window beyond all bounds is an error of the stream.
            flood.extend([&[0, 0, 6, 1, 4][..], &stream, &head].concat());
            flood.extend([&[0, 0, 4, 8, 0][..], &stream, &[0x7f, 0xff, 0xff, 0xff]].concat());
        }
        // One that stays.
        flood.extend([&[0, 0, 6, 1, 5][..], &101_u32.to_be_bytes(), &head].concat());
        client.write_all(&flood).await.unwrap();
        while open.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(open.get(), 1, "the one that stays");
        // The first of all, and who came with the last bytes of a read.
        assert!(connections.get() <= 5, "{} connections", connections.get());
    });
}
