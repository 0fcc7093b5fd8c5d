//! Connections of an enrolled pod: where they go, and what the tunnel says.

use std::net::SocketAddr;
use std::time::Duration;

use conformance::isolated_test;
use conformance::wait::{soon, within};
use conformance::wire::workload::{HOST_NETWORK, LoadBalancing, Locality, MODE_PASSTHROUGH, Workload};
use conformance::world::{backing, svc, wl, workload};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{CART_HOST, Shop, VIP6, cancelled, echoed, rest};

isolated_test! {
    async fn hbone_row_1_a_service_is_reached_through_its_endpoints_tunnel() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let source = app.local_addr().unwrap();
        let stream = proxy.stream().await;
        assert_eq!(stream.method, Method::CONNECT);
        assert!(stream.classic, "no :scheme, no :path");
        assert_eq!(stream.authority, "10.1.0.77:8080");
        assert_eq!(stream.header("forwarded").unwrap(), format!("for=\"{source}\";host={CART_HOST}"));
        assert_eq!(
            stream.header("baggage").unwrap(),
            "k8s.cluster.name=cluster-1,k8s.namespace.name=shop,k8s.deployment.name=web-deploy,\
             service.name=web-app,service.version=v1"
        );
        let trace = stream.header("traceparent").unwrap();
        assert!(regex::Regex::new("^00-[0-9a-f]{32}-[0-9a-f]{16}-00$").unwrap().is_match(&trace), "{trace}");
        let mut names: Vec<_> = stream.headers.keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["baggage", "forwarded", "traceparent"], "nothing else is sent");
        let mut tunnel = stream.accept();
        app.write_all(b"hello").await.unwrap();
        let mut five = [0; 5];
        tunnel.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"hello");
        tunnel.write_all(b"world").await.unwrap();
        app.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"world");
        let connection = &proxy.connections()[0];
        assert_eq!(connection.peer.ip(), shop.web.v4, "the tunnel comes from the pod's own address");
    }
}

isolated_test! {
    async fn hbone_baggage_holds_what_is_known_in_order_and_the_trace_is_new_each_time() {
        let shop = Shop::open().await;
        let web = Workload {
            canonical_revision: String::new(),
            workload_type: 1,
            locality: Some(Locality { region: "r1".into(), zone: "z1".into(), subzone: "s1".into() }),
            ..workload(&shop.web, 1)
        };
        shop.world.ads.apply(vec![wl(&web)]).await;
        let proxy = shop.cart_proxy();
        let _first = shop.web.connect(shop.vip()).await.unwrap();
        let first = proxy.stream().await;
        assert_eq!(
            first.header("baggage").unwrap(),
            "k8s.cluster.name=cluster-1,k8s.namespace.name=shop,k8s.cronjob.name=web-deploy,service.name=web-app,\
             cloud.region=r1,cloud.availability_zone=z1"
        );
        let _second = shop.web.connect(shop.vip()).await.unwrap();
        assert_ne!(first.header("traceparent"), proxy.stream().await.header("traceparent"));
    }
}

isolated_test! {
    async fn hbone_row_1_addresses_of_ipv6_are_bracketed() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let app = shop.web.connect(SocketAddr::new(VIP6.parse().unwrap(), 80)).await.unwrap();
        let source = app.local_addr().unwrap();
        let stream = proxy.stream().await;
        assert_eq!(stream.authority, format!("[{}]:8080", shop.cart.v6), "the family of the dialled address");
        assert_eq!(stream.header("forwarded").unwrap(), format!("for=\"[{}]:{}\";host={CART_HOST}", source.ip(), source.port()));
        assert_eq!(proxy.connections()[0].peer.ip(), shop.web.v6);
    }
}

isolated_test! {
    async fn hbone_calls_to_a_workloads_address_name_no_service() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let app = shop.web.connect(shop.cart.at(9999)).await.unwrap();
        let stream = proxy.stream().await;
        assert_eq!(stream.authority, "10.1.0.77:9999");
        assert_eq!(stream.header("forwarded").unwrap(), format!("for=\"{}\"", app.local_addr().unwrap()));
    }
}

isolated_test! {
    async fn hbone_row_2_an_endpoint_outside_the_mesh_is_reached_in_plaintext() {
        let shop = Shop::open().await;
        let endpoint = Workload { tunnel_protocol: 0, ..shop.endpoint() };
        shop.world.ads.apply(vec![wl(&endpoint)]).await;
        shop.cart.serve_echo(8080);
        let answer = soon("an answer", shop.web.ask(shop.vip(), "plain")).await.unwrap();
        assert_eq!(answer, format!("{} said plain", shop.web.v4));
    }
}

isolated_test! {
    async fn hbone_row_3_an_unknown_address_is_passed_through() {
        let shop = Shop::open().await;
        shop.cart.add_address("203.0.113.4/32");
        shop.cart.serve_echo(443);
        let unknown = SocketAddr::new("203.0.113.4".parse().unwrap(), 443);
        let answer = soon("an answer", shop.web.ask(unknown, "out")).await.unwrap();
        assert_eq!(answer, format!("{} said out", shop.web.v4));
    }
}

isolated_test! {
    async fn hbone_a_passthrough_service_is_dialled_as_it_is() {
        let shop = Shop::open().await;
        let mut service = shop.service.clone();
        service.load_balancing = Some(LoadBalancing { mode: MODE_PASSTHROUGH, ..Default::default() });
        shop.world.ads.apply(vec![svc(&service)]).await;
        shop.cart.add_address("172.20.0.9/32");
        shop.cart.serve_echo(80);
        let answer = soon("an answer", shop.web.ask(shop.vip(), "as it is")).await.unwrap();
        assert!(answer.ends_with("said as it is"), "{answer}");
    }
}

isolated_test! {
    async fn hbone_a_service_without_endpoints_is_refused_and_so_is_a_port_it_does_not_have() {
        let shop = Shop::open().await;
        // If the proxy passed it through, somebody would answer.
        shop.cart.add_address("172.20.0.9/32");
        shop.cart.serve_echo(80);
        shop.cart.serve_echo(81);
        shop.refused(SocketAddr::new(shop.vip().ip(), 81)).await;
        shop.world.ads.withdraw(conformance::wire::ADDRESS, &["cluster-1//Pod/shop/cart"]).await;
        shop.refused(shop.vip()).await;
    }
}

isolated_test! {
    async fn hbone_row_9_a_finished_request_still_gets_its_whole_answer() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        app.write_all(b"request").await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "request", "END_STREAM ends the request");
        let answer = "x".repeat(3 << 20);
        // The pause is the point: nothing may end the other direction meanwhile.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let writing = async {
            tunnel.write_all(answer.as_bytes()).await.unwrap();
            tunnel.shutdown().await.unwrap();
        };
        let ((), got) = tokio::join!(writing, rest(&mut app));
        assert_eq!(got.unwrap().len(), answer.len());
    }
}

isolated_test! {
    async fn hbone_a_server_that_finishes_first_still_hears_the_client() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        tunnel.write_all(b"bye").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut app).await.unwrap(), "bye");
        app.write_all(b"last words").await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "last words");
    }
}

isolated_test! {
    async fn hbone_a_refusal_of_any_kind_ends_that_connection_only() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_proxy();
        let mut good = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        for status in [401, 503, 400, 204, 302] {
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            let stream = proxy.stream().await;
            assert_eq!(stream.connection, 0, "the tunnel stays in use after a refusal");
            stream.refuse(status);
            assert_eq!(rest(&mut app).await.unwrap_or_default(), "", "{status}");
        }
        good.write_all(b"still").await.unwrap();
        let mut five = [0; 5];
        tunnel.read_exact(&mut five).await.unwrap();
        let failed = [("reporter", "source"), ("response_flags", "CONNECT")];
        shop.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 5.0).await;
    }
}

isolated_test! {
    async fn hbone_resets_of_the_peer_reach_the_application_as_the_table_says() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            let mut tunnel = proxy.stream().await.accept();
            app.write_all(b"x").await.unwrap();
            tunnel.read_u8().await.unwrap();
            tunnel.write_all(b"part").await.unwrap();
            let mut part = [0; 4];
            app.read_exact(&mut part).await.unwrap();
            tunnel.reset(reason);
            assert_eq!(rest(&mut app).await.unwrap(), "", "{reason} is a clean end");
        }
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        tunnel.reset(h2::Reason::INTERNAL_ERROR);
        // A clean end or a reset: but an end.
        let _ = rest(&mut app).await;
    }
}

isolated_test! {
    async fn hbone_a_reset_of_the_application_ends_its_direction() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        app.write_all(b"x").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
        app.set_zero_linger().unwrap();
        drop(app);
        let ended = soon("the tunnel's stream ends", tunnel.read(&mut [0; 1])).await;
        match ended {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert!(cancelled(&error), "CANCEL is expected: {error}"),
        }
    }
}

isolated_test! {
    async fn hbone_nothing_reaches_the_application_before_the_200() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let stream = proxy.stream().await;
        app.write_all(b"early").await.unwrap();
        let mut byte = [0; 1];
        let read = tokio::time::timeout(Duration::from_millis(300), app.read(&mut byte)).await;
        assert!(read.is_err(), "the application heard something: {read:?}");
        let mut tunnel = stream.accept();
        let mut five = [0; 5];
        tunnel.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"early", "what it said early is not lost");
    }
}

isolated_test! {
    async fn hbone_row_20_the_address_of_a_node_is_passed_through() {
        let shop = Shop::open().await;
        let node = shop.world.hub.pod("shop", "node-pod", "10.0.0.40");
        node.serve_echo(9100);
        let host = Workload { network_mode: HOST_NETWORK, tunnel_protocol: 1, ..workload(&node, 1) };
        shop.world.ads.apply(vec![wl(&host)]).await;
        let answer = soon("an answer", shop.web.ask(node.at(9100), "metrics")).await.unwrap();
        assert!(answer.ends_with("said metrics"), "{answer}");
    }
}

isolated_test! {
    async fn hbone_a_pod_reaches_itself_through_its_service_and_directly() {
        let shop = Shop::open().await;
        let own = backing(workload(&shop.web, 1), &shop.service, &[(80, 8080)]);
        shop.world.ads.apply(vec![wl(&own)]).await;
        shop.world.ads.withdraw(conformance::wire::ADDRESS, &["cluster-1//Pod/shop/cart"]).await;
        shop.web.serve_echo(8080);
        let answer = soon("an answer", shop.web.ask(shop.vip(), "me")).await.unwrap();
        assert!(answer.ends_with("said me"), "{answer}");
        let answer = soon("an answer", shop.web.ask(shop.web.at(8080), "direct")).await.unwrap();
        assert_eq!(answer, format!("{} said direct", shop.web.v4));
    }
}

isolated_test! {
    async fn hbone_a_peer_that_drops_packets_is_a_matter_of_network_policy() {
        let shop = Shop::open().await;
        let drop = "table ip filter { chain in { type filter hook input priority 0;\ntcp dport 15008 drop\n}\n}\n";
        shop.cart.netns.run(|| mesh_sys::nft::apply(drop)).unwrap().unwrap();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let read = within("the dial is given up", Duration::from_secs(14), app.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
        let failed = [("reporter", "source"), ("response_flags", "NETWORK_POLICY")];
        shop.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_large_transfers_arrive_whole_both_ways() {
        let shop = Shop::open().await;
        let _proxy = shop.cart_copies();
        let app = shop.web.connect(shop.vip()).await.unwrap();
        let (mut read, mut write) = app.into_split();
        // More than both windows together.
        let sent: Vec<u8> = (0..24_u32 << 20).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        within("all comes back", Duration::from_secs(60), read.read_to_end(&mut got)).await.unwrap();
        writing.await.unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }
}

isolated_test! {
    async fn hbone_existing_connections_survive_the_control_plane() {
        let shop = Shop::open().await;
        let _proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"1").await;
        shop.world.control.stop().await;
        echoed(&mut app, b"2").await;
        let mut new = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut new, b"3").await;
        assert_eq!(shop.running.proxy.readiness().await.unwrap().status, 200, "once known, the state counts");
    }
}

isolated_test! {
    async fn hbone_the_families_of_a_service_decide_which_address_of_an_endpoint_is_used() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        for (families, expected) in [
            (2, format!("[{}]:8080", shop.cart.v6)),
            (1, "10.1.0.77:8080".to_owned()),
            (3, "10.1.0.77:8080".to_owned()),
        ] {
            let mut service = shop.service.clone();
            service.ip_families = families;
            shop.world.ads.apply(vec![svc(&service)]).await;
            let _app = shop.web.connect(shop.vip()).await.unwrap();
            let stream = proxy.stream().await;
            assert_eq!(stream.authority, expected, "families {families}");
            stream.refuse(503);
        }
    }
}
