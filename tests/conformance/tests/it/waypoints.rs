//! Connections that a waypoint or a gateway of another network takes.

use std::net::SocketAddr;
use std::sync::Arc;

use conformance::dns::{self, NameServer};
use conformance::isolated_test;
use conformance::net::Pod;
use conformance::peer::Server;
use conformance::peer::server::nested;
use conformance::pki::uris_of;
use conformance::wait::soon;
use conformance::wire::workload::{
    GatewayAddress, LoadBalancing, MODE_PASSTHROUGH, Service, WeightedWaypoint, Workload,
};
use conformance::world::{NAME_SERVER, backing, gateway_at, gateway_host, octets, service, svc, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{CART_HOST, Shop, echoed, rest};

/// A waypoint `name` at an address, known to the control plane, played by the test.
struct Waypoint {
    pod: Pod,
    service: Service,
    server: Arc<Server>,
}

async fn waypoint(shop: &Shop, name: &str, ip: &str) -> Waypoint {
    let pod = shop.world.hub.pod("shop", name, ip);
    let service = service("shop", name, &[], &[(15008, 15008)]);
    let workload = Workload { node: "node-2".into(), ..workload(&pod, 1) };
    shop.world.ads.apply(vec![svc(&service), wl(&backing(workload, &service, &[(15008, 15008)]))]).await;
    let server = Arc::new(Server::listen(&pod, 15008, shop.world.server_tls(&pod.identity())));
    Waypoint { pod, service, server }
}

/// The service `cart` with changes.
async fn change_service(shop: &Shop, change: impl FnOnce(&mut Service)) {
    let mut service = shop.service.clone();
    change(&mut service);
    shop.world.ads.apply(vec![svc(&service)]).await;
}

isolated_test! {
    async fn hbone_row_4_a_service_with_a_waypoint_is_reached_through_it() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.200").await;
        let direct = shop.cart_proxy();
        change_service(&shop, |service| service.waypoint = Some(gateway_host(&waypoint.service))).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let stream = waypoint.server.stream().await;
        assert_eq!(stream.authority, "172.20.0.9:80", "the address that the application dialled");
        let source = app.local_addr().unwrap();
        assert_eq!(stream.header("forwarded").unwrap(), format!("for=\"{source}\";host={CART_HOST}"));
        assert!(stream.header("baggage").unwrap().contains("k8s.namespace.name=shop"));
        assert_eq!(stream.header("x-istio-source"), None);
        let mut tunnel = stream.accept();
        app.write_all(b"x").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
        assert!(direct.try_stream().await.is_none());
        let opened = [("reporter", "source"), ("destination_service_name", "cart"), ("destination_workload", "waypoint-deploy")];
        shop.running.proxy.metric_is("istio_tcp_connections_opened_total", &opened, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_row_4_a_waypoint_may_be_named_by_its_address() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.200").await;
        change_service(&shop, |service| service.waypoint = Some(gateway_at("n1", "10.1.0.200"))).await;
        let _app = shop.web.connect(shop.vip()).await.unwrap();
        assert_eq!(waypoint.server.stream().await.authority, "172.20.0.9:80");
    }
}

isolated_test! {
    async fn hbone_row_4_other_ports_and_passthrough_go_to_the_waypoint_too() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.200").await;
        change_service(&shop, |service| {
            service.waypoint = Some(gateway_host(&waypoint.service));
            service.load_balancing = Some(LoadBalancing { mode: MODE_PASSTHROUGH, ..Default::default() });
        })
        .await;
        let _app = shop.web.connect(SocketAddr::new(shop.vip().ip(), 4242)).await.unwrap();
        assert_eq!(waypoint.server.stream().await.authority, "172.20.0.9:4242");
    }
}

isolated_test! {
    async fn hbone_row_4_the_authority_keeps_its_family_when_the_waypoint_has_another() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.200").await;
        let mut only4 = backing(workload(&waypoint.pod, 1), &waypoint.service, &[(15008, 15008)]);
        only4.addresses = vec![octets(waypoint.pod.v4)];
        shop.world.ads.apply(vec![wl(&only4)]).await;
        change_service(&shop, |service| service.waypoint = Some(gateway_host(&waypoint.service))).await;
        let _app = shop.web.connect(SocketAddr::new("fd99::9".parse().unwrap(), 80)).await.unwrap();
        assert_eq!(waypoint.server.stream().await.authority, "[fd99::9]:80");
    }
}

isolated_test! {
    async fn hbone_row_4_a_waypoint_with_another_identity_is_refused() {
        let shop = Shop::open().await;
        let pod = shop.world.hub.pod("shop", "waypoint", "10.1.0.200");
        let service = service("shop", "waypoint", &[], &[(15008, 15008)]);
        shop.world.ads.apply(vec![svc(&service), wl(&backing(workload(&pod, 1), &service, &[(15008, 15008)]))]).await;
        let server = Server::listen(&pod, 15008, shop.world.server_tls(&shop.cart.identity()));
        change_service(&shop, |cart| cart.waypoint = Some(gateway_host(&service))).await;
        shop.refused(shop.vip()).await;
        assert!(server.try_stream().await.is_none());
    }
}

isolated_test! {
    async fn hbone_row_5_a_waypoint_that_cannot_be_found_fails_the_connection() {
        let shop = Shop::open().await;
        let direct = shop.cart_copies();
        let unknown = service("shop", "nowhere", &[], &[]);
        let empty = service("shop", "empty", &[], &[(15008, 15008)]);
        shop.world.ads.apply(vec![svc(&empty)]).await;
        for reference in [gateway_host(&unknown), gateway_host(&empty), gateway_at("n1", "10.99.0.1")] {
            change_service(&shop, |service| service.waypoint = Some(reference)).await;
            shop.refused(shop.vip()).await;
        }
        assert!(direct.connections().is_empty(), "the waypoint was bypassed");
    }
}

isolated_test! {
    async fn hbone_row_6_a_workload_waypoint_takes_calls_to_the_workloads_address() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.201").await;
        let endpoint = Workload { waypoint: Some(gateway_host(&waypoint.service)), ..shop.endpoint() };
        shop.world.ads.apply(vec![wl(&endpoint)]).await;
        let _app = shop.web.connect(shop.cart.at(8080)).await.unwrap();
        let stream = waypoint.server.stream().await;
        assert_eq!(stream.authority, "10.1.0.77:8080");
        assert!(!stream.header("forwarded").unwrap().contains("host="), "no service was addressed");
    }
}

isolated_test! {
    async fn hbone_row_7_a_workload_waypoint_is_not_for_calls_to_a_service() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.201").await;
        let endpoint = Workload { waypoint: Some(gateway_host(&waypoint.service)), ..shop.endpoint() };
        shop.world.ads.apply(vec![wl(&endpoint)]).await;
        let direct = shop.cart_proxy();
        let _app = shop.web.connect(shop.vip()).await.unwrap();
        assert_eq!(direct.stream().await.authority, "10.1.0.77:8080");
        assert!(waypoint.server.try_stream().await.is_none());
    }
}

isolated_test! {
    async fn hbone_a_service_waypoint_is_not_for_calls_to_a_workloads_address() {
        let shop = Shop::open().await;
        let waypoint = waypoint(&shop, "waypoint", "10.1.0.201").await;
        change_service(&shop, |service| service.waypoint = Some(gateway_host(&waypoint.service))).await;
        let direct = shop.cart_proxy();
        let _app = shop.web.connect(shop.cart.at(8080)).await.unwrap();
        assert_eq!(direct.stream().await.authority, "10.1.0.77:8080");
    }
}

isolated_test! {
    async fn hbone_the_waypoint_itself_reaches_its_workload_directly() {
        let shop = Shop::open().await;
        let waypoint_service = service("shop", "web-as-waypoint", &[], &[(15008, 15008)]);
        let own = backing(workload(&shop.web, 1), &waypoint_service, &[(15008, 15008)]);
        let endpoint = Workload { waypoint: Some(gateway_host(&waypoint_service)), ..shop.endpoint() };
        shop.world.ads.apply(vec![svc(&waypoint_service), wl(&own), wl(&endpoint)]).await;
        let direct = shop.cart_proxy();
        let _app = shop.web.connect(shop.cart.at(8080)).await.unwrap();
        assert_eq!(direct.stream().await.authority, "10.1.0.77:8080");
    }
}

isolated_test! {
    async fn hbone_weighted_waypoints_share_the_connections() {
        let shop = Shop::open().await;
        let one = waypoint(&shop, "one", "10.1.0.201").await;
        let two = waypoint(&shop, "two", "10.1.0.202").await;
        one.server.serve_copies();
        two.server.serve_copies();
        let weighted = |waypoint: &Waypoint, weight| {
            WeightedWaypoint { destination: Some(gateway_host(&waypoint.service)), weight }
        };
        change_service(&shop, |service| {
            service.waypoint = Some(gateway_host(&one.service));
            service.weighted_waypoints = vec![weighted(&one, 0), weighted(&two, 100)];
        })
        .await;
        for _ in 0..10 {
            assert_eq!(shop.web.ask(shop.vip(), "to two").await.unwrap(), "to two");
        }
        assert!(one.server.connections().is_empty(), "a weight of 0 gets nothing");
        change_service(&shop, |service| {
            service.waypoint = Some(gateway_host(&one.service));
            service.weighted_waypoints = vec![weighted(&one, 0), weighted(&two, 0)];
        })
        .await;
        let before = two.server.connections().len();
        assert_eq!(shop.web.ask(shop.vip(), "to one").await.unwrap(), "to one");
        assert_eq!(one.server.connections().len(), 1, "no usable weights: the plain waypoint");
        assert_eq!(two.server.connections().len(), before);
    }
}

/// `cart` on another network, behind a gateway at 192.0.2.10.
async fn far_cart(shop: &Shop) -> (Pod, Server) {
    let gateway = shop.world.hub.pod("istio-system", "eastwest", "10.3.0.10");
    gateway.add_address("192.0.2.10/32");
    let server = Server::listen(&gateway, 15008, shop.world.server_tls(&gateway.identity()));
    let gateway_workload = Workload {
        addresses: vec![octets("192.0.2.10".parse().unwrap())],
        network: "n2".into(),
        node: "far-node".into(),
        uid: "NetworkGateway/n2/192.0.2.10/15008".into(),
        ..workload(&gateway, 1)
    };
    let mut service = shop.service.clone();
    service.subject_alt_names = vec![shop.cart.identity()];
    let far = Workload {
        uid: "n2/SplitHorizonWorkload/istio-system/eastwest/192.0.2.10/shop/cart.shop.svc.cluster.local".into(),
        addresses: Vec::new(),
        network: "n2".into(),
        node: String::new(),
        network_gateway: Some(GatewayAddress { hbone_mtls_port: 15008, ..gateway_at("n2", "192.0.2.10") }),
        ..backing(workload(&shop.cart, 1), &service, &[(80, 8080)])
    };
    shop.world.ads.withdraw(conformance::wire::ADDRESS, &["cluster-1//Pod/shop/cart"]).await;
    shop.world.ads.apply(vec![svc(&service), wl(&gateway_workload), wl(&far)]).await;
    (gateway, server)
}

isolated_test! {
    async fn hbone_row_17_another_network_is_reached_by_a_tunnel_in_a_tunnel() {
        let shop = Shop::open().await;
        let (_gateway, server) = far_cart(&shop).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let source = app.local_addr().unwrap();
        let outer = server.stream().await;
        assert_eq!(outer.authority, "cart.shop.svc.cluster.local:80");
        assert_eq!(outer.header("x-forwarded-network"), None);
        assert!(outer.header("baggage").is_some() && outer.header("traceparent").is_some());
        let forwarded = format!("for=\"{source}\";host={CART_HOST}");
        assert_eq!(outer.header("forwarded").as_ref(), Some(&forwarded));
        let (inner, connection) = nested(outer.accept(), source, shop.world.server_tls(&shop.cart.identity())).await;
        assert_eq!(uris_of(&connection.chain[0]), [shop.web.identity()]);
        assert_eq!(connection.alpn, [b"h2".to_vec()]);
        assert_eq!(connection.server_name, None);
        assert_eq!(inner.authority, "cart.shop.svc.cluster.local:80");
        assert_eq!(inner.header("x-forwarded-network").unwrap(), "n1");
        assert_eq!(inner.header("forwarded"), Some(forwarded));
        assert!(inner.header("baggage").unwrap().contains("k8s.namespace.name=shop"));
        assert!(inner.header("traceparent").is_some());
        let baggage = "k8s.cluster.name=far,k8s.namespace.name=shop,k8s.deployment.name=cart-far,service.name=cart-app";
        let mut tunnel = inner.accept_with(&[("baggage", baggage)]);
        app.write_all(b"far").await.unwrap();
        let mut three = [0; 3];
        tunnel.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"far");
        tunnel.write_all(b"away").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut app).await.unwrap(), "away");
        drop(app);
        assert_eq!(rest(&mut tunnel).await.unwrap(), "");
        let closed = [
            ("reporter", "source"),
            ("destination_workload", "cart-far"),
            ("destination_cluster", "far"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart"),
        ];
        shop.running.proxy.metric_is("istio_tcp_connections_closed_total", &closed, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_row_17_the_outer_tunnel_is_shared_and_the_inner_one_is_not() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let (_gateway, server) = far_cart(&shop).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let app = shop.web.connect(shop.vip()).await.unwrap();
            let source = app.local_addr().unwrap();
            let outer = server.stream().await;
            assert_eq!(outer.connection, 0);
            let (inner, connection) = nested(outer.accept(), source, shop.world.server_tls(&shop.cart.identity())).await;
            open.push((app, inner.accept(), connection));
        }
        for (app, tunnel, connection) in &mut open {
            app.shutdown().await.unwrap();
            tunnel.shutdown().await.unwrap();
            assert_eq!(rest(app).await.unwrap(), "");
            connection.frames.wait("GOAWAY of the inner connection", |f| f.kind == conformance::frames::GOAWAY).await;
        }
    }
}

isolated_test! {
    async fn hbone_row_17_the_inner_server_must_be_one_of_the_services_names() {
        let shop = Shop::open().await;
        let (_gateway, server) = far_cart(&shop).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let outer = server.stream().await;
        let thief = shop.world.server_tls("spiffe://cluster.local/ns/shop/sa/thief");
        let acceptor = tokio_rustls::TlsAcceptor::from(thief);
        let tls = soon("the inner handshake ends", acceptor.accept(outer.accept())).await;
        if let Ok(mut tls) = tls {
            // The client's refusal may come after the server has finished.
            let read = soon("the inner connection ends", tls.read(&mut [0; 64])).await;
            assert!(read.is_err() || read.unwrap() == 0);
        }
        assert_eq!(rest(&mut app).await.unwrap_or_default(), "");
    }
}

isolated_test! {
    async fn hbone_row_17_without_names_of_the_service_no_server_will_do() {
        let shop = Shop::open().await;
        let (_gateway, server) = far_cart(&shop).await;
        shop.world.ads.apply(vec![svc(&shop.service)]).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let refused = async { assert_eq!(rest(&mut app).await.unwrap_or_default(), "") };
        let serve = async {
            let outer = server.stream().await;
            let acceptor = tokio_rustls::TlsAcceptor::from(shop.world.server_tls(&shop.cart.identity()));
            if let Ok(mut tls) = acceptor.accept(outer.accept()).await {
                let read = tls.read(&mut [0; 64]).await;
                assert!(read.is_err() || read.unwrap() == 0, "a request was sent to an unknown server");
            }
        };
        tokio::select! {
            () = refused => {}
            () = async { serve.await; std::future::pending::<()>().await } => {}
        }
    }
}

isolated_test! {
    async fn hbone_another_network_without_a_gateway_is_refused() {
        let shop = Shop::open().await;
        let far = Workload { network: "n2".into(), ..shop.endpoint() };
        shop.world.ads.apply(vec![wl(&far)]).await;
        let direct = shop.cart_copies();
        shop.refused(shop.vip()).await;
        assert!(direct.connections().is_empty());
    }
}

isolated_test! {
    async fn hbone_a_service_with_near_and_far_endpoints_uses_both() {
        let shop = Shop::open().await;
        let (_gateway, server) = far_cart(&shop).await;
        let near_pod = shop.world.hub.pod("shop", "near", "10.1.0.78");
        let near = backing(workload(&near_pod, 0), &shop.service, &[(80, 8080)]);
        shop.world.ads.apply(vec![wl(&near)]).await;
        near_pod.serve_copies(8080);
        let mut far_seen = false;
        for _ in 0..40 {
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            app.write_all(b"x").await.unwrap();
            tokio::select! {
                read = app.read_u8() => assert_eq!(read.unwrap(), b'x'),
                stream = server.stream() => {
                    far_seen = true;
                    stream.refuse(503);
                    break;
                }
            }
        }
        assert!(far_seen, "40 connections all went to the near endpoint");
    }
}

isolated_test! {
    async fn hbone_a_workload_with_a_host_name_only_is_resolved() {
        let shop = Shop::open().await;
        let server = shop.world.hub.pod("kube-system", "dns", NAME_SERVER);
        let names = NameServer::serve(&server, |query| {
            let (host, kind) = query.message.question.clone()?;
            let answers = match kind {
                dns::A => vec![(dns::A, 30, vec![10, 1, 0, 77])],
                _ => Vec::new(),
            };
            Some(dns::message(query.message.id, 0x8180, &host, kind, &answers))
        });
        let by_name = Workload {
            uid: "by-name".into(),
            addresses: Vec::new(),
            hostname: "far.example".into(),
            tunnel_protocol: 0,
            ..backing(workload(&shop.cart, 0), &shop.service, &[(80, 8080)])
        };
        shop.world.ads.withdraw(conformance::wire::ADDRESS, &["cluster-1//Pod/shop/cart"]).await;
        shop.world.ads.apply(vec![wl(&by_name)]).await;
        shop.cart.serve_copies(8080);
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"by name").await;
        assert_eq!(names.query("far.example.").await.message.question.unwrap().0, "far.example.");
        shop.running.proxy.metric_is("istio_on_demand_dns_total", &[("hostname", "far.example")], 1.0).await;
        // Nobody knows the next one.
        let unknown = Workload { hostname: "gone.example".into(), ..by_name };
        shop.world.ads.apply(vec![wl(&unknown)]).await;
        shop.cart.add_address("172.20.0.9/32");
        shop.cart.serve_echo(80);
        let answer = soon("an end", shop.web.ask("172.20.0.9:81".parse().unwrap(), "?")).await;
        assert_eq!(answer.unwrap_or_default(), "");
    }
}

isolated_test! {
    async fn ca_row_17_a_revoked_inner_peer_ends_a_tunnel_in_a_tunnel() {
        let world = conformance::world::World::new();
        std::fs::create_dir(world.dir.path().join("crl")).unwrap();
        std::fs::write(world.dir.path().join("crl/list.pem"), "").unwrap();
        let shop = Shop::open_world(world, &[("CRL_PATH", "crl/list.pem")]).await;
        let (_gateway, server) = far_cart(&shop).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let source = app.local_addr().unwrap();
        let own = shop.world.credentials(&shop.cart.identity());
        let roots = [shop.world.authority.root_der()];
        let tls = conformance::tls::mutual_server(&own, &roots, &conformance::tls::Negotiation::default());
        let (inner, _connection) = nested(server.stream().await.accept(), source, tls).await;
        let mut tunnel = inner.accept();
        app.write_all(b"x").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
        let list = shop.world.authority.revocations(&[&own.serial]);
        std::fs::write(shop.world.dir.path().join("crl/list.pem"), list).unwrap();
        let read = soon("the connection is cut", app.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
    }
}

isolated_test! {
    async fn hbone_row_5_a_workload_waypoint_that_cannot_be_found_is_not_bypassed_either() {
        let shop = Shop::open().await;
        let direct = shop.cart_copies();
        let unknown = service("shop", "nowhere", &[], &[]);
        let endpoint = Workload { waypoint: Some(gateway_host(&unknown)), ..shop.endpoint() };
        shop.world.ads.apply(vec![wl(&endpoint)]).await;
        shop.refused(shop.cart.at(8080)).await;
        assert!(direct.connections().is_empty());
        assert_eq!(shop.web.ask(shop.vip(), "by service").await.unwrap(), "by service");
    }
}
