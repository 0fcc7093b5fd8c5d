//! Waypoints and direct tunnels as the other end sees them.

use std::net::{IpAddr, SocketAddr};

use mesh_wire::workload as wire;
use wire::address::Type;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, Enrolled, Mesh, SERVICE, identity_of, log_line, network_address, workload};
use crate::peer::{Peer, Then};

const WAYPOINT: &str = "shop/wp.shop.svc.cluster.local";
const WAYPOINT_ID: &str = "spiffe://cluster.local/ns/shop/sa/wp";
const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// `web` is enrolled; behind the addresses of `cart` and its waypoint are peers of the test.
struct Scene {
    mesh: Mesh,
    waypoint: Peer,
    cart: Peer,
}

impl Scene {
    async fn set(settings: &[(&str, &str)]) -> Self {
        let mut mesh = Mesh::start_with(Enrolled { web: true, cart: false }, settings).await;
        let at = mesh.other_ip();
        let tunnel = |ip| SocketAddr::new(ip, 15008);
        let waypoint = Peer::serve(&mesh.cart, tunnel(at), &mesh.ca, WAYPOINT_ID, Then::Answer("waypoint"));
        let cart = Peer::serve(&mesh.cart, tunnel(mesh.cart.v4), &mesh.ca, CART_ID, Then::Answer("cart"));
        let endpoint = endpoint(&mesh);
        mesh.web_node.tell([wp_service(), wp_workload(at), Type::Workload(endpoint)]);
        Self { mesh, waypoint, cart }
    }

    /// Sends the service with this waypoint.
    fn guard_service(&mut self, waypoint: Option<wire::GatewayAddress>) {
        let service = wire::Service { waypoint, ..cart_service(&self.mesh) };
        self.mesh.web_node.tell([Type::Service(service)]);
    }
}

fn port(service_port: u16, target_port: u16) -> wire::Port {
    wire::Port { service_port: service_port.into(), target_port: target_port.into(), ..wire::Port::default() }
}

/// `cart` as an enrolled endpoint of its service.
fn endpoint(mesh: &Mesh) -> wire::Workload {
    let ports = wire::PortList { ports: vec![port(80, APP_PORT)] };
    wire::Workload { services: [(SERVICE.to_owned(), ports)].into(), ..workload(&mesh.cart, true, &[]) }
}

fn cart_service(mesh: &Mesh) -> wire::Service {
    wire::Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        addresses: [mesh.vip.ip(), mesh.vip6.ip()].map(network_address).into(),
        ports: vec![port(80, APP_PORT)],
        ..wire::Service::default()
    }
}

fn wp_service() -> Type {
    Type::Service(wire::Service {
        name: "wp".into(),
        namespace: "shop".into(),
        hostname: "wp.shop.svc.cluster.local".into(),
        ports: vec![port(15008, 15008)],
        ..wire::Service::default()
    })
}

fn wp_workload(ip: IpAddr) -> Type {
    let ports = wire::PortList { ports: vec![port(15008, 15008)] };
    Type::Workload(wire::Workload {
        uid: "Kubernetes//Pod/shop/wp".into(),
        name: "wp".into(),
        namespace: "shop".into(),
        service_account: "wp".into(),
        addresses: vec![mesh_core::addr::ip_to_bytes(ip)],
        tunnel_protocol: 1,
        services: [(WAYPOINT.to_owned(), ports)].into(),
        ..wire::Workload::default()
    })
}

fn gateway(key: &str) -> wire::GatewayAddress {
    let (namespace, hostname) = key.split_once('/').unwrap();
    let name = wire::NamespacedHostname { namespace: namespace.into(), hostname: hostname.into() };
    wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Hostname(name)),
        hbone_mtls_port: 15008,
    }
}

isolated_test! {
    async fn hbone_row_1_the_other_end_hears_who_calls_and_what_was_meant() {
        let scene = Scene::set(&[]).await;
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap(), "cart heard hello");
        let asked = scene.cart.only();
        assert_eq!(asked.authority, mesh.app().to_string());
        assert_eq!(asked.client, Some(identity_of(&mesh.web)));
        let forwarded = asked.header("forwarded").unwrap();
        assert!(forwarded.starts_with(&format!("for=\"{}:", mesh.web.v4)), "{forwarded}");
        assert!(forwarded.ends_with("\";host=cart.shop.svc.cluster.local"), "{forwarded}");
        let baggage = asked.header("baggage").unwrap();
        assert!(baggage.starts_with("k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web"));
        assert_eq!(asked.header("traceparent").unwrap().len(), 55);
        assert_eq!(asked.header("x-forwarded-network"), None, "only between networks");
        assert_eq!(asked.header("x-istio-source"), None);
    }
}

isolated_test! {
    async fn hbone_row_4_a_service_with_a_waypoint_is_asked_for_by_its_own_address() {
        let mut scene = Scene::set(&[]).await;
        scene.guard_service(Some(gateway(WAYPOINT)));
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap(), "waypoint heard hello");
        assert_eq!(scene.waypoint.only().authority, mesh.vip.to_string());
        assert!(scene.waypoint.only().header("forwarded").unwrap().ends_with(";host=cart.shop.svc.cluster.local"));
        // Whatever the family of the destination, the waypoint is dialled where it is.
        assert_eq!(mesh.web.ask(mesh.vip6, "six").await.unwrap(), "waypoint heard six");
        assert_eq!(scene.waypoint.asked()[1].authority, mesh.vip6.to_string());
        assert!(scene.cart.asked().is_empty(), "nothing goes around the waypoint");
        let line = log_line(&["direction=outbound", &mesh.web.v4.to_string(), "connection complete"]).await;
        assert!(line.contains("dst.workload=wp") && line.contains("dst.service=cart.shop.svc.cluster.local"), "{line}");
    }
}

isolated_test! {
    async fn hbone_row_5_a_waypoint_that_is_not_known_is_not_skipped() {
        let mut scene = Scene::set(&[]).await;
        scene.guard_service(Some(gateway("shop/nowhere.svc")));
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        log_line(&["connection failed", &mesh.web.v4.to_string(), "waypoint shop/nowhere.svc:15008"]).await;
        assert!(scene.cart.asked().is_empty() && scene.waypoint.asked().is_empty());
    }
}

isolated_test! {
    async fn hbone_row_5_a_waypoint_that_is_somebody_else_is_not_used() {
        let mut scene = Scene::set(&[]).await;
        scene.guard_service(Some(gateway(WAYPOINT)));
        let mesh = &mut scene.mesh;
        // The record now says that the waypoint is at the address of `cart`, who cannot prove to be it.
        let Type::Workload(moved) = wp_workload(mesh.cart.v4) else { unreachable!() };
        let away = wire::Workload { addresses: vec![], services: Default::default(), ..endpoint(mesh) };
        mesh.web_node.tell([Type::Workload(away), Type::Workload(moved)]);
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        let web = mesh.web.v4.to_string();
        log_line(&["direction=outbound", &web, "wanted spiffe://cluster.local/ns/shop/sa/wp"]).await;
        assert!(scene.cart.asked().is_empty());
    }
}

isolated_test! {
    async fn hbone_row_6_and_7_a_workload_waypoint_takes_calls_to_the_pod_and_not_to_the_service() {
        let mut scene = Scene::set(&[]).await;
        let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..endpoint(&scene.mesh) };
        scene.mesh.web_node.tell([Type::Workload(guarded)]);
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.app(), "pod").await.unwrap(), "waypoint heard pod");
        let asked = scene.waypoint.only();
        assert_eq!(asked.authority, mesh.app().to_string());
        assert!(!asked.header("forwarded").unwrap().contains("host="), "no service was addressed");
        assert_eq!(mesh.web.ask(mesh.vip, "service").await.unwrap(), "cart heard service");
        assert_eq!(scene.cart.only().authority, mesh.app().to_string());
    }
}

isolated_test! {
    async fn hbone_row_4_weights_split_connections_between_waypoints() {
        let mut scene = Scene::set(&[]).await;
        let weighted = |key, weight| wire::WeightedWaypoint { destination: Some(gateway(key)), weight };
        let service = wire::Service {
            waypoint: Some(gateway("shop/nowhere.svc")),
            weighted_waypoints: vec![weighted("shop/nowhere.svc", 0), weighted(WAYPOINT, 3)],
            ..cart_service(&scene.mesh)
        };
        scene.mesh.web_node.tell([Type::Service(service)]);
        let mesh = &scene.mesh;
        for n in 0..5 {
            assert_eq!(mesh.web.ask(mesh.vip, "x").await.unwrap(), "waypoint heard x", "{n}");
        }
    }
}

isolated_test! {
    async fn hbone_row_8_sequential_connections_of_a_pod_share_one_tunnel() {
        let scene = Scene::set(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let mesh = &scene.mesh;
        for n in 0..4 {
            assert_eq!(mesh.web.ask(mesh.vip, "x").await.unwrap(), "cart heard x", "{n}");
        }
        let tunnels = scene.cart.asked().iter().map(|asked| asked.connection).max().unwrap();
        // One for each worker that took one of the connections.
        assert!(tunnels <= 2, "{tunnels}");
    }
}
