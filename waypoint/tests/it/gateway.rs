//! Listeners of a gateway: server names, certificates, client certificates, PROXY headers.

use std::sync::Arc;
use std::time::Duration;

use mesh_identity::testing::{IssueOptions, TestCa, pem};
use mesh_wire::l7::resource::Kind;
use mesh_wire::l7::{self, Protocol, server_tls};
use mesh_wire::type_url;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::exchange;
use crate::endpoint::{Application, Endpoint, plain};
use crate::isolate::isolated_test;
use crate::resources::{self, address, allow, listener, service, workload};
use crate::world::World;

fn key_pair(ca: &TestCa, name: &str) -> l7::KeyPair {
    let options = IssueOptions { uris: vec![], dns_names: vec![name.into()], ..IssueOptions::default() };
    let issued = ca.issue_with(&options);
    l7::KeyPair { chain: pem(issued.leaf()).into_bytes(), key: issued.key_pem().into_bytes() }
}

fn secured(listener: l7::Listener, hostname: &str, tls: l7::ServerTls) -> l7::Listener {
    l7::Listener { hostname: hostname.into(), tls: Some(tls), ..listener }
}

async fn connect(ca: &TestCa, name: &str, port: u16, client: Option<&TestCa>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let issued = ca.issue_with(&IssueOptions::default());
            config.with_client_auth_cert(vec![issued.leaf().clone()], issued.key()).unwrap()
        }
    };
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await
}

async fn get(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), host: &str) -> String {
    let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

/// Services `one` and `two`, whose endpoints answer HTTP and bytes.
async fn services() -> (Endpoint, Endpoint, Vec<Arc<mesh_xds::server::Resource>>) {
    let one = Endpoint::start("127.0.0.2", "one", Application::Http(Duration::ZERO)).await;
    let two = Endpoint::start("127.0.0.3", "two", Application::Bytes("two")).await;
    let addresses = vec![
        service("one", "10.1.1.1", 80, 8080),
        service("two", "10.1.1.2", 80, 8080),
        address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)])),
        address(&workload("two-1", "127.0.0.3", "two", &[("two", 80, 8080)])),
    ];
    (one, two, addresses)
}

isolated_test! {
    async fn listeners_of_one_port_are_told_apart_by_server_name_and_by_host() {
        let (one, _two, addresses) = services().await;
        let ca = TestCa::new();
        let tls = |name: &str| l7::ServerTls { certificates: vec![key_pair(&ca, name)], ..l7::ServerTls::default() };
        let a = secured(listener("a", 8443, Protocol::Https, "one"), "a.example.com", tls("a.example.com"));
        let wide = secured(listener("wide", 8443, Protocol::Https, "one"), "*.example.com", tls("*.example.com"));
        let bytes = secured(listener("bytes", 8443, Protocol::Tls, "two"), "b.example.com", tls("b.example.com"));
        let _world = World::gateway(&[a, wide, bytes], addresses).await;
        let mut stream = connect(&ca, "a.example.com", 8443, None).await.unwrap();
        assert!(get(&mut stream, "a.example.com").await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(one.asked().last().unwrap().authority, "127.0.0.2:8080");
        let mut stream = connect(&ca, "c.example.com", 8443, None).await.unwrap();
        assert!(get(&mut stream, "c.example.com").await.starts_with("HTTP/1.1 200 OK"));
        // The host of another listener on a connection that this one's certificate was shown on.
        let mut stream = connect(&ca, "c.example.com", 8443, None).await.unwrap();
        assert!(get(&mut stream, "a.example.com").await.starts_with("HTTP/1.1 421 "));
        let stream = connect(&ca, "b.example.com", 8443, None).await.unwrap();
        assert_eq!(exchange(stream, "bytes").await, "two: bytes");
        assert!(connect(&ca, "other.org", 8443, None).await.is_err(), "no listener, no handshake");
    }
}

isolated_test! {
    async fn client_certificates_are_wanted_as_the_listener_says() {
        let (_one, _two, addresses) = services().await;
        let (ca, clients, strangers) = (TestCa::new(), TestCa::new(), TestCa::new());
        let tls = |wanted: server_tls::ClientCertificate| l7::ServerTls {
            certificates: vec![key_pair(&ca, "a.example.com")],
            client_certificate: wanted.into(),
            client_roots: clients.root_pem().into_bytes(),
            ..l7::ServerTls::default()
        };
        let on = |section: &str, port, wanted| secured(listener(section, port, Protocol::Https, "one"), "", tls(wanted));
        let listeners = [
            on("required", 8441, server_tls::ClientCertificate::Required),
            on("optional", 8442, server_tls::ClientCertificate::Optional),
            on("unverified", 8443, server_tls::ClientCertificate::Unverified),
        ];
        let _world = World::gateway(&listeners, addresses).await;
        for (port, nobody, known, stranger) in
            [(8441, false, true, false), (8442, true, true, false), (8443, true, true, true)]
        {
            for (client, expected) in [(None, nobody), (Some(&clients), known), (Some(&strangers), stranger)] {
                let served = match connect(&ca, "a.example.com", port, client).await {
                    Ok(mut stream) => get(&mut stream, "a.example.com").await.starts_with("HTTP/1.1 200 OK"),
                    Err(_) => false,
                };
                assert_eq!(served, expected, "port {port}, a client: {}", client.is_some());
            }
        }
    }
}

isolated_test! {
    async fn hosts_of_plain_listeners_are_told_apart_by_request() {
        let (_one, _two, addresses) = services().await;
        let a = l7::Listener { hostname: "a.example.com".into(), ..listener("a", 8080, Protocol::Http, "one") };
        let _world = World::gateway(&[a], addresses).await;
        let mut stream = TcpStream::connect("127.0.0.1:8080").await.unwrap();
        assert!(get(&mut stream, "A.example.com:8080").await.starts_with("HTTP/1.1 200 OK"));
        let mut stream = TcpStream::connect("127.0.0.1:8080").await.unwrap();
        assert!(get(&mut stream, "b.example.com").await.starts_with("HTTP/1.1 404 "));
    }
}

/// A WebSocket to this host at port 8080, granted.
async fn websocket(host: &str) -> TcpStream {
    let mut stream = TcpStream::connect("127.0.0.1:8080").await.unwrap();
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

isolated_test! {
    async fn a_policy_that_turns_against_an_open_websocket_cuts_it_and_not_that_of_another_host() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::WebSocket).await;
        let pod = address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)]));
        let on = |section: &str, host: &str| {
            let listener = listener(section, 8080, Protocol::Http, "one");
            l7::Listener { hostname: host.into(), ..listener }
        };
        let (a, b) = (on("a", "a.example.com"), on("b", "b.example.com"));
        let world = World::gateway(&[a.clone(), b], vec![service("one", "10.1.1.1", 80, 8080), pod]).await;
        let (mut cut, mut kept) = (websocket("a.example.com").await, websocket("b.example.com").await);
        let mut pong = [0; 4];
        for stream in [&mut cut, &mut kept] {
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"ping");
        }
        let guarded = l7::Listener { authorizations: vec![allow("only-b", "cluster.local/ns/ns1/sa/b")], ..a };
        let name = format!("{}/listener/a", resources::GATEWAY);
        world.publish(type_url::L7, vec![resources::l7(&name, Kind::Listener(guarded))]);
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), cut.read_to_end(&mut rest)).await.expect("cut").ok();
        assert!(rest.is_empty());
        kept.write_all(b"more").await.unwrap();
        kept.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"more");
        let told = |line: &str| line.contains("/chat") && line.contains("LR") && line.contains("only-b");
        world.eventually("the log says which policy", async |world| world.log().lines().any(told)).await;
    }
}

isolated_test! {
    async fn tls_is_passed_through_by_server_name_and_bytes_go_to_their_listener() {
        let (_one, _two, mut addresses) = services().await;
        plain("127.0.0.4:8080", Application::Bytes("plain")).await;
        let mut outside = workload("outside-1", "127.0.0.4", "outside", &[("outside", 80, 8080)]);
        outside.tunnel_protocol = 0;
        addresses.extend([service("outside", "10.1.1.3", 80, 8080), address(&outside)]);
        let passthrough = l7::ServerTls { mode: server_tls::Mode::Passthrough.into(), ..l7::ServerTls::default() };
        let through = secured(listener("through", 8443, Protocol::Tls, "two"), "two.example.com", passthrough);
        let bytes = listener("bytes", 9000, Protocol::Tcp, "outside");
        let _world = World::gateway(&[through, bytes], addresses).await;
        let stream = TcpStream::connect("127.0.0.1:9000").await.unwrap();
        assert_eq!(exchange(stream, "hello").await, "plain: hello");
        let mut stream = TcpStream::connect("127.0.0.1:8443").await.unwrap();
        stream.write_all(&client_hello("two.example.com")).await.unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"two: ", "the endpoint got the hello, not the gateway");
    }
}

isolated_test! {
    async fn a_listener_behind_a_balancer_takes_the_clients_address_from_its_header_and_insists_on_it() {
        let (_one, _two, addresses) = services().await;
        let behind = l7::Listener { proxy_protocol: true, ..listener("a", 8080, Protocol::Http, "one") };
        let _world = World::gateway(&[behind], addresses).await;
        let mut stream = TcpStream::connect("127.0.0.1:8080").await.unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 8080\r\n").await.unwrap();
        let answer = get(&mut stream, "a.example.com").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
        let mut stream = TcpStream::connect("127.0.0.1:8080").await.unwrap();
        assert_eq!(get(&mut stream, "a.example.com").await, "");
    }
}

pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
