//! A service on another network: a gateway that cannot read what it passes on, and a proxy of ours behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::addr::ip_to_bytes;
use mesh_wire::workload as wire;
use wire::address::Type;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Mesh, SERVICE, identity_of, log_line, network_address, workload};
use crate::peer::{Peer, Then};

const GATEWAY_ID: &str = "spiffe://cluster.local/ns/istio-system/sa/east";
const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const HOST: &str = "cart.shop.svc.cluster.local:80";

/// `web` on network n1; `cart` on network n2, behind the gateway of the test.
struct Scene {
    mesh: Mesh,
    gateway: Peer,
}

fn ports(service: u16, target: u16) -> Vec<wire::Port> {
    vec![wire::Port { service_port: service.into(), target_port: target.into(), ..wire::Port::default() }]
}

fn on(network: &str, ip: IpAddr) -> wire::NetworkAddress {
    wire::NetworkAddress { network: network.into(), ..network_address(ip) }
}

impl Scene {
    async fn set(expected: &[&str]) -> Self {
        let mut mesh = Mesh::start_each(BOTH, &[("NETWORK", "n1")], &[("NETWORK", "n2")]).await;
        let at = SocketAddr::new(mesh.other_ip(), 15008);
        let behind = SocketAddr::new(mesh.cart.v4, 15008);
        let forward = Then::Forward(Arc::clone(&mesh.cart.netns), behind);
        let gateway = Peer::serve(&mesh.cart, at, &mesh.ca, GATEWAY_ID, forward);
        let service = |network: &str, names: &[&str]| wire::Service {
            name: "cart".into(),
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            addresses: vec![on(network, mesh.vip.ip())],
            ports: ports(80, APP_PORT),
            subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..wire::Service::default()
        };
        let (near, far) = (service("n1", expected), service("n2", &[]));
        let web = wire::Workload { network: "n1".into(), ..workload(&mesh.web, true, &[]) };
        let backing = |ports| [(SERVICE.to_owned(), wire::PortList { ports })].into();
        let aggregate = wire::Workload {
            uid: "n2/SplitHorizonWorkload/istio-system/east/at/shop/cart".into(),
            name: "remote".into(),
            namespace: "shop".into(),
            network: "n2".into(),
            tunnel_protocol: 1,
            services: backing(ports(80, 80)),
            network_gateway: Some(wire::GatewayAddress {
                destination: Some(wire::gateway_address::Destination::Address(on("n2", at.ip()))),
                hbone_mtls_port: 15008,
            }),
            ..wire::Workload::default()
        };
        let east = wire::Workload {
            uid: "NetworkGateway/n2/at/15008".into(),
            name: "east".into(),
            namespace: "istio-system".into(),
            service_account: "east".into(),
            network: "n2".into(),
            addresses: vec![ip_to_bytes(at.ip())],
            tunnel_protocol: 1,
            ..wire::Workload::default()
        };
        let cart = wire::Workload {
            network: "n2".into(),
            services: backing(ports(80, APP_PORT)),
            ..workload(&mesh.cart, true, &[])
        };
        let gone = ["Kubernetes//Pod/shop/cart".to_owned()];
        assert!(mesh.web_node.feed.addresses(vec![], &gone).is_empty());
        mesh.web_node.tell([Type::Workload(web), Type::Service(near), Type::Workload(east), Type::Workload(aggregate)]);
        mesh.cart_node.tell([Type::Workload(cart), Type::Service(far)]);
        mesh.cart.serve_echo(APP_PORT);
        Self { mesh, gateway }
    }
}

isolated_test! {
    async fn hbone_row_17_a_service_of_another_network_is_reached_through_two_tunnels() {
        let scene = Scene::set(&[CART_ID]).await;
        let mesh = &scene.mesh;
        let answer = mesh.web.ask(mesh.vip, "hello").await.unwrap();
        // What the destination sees as its client is the gateway.
        assert_eq!(answer, format!("{} said hello", mesh.cart.v4));
        let outer = scene.gateway.only();
        assert_eq!(outer.authority, HOST);
        assert_eq!(outer.client, Some(identity_of(&mesh.web)));
        assert!(outer.header("baggage").is_some() && outer.header("forwarded").is_some());
        assert_eq!(outer.header("x-forwarded-network"), None, "only the inner request carries it");
        // The source is told by the destination who it is, not by its own records.
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=outbound", &web, "connection complete"]).await;
        assert!(line.contains(&format!("dst.hbone_addr={HOST}")), "{line}");
        assert!(line.contains("dst.workload=cart") && line.contains(&format!("dst.identity={CART_ID}")), "{line}");
        assert!(line.contains("bytes_sent=5"), "{line}");
        // The destination learns from baggage who called: the address is the gateway's.
        let at = mesh.cart.v4.to_string();
        let line = log_line(&["direction=inbound", &format!("src.addr={at}"), "connection complete"]).await;
        assert!(line.contains("src.workload=web") && line.contains(&format!("src.identity={}", identity_of(&mesh.web))));
        assert!(line.contains(&format!("dst.hbone_addr={HOST}")), "{line}");
    }
}

isolated_test! {
    async fn hbone_row_17_the_outer_tunnel_is_shared_and_the_inner_one_is_not() {
        let scene = Scene::set(&[CART_ID]).await;
        let mesh = &scene.mesh;
        for n in 0..6 {
            mesh.web.ask(mesh.vip, &format!("number {n}")).await.unwrap();
        }
        let asked = scene.gateway.asked();
        assert_eq!(asked.len(), 6);
        // One for each worker that took one of the connections.
        assert!(asked.iter().map(|asked| asked.connection).max().unwrap() <= 2);
    }
}

isolated_test! {
    async fn hbone_row_17_large_transfers_and_half_closed_connections_work_across_networks() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const TOTAL: usize = 8 << 20;
        let scene = Scene::set(&[CART_ID]).await;
        let stream = scene.mesh.web.connect(scene.mesh.vip).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&vec![b'x'; TOTAL]).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        writing.await.unwrap();
        assert_eq!(answer.len(), TOTAL + format!("{} said ", scene.mesh.cart.v4).len());
    }
}

isolated_test! {
    async fn hbone_row_17_somebody_else_behind_the_gateway_is_refused() {
        let scene = Scene::set(&["spiffe://cluster.local/ns/shop/sa/other"]).await;
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=outbound", &web, "behind the gateway failed"]).await;
        assert!(line.contains("wanted spiffe://cluster.local/ns/shop/sa/other"), "{line}");
    }
}

isolated_test! {
    async fn hbone_row_17_without_identities_not_even_the_gateway_is_dialled() {
        let scene = Scene::set(&[]).await;
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        log_line(&["connection failed", &mesh.web.v4.to_string(), "names no identities"]).await;
        assert!(scene.gateway.asked().is_empty());
    }
}

isolated_test! {
    async fn hbone_row_17_a_policy_at_the_destination_sees_the_source_itself() {
        use mesh_wire::security;
        let mut scene = Scene::set(&[CART_ID]).await;
        let exact = security::string_match::MatchType::Exact("cluster.local/ns/shop/sa/web".into());
        let principals = vec![security::StringMatch { match_type: Some(exact) }];
        let matches = vec![security::Match { principals, ..Default::default() }];
        scene.mesh.policy(security::Authorization {
            name: "no-web".into(),
            namespace: "shop".into(),
            scope: security::Scope::Namespace.into(),
            action: security::Action::Deny.into(),
            rules: vec![security::Rule { clauses: vec![security::Clause { matches }] }],
            ..Default::default()
        });
        let mesh = &scene.mesh;
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        log_line(&["direction=outbound", &mesh.web.v4.to_string(), "peer answered 401"]).await;
    }
}
