//! Rows of the waypoint's must-pass table.

use std::time::Duration;

use mesh_hbone::OpenError;
use mesh_wire::l7::{self, Protocol};

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, port, proxy, service, workload};
use crate::world::World;

const CLIENT: &str = "spiffe://cluster.local/ns/ns1/sa/a";
const HTTP: Application = Application::Http(Duration::ZERO);

/// A waypoint for `reviews` at 10.1.1.5:9080, whose endpoint is at 127.0.0.2:8080.
async fn reviews(proxy: l7::Proxy, port_of: l7::Port, application: Application) -> (World, Endpoint) {
    let endpoint = Endpoint::start("127.0.0.2", "reviews", application).await;
    let pod = workload("reviews-1", "127.0.0.2", "reviews", &[("reviews", 9080, 8080)]);
    let addresses = vec![service("reviews", "10.1.1.5", 9080, 8080), address(&pod)];
    (World::waypoint(proxy, &[port_of], addresses).await, endpoint)
}

fn http() -> l7::Port {
    port("reviews", "10.1.1.5", 9080, Protocol::Http)
}

isolated_test! {
    async fn waypoint_row_1_a_request_reaches_an_endpoint_through_a_tunnel() {
        let (world, endpoint) = reviews(proxy(), http(), HTTP).await;
        let client = Client::new(CLIENT).await;
        let answer = client.get("10.1.1.5:9080", "/x", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("GET /x HTTP/1.1"), "{answer}");
        let asked = endpoint.asked();
        assert_eq!((asked.len(), asked[0].authority.as_str()), (1, "127.0.0.2:8080"));
        assert_eq!(asked[0].client.as_ref().unwrap().to_string(), "spiffe://cluster.local/ns/shop/sa/wp");
        world
            .metric(&[
                "istio_requests_total",
                "reporter=\"waypoint\"",
                "source_principal=\"spiffe://cluster.local/ns/ns1/sa/a\"",
                "destination_service=\"reviews.shop.svc.cluster.local\"",
                "destination_workload=\"reviews-1\"",
                "response_code=\"200\"",
                "connection_security_policy=\"mutual_tls\"",
            ])
            .await;
    }
}

isolated_test! {
    async fn waypoint_row_2_and_waypoint_row_3_what_is_not_served_is_refused_and_nothing_is_forwarded() {
        let (_world, endpoint) = reviews(proxy(), http(), HTTP).await;
        let client = Client::new(CLIENT).await;
        assert_eq!(client.refused("10.1.1.5:9999").await, 404);
        assert_eq!(client.refused("10.9.9.9:80").await, 404);
        assert!(endpoint.asked().is_empty());
    }
}

isolated_test! {
    async fn waypoint_row_4_a_client_of_another_trust_domain_is_refused_before_http() {
        let (_world, endpoint) = reviews(proxy(), http(), HTTP).await;
        let stranger = Client::new("spiffe://other.example/ns/ns1/sa/a").await;
        let error = stranger.open("10.1.1.5:9080").await.unwrap_err();
        assert!(matches!(error, OpenError::Dial(_) | OpenError::Broken { .. }), "{error}");
        assert!(endpoint.asked().is_empty());
    }
}

isolated_test! {
    async fn waypoint_row_4_a_client_of_an_alias_of_the_trust_domain_is_one_of_ours() {
        let mut aliased = proxy();
        aliased.settings.as_mut().unwrap().trust_domains.push("alias.example".into());
        let (_world, _endpoint) = reviews(aliased, http(), HTTP).await;
        let client = Client::new("spiffe://alias.example/ns/ns1/sa/a").await;
        assert!(client.get("10.1.1.5:9080", "/x", "").await.starts_with("HTTP/1.1 200 OK"));
    }
}

isolated_test! {
    async fn waypoint_row_5_what_a_client_says_of_its_own_certificate_is_removed() {
        let (_world, _endpoint) = reviews(proxy(), http(), HTTP).await;
        let client = Client::new(CLIENT).await;
        let answer = client.get("10.1.1.5:9080", "/x", "x-forwarded-client-cert: By=evil\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.contains("x-forwarded-client-cert"), "{answer}");
    }
}

isolated_test! {
    async fn waypoint_row_6_the_proven_identity_is_told_where_that_is_wanted() {
        let telling = l7::Proxy { forward_client_identity: true, ..proxy() };
        let (_world, _endpoint) = reviews(telling, http(), HTTP).await;
        let client = Client::new(CLIENT).await;
        let answer = client.get("10.1.1.5:9080", "/x", "x-forwarded-client-cert: By=evil\r\n").await;
        let expected = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/wp;URI=spiffe://cluster.local/ns/ns1/sa/a\r\n";
        assert!(answer.contains(expected), "{answer}");
    }
}

isolated_test! {
    async fn waypoint_row_7_bytes_of_no_known_protocol_are_handed_on_as_they_are() {
        let unknown = port("reviews", "10.1.1.5", 9080, Protocol::Detect);
        let (world, _endpoint) = reviews(proxy(), unknown, Application::Bytes("app")).await;
        let client = Client::new(CLIENT).await;
        assert_eq!(client.ask("10.1.1.5:9080", "SSH-2.0-OpenSSH_9.6\r\n").await, "app: SSH-2.0-OpenSSH_9.6\r\n");
        world.metric(&["istio_tcp_received_bytes_total", "destination_service=\"reviews.shop", "} 21"]).await;
        world.metric(&["istio_tcp_connections_closed_total", "response_flags=\"-\"", "} 1"]).await;
        world.metric(&["process_resident_memory_bytes"]).await;
        world.metric(&["process_cpu_seconds_total"]).await;
    }
}

isolated_test! {
    async fn waypoint_row_7_http_on_a_port_of_no_declared_protocol_is_found_out() {
        let unknown = port("reviews", "10.1.1.5", 9080, Protocol::Detect);
        let (_world, _endpoint) = reviews(proxy(), unknown, HTTP).await;
        let client = Client::new(CLIENT).await;
        let answer = client.get("10.1.1.5:9080", "/x", "x-forwarded-client-cert: By=evil\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.contains("By=evil"), "{answer}");
    }
}
