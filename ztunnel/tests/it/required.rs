//! A service that takes traffic only through its waypoint, over real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::{meltemi, workload as wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Enrolled, Mesh, SERVICE, SERVICE_PORT, log_line, network_address, workload};

const WAYPOINT: (&str, &str) = ("shop", "waypoint.shop.svc.cluster.local");
const HTTP_PORT: u16 = 9000;

/// Tells the proxy of `cart` that its service is guarded by a waypoint. The caller's own proxy does not know, and goes
/// past it.
fn guard(mesh: &mut Mesh) {
    use wire::gateway_address::Destination;
    let (namespace, hostname) = SERVICE.split_once('/').unwrap();
    let reference = wire::NamespacedHostname { namespace: WAYPOINT.0.into(), hostname: WAYPOINT.1.into() };
    let service = wire::Service {
        name: "cart".into(),
        namespace: namespace.into(),
        hostname: hostname.into(),
        addresses: vec![network_address(mesh.vip.ip())],
        ports: ports(SERVICE_PORT, APP_PORT),
        waypoint: Some(wire::GatewayAddress {
            destination: Some(Destination::Hostname(reference)),
            hbone_mtls_port: 15008,
        }),
        extensions: vec![wire::Extension { name: meltemi::WAYPOINT_REQUIRED.into(), config: None }],
        ..wire::Service::default()
    };
    mesh.cart_node.tell([wire::address::Type::Service(service)]);
}

/// Tells the proxy of `cart` that `web` is the waypoint.
fn make_web_the_waypoint(mesh: &mut Mesh) {
    let service = wire::Service {
        name: "waypoint".into(),
        namespace: WAYPOINT.0.into(),
        hostname: WAYPOINT.1.into(),
        ports: ports(15008, 15008),
        ..wire::Service::default()
    };
    let mut web = workload(&mesh.web, true, &[]);
    let key = format!("{}/{}", WAYPOINT.0, WAYPOINT.1);
    web.services = [(key, wire::PortList { ports: ports(15008, 15008) })].into();
    mesh.cart_node.tell([wire::address::Type::Service(service), wire::address::Type::Workload(web)]);
}

fn ports(service_port: u16, target_port: u16) -> Vec<wire::Port> {
    vec![wire::Port { service_port: service_port.into(), target_port: target_port.into(), ..wire::Port::default() }]
}

async fn says(mesh: &Mesh, addr: SocketAddr, question: &str) -> bool {
    mesh.web.ask(addr, question).await.unwrap_or_default().ends_with(&format!("said {question}"))
}

async fn talk(mesh: &Mesh) -> TcpStream {
    let mut stream = mesh.web.connect(mesh.vip).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream
}

isolated_test! {
    async fn traffic_that_skipped_the_waypoint_is_refused_and_traffic_from_it_is_not() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        mesh.cart.serve_echo(HTTP_PORT);
        assert!(says(&mesh, mesh.vip, "before").await);
        guard(&mut mesh);
        let web = mesh.web.v4.to_string();
        for addr in [mesh.vip, mesh.app()] {
            assert!(!says(&mesh, addr, "past").await, "{addr}");
        }
        assert!(says(&mesh, SocketAddr::new(mesh.cart.v4, HTTP_PORT), "exempt").await);
        log_line(&["direction=outbound", &web, "peer answered 401"]).await;
        let line = log_line(&["direction=inbound", &web, "takes connections to port 8080 only from its waypoint"]).await;
        assert!(line.contains(SERVICE) && line.contains(WAYPOINT.1), "{line}");
        make_web_the_waypoint(&mut mesh);
        assert!(says(&mesh, mesh.vip, "through").await);
        let metrics = mesh.cart_node.registry.encode();
        let failed = metrics.lines().find(|line| {
            line.starts_with("istio_tcp_connections_failed_total") && line.contains("response_flags=\"DENY\"")
        });
        assert!(failed.is_some_and(|line| line.ends_with(" 2")), "{metrics}");
    }
}

isolated_test! {
    async fn plaintext_to_a_guarded_port_is_closed() {
        let mut mesh = Mesh::start(Enrolled { web: false, cart: true }).await;
        mesh.cart.serve_echo(APP_PORT);
        assert!(says(&mesh, mesh.app(), "before").await);
        guard(&mut mesh);
        make_web_the_waypoint(&mut mesh);
        assert!(!says(&mesh, mesh.app(), "plain").await);
        log_line(&["direction=inbound", &mesh.web.v4.to_string(), "plaintext from", "is not its waypoint"]).await;
    }
}

isolated_test! {
    async fn a_guard_a_waypoint_that_leaves_and_a_promise_end_open_connections_within_a_second() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let changes: [fn(&mut Mesh); 3] = [
            guard,
            |mesh| {
                let web = workload(&mesh.web, true, &[]);
                mesh.cart_node.tell([wire::address::Type::Workload(web)]);
            },
            |mesh| mesh.cart_node.shared.promises.negotiate(None),
        ];
        let before: [fn(&mut Mesh); 3] = [
            |_| {},
            make_web_the_waypoint,
            |mesh| mesh.cart_node.shared.promises.negotiate(Some("waypointRequired=reference")),
        ];
        for (n, (before, change)) in before.into_iter().zip(changes).enumerate() {
            before(&mut mesh);
            let mut open = talk(&mesh).await;
            let mut waiting = Box::pin(async move { open.read(&mut [0; 1]).await });
            let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
            assert!(early.is_err(), "change {n}: the connection did not last until the change: {early:?}");
            let changed = Instant::now();
            change(&mut mesh);
            assert_eq!(waiting.await.unwrap_or(0), 0, "change {n}: the connection was not ended");
            assert!(changed.elapsed() < Duration::from_secs(1), "change {n}: {:?}", changed.elapsed());
        }
        log_line(&["direction=inbound", &mesh.web.v4.to_string(), "policy change: service", "is not its waypoint"]).await;
    }
}
