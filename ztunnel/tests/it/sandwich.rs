//! An application that terminates tunnels itself: its proxy hands over connections with a PROXY header.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{Method, Request, StatusCode};
use mesh_hbone::{OpenError, Pool, PoolKey, Settings};
use mesh_wire::workload as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use wire::address::Type;
use ztunnel::config::OriginalSource;
use ztunnel::dial::{HboneDialer, Sockets};

use crate::isolate::isolated_test;
use crate::mesh::{BOTH, Mesh, identity_of, workload};

const TUNNEL_PORT: u16 = 15088;

/// Sends `payload` to the proxy of `cart` under `authority` from the pod of `web`.
async fn send(mesh: &Mesh, authority: &str, payload: &[u8]) -> Result<(), OpenError> {
    LocalSet::new()
        .run_until(async {
            let sockets = Sockets::new(mesh.web.netns.clone(), Some(1337), None, OriginalSource::Off);
            let dialer = HboneDialer::new(Rc::new(sockets), mesh.web_node.shared.certs.clone());
            let pool = Pool::new(dialer, Settings::default());
            let key = PoolKey {
                source: identity_of(&mesh.web),
                expected: vec![identity_of(&mesh.cart)],
                upstream: SocketAddr::new(mesh.cart.v4, 15008),
                source_ip: mesh.web.v4,
            };
            let request = Request::builder().method(Method::CONNECT).uri(authority).body(()).unwrap();
            let mut stream = pool.open(&key, request).await?.stream;
            stream.write_all(payload).await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            Ok(())
        })
        .await
}

/// Makes `cart` an application that takes the PROXY protocol on [`TUNNEL_PORT`].
fn sandwich(mesh: &mut Mesh) {
    let tunnel = wire::ApplicationTunnel { protocol: 1, port: TUNNEL_PORT.into() };
    let cart = wire::Workload { application_tunnel: Some(tunnel), ..workload(&mesh.cart, true, &[]) };
    mesh.cart_node.tell([Type::Workload(cart)]);
}

/// All bytes of the first connection, and where it came from.
fn first(listener: TcpListener) -> oneshot::Receiver<(SocketAddr, Vec<u8>)> {
    let (done, received) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        done.send((peer, bytes)).unwrap();
    });
    received
}

/// Splits signature, addresses and TLVs from the payload, as the application would.
fn parse(bytes: &[u8]) -> (SocketAddr, SocketAddr, Vec<(u8, String)>, Vec<u8>) {
    assert_eq!(&bytes[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "version 2, PROXY, TCP over IPv4");
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (block, payload) = bytes[16..].split_at(length);
    let ip = |at: usize| std::net::Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]);
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let (source, destination) = (SocketAddr::from((ip(0), port(8))), SocketAddr::from((ip(4), port(10))));
    let (mut tlvs, mut rest) = (Vec::new(), &block[12..]);
    while let [kind, high, low, more @ ..] = rest {
        let (value, next) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, String::from_utf8(value.to_vec()).unwrap()));
        rest = next;
    }
    (source, destination, tlvs, payload.to_vec())
}

isolated_test! {
    async fn a_proxy_header_precedes_the_payload_and_names_who_calls() {
        let mut mesh = Mesh::start(BOTH).await;
        sandwich(&mut mesh);
        let received = first(mesh.cart.listen(SocketAddr::from(([127, 0, 0, 1], TUNNEL_PORT))));
        // Any address is taken: the application decides.
        send(&mesh, "198.51.100.7:443", b"payload").await.unwrap();
        let (peer, bytes) = received.await.unwrap();
        assert!(peer.ip().is_loopback(), "{peer}");
        let (source, destination, tlvs, payload) = parse(&bytes);
        assert_eq!(source.ip(), mesh.web.v4);
        assert_ne!(source.port(), 0);
        assert_eq!(destination, "198.51.100.7:443".parse().unwrap());
        assert_eq!(tlvs, [(0xD0, identity_of(&mesh.web).to_string())]);
        assert_eq!(payload, b"payload");
    }
}

isolated_test! {
    async fn a_host_name_is_announced_as_the_services_address() {
        let mut mesh = Mesh::start(BOTH).await;
        sandwich(&mut mesh);
        let received = first(mesh.cart.listen(SocketAddr::from(([127, 0, 0, 1], TUNNEL_PORT))));
        send(&mesh, "cart.shop.svc.cluster.local:80", b"x").await.unwrap();
        let (_, destination, _, _) = parse(&received.await.unwrap().1);
        assert_eq!(destination, mesh.vip);
    }
}

isolated_test! {
    async fn without_loopback_the_application_sees_the_client_as_its_peer() {
        let mut mesh = Mesh::start_with(BOTH, &[("LOCALHOST_APP_TUNNEL", "false")]).await;
        sandwich(&mut mesh);
        let received = first(mesh.cart.listen(SocketAddr::new(mesh.cart.v4, TUNNEL_PORT)));
        send(&mesh, "198.51.100.7:443", b"payload").await.unwrap();
        let (peer, bytes) = received.await.unwrap();
        assert_eq!(peer.ip(), mesh.web.v4);
        assert_eq!(parse(&bytes).3, b"payload");
    }
}

isolated_test! {
    async fn hbone_row_16_an_application_that_does_not_listen_is_unavailable_before_anything_is_sent() {
        let mut mesh = Mesh::start(BOTH).await;
        sandwich(&mut mesh);
        let error = send(&mesh, "198.51.100.7:443", b"payload").await.unwrap_err();
        assert!(matches!(error, OpenError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }), "{error}");
    }
}

isolated_test! {
    async fn hbone_row_15_policy_is_asked_about_the_application_before_it_hears_anything() {
        use mesh_wire::security;
        let mut mesh = Mesh::start(BOTH).await;
        sandwich(&mut mesh);
        let listener = mesh.cart.listen(SocketAddr::from(([127, 0, 0, 1], TUNNEL_PORT)));
        let matches = vec![security::Match { destination_ports: vec![TUNNEL_PORT.into()], ..Default::default() }];
        mesh.policy(security::Authorization {
            name: "closed".into(),
            namespace: "shop".into(),
            scope: security::Scope::Namespace.into(),
            action: security::Action::Deny.into(),
            rules: vec![security::Rule { clauses: vec![security::Clause { matches }] }],
            ..Default::default()
        });
        let error = send(&mesh, "198.51.100.7:443", b"payload").await.unwrap_err();
        assert!(matches!(error, OpenError::Refused { status: StatusCode::UNAUTHORIZED, .. }), "{error}");
        assert!(futures::poll!(Box::pin(listener.accept())).is_pending());
    }
}
