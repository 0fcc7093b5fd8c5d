//! Tunnels and TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::Identity;
use mesh_hbone::{H2Stream, ServerConnection, Settings, tls};
use mesh_identity::testing::{IssueOptions, TestCa};
use mesh_wire::l7;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fixture::*;
use crate::endpoints::{Endpoint, Place, Transport};
use crate::report::Flags;
use crate::upstream::host::testing::{endpoint, shared_of};
use crate::upstream::*;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const APP: &str = "10.99.0.7:8080";

/// A node's proxy in front of an application. Tells the authorities that were asked for.
struct Node {
    address: SocketAddr,
    asked: std::rc::Rc<std::cell::RefCell<Vec<String>>>,
    connections: std::rc::Rc<std::cell::Cell<u32>>,
}

async fn node<F, Fut>(ca: &TestCa, status: StatusCode, app: F) -> Node
where
    F: Fn(H2Stream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cert = ca.issue(&CART.parse().unwrap());
    let (listener, address) = listen().await;
    let (asked, connections) = (std::rc::Rc::default(), std::rc::Rc::default());
    let node = Node { address, asked, connections };
    let (asked, connections) = (node.asked.clone(), node.connections.clone());
    let app = std::rc::Rc::new(app);
    tokio::task::spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(accepted) = tls::accept(tcp, cert.server_config()).await else { continue };
            assert_eq!(accepted.peer.unwrap().service_account(), "waypoint");
            connections.set(connections.get() + 1);
            let (asked, app) = (asked.clone(), app.clone());
            tokio::task::spawn_local(async move {
                let mut server = ServerConnection::handshake(accepted.stream, &Settings::default()).await.unwrap();
                while let Some(Ok(request)) = server.next().await {
                    asked.borrow_mut().push(request.authority().unwrap().to_owned());
                    if status == StatusCode::OK {
                        tokio::task::spawn_local(app(request.accept(None).unwrap()));
                    } else {
                        request.reject(status);
                    }
                }
            });
        }
    });
    node
}

async fn serve_http(io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let bytes = request.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(http::Response::new(Full::<Bytes>::new(bytes)))
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

fn behind(node: &Node, expected: &str) -> Endpoint {
    let expected: Arc<[Identity]> = [expected.parse().unwrap()].into();
    Endpoint { transport: Transport::Hbone { proxy: node.address, expected }, ..endpoint(APP) }
}

fn mesh(ca: &Arc<TestCa>, list: Vec<Endpoint>, edit: impl FnOnce(&mut l7::Backend)) -> Upstream {
    upstream_of(shared_of(ca.clone(), Place::default()), list, edit)
}

#[tokio::test]
async fn requests_go_through_a_tunnel_to_the_endpoint() {
    worker(async {
        let ca = Arc::new(TestCa::new());
        let node = node(&ca, StatusCode::OK, serve_http).await;
        let upstream = mesh(&ca, vec![behind(&node, CART)], |_| ());
        for body in ["one", "two"] {
            assert_eq!(upstream.exchange(body).await.unwrap(), body);
        }
        assert_eq!(*node.asked.borrow(), [APP], "one inner connection serves both");
        let held = upstream.send(post("held")).await.unwrap();
        upstream.exchange("three").await.unwrap();
        assert_eq!((node.asked.borrow().len(), node.connections.get()), (2, 1), "one tunnel holds both");
        drop(held);
    })
    .await;
}

#[tokio::test]
async fn only_the_identity_of_the_endpoint_will_do() {
    worker(async {
        let ca = Arc::new(TestCa::new());
        let node = node(&ca, StatusCode::OK, serve_http).await;
        let upstream = mesh(&ca, vec![behind(&node, "spiffe://cluster.local/ns/shop/sa/other")], |_| ());
        let failure = upstream.exchange("x").await.unwrap_err();
        assert_eq!(failure.error.flag(), Flags::UF);
        assert!(
            failure.to_string().contains("server certificate is for") && failure.to_string().contains(CART),
            "{failure}"
        );
        assert!(node.asked.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_refused_tunnel_is_a_failed_connect_with_the_peers_reason() {
    worker(async {
        let ca = Arc::new(TestCa::new());
        for (status, reason) in [
            (StatusCode::UNAUTHORIZED, "tunnel refused with status 401: refused by policy at the destination"),
            (StatusCode::SERVICE_UNAVAILABLE, "tunnel refused with status 503: the destination cannot reach"),
            (StatusCode::BAD_REQUEST, "tunnel refused with status 400: the destination does not serve"),
        ] {
            let node = node(&ca, status, serve_http).await;
            let upstream = mesh(&ca, vec![behind(&node, CART)], |_| ());
            let failure = upstream.exchange("x").await.unwrap_err();
            assert!(failure.error.is_connect_failure() && failure.error.flag() == Flags::UF, "{failure}");
            assert!(failure.error.body_text().contains(reason), "{}", failure.error.body_text());
        }
    })
    .await;
}

#[tokio::test]
async fn a_byte_stream_runs_through_a_tunnel() {
    worker(async {
        let ca = Arc::new(TestCa::new());
        let echo = |mut stream: H2Stream| async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                let _ = stream.write_all(&byte).await;
            }
        };
        let node = node(&ca, StatusCode::OK, echo).await;
        let upstream = mesh(&ca, vec![behind(&node, CART)], |_| ());
        let (mut io, _) = upstream.upstreams.connect(&upstream.cluster, &PickContext::default()).await.unwrap();
        assert!(io.tunnel().is_some() && io.tcp().is_none());
        io.write_all(b"!").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'!');
    })
    .await;
}

#[tokio::test]
async fn another_network_is_reached_by_a_tunnel_within_a_tunnel() {
    worker(async {
        let ca = Arc::new(TestCa::new());
        let inner: Identity = "spiffe://cluster.local/ns/shop/sa/far".parse().unwrap();
        let far = ca.issue(&inner);
        // The gateway hands the bytes on; here the far end sits right behind it.
        let gateway = node(&ca, StatusCode::OK, move |stream| {
            let far = far.clone();
            async move {
                let Ok(accepted) = tls::accept(stream, far.server_config()).await else { return };
                let mut server = ServerConnection::handshake(accepted.stream, &Settings::default()).await.unwrap();
                while let Some(Ok(request)) = server.next().await {
                    assert_eq!(request.authority(), Some("cart.shop:80"));
                    assert!(request.headers().contains_key("x-forwarded-network"));
                    tokio::task::spawn_local(serve_http(request.accept(None).unwrap()));
                }
            }
        })
        .await;
        let remote = |expected: &Identity| Endpoint {
            transport: Transport::Nested {
                gateway: gateway.address,
                gateway_expected: [CART.parse().unwrap()].into(),
                authority: "cart.shop:80".into(),
                expected: [expected.clone()].into(),
            },
            ..endpoint(APP)
        };
        let upstream = mesh(&ca, vec![remote(&inner)], |_| ());
        for body in ["one", "two"] {
            assert_eq!(upstream.exchange(body).await.unwrap(), body);
        }
        assert_eq!(gateway.asked.borrow().as_slice(), ["cart.shop:80", "cart.shop:80"], "one request for each");
        let wrong = mesh(&ca, vec![remote(&CART.parse().unwrap())], |_| ());
        let failure = wrong.exchange("x").await.unwrap_err();
        assert!(failure.error.body_text().contains("TLS error behind the gateway"), "{failure}");
    })
    .await;
}

fn server_tls(ca: &TestCa) -> tokio_rustls::TlsAcceptor {
    let options = IssueOptions { dns_names: vec!["shop.example".into()], ..IssueOptions::default() };
    let leaf = ca.issue_with(&options);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.leaf().clone()], leaf.key()).unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

fn originate(ca: &TestCa) -> impl FnOnce(&mut l7::Backend) {
    let roots = ca.root_pem().into_bytes();
    move |backend| {
        let tls = l7::ClientTls { mode: l7::client_tls::Mode::Simple.into(), roots, ..Default::default() };
        backend.policy.as_mut().unwrap().tls = Some(tls);
    }
}

#[tokio::test]
async fn tls_is_originated_to_the_outside_and_inside_a_tunnel() {
    worker(async {
        let (ca, public) = (Arc::new(TestCa::new()), TestCa::new());
        let acceptor = server_tls(&public);
        let outside = acceptor.clone();
        let address = by_hand(move |tcp, _| {
            let outside = outside.clone();
            async move {
                if let Ok(tls) = outside.accept(tcp).await {
                    serve_http(tls).await;
                }
            }
        })
        .await;
        let node = node(&ca, StatusCode::OK, move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(tls) = acceptor.accept(stream).await {
                    serve_http(tls).await;
                }
            }
        })
        .await;
        for endpoint in [at(address), behind(&node, CART)] {
            let upstream = mesh(&ca, vec![endpoint], originate(&public));
            assert_eq!(upstream.exchange("one").await.unwrap(), "one");
            assert_eq!(upstream.exchange("two").await.unwrap(), "two");
            assert_eq!(upstream.count("upstream_cx_total"), 1);
            // Another host is another server: nothing is shared, and nobody proves that name.
            let mut other = post("x");
            *other.uri_mut() = "http://other.example/".parse().unwrap();
            let failure = upstream.send(other).await.unwrap_err();
            assert!(failure.error.body_text().contains("TLS error"), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_connection_does_not_get_one_to_another_host() {
    worker(async {
        let (ca, public) = (Arc::new(TestCa::new()), TestCa::new());
        let acceptor = server_tls(&public);
        let address = by_hand(move |tcp, _| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    serve_http(tls).await;
                }
            }
        })
        .await;
        let upstream = mesh(&ca, vec![at(address)], |backend| {
            originate(&public)(backend);
            pool(|pool| pool.max_connections = 1)(backend);
        });
        let held = upstream.send(post("held")).await.unwrap();
        let mut other = post("x");
        *other.uri_mut() = "http://other.example/".parse().unwrap();
        let mut waiting = Box::pin(upstream.send(other));
        assert!(futures::poll!(&mut waiting).is_pending());
        held.response.into_body().collect().await.unwrap();
        let failure = waiting.await.unwrap_err();
        assert!(failure.error.body_text().contains("TLS error"), "{failure}");
    })
    .await;
}
