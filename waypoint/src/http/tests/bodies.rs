//! Bodies, trailers, interim responses.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_wire::l7;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::fixture::{Server, Setup, answer, get, h1_client, h2_client, on_worker, raw_server, read_head, text};
use crate::snapshot::Protocol;

#[test]
fn heads_without_bodies_have_none() {
    on_worker(async {
        let server = Server::start(|_, seen| match seen.target.as_str() {
            "/204" => answer(StatusCode::NO_CONTENT, ""),
            "/304" => answer(StatusCode::NOT_MODIFIED, ""),
            _ => answer(StatusCode::OK, "ok"),
        })
        .await;
        let proxy = Setup::to(&[server.address]).start();
        let mut client = h1_client(proxy.connect()).await;
        for (path, status) in [("/204", 204), ("/304", 304), ("/", 200)] {
            let response = client.send_request(get(path)).await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            text(response).await;
        }
        let head = Request::head("/").header("host", "a").body(Full::default()).unwrap();
        let response = client.send_request(head).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["content-length"].as_bytes()), (200, &b"2"[..]));
        assert_eq!(text(response).await, "");
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "ok", "the connection goes on");
    });
}

#[test]
fn large_bodies_stream_both_ways() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            let mut left = 8 << 20;
            let mut piece = vec![0; 64 << 10];
            while left > 0 {
                let read = io.read(&mut piece).await.unwrap();
                left -= read;
                io.write_all(format!("{read:x}\r\n").as_bytes()).await.unwrap();
                io.write_all(&piece[..read]).await.unwrap();
                io.write_all(b"\r\n").await.unwrap();
            }
            io.write_all(b"0\r\n\r\n").await.unwrap();
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let sent: Bytes = (0..8_u32 << 18).flat_map(u32::to_be_bytes).collect();
        let post = Request::post("/").header("host", "a").body(Full::new(sent.clone())).unwrap();
        let back = proxy.send(post).await.into_body().collect().await.unwrap().to_bytes();
        assert!(back == sent);
    });
}

#[test]
fn grpc_streams_both_ways_with_trailers() {
    on_worker(async {
        let server = Server::start(|_, seen| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames: Vec<Result<Frame<Bytes>, Infallible>> =
                vec![Ok(Frame::data(seen.body.clone())), Ok(Frame::trailers(trailers))];
            http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
        })
        .await;
        let mut setup = Setup::to(&[server.address]);
        setup.backends[0].0.http = l7::backend::Http::Http2.into();
        let proxy = setup.start();
        let mut client = h2_client(proxy.connect()).await;
        let (pieces, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
        let request =
            Request::post("http://cart/a.B/C").header("content-type", "application/grpc").header("te", "trailers");
        let sending = client.send_request(request.body(StreamBody::new(ReceiverStream::new(body))).unwrap());
        let feeding = async {
            for _ in 0..3 {
                pieces.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(pieces);
        };
        let (response, ()) = tokio::join!(sending, feeding);
        let whole = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes().len(), 21);
        assert_eq!(server.last().headers["te"], "trailers");
    });
}

#[test]
fn browsers_speak_grpc_through_the_bridge() {
    on_worker(async {
        let server = Server::start(|_, _| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames: Vec<Result<Frame<Bytes>, Infallible>> =
                vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi"))), Ok(Frame::trailers(trailers))];
            let mut response = http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed());
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            response
        })
        .await;
        let mut setup = Setup::to(&[server.address]);
        setup.protocol = Protocol::GrpcWeb;
        setup.backends[0].0.http = l7::backend::Http::Http2.into();
        let proxy = setup.start();
        let post = Request::post("/a.B/C").header("host", "a").header("content-type", "application/grpc-web+proto");
        let response = proxy.send(post.body(Full::new(Bytes::from_static(b"\0\0\0\0\0"))).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, &b"\0\0\0\0\x02hi\x80\0\0\0\x10grpc-status: 0\r\n"[..]);
        assert_eq!(server.last().headers["content-type"], "application/grpc+proto");
    });
}

#[test]
fn clients_that_wait_are_told_to_go_on_when_the_upstream_says_so() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            let head = read_head(&mut io).await;
            assert!(head.to_lowercase().contains("expect: 100-continue"));
            io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 3];
            io.read_exact(&mut body).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100 "));
        client.write_all(b"abc").await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn clients_that_wait_are_not_told_to_go_on_when_they_are_refused() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 413 "));
    });
}

#[test]
fn clients_of_http2_that_wait_are_not_kept_waiting() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            assert!(read_head(&mut io).await.to_lowercase().contains("expect: 100-continue"));
            io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 3];
            io.read_exact(&mut body).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let two = Server::ok().await;
        for http2 in [false, true] {
            let mut setup = Setup::to(&[if http2 { two.address } else { address }]);
            if http2 {
                setup.backends[0].0.http = l7::backend::Http::Http2.into();
            }
            let proxy = setup.start();
            let mut client = h2_client(proxy.connect()).await;
            let request = Request::put("http://a/").header("expect", "100-continue").header("content-length", "3");
            let began = std::time::Instant::now();
            let request = request.body(Full::new(Bytes::from_static(b"abc"))).unwrap();
            assert_eq!(client.send_request(request).await.unwrap().status(), 200);
            assert!(began.elapsed() < crate::limits::CONTINUE_BUDGET, "{:?}", began.elapsed());
        }
    });
}

#[test]
fn clients_of_grpc_web_that_are_denied_are_told_so_in_their_language() {
    on_worker(async {
        let mut setup = Setup::to(&[]);
        setup.protocol = Protocol::GrpcWeb;
        setup.policies = vec![l7::Authorization {
            namespace: "shop".into(),
            name: "nobody".into(),
            action: l7::authorization::Action::Allow.into(),
            ..l7::Authorization::default()
        }];
        let post = Request::post("/a.B/C").header("host", "a").header("content-type", "application/grpc-web+proto");
        let response = setup.start().send(post.body(Full::<Bytes>::default()).unwrap()).await;
        let headers = response.headers();
        assert_eq!(
            (headers["content-type"].as_bytes(), headers["grpc-status"].as_bytes()),
            (&b"application/grpc-web+proto"[..], &b"7"[..])
        );
    });
}

#[test]
fn early_hints_come_early() {
    on_worker(async {
        let address = raw_server(|mut io| async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nLink: </a.css>\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let mut client = proxy.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").await.unwrap();
        let hints = read_head(&mut client).await;
        assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n") && hints.contains("link: </a.css>"), "{hints}");
        assert!(!hints.contains("set-cookie"), "{hints}");
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_chunked_body_stays_one() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n";
        let seen = proxy.raw(request.as_bytes()).await;
        assert!(seen.contains(" 200 OK"), "{seen}");
        let seen = server.last();
        assert_eq!((seen.body.as_ref(), seen.headers["transfer-encoding"].as_bytes()), (&b"abc"[..], &b"chunked"[..]));
        assert!(!seen.headers.contains_key("content-length"));
    });
}
