//! Tunnels and plaintext that arrive at an enrolled pod, sent by peers that need not be proxies.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use mesh_hbone::{OpenError, Pool, PoolKey, Settings};
use mesh_identity::WorkloadCert;
use mesh_identity::testing::IssueOptions;
use tokio::io::AsyncReadExt;
use tokio::task::LocalSet;
use ztunnel::config::OriginalSource;
use ztunnel::dial::{HboneDialer, Sockets};

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Enrolled, Mesh, identity_of, log_line};

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Opens one stream to the proxy of `cart` from the pod of `web`, as no proxy would.
async fn open(mesh: &Mesh, method: Method, authority: &str) -> Result<http::HeaderMap, OpenError> {
    LocalSet::new()
        .run_until(async {
            // Marked, so that the pod's own rules leave the connection alone.
            let sockets = Sockets::new(mesh.web.netns.clone(), Some(1337), None, OriginalSource::Off);
            let dialer = HboneDialer::new(Rc::new(sockets), mesh.web_node.shared.certs.clone());
            let pool = Pool::new(dialer, Settings::default());
            let key = PoolKey {
                source: identity_of(&mesh.web),
                expected: vec![identity_of(&mesh.cart)],
                upstream: SocketAddr::new(mesh.cart.v4, 15008),
                source_ip: mesh.web.v4,
            };
            let uri = if method == Method::CONNECT { authority.to_owned() } else { format!("https://{authority}/") };
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            pool.open(&key, request).await.map(|opened| opened.headers)
        })
        .await
}

async fn status(mesh: &Mesh, method: Method, authority: &str) -> StatusCode {
    match open(mesh, method, authority).await {
        Ok(_) => StatusCode::OK,
        Err(OpenError::Refused { status, .. }) => status,
        Err(other) => panic!("{other}"),
    }
}

isolated_test! {
    async fn hbone_row_12_13_14_and_16_odd_requests_get_their_status() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let cart = mesh.cart.v4;
        let table = [
            (Method::CONNECT, format!("{cart}:{APP_PORT}"), StatusCode::OK),
            (Method::GET, format!("{cart}:{APP_PORT}"), StatusCode::BAD_REQUEST),
            (Method::CONNECT, format!("10.255.0.99:{APP_PORT}"), StatusCode::BAD_REQUEST),
            (Method::CONNECT, format!("{cart}:15006"), StatusCode::SERVICE_UNAVAILABLE),
            (Method::CONNECT, format!("{cart}:15008"), StatusCode::SERVICE_UNAVAILABLE),
            (Method::CONNECT, format!("{cart}:9"), StatusCode::SERVICE_UNAVAILABLE),
            (Method::CONNECT, "unknown.example:80".to_owned(), StatusCode::SERVICE_UNAVAILABLE),
            (Method::CONNECT, "cart.shop.svc.cluster.local:80".to_owned(), StatusCode::OK),
        ];
        for (method, authority, expected) in table {
            assert_eq!(status(&mesh, method.clone(), &authority).await, expected, "{method} {authority}");
        }
    }
}

isolated_test! {
    async fn who_has_not_proven_who_he_is_never_reaches_a_worker() {
        let mesh = Mesh::start(Enrolled { web: false, cart: true }).await;
        mesh.cart.serve_echo(APP_PORT);
        let tasks = || {
            let of = |acceptors: bool| {
                let threads = mesh.cart_node.shared.workers.metrics();
                let chosen = threads.iter().filter(|(name, _)| name.starts_with("accept-") == acceptors);
                chosen.map(|(_, runtime)| runtime.num_alive_tasks()).sum::<usize>()
            };
            (of(false), of(true))
        };
        let (workers, acceptors) = tasks();
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(mesh.web.connect(SocketAddr::new(mesh.cart.v4, 15008)).await.unwrap());
        }
        eventually("strangers are with acceptors", || tasks().1 == acceptors + 20).await;
        assert!(tasks().0 <= workers, "{} tasks of workers, {workers} before", tasks().0);
        assert_eq!(status(&mesh, Method::CONNECT, &mesh.app().to_string()).await, StatusCode::OK);
        drop(strangers);
        eventually("acceptors keep nobody", || tasks().1 == acceptors).await;
    }
}

isolated_test! {
    async fn a_success_carries_the_baggage_of_the_destination() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let headers = open(&mesh, Method::CONNECT, &mesh.app().to_string()).await.unwrap();
        let baggage = mesh_hbone::Baggage::decode(&headers).unwrap();
        assert_eq!(baggage.namespace.as_deref(), Some("shop"));
        assert_eq!(baggage.workload.as_deref(), Some("cart"));
    }
}

isolated_test! {
    async fn hbone_row_18_baggage_in_responses_can_be_switched_off() {
        let mesh = Mesh::start_with(BOTH, &[("ENABLE_RESPONSE_BAGGAGE", "false")]).await;
        mesh.cart.serve_echo(APP_PORT);
        let headers = open(&mesh, Method::CONNECT, &mesh.app().to_string()).await.unwrap();
        assert!(!headers.contains_key("baggage"), "{headers:?}");
    }
}

isolated_test! {
    async fn hbone_row_11_a_client_of_another_trust_domain_is_refused_and_named() {
        let mesh = Mesh::start(BOTH).await;
        let foreign: mesh_core::Identity = "spiffe://other.example/ns/shop/sa/web".parse().unwrap();
        let options = IssueOptions { uris: vec![foreign.to_string()], ..IssueOptions::default() };
        let cert = mesh.ca.issue_for(&foreign, &options);
        assert!(handshake(&mesh, &cert).await.is_err());
        let words = "client certificate is for spiffe://other.example/ns/shop/sa/web, wanted trust domain cluster.local";
        log_line(&["connection failed", &mesh.web.v4.to_string(), words]).await;
    }
}

isolated_test! {
    async fn an_expired_client_is_refused_and_named() {
        let mesh = Mesh::start(BOTH).await;
        let web = identity_of(&mesh.web);
        let options = IssueOptions {
            uris: vec![web.to_string()],
            not_before_seconds: -7200,
            not_after_seconds: -3600,
            ..IssueOptions::default()
        };
        let cert = mesh.ca.issue_for(&web, &options);
        assert!(handshake(&mesh, &cert).await.is_err());
        log_line(&["connection failed", &mesh.web.v4.to_string(), "certificate expired"]).await;
    }
}

isolated_test! {
    async fn garbage_on_the_tunnel_port_is_refused_and_the_proxy_lives_on() {
        let mesh = Mesh::start(Enrolled { web: false, cart: true }).await;
        mesh.cart.serve_echo(APP_PORT);
        let port = SocketAddr::new(mesh.cart.v4, 15008);
        let answer = mesh.web.ask(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!answer.unwrap_or_default().contains("HTTP"));
        log_line(&["connection failed", &mesh.web.v4.to_string(), "TLS handshake failed"]).await;
        assert!(mesh.web.ask(mesh.app(), "still there?").await.unwrap().ends_with("still there?"));
    }
}

isolated_test! {
    async fn silent_clients_do_not_keep_others_from_their_handshakes() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let sockets = Sockets::new(mesh.web.netns.clone(), Some(1337), None, OriginalSource::Off);
        let port = SocketAddr::new(mesh.cart.v4, 15008);
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(sockets.connect(port, None).await.unwrap());
        }
        let app = mesh.app().to_string();
        let dial = open(&mesh, Method::CONNECT, &app);
        tokio::time::timeout(Duration::from_secs(2), dial).await.expect("a turn in time").unwrap();
    }
}

isolated_test! {
    async fn plaintext_from_outside_keeps_its_source_address() {
        let mesh = Mesh::start(Enrolled { web: false, cart: true }).await;
        mesh.cart.serve_echo(APP_PORT);
        assert_eq!(mesh.web.ask(mesh.app(), "plain").await.unwrap(), format!("{} said plain", mesh.web.v4));
        let six = SocketAddr::new(mesh.cart.v6, APP_PORT);
        assert_eq!(mesh.web.ask(six, "six").await.unwrap(), format!("{} said six", mesh.web.v6));
    }
}

/// A bare handshake with the proxy of `cart`; reads once, because a refusal comes after the client's part.
async fn handshake(mesh: &Mesh, cert: &Arc<WorkloadCert>) -> Result<(), String> {
    let addr = SocketAddr::new(mesh.cart.v4, 15008);
    let sockets = Sockets::new(mesh.web.netns.clone(), Some(1337), None, OriginalSource::Off);
    let tcp = sockets.connect(addr, None).await.map_err(|e| e.to_string())?;
    let expected = [identity_of(&mesh.cart)];
    let mut stream = mesh_hbone::tls::connect(tcp, cert, &expected).await.map_err(|e| e.reason)?;
    stream.read_u8().await.map(drop).map_err(|e| e.to_string())
}
