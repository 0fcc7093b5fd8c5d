//! Tunnels and plaintext that arrive at an enrolled pod.

use std::net::SocketAddr;
use std::time::Duration;

use conformance::isolated_test;
use conformance::peer::Client;
use conformance::wait::{soon, within};
use conformance::wire::security::{ALLOW, Authorization, DENY, Match, NAMESPACE, exact, presence, rule};
use conformance::world::{gateway_host, service, svc, wl, workload};
use http::{Method, Request};
use tokio::io::AsyncWriteExt;

use crate::shop::{Store, echoed, rest};

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

isolated_test! {
    async fn hbone_row_12_other_methods_are_a_bad_request() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        for method in [Method::GET, Method::POST, Method::PUT, Method::OPTIONS] {
            let request = Request::builder().method(method.clone()).uri("https://10.1.0.77:8080/").body(()).unwrap();
            let answer = client.request(request).await.unwrap();
            assert_eq!(answer.status, 400, "{method}");
            assert!(answer.ended, "an error ends the stream");
            assert!(!answer.headers.contains_key("baggage"));
        }
        assert_eq!(client.status(&store.authority(8080)).await, 200, "the connection stays usable");
    }
}

isolated_test! {
    async fn hbone_an_authority_without_a_port_is_a_bad_request() {
        let store = Store::open().await;
        store.cart.serve_copies(80);
        let client = store.client().await;
        for authority in ["10.1.0.77", "cart.shop.svc.cluster.local", "[fd00::1:0:77]"] {
            assert_eq!(client.status(authority).await, 400, "{authority}");
        }
    }
}

isolated_test! {
    async fn hbone_row_13_the_address_of_somebody_else_is_a_bad_request() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        assert_eq!(client.status("10.1.0.99:8080").await, 400);
        assert_eq!(client.status("10.1.0.5:8080").await, 400, "a workload that has no relation to this one");
        assert_eq!(client.status("172.20.0.9:80").await, 400, "a service without a waypoint");
    }
}

isolated_test! {
    async fn hbone_row_14_the_proxys_own_ports_are_unavailable() {
        let store = Store::open().await;
        let client = store.client().await;
        for port in [15001, 15006, 15008] {
            let answer = client.open(&store.authority(port)).await.unwrap();
            assert_eq!(answer.status, 503, "{port}");
            assert!(answer.ended && !answer.headers.contains_key("baggage"));
        }
    }
}

isolated_test! {
    async fn hbone_row_15_a_denied_stream_gets_401_and_the_others_live_on() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        store.cart.serve_copies(9090);
        let client = store.client().await;
        let mut open = client.open(&store.authority(9090)).await.unwrap().tunnel;
        echoed(&mut open, b"1").await;
        let deny = Match { destination_ports: vec![8080], ..from("cluster.local/ns/web/sa/api") };
        store.world.ads.apply(vec![conformance::ads::policy(&policy("no-api", DENY, deny))]).await;
        let answer = client.open(&store.authority(8080)).await.unwrap();
        assert_eq!(answer.status, 401);
        assert!(answer.ended && !answer.headers.contains_key("baggage"));
        echoed(&mut open, b"2").await;
        store.running.proxy.log_line(&["connection complete", "direction=inbound", "shop/no-api"]).await;
    }
}

isolated_test! {
    async fn hbone_row_16_a_closed_port_is_unavailable() {
        let store = Store::open().await;
        let client = store.client().await;
        let answer = client.open(&store.authority(4444)).await.unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.ended && !answer.headers.contains_key("baggage"));
        let failed = [("reporter", "destination"), ("response_flags", "CONNECT")];
        store.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_a_success_carries_the_baggage_of_the_destination() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let answer = store.client().await.open(&store.authority(8080)).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.headers["baggage"],
            "k8s.cluster.name=cluster-1,k8s.namespace.name=shop,k8s.deployment.name=cart-deploy,\
             service.name=cart-app,service.version=v1"
        );
    }
}

isolated_test! {
    async fn hbone_row_18_baggage_in_answers_can_be_switched_off() {
        let store = Store::open_with(&[("ENABLE_RESPONSE_BAGGAGE", "false")]).await;
        store.cart.serve_copies(8080);
        let answer = store.client().await.open(&store.authority(8080)).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.headers.contains_key("baggage"), "{:?}", answer.headers);
    }
}

isolated_test! {
    async fn hbone_row_19_the_application_sees_the_clients_address() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let mut tunnel = store.client().await.open(&store.authority(8080)).await.unwrap().tunnel;
        tunnel.write_all(b"hello").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "10.1.0.5 said hello");
    }
}

isolated_test! {
    async fn hbone_row_19_and_the_pods_own_when_spoofing_is_off() {
        let store = Store::open_with(&[("ENABLE_ORIG_SRC", "false")]).await;
        store.cart.serve_echo(8080);
        let mut tunnel = store.client().await.open(&store.authority(8080)).await.unwrap().tunnel;
        tunnel.write_all(b"hello").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "10.1.0.77 said hello");
    }
}

isolated_test! {
    async fn hbone_unknown_headers_and_broken_known_ones_harm_nobody() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let odd: [&[(&str, &str)]; 5] = [
            &[("x-istio-source", "gateway"), ("x-whatever", "1")],
            &[("baggage", "=,,a,=b=c,k8s.namespace.name"), ("baggage", "k8s.namespace.name=elsewhere")],
            &[("forwarded", ";;host=\"\";for=")],
            &[("forwarded", "host=cart.shop.svc.cluster.local")],
            &[("traceparent", "nonsense")],
        ];
        for headers in odd {
            let answer = client.open_with(&store.authority(8080), headers).await.unwrap();
            assert_eq!(answer.status, 200, "{headers:?}");
        }
    }
}

isolated_test! {
    async fn hbone_a_host_name_is_resolved_to_a_service_of_the_pod() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let client = store.client().await;
        let mut tunnel = client.open("cart.shop.svc.cluster.local:80").await.unwrap().tunnel;
        tunnel.write_all(b"by name").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "10.1.0.5 said by name");
        assert_eq!(client.status("nobody.example:80").await, 503);
        assert_eq!(client.status("cart.shop.svc.cluster.local:81").await, 503, "no such port");
    }
}

isolated_test! {
    async fn hbone_a_waypoint_takes_streams_for_its_services_and_dials_its_own_address() {
        let store = Store::open().await;
        // `cart` is the waypoint of `backend`.
        let mut backend = service("shop", "backend", &["172.20.0.50"], &[(80, 8080)]);
        backend.waypoint = Some(gateway_host(&store.service));
        store.world.ads.apply(vec![svc(&backend)]).await;
        store.cart.serve_echo(80);
        let client = store.client().await;
        let mut tunnel = client.open("172.20.0.50:80").await.unwrap().tunnel;
        tunnel.write_all(b"sandwich").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "10.1.0.5 said sandwich");
    }
}

isolated_test! {
    async fn hbone_plaintext_is_delivered_with_its_source_address() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        assert_eq!(plain.ask(store.cart.at(8080), "v4").await.unwrap(), "10.9.0.9 said v4");
        let six = SocketAddr::new(store.cart.v6, 8080);
        assert_eq!(plain.ask(six, "v6").await.unwrap(), format!("{} said v6", plain.v6));
    }
}

isolated_test! {
    async fn hbone_plaintext_to_the_proxys_own_ports_is_closed() {
        let store = Store::open().await;
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        for port in [15001, 15006] {
            let answer = soon("an end", plain.ask(store.cart.at(port), "hello?")).await;
            assert_eq!(answer.unwrap_or_default(), "", "{port}");
        }
    }
}

isolated_test! {
    async fn hbone_plaintext_that_is_denied_gets_no_byte() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let strict = Match { not_principals: vec![presence()], ..Match::default() };
        store.world.ads.apply(vec![conformance::ads::policy(&policy("strict", DENY, strict))]).await;
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        let answer = soon("an end", plain.ask(store.cart.at(8080), "hello?")).await;
        assert_eq!(answer.unwrap_or_default(), "");
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 200);
        let failed = [("reporter", "destination"), ("response_flags", "DENY"), ("connection_security_policy", "unknown")];
        store.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_kubelet_probes_bypass_the_proxy() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let nobody = Authorization { rules: Vec::new(), ..policy("nobody", ALLOW, Match::default()) };
        store.world.ads.apply(vec![conformance::ads::policy(&nobody)]).await;
        let kubelet = store.world.hub.pod("node", "kubelet", "10.9.0.9");
        kubelet.add_address("169.254.7.127/32");
        let socket = kubelet.netns.run(|| mesh_sys::socket::TcpConnectOptions::default().socket(store.cart.at(8080)));
        let socket = socket.unwrap().unwrap();
        mesh_sys::socket::spoof_source(&socket, "169.254.7.127".parse().unwrap()).unwrap();
        let mut probe = tokio::net::TcpSocket::from_std_stream(socket.into()).connect(store.cart.at(8080)).await.unwrap();
        probe.write_all(b"alive?").await.unwrap();
        probe.shutdown().await.unwrap();
        assert_eq!(rest(&mut probe).await.unwrap(), "169.254.7.127 said alive?");
    }
}

isolated_test! {
    async fn hbone_a_gateway_request_is_attributed_by_its_baggage() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let client = store.client().await;
        let baggage = "k8s.cluster.name=far,k8s.namespace.name=afar,k8s.deployment.name=caller,service.name=caller-svc";
        for (network, workload) in [("n2", "caller"), ("N1", "api-deploy")] {
            let headers = [("baggage", baggage), ("x-forwarded-network", network)];
            let mut tunnel = client.open_with(&store.authority(8080), &headers).await.unwrap().tunnel;
            tunnel.shutdown().await.unwrap();
            rest(&mut tunnel).await.unwrap();
            let closed = [("source_workload", workload), ("source_principal", "spiffe://cluster.local/ns/web/sa/api")];
            store.running.proxy.metric_is("istio_tcp_connections_closed_total", &closed, 1.0).await;
        }
        let far = [("source_workload", "caller"), ("source_app", "caller"), ("source_canonical_service", "caller-svc")];
        store.running.proxy.metric_is("istio_tcp_connections_closed_total", &far, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_a_pod_whose_workload_is_unknown_fails_the_handshake_after_five_seconds() {
        let store = Store::open().await;
        let unknown = store.world.hub.pod("shop", "unknown", "10.1.0.90");
        store.running.enrol(&unknown).await;
        let own = store.world.credentials(&store.peer.identity());
        let started = std::time::Instant::now();
        let connected = Client::connect(&store.peer, unknown.at(15008), &own);
        assert!(within("a refusal", Duration::from_secs(9), connected).await.is_err());
        assert!(started.elapsed() >= Duration::from_secs(4), "gave up after {:?}", started.elapsed());
        // What comes within that time is in time.
        let late = store.world.hub.pod("shop", "late", "10.1.0.91");
        store.running.enrol(&late).await;
        late.serve_copies(8080);
        let connected = Client::connect(&store.peer, late.at(15008), &own);
        let known = store.world.ads.apply(vec![wl(&workload(&late, 1))]);
        let (connected, ()) = tokio::join!(connected, known);
        assert_eq!(connected.unwrap().status("10.1.0.91:8080").await, 200);
    }
}

isolated_test! {
    async fn hbone_mapped_addresses_are_those_of_ipv4() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        assert_eq!(store.client().await.status("[::ffff:10.1.0.77]:8080").await, 200);
    }
}
