//! Every kind of port of a waypoint is for its own service alone, whatever is said in the tunnel; and a tunnel is all that
//! may be asked for.

use mesh_wire::l7::{self, Protocol};

use crate::frames::{Client, DATA, END_STREAM, End, block, frame, headers, request};
use crate::isolate::isolated_test;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::tunnel::Tunnels;
use crate::world::World;

const REVIEWS: Service = Service::http1("reviews", 9000);
const OTHER: Service = Service::http1("other", 9001);
const VIP: &str = "10.1.1.5";

fn waypoint_proxy() -> l7::Proxy {
    resources::proxy(l7::proxy::Role::Waypoint, l7::Settings::default())
}

/// Sayings that name somebody else.
const SAYINGS: [&str; 6] = [
    "CONNECT 127.0.0.1:9001 HTTP/1.1\r\nhost: 127.0.0.1:9001\r\n\r\nGET /y HTTP/1.1\r\nhost: y\r\n\r\n",
    "GET http://127.0.0.1:9001/x HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: other.shop.svc.cluster.local\r\nconnection: close\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: 127.0.0.1:9001\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "PROXY TCP4 127.0.0.1 127.0.0.1 4000 9001\r\n\r\n",
    "\u{5}\u{1}\0\u{5}\u{1}\0\u{1}\u{7f}\0\0\u{1}#)",
];

isolated_test! {
    async fn whatever_is_said_in_a_tunnel_leads_to_its_service_alone() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let kinds = [
            (1001, Protocol::Http),
            (1002, Protocol::Http2),
            (1003, Protocol::Grpc),
            (1004, Protocol::GrpcWeb),
            (1005, Protocol::Tls),
            (1006, Protocol::Tcp),
            (1007, Protocol::Detect),
        ];
        let ports: Vec<_> = kinds.iter().map(|(port, kind)| resources::port(REVIEWS, VIP, *port, *kind)).collect();
        let _world = World::waypoint(waypoint_proxy(), &ports, &[REVIEWS, OTHER]).await;
        let tunnels = Tunnels::new().await;
        for (port, kind) in kinds {
            let authority = format!("{VIP}:{port}");
            let opaque = matches!(kind, Protocol::Tcp | Protocol::Tls);
            for saying in SAYINGS {
                if saying.starts_with("CONNECT") && !opaque {
                    let answer = tunnels.ask(&authority, saying).await;
                    assert_eq!((answer.status, answer.responses()), (Some(404), 1), "{kind:?}: {answer:?}");
                } else {
                    tunnels.ask_briefly(&authority, saying).await;
                }
            }
            let mut client = Client::over(tunnels.open(&authority).await.unwrap()).await;
            let get = [(":method", "GET"), (":scheme", "http"), (":authority", "127.0.0.1:9001"), (":path", "/x")];
            client.send(&request(1, &get)).await;
            let connect = [(":method", "CONNECT"), (":authority", "127.0.0.1:9001")];
            client.send(&[headers(3, 0, &block(&connect)), frame(DATA, 0, 3, b"GET /y HTTP/1.1\r\n\r\n")].concat()).await;
            if !opaque {
                assert!(matches!(client.end(3).await, End::Status(400 | 404) | End::Reset(1..)), "{kind:?}");
            }
        }
        assert_eq!(other.all(), "", "somebody else was reached");
        assert!(reviews.heads().iter().any(|head| head.contains("host: 127.0.0.1:9001\r\n")), "{:?}", reviews.heads());
    }
}

isolated_test! {
    async fn a_wildcard_service_is_for_hosts_under_its_wildcard_alone() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let outside = l7::Backend {
            dynamic_wildcard: "*.example.com".into(),
            external: true,
            port: OTHER.target.into(),
            ..OTHER.backend()
        };
        let port = |number, kind| l7::Port { backends: vec![outside.clone()], ..resources::port(OTHER, VIP, number, kind) };
        let ports = [port(80, Protocol::Http), port(443, Protocol::Tls)];
        let _world = World::waypoint(waypoint_proxy(), &ports, &[REVIEWS, OTHER]).await;
        let tunnels = Tunnels::new().await;
        let hosts = [
            "127.0.0.1", "127.0.0.1:9001", "localhost", "localhost:9001", "[::1]:9001", "169.254.169.254", "example.com", "example.com.",
            "aexample.com", "a.example.com.evil.org", "other.shop.svc.cluster.local", "a..example.com", ".example.com", "*.example.com",
        ];
        for host in hosts {
            for request in [
                format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
                format!("GET http://{host}/x HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n"),
            ] {
                let answer = tunnels.ask("10.1.1.5:80", &request).await;
                assert!(matches!(answer.status, Some(400 | 404)), "{request:?}: {answer:?}");
            }
        }
        // Under the wildcard it is tried, though there is nobody to ask for its address here.
        let answer = tunnels.ask("10.1.1.5:80", "GET /x HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n").await;
        assert_eq!(answer.status, Some(503), "{answer:?}");
        for saying in SAYINGS {
            let answer = tunnels.ask("10.1.1.5:443", saying).await;
            assert!(answer.closed && answer.text.is_empty(), "{answer:?}");
        }
        assert_eq!(reviews.all() + &other.all(), "");
    }
}

isolated_test! {
    async fn a_tunnel_is_all_that_may_be_asked_for() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let port = resources::port(REVIEWS, VIP, 9080, Protocol::Http);
        let _world = World::waypoint(waypoint_proxy(), &[port], &[REVIEWS, OTHER]).await;
        let tunnels = Tunnels::new().await;
        let connect = |authority| vec![(":method", "CONNECT"), (":authority", authority)];
        let get = |authority| vec![(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/x")];
        let with = |fields: Vec<_>, more: &[(&'static str, &'static str)]| [&fields[..], more].concat();
        let cases = [
            ("GET of a service", get("10.1.1.5:9080")),
            ("GET of somebody else", get("127.0.0.1:9001")),
            ("CONNECT with a path", with(connect("10.1.1.5:9080"), &[(":scheme", "https"), (":path", "/x")])),
            ("CONNECT of nowhere", vec![(":method", "CONNECT")]),
            ("CONNECT of two", with(connect("10.1.1.5:9080"), &[(":authority", "127.0.0.1:9001")])),
            ("CONNECT and a host", connect("127.0.0.1:9001").into_iter().chain([("host", "10.1.1.5:9080")]).collect()),
            ("CONNECT with a user", connect("10.1.1.5:9080@127.0.0.1:9001")),
            ("CONNECT with a path in the address", connect("10.1.1.5:9080/x")),
            ("CONNECT of a list", connect("10.1.1.5:9080,127.0.0.1:9001")),
            ("a protocol inside", with(connect("127.0.0.1:9001"), &[(":protocol", "websocket"), (":scheme", "https"), (":path", "/x")])),
            ("another method", vec![(":method", "connect"), (":authority", "10.1.1.5:9080")]),
        ];
        for (name, fields) in cases {
            let mut client = tunnels.by_hand().await;
            let early = b"GET /early HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n";
            client.send(&[headers(1, 0, &block(&fields)), frame(DATA, END_STREAM, 1, early)].concat()).await;
            let end = client.end(1).await;
            assert!(matches!(end, End::Status(400..=499) | End::Reset(1..) | End::GoAway(1..)), "{name}: {end:?}");
        }
        assert_eq!(reviews.all() + &other.all(), "");
    }
}

isolated_test! {
    async fn data_before_a_tunnel_is_accepted_waits_for_it_or_is_dropped() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let ports = [(9080, Protocol::Http), (9081, Protocol::Tcp), (9082, Protocol::Detect)]
            .map(|(port, kind)| resources::port(REVIEWS, VIP, port, kind));
        let _world = World::waypoint(waypoint_proxy(), &ports, &[REVIEWS, OTHER]).await;
        let tunnels = Tunnels::new().await;
        let early = b"GET /early HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n";
        for (authority, status) in [
            ("10.1.1.5:9080", 200),
            ("10.1.1.5:9081", 200),
            ("10.1.1.5:9082", 200),
            ("10.1.1.5:9083", 404),
            ("127.0.0.1:9001", 404),
            ("other.shop.svc.cluster.local:80", 404),
        ] {
            let mut client = tunnels.by_hand().await;
            let open = headers(1, 0, &block(&[(":method", "CONNECT"), (":authority", authority)]));
            client.send(&[open, frame(DATA, 0, 1, early)].concat()).await;
            assert_eq!(client.end(1).await, End::Status(status), "{authority}");
            if status == 200 {
                let answer = client.data(1, 15).await;
                assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{authority}: {}", String::from_utf8_lossy(&answer));
            }
        }
        assert_eq!(reviews.targets(), ["/early"; 3]);
        assert_eq!(other.all(), "");
    }
}

isolated_test! {
    async fn a_gateway_between_networks_hands_on_to_services_it_knows_by_name_alone() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let port = l7::Port { by_hostname: true, ..resources::port(REVIEWS, VIP, 9080, Protocol::Http) };
        let proxy = resources::proxy(l7::proxy::Role::EastWest, l7::Settings::default());
        let _world = World::waypoint(proxy, &[port], &[REVIEWS, OTHER]).await;
        let tunnels = Tunnels::new().await;
        for (authority, status) in [
            // Known, but its only endpoint takes no tunnels: never in the clear instead.
            ("reviews.shop.svc.cluster.local:9080", 503),
            ("reviews.shop.svc.cluster.local:9081", 404),
            ("other.shop.svc.cluster.local:80", 404),
            ("10.1.1.5:9080", 404),
            ("127.0.0.1:9000", 404),
            ("127.0.0.1:9001", 404),
            ("127.0.0.1:15000", 404),
            ("localhost:15000", 404),
            ("[::1]:15000", 404),
            ("169.254.169.254:80", 404),
            ("example.com:443", 404),
        ] {
            let mut client = tunnels.by_hand().await;
            let open = headers(1, 0, &block(&[(":method", "CONNECT"), (":authority", authority)]));
            let early = frame(DATA, END_STREAM, 1, b"GET /early HTTP/1.1\r\nhost: r\r\n\r\n");
            client.send(&[open, early].concat()).await;
            assert_eq!(client.end(1).await, End::Status(status), "{authority}");
        }
        assert_eq!(reviews.all() + &other.all(), "");
    }
}
