//! What the application behind a tunnel gets: application tunnels, the PROXY protocol, ends and resets.

use std::net::SocketAddr;
use std::time::Duration;

use conformance::frames::{DATA, FLAG_1, HEADERS};
use conformance::isolated_test;
use conformance::peer::Client;
use conformance::wait::soon;
use conformance::wire::security::{Authorization, DENY, Match, NAMESPACE, exact, rule};
use conformance::wire::workload::{APP_TUNNEL_NONE, APP_TUNNEL_PROXY, ApplicationTunnel, Workload};
use conformance::world::{backing, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{Store, cancelled, rest};

/// A policy of the namespace `shop` with one match.
fn policy(name: &str, action: i32, one: Match) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: NAMESPACE,
        action,
        rules: vec![rule(vec![one])],
        ..Authorization::default()
    }
}

fn from(principal: &str) -> Match {
    Match { principals: vec![exact(principal)], ..Match::default() }
}

/// Gives `cart` an application tunnel.
async fn tunnelled(store: &Store, protocol: i32, port: u32) {
    let cart = Workload {
        application_tunnel: Some(ApplicationTunnel { protocol, port }),
        ..backing(workload(&store.cart, 1), &store.service, &[(80, 8080)])
    };
    store.world.ads.apply(vec![wl(&cart)]).await;
}

isolated_test! {
    async fn hbone_an_application_tunnel_gets_every_address_at_its_port() {
        let store = Store::open().await;
        tunnelled(&store, APP_TUNNEL_NONE, 15088).await;
        store.cart.serve_echo(15088);
        let client = store.client().await;
        for authority in ["10.1.0.77:8080", "10.200.0.1:443", "172.20.0.9:80"] {
            let mut tunnel = client.open(authority).await.unwrap().tunnel;
            tunnel.write_all(b"any").await.unwrap();
            tunnel.shutdown().await.unwrap();
            assert_eq!(rest(&mut tunnel).await.unwrap(), "10.1.0.5 said any", "{authority}");
        }
        assert_eq!(client.status("10.200.0.1:15006").await, 503, "checked before the tunnel's port counts");
    }
}

/// What a PROXY protocol header of version 2 says, with its length.
fn proxy_header(bytes: &[u8]) -> (SocketAddr, SocketAddr, Vec<(u8, Vec<u8>)>, usize) {
    assert_eq!(&bytes[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(bytes[12], 0x21, "version 2, command PROXY");
    let len = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let body = &bytes[16..16 + len];
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (source, destination, mut at) = match bytes[13] {
        0x11 => {
            let ip = |at: usize| <[u8; 4]>::try_from(&body[at..at + 4]).unwrap();
            (SocketAddr::from((ip(0), port(8))), SocketAddr::from((ip(4), port(10))), 12)
        }
        0x21 => {
            let ip = |at: usize| <[u8; 16]>::try_from(&body[at..at + 16]).unwrap();
            (SocketAddr::from((ip(0), port(32))), SocketAddr::from((ip(16), port(34))), 36)
        }
        other => panic!("family {other:#x}, wanted a stream of IPv4 or IPv6"),
    };
    let mut values = Vec::new();
    while at < len {
        let size = usize::from(u16::from_be_bytes([body[at + 1], body[at + 2]]));
        values.push((body[at], body[at + 3..at + 3 + size].to_vec()));
        at += 3 + size;
    }
    (source, destination, values, 16 + len)
}

isolated_test! {
    async fn hbone_the_proxy_protocol_header_tells_source_destination_and_identity() {
        let store = Store::open().await;
        tunnelled(&store, APP_TUNNEL_PROXY, 15088).await;
        // The tunnel's backend listens on loopback alone.
        let listener = store.cart.listen(([127, 0, 0, 1], 15088).into());
        let client = store.client().await;
        for (authority, destination) in [
            ("10.1.0.77:8080", "10.1.0.77:8080"),
            ("10.200.0.1:443", "10.200.0.1:443"),
            ("cart.shop.svc.cluster.local:80", "172.20.0.9:80"),
        ] {
            let mut tunnel = client.open(authority).await.unwrap().tunnel;
            let (mut app, caller) = soon("the backend is called", listener.accept()).await.unwrap();
            assert!(caller.ip().is_loopback(), "{caller}");
            tunnel.write_all(b"payload").await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            soon("header and payload", app.read_to_end(&mut bytes)).await.unwrap();
            let (source, to, values, len) = proxy_header(&bytes);
            assert_eq!(source, client.local, "the TCP peer of the tunnel");
            assert_eq!(to, destination.parse().unwrap());
            let identity = b"spiffe://cluster.local/ns/web/sa/api".to_vec();
            assert_eq!(values, [(0xd0, identity)]);
            assert_eq!(&bytes[len..], b"payload", "nothing comes before the header or between");
        }
        assert_eq!(client.status("nobody.example:80").await, 503);
    }
}

isolated_test! {
    async fn hbone_the_proxy_protocol_works_over_ipv6() {
        let store = Store::open().await;
        tunnelled(&store, APP_TUNNEL_PROXY, 15088).await;
        let listener = store.cart.listen(SocketAddr::new("::1".parse().unwrap(), 15088));
        let own = store.world.credentials(&store.peer.identity());
        let to = SocketAddr::new(store.cart.v6, 15008);
        let client = Client::connect(&store.peer, to, &own).await.unwrap();
        let authority = SocketAddr::new(store.cart.v6, 8080);
        let mut tunnel = client.open(&authority.to_string()).await.unwrap().tunnel;
        tunnel.shutdown().await.unwrap();
        let (mut app, _) = soon("the backend is called", listener.accept()).await.unwrap();
        let mut bytes = Vec::new();
        soon("the header", app.read_to_end(&mut bytes)).await.unwrap();
        let (source, destination, _, _) = proxy_header(&bytes);
        assert_eq!((source, destination), (client.local, authority));
    }
}

isolated_test! {
    async fn hbone_the_proxy_protocol_backend_can_be_the_pods_address() {
        let store = Store::open_with(&[("LOCALHOST_APP_TUNNEL", "false")]).await;
        tunnelled(&store, APP_TUNNEL_PROXY, 15088).await;
        let listener = store.cart.listen(store.cart.at(15088));
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        tunnel.shutdown().await.unwrap();
        let (mut app, caller) = soon("the backend is called", listener.accept()).await.unwrap();
        assert_eq!(caller.ip(), store.peer.v4, "the source address is kept");
        let mut bytes = Vec::new();
        soon("the header", app.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(proxy_header(&bytes).0, client.local);
    }
}

isolated_test! {
    async fn hbone_policy_holds_for_application_tunnels_with_the_tunnels_port() {
        let store = Store::open().await;
        tunnelled(&store, APP_TUNNEL_PROXY, 15088).await;
        let _listener = store.cart.listen(([127, 0, 0, 1], 15088).into());
        let deny = Match { destination_ports: vec![15088], ..from("cluster.local/ns/web/sa/api") };
        store.world.ads.apply(vec![conformance::ads::policy(&policy("no-tunnel", DENY, deny))]).await;
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 401);
    }
}

isolated_test! {
    async fn hbone_half_close_works_both_ways() {
        let store = Store::open().await;
        let listener = store.cart.listen_any(8080);
        let client = store.client().await;
        // The client finishes first.
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        let (mut app, _) = listener.accept().await.unwrap();
        tunnel.write_all(b"question").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut app).await.unwrap(), "question");
        app.write_all(b"answer").await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "answer");
        let last = client.frames.wait("END_STREAM", |f| f.kind == DATA && f.flags & FLAG_1 == 1).await;
        assert_eq!(last.stream, 1);
        // The application finishes first.
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        let (mut app, _) = listener.accept().await.unwrap();
        app.write_all(b"banner").await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "banner");
        tunnel.write_all(b"last words").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut app).await.unwrap(), "last words");
    }
}

isolated_test! {
    async fn hbone_resets_map_to_the_application_and_back() {
        let store = Store::open().await;
        let listener = store.cart.listen_any(8080);
        let client = store.client().await;
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
            let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
            let (mut app, _) = listener.accept().await.unwrap();
            tunnel.write_all(b"x").await.unwrap();
            assert_eq!(app.read_u8().await.unwrap(), b'x');
            tunnel.reset(reason);
            assert_eq!(rest(&mut app).await.unwrap(), "", "{reason} is a clean end");
        }
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        let (app, _) = listener.accept().await.unwrap();
        tunnel.write_all(b"x").await.unwrap();
        app.readable().await.unwrap();
        app.set_zero_linger().unwrap();
        drop(app);
        let ended = soon("the stream ends", tunnel.read(&mut [0; 1])).await;
        assert!(ended.map_or_else(|error| cancelled(&error), |read| read == 0));
        // The connection is as good as before.
        let _open = client.open(&store.authority(8080)).await.unwrap();
        assert!(!client.frames.ended());
    }
}

isolated_test! {
    async fn hbone_the_200_comes_after_the_application_has_answered() {
        let store = Store::open().await;
        // A full backlog: the application's port takes no connection.
        let listener = store.cart.netns.run(|| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([0, 0, 0, 0], 8080).into()).unwrap();
            socket.listen(1).unwrap()
        });
        let listener = listener.unwrap();
        let mut fill = Vec::new();
        for _ in 0..4 {
            let dial = store.cart.connect_marked(store.cart.at(8080));
            if let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), dial).await {
                fill.push(stream);
            }
        }
        let client = store.client().await;
        let authority = store.authority(8080);
        let open = client.open(&authority);
        tokio::pin!(open);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut open).await;
        assert!(early.is_err(), "answered before the application took the connection");
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        drop(fill);
        assert_eq!(soon("an answer", open).await.unwrap().status, 200);
        assert!(client.frames.all().iter().any(|frame| frame.kind == HEADERS));
    }
}

isolated_test! {
    async fn hbone_a_request_that_ends_its_own_direction_is_served() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let mut answer = store.client().await.open_ended(&store.authority(8080)).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(rest(&mut answer.tunnel).await.unwrap(), "10.1.0.5 said ");
    }
}
