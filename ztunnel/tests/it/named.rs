//! Destinations that the control plane knows by their DNS name only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_wire::workload as wire;
use tokio::net::UdpSocket;
use wire::address::Type;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, Enrolled, Mesh, NAME_SERVER, SERVICE, log_line, workload};

/// Starts `web` enrolled, with a name server for its proxy that knows `db.example`.
async fn start(cart_enrolled: bool) -> Mesh {
    // A namespace of the test's own has no loopback yet.
    mesh_sys::netns::loopback_up().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = socket.local_addr().unwrap().to_string();
    let enrolled = Enrolled { web: true, cart: cart_enrolled };
    let mut mesh = Mesh::start_with(enrolled, &[(NAME_SERVER, &server)]).await;
    let IpAddr::V4(address) = mesh.cart.v4 else { unreachable!("pods are made with an IPv4 address first") };
    tokio::spawn(answer(socket, address));
    let ports = wire::PortList {
        ports: vec![wire::Port { service_port: 80, target_port: APP_PORT.into(), ..wire::Port::default() }],
    };
    let db = wire::Workload {
        addresses: vec![],
        hostname: "db.example".into(),
        services: [(SERVICE.to_owned(), ports)].into(),
        ..workload(&mesh.cart, cart_enrolled, &[])
    };
    mesh.web_node.tell([Type::Workload(db)]);
    mesh.cart.serve_echo(APP_PORT);
    mesh
}

/// `db.example` is `address`; it has no IPv6 address, and other names have none at all.
async fn answer(socket: UdpSocket, address: Ipv4Addr) {
    let mut query = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut query).await.unwrap();
        // Names on the wire: length, letters, ... 0; then type and class.
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        assert!(end <= length);
        let known = query[12..end - 4].eq_ignore_ascii_case(b"\x02db\x07example\0");
        let has = known && query[end - 4..end - 2] == [0, 1];
        let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(has), 0, 0, 0, 0];
        reply.extend(&query[12..end]);
        if has {
            reply.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
            reply.extend(address.octets());
        }
        socket.send_to(&reply, client).await.unwrap();
    }
}

isolated_test! {
    async fn a_destination_known_by_name_is_looked_up_and_counted() {
        let mesh = start(false).await;
        let answer = mesh.web.ask(mesh.vip, "hello").await.unwrap();
        assert_eq!(answer, format!("{} said hello", mesh.web.v4));
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=outbound", &web, "connection complete"]).await;
        assert!(line.contains(&format!("dst.addr={}", mesh.app())), "{line}");
        let metrics = mesh.web_node.registry.encode();
        let counted = metrics.lines().find(|line| line.starts_with("istio_on_demand_dns_total{")).unwrap();
        assert!(counted.contains("hostname=\"db.example\"") && counted.contains("source_workload=\"web\""), "{counted}");
        assert!(counted.ends_with(" 1"), "{counted}");
    }
}

isolated_test! {
    async fn a_tunnel_to_a_destination_known_by_name_asks_for_the_address_that_was_found() {
        let mesh = start(true).await;
        let answer = mesh.web.ask(mesh.vip, "hello").await.unwrap();
        assert_eq!(answer, format!("{} said hello", mesh.web.v4));
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=outbound", &web, "connection complete"]).await;
        assert!(line.contains(&format!("dst.hbone_addr={}", mesh.app())), "{line}");
        assert!(line.contains(&format!("dst.addr={}", SocketAddr::new(mesh.cart.v4, 15008))), "{line}");
    }
}

isolated_test! {
    async fn a_name_without_an_address_refuses_the_connection() {
        let mut mesh = start(false).await;
        let ports = wire::PortList {
            ports: vec![wire::Port { service_port: 80, target_port: APP_PORT.into(), ..wire::Port::default() }],
        };
        let nobody = wire::Workload {
            addresses: vec![],
            hostname: "nobody.example".into(),
            services: [(SERVICE.to_owned(), ports)].into(),
            ..workload(&mesh.cart, false, &[])
        };
        mesh.web_node.tell([Type::Workload(nobody)]);
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
        log_line(&["connection failed", &mesh.web.v4.to_string(), "host name nobody.example of the destination"]).await;
    }
}
