//! The dispatch table: what a tunnel may ask for.

use std::time::Duration;

use mesh_wire::l7::{self, Protocol};
use mesh_wire::{type_url, workload as wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, allow, port, proxy, service, workload};
use crate::world::World;

const CLIENT: &str = "spiffe://cluster.local/ns/ns1/sa/a";

isolated_test! {
    async fn waypoint_dispatch_table_everything_else_is_refused_whatever_it_is() {
        let endpoint = Endpoint::start("127.0.0.2", "reviews", Application::Http(Duration::ZERO)).await;
        let pod = workload("reviews-1", "127.0.0.2", "reviews", &[("reviews", 80, 8080)]);
        let named = l7::Port { by_hostname: true, ..port("reviews", "10.1.1.5", 80, Protocol::Http) };
        let unnamed = port("ratings", "10.1.1.6", 80, Protocol::Http);
        let addresses = vec![
            service("reviews", "10.1.1.5", 80, 8080),
            service("ratings", "10.1.1.6", 80, 8080),
            service("other", "10.1.1.9", 80, 8080),
            address(&pod),
        ];
        let _world = World::waypoint(proxy(), &[named, unnamed], addresses).await;
        let client = Client::new(CLIENT).await;
        for served in ["10.1.1.5:80", "reviews.shop.svc.cluster.local:80", "REVIEWS.shop.svc.cluster.local:80"] {
            assert!(client.get(served, "/", "").await.starts_with("HTTP/1.1 200 OK"), "{served}");
        }
        let before = endpoint.asked().len();
        for (authority, status) in [
            ("10.1.1.5:81", 404),
            ("reviews.shop.svc.cluster.local:81", 404),
            ("ratings.shop.svc.cluster.local:80", 404),
            ("reviews:80", 404),
            ("10.1.1.9:80", 404),
            // The endpoint itself: only services are served.
            ("127.0.0.2:8080", 404),
            ("127.0.0.2:15008", 404),
            // The proxy itself.
            ("127.0.0.1:15000", 404),
            ("127.0.0.1:15108", 404),
            ("localhost:15000", 404),
            ("[::1]:15000", 404),
            ("[::ffff:10.1.1.9]:80", 404),
            ("169.254.169.254:80", 404),
            ("0.0.0.0:80", 404),
            ("example.com:443", 404),
            ("10.1.1.5:0", 400),
            ("10.1.1.5", 400),
        ] {
            assert_eq!(client.refused(authority).await, status, "{authority}");
        }
        assert!(client.open("[::ffff:10.1.1.5]:80").await.is_ok(), "the same address, written otherwise");
        assert_eq!(endpoint.asked().len(), before, "nothing was forwarded");
    }
}

isolated_test! {
    async fn waypoint_dispatch_table_workloads_whose_waypoint_this_is_may_be_called_by_address_on_any_port() {
        let endpoint = Endpoint::start("127.0.0.2", "reviews", Application::Bytes("pod")).await;
        let waypoint = |name: &str| wire::GatewayAddress {
            destination: Some(wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
                namespace: "shop".into(),
                hostname: format!("{name}.shop.svc.cluster.local"),
            })),
            hbone_mtls_port: 15008,
        };
        let ours = wire::Workload { waypoint: Some(waypoint("wp")), ..workload("ours", "127.0.0.2", "reviews", &[]) };
        let theirs =
            wire::Workload { waypoint: Some(waypoint("other")), ..workload("theirs", "127.0.0.3", "reviews", &[]) };
        let without = workload("without", "127.0.0.4", "reviews", &[]);
        // Loopback addresses are never workloads, so these live elsewhere on paper.
        let at = |mut workload: wire::Workload, last: u8| {
            workload.addresses = vec![vec![10, 2, 0, last]];
            address(&workload)
        };
        let own = workload("wp-1", "127.0.0.1", "wp", &[("wp", 15008, 15108)]);
        let addresses = vec![
            service("wp", "10.1.1.1", 15008, 15108),
            address(&own),
            at(ours, 2),
            at(theirs, 3),
            at(without, 4),
        ];
        std::process::Command::new("ip").args(["addr", "add", "10.2.0.2/32", "dev", "lo"]).status().unwrap();
        let near = Endpoint::start("10.2.0.2", "reviews", Application::Bytes("pod")).await;
        let serving = l7::Proxy { serves_workloads: true, ..proxy() };
        let world = World::waypoint(serving, &[], addresses).await;
        let client = Client::new(CLIENT).await;
        world.eventually("own workload is known", async |_| client.open("10.2.0.2:7000").await.is_ok()).await;
        assert_eq!(client.ask("10.2.0.2:7001", "hello\n").await, "pod: hello\n");
        assert_eq!(near.asked().last().unwrap().authority, "10.2.0.2:7001");
        for other in ["10.2.0.3:7000", "10.2.0.4:7000", "10.2.0.99:7000", "127.0.0.1:15000"] {
            assert_eq!(client.refused(other).await, 404, "{other}");
        }
        assert!(endpoint.asked().is_empty());
        // A service that it serves as well may be guarded: then the service is to be called, whose policies would be left out.
        let mut stream = client.open("10.2.0.2:8080").await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut answer = [0; 11];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pod: hello\n");
        let backing = workload("ours", "127.0.0.2", "reviews", &[("headless", 80, 8080)]);
        let backing = wire::Workload { waypoint: Some(waypoint("wp")), ..backing };
        let mut guarded = wire::Service {
            name: "headless".into(),
            namespace: "shop".into(),
            hostname: crate::resources::host("headless"),
            ports: vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }],
            ..wire::Service::default()
        };
        guarded.extensions = vec![wire::Extension { name: mesh_wire::meltemi::WAYPOINT_REQUIRED.into(), config: None }];
        let guarded = crate::resources::service_of(&guarded);
        world.publish(type_url::ADDRESS, vec![guarded, at(backing, 2)]);
        world.eventually("the service is guarded", async |_| client.open("10.2.0.2:8080").await.is_err()).await;
        assert_eq!(client.refused("10.2.0.2:8080").await, 403);
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("cut").ok();
        assert_eq!(client.ask("10.2.0.2:7001", "hello\n").await, "pod: hello\n", "other ports are nobody's");
        world.publish(type_url::ADDRESS, vec![service("headless", "10.1.1.77", 80, 8080)]);
        world.eventually("it is no longer", async |_| client.open("10.2.0.2:8080").await.is_ok()).await;
        // Only the proxy's own policies count.
        let guarded = l7::Proxy {
            serves_workloads: true,
            authorizations: vec![allow("only-b", "cluster.local/ns/ns1/sa/b")],
            ..proxy()
        };
        let resource = crate::resources::l7(crate::resources::GATEWAY, l7::resource::Kind::Proxy(guarded));
        world.publish(type_url::L7, vec![resource]);
        world
            .eventually("the policy is in force", async |_| client.ask_quietly("10.2.0.2:7001", "hello\n").await.is_empty())
            .await;
        let allowed = Client::new("spiffe://cluster.local/ns/ns1/sa/b").await;
        assert_eq!(allowed.ask("10.2.0.2:7001", "hello\n").await, "pod: hello\n");
    }
}
