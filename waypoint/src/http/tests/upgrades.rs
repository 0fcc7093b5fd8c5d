//! WebSocket over both versions of HTTP, and what is no upgrade.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use mesh_wire::l7;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{Server, Setup, forward, h2_client, on_worker, raw_server, read_head};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn echo() -> std::net::SocketAddr {
    raw_server(|mut io| async move {
        let head = read_head(&mut io).await.to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        assert!(head.contains("sec-websocket-key: "), "{head}");
        io.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Accept: x\r\n\r\nhello",
        )
        .await
        .unwrap();
        let (mut from, mut to) = io.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

#[test]
fn waypoint_row_14_websocket_bytes_flow_both_ways() {
    on_worker(async {
        let proxy = Setup::to(&[echo().await]).rule(forward()).start();
        let mut client = proxy.connect();
        client.write_all(UPGRADE.as_bytes()).await.unwrap();
        // Sent before the answer: it waits, and is never read as HTTP.
        client.write_all(b"early\0\n").await.unwrap();
        let head = read_head(&mut client).await.to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: x"), "{head}");
        let mut seen = [0; 12];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"helloearly\0\n");
        for _ in 0..100 {
            client.write_all(b"ping").await.unwrap();
            let mut pong = [0; 4];
            client.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"ping");
        }
    });
}

#[test]
fn websocket_over_http2_becomes_an_upgrade() {
    on_worker(async {
        let proxy = Setup::to(&[echo().await]).start();
        let mut client = h2_client(proxy.connect()).await;
        // The server's settings allow it only once they have come.
        client.ready().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut request =
            Request::builder().method(Method::CONNECT).uri("http://a/chat").body(Empty::<Bytes>::new()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut hello = [0; 5];
        io.read_exact(&mut hello).await.unwrap();
        io.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        io.read_exact(&mut pong).await.unwrap();
        assert_eq!((&hello, &pong), (b"hello", b"ping"));
    });
}

/// Lets only this account of namespace `shop` in, and only to the path of the upgrades of these tests.
fn only(account: &str) -> Vec<l7::Authorization> {
    let principals = vec![format!("cluster.local/ns/shop/sa/{account}")];
    let source = l7::AuthorizationSource { principals, ..l7::AuthorizationSource::default() };
    let operation = l7::AuthorizationOperation { paths: vec!["/chat".into()], ..l7::AuthorizationOperation::default() };
    let rule = l7::AuthorizationRule { from: vec![source], to: vec![operation], ..l7::AuthorizationRule::default() };
    let name = format!("only-{account}");
    vec![l7::Authorization { namespace: "shop".into(), name, rules: vec![rule], ..l7::Authorization::default() }]
}

#[test]
fn a_websocket_ends_when_a_changed_policy_denies_it_and_not_before() {
    on_worker(async {
        let to = echo().await;
        let setup = || Setup::to(&[to]).rule(forward());
        let proxy = setup().start();
        let mut client = proxy.connect();
        client.write_all(UPGRADE.as_bytes()).await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
        let mut hello = [0; 5];
        client.read_exact(&mut hello).await.unwrap();
        // What policies see is still known: who, and which path.
        for policies in [only("web"), Vec::new()] {
            proxy.replace(Setup { policies, ..setup() });
            client.write_all(b"ping").await.unwrap();
            let mut pong = [0; 4];
            client.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"ping");
        }
        proxy.replace(Setup { policies: only("other"), ..setup() });
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    });
}

#[test]
fn a_websocket_over_http2_ends_when_a_changed_policy_denies_it() {
    on_worker(async {
        let to = echo().await;
        let proxy = Setup::to(&[to]).start();
        let mut client = h2_client(proxy.connect()).await;
        client.ready().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut request =
            Request::builder().method(Method::CONNECT).uri("http://a/chat").body(Empty::<Bytes>::new()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let response = client.send_request(request).await.unwrap();
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut hello = [0; 5];
        io.read_exact(&mut hello).await.unwrap();
        proxy.replace(Setup { policies: only("other"), ..Setup::to(&[to]) });
        let mut rest = Vec::new();
        // Whether it sees an end or an error, it hears nothing more.
        let _ = io.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        // Requests of the same connection are judged by themselves.
        let other = Request::get("http://a/other").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client.send_request(other).await.unwrap().status(), 403);
    });
}

#[test]
fn an_upgrade_that_the_upstream_refuses_is_a_response_and_the_last_one() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let seen = proxy.raw(format!("{UPGRADE}{smuggled}").as_bytes()).await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("connection: close"), "{seen}");
        assert_eq!((server.count(), seen.matches("HTTP/1.1 ").count()), (1, 1));
    });
}

#[test]
fn an_upgrade_is_not_closed_by_a_bound_on_requests() {
    on_worker(async {
        let mut setup = Setup::to(&[echo().await]).rule(forward());
        let pool = l7::ConnectionPool { max_requests_per_connection: 1, ..l7::ConnectionPool::default() };
        setup.backends[0].0.policy =
            Some(l7::TrafficPolicy { connection_pool: Some(pool), ..l7::TrafficPolicy::default() });
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.write_all(UPGRADE.as_bytes()).await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
        let mut hello = [0; 5];
        client.read_exact(&mut hello).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"ping");
    });
}

#[test]
fn an_upstream_that_does_not_upgrade_has_not_granted_it_over_http2_either() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let mut client = h2_client(proxy.connect()).await;
        client.ready().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let request = Request::builder().method(Method::CONNECT).uri("http://a/chat");
        let mut request = request.body(Empty::<Bytes>::new()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        assert_eq!(client.send_request(request).await.unwrap().status(), 502);
        assert_eq!(server.count(), 1);
    });
}

#[test]
fn other_upgrades_are_refused_and_h2c_is_not_one() {
    on_worker(async {
        let server = Server::ok().await;
        let proxy = Setup::to(&[server.address]).start();
        let other = UPGRADE.replace("websocket", "foo");
        let seen = proxy.raw(format!("{other}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(seen.starts_with("HTTP/1.1 403 ") && seen.matches("HTTP/1.1 ").count() == 1, "{seen}");
        assert_eq!(server.count(), 0);
        let clear = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n";
        assert!(proxy.raw(clear.as_bytes()).await.starts_with("HTTP/1.1 200 OK\r\n"));
        let headers = server.last().headers;
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"));
    });
}
