//! A waypoint is no open relay: what it does not serve, it refuses, however it is named.

use mesh_wire::l7::{self, Protocol};
use tokio::net::TcpListener;

use crate::isolate::isolated_test;
use crate::raw;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::tunnel::Tunnels;
use crate::world::World;

const REVIEWS: Service = Service::http1("reviews", 9000);
/// Has an endpoint here, and belongs to somebody else.
const OTHER: Service = Service::http1("other", 9001);
const VIP: &str = "10.1.1.5";

async fn waypoint(serves_workloads: bool) -> World {
    let proxy = resources::proxy(l7::proxy::Role::Waypoint, l7::Settings::default());
    let proxy = l7::Proxy { serves_workloads, ..proxy };
    let port = resources::port(REVIEWS, VIP, 9080, Protocol::Http);
    World::waypoint(proxy, &[port], &[REVIEWS, OTHER]).await
}

async fn refuses_everything(serves_workloads: bool) {
    let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
    // Anything that the waypoint could be made to call without a service.
    let trap = TcpListener::bind("0.0.0.0:9002").await.unwrap();
    let _world = waypoint(serves_workloads).await;
    let tunnels = Tunnels::new().await;
    let served = tunnels.ask("10.1.1.5:9080", "GET /x HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n").await;
    assert_eq!(served.status, Some(200), "{served:?}");
    let own = ["15008", "15000", "15020", "15021", "15090", "9002"].map(|port| format!("127.0.0.1:{port}"));
    let named = [
        "10.1.1.5:9999",
        "10.1.1.5:80",
        "10.1.1.5:9081",
        "10.1.1.5:0",
        "10.1.1.5:15008",
        "10.1.1.6:9080",
        "10.9.9.9:80",
        "8.8.8.8:53",
        "127.0.0.1:9000",
        "127.0.0.1:9001",
        "127.0.0.2:9002",
        "127.1:9002",
        "2130706433:9002",
        "0x7f000001:9002",
        "0.0.0.0:9002",
        "[::]:9002",
        "[::1]:9002",
        "[::1]:15000",
        "[::ffff:127.0.0.1]:9002",
        "localhost:9002",
        "localhost.:9002",
        "localhost:15000",
        "169.254.169.254:80",
        "[fe80::1]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "reviews.shop.svc.cluster.local:9080",
        "other.shop.svc.cluster.local:80",
        "reviews:9080",
        "example.com:443",
        "reviews.shop.svc.cluster.local.:9080",
        "10.1.1.5.nip.io:9080",
    ];
    let mut faults = Vec::new();
    for authority in own.iter().map(String::as_str).chain(named) {
        let status = tunnels.refused(authority).await;
        if !status.is_some_and(|status| status.is_client_error()) {
            faults.push(format!("{authority}: {status:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let sprung = tokio::time::timeout(std::time::Duration::from_millis(100), trap.accept()).await;
    assert!(sprung.is_err(), "{sprung:?}");
    assert_eq!((reviews.targets(), other.targets()), (vec!["/x".to_owned()], vec![]));
}

isolated_test! {
    async fn waypoint_row_2_and_waypoint_row_3_no_address_host_or_port_that_is_not_served_is_reached() {
        refuses_everything(false).await;
    }
}

isolated_test! {
    async fn nor_where_workloads_are_served() {
        refuses_everything(true).await;
    }
}

isolated_test! {
    async fn what_a_request_says_of_its_host_leads_nowhere_else() {
        let (reviews, other) = (Recorder::start(REVIEWS.target).await, Recorder::start(OTHER.target).await);
        let _world = waypoint(false).await;
        let tunnels = Tunnels::new().await;
        let hosts = [
            "host: other.shop.svc.cluster.local", "host: 127.0.0.1:15000", "host: localhost",
            "host: r\r\nx-forwarded-host: other.shop.svc.cluster.local", "host: r\r\nx-envoy-original-dst-host: 127.0.0.1:9001",
        ];
        for host in hosts {
            let answer = tunnels.ask("10.1.1.5:9080", &format!("GET /x HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n")).await;
            assert_eq!(answer.status, Some(200), "{host}: {answer:?}");
        }
        for target in ["http://127.0.0.1:15000/x", "http://other.shop.svc.cluster.local/x", "http://169.254.169.254/x"] {
            let request = format!("GET {target} HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n");
            let answer = tunnels.ask("10.1.1.5:9080", &request).await;
            assert_eq!(answer.status, Some(200), "{target}: {answer:?}");
        }
        for target in ["127.0.0.1:9001", "other.shop.svc.cluster.local:80", "10.1.1.5:9080"] {
            let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\nGET /y HTTP/1.1\r\n\r\n");
            let answer = tunnels.ask("10.1.1.5:9080", &request).await;
            assert_eq!(answer.status, Some(404), "{target}: {answer:?}");
        }
        assert_eq!(reviews.targets(), ["/x"; 8]);
        assert!(other.heads().is_empty());
    }
}

isolated_test! {
    async fn waypoint_row_11_in_a_tunnel_too_nothing_that_could_be_two_requests_passes() {
        let reviews = Recorder::start(REVIEWS.target).await;
        let _world = waypoint(false).await;
        let tunnels = Tunnels::new().await;
        let bad = [
            "content-length: 5\r\ntransfer-encoding: chunked", "content-length: 5\r\ncontent-length: 6",
            "transfer-encoding: xchunked", "a: b\r\n c", "a: b\rc", "host: y", "content-length : 5",
        ];
        for bad in bad {
            let request = format!("POST /bad HTTP/1.1\r\nhost: r\r\n{bad}\r\n\r\n0\r\n\r\nGET /y HTTP/1.1\r\nhost: r\r\n\r\n");
            let answer = tunnels.ask("10.1.1.5:9080", &request).await;
            assert!(matches!(answer.status, Some(400 | 501)) && answer.closed, "{bad}: {answer:?}");
        }
        assert!(reviews.heads().is_empty(), "{:?}", reviews.heads());
    }
}

isolated_test! {
    async fn requests_in_the_clear_on_the_tunnels_port_are_not_answered() {
        let reviews = Recorder::start(REVIEWS.target).await;
        let _world = waypoint(false).await;
        for request in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "CONNECT 10.1.1.5:9080 HTTP/1.1\r\nhost: 10.1.1.5:9080\r\n\r\n"] {
            let answer = raw::talk(15008, request.as_bytes()).await;
            assert!(answer.status.is_none() && answer.closed, "{answer:?}");
        }
        assert!(reviews.heads().is_empty());
    }
}
