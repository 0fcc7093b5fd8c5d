//! Connections of bytes: policies, server names, weights.

use std::time::Duration;

use http::StatusCode;
use mesh_wire::l7::{self, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, allow, backend, port, proxy, service, workload};
use crate::world::World;

const CLIENT: &str = "spiffe://cluster.local/ns/ns1/sa/a";

isolated_test! {
    async fn a_policy_that_turns_against_an_open_connection_cuts_it_at_once() {
        let endpoint = Endpoint::start("127.0.0.2", "db", Application::Bytes("db")).await;
        let pod = workload("db-1", "127.0.0.2", "db", &[("db", 5432, 5432)]);
        let addresses = vec![service("db", "10.1.1.7", 5432, 5432), address(&pod)];
        let open = port("db", "10.1.1.7", 5432, Protocol::Tcp);
        let world = World::waypoint(proxy(), std::slice::from_ref(&open), addresses).await;
        let client = Client::new(CLIENT).await;
        let mut stream = client.open("10.1.1.7:5432").await.unwrap();
        let mut greeting = [0; 4];
        // The server speaks first: nothing was waited for.
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"db: ");
        stream.write_all(b"select 1").await.unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await.unwrap();
        let guarded = l7::Port { authorizations: vec![allow("only-b", "cluster.local/ns/ns1/sa/b")], ..open };
        world.port(&guarded);
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("cut").ok();
        assert!(rest.is_empty());
        assert_eq!(client.refused("10.1.1.7:5432").await, StatusCode::FORBIDDEN);
        let calls = endpoint.asked().len();
        let allowed = Client::new("spiffe://cluster.local/ns/ns1/sa/b").await;
        assert_eq!(allowed.ask("10.1.1.7:5432", "x").await, "db: x");
        assert_eq!(endpoint.asked().len(), calls + 1);
        world.eventually("the log says which policy", async |world| world.log().contains("only-b")).await;
    }
}

isolated_test! {
    async fn connections_are_shared_out_by_weight_and_a_dead_endpoint_is_an_answer() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Bytes("one")).await;
        let _two = Endpoint::start("127.0.0.3", "two", Application::Bytes("two")).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            service("two", "10.1.1.2", 80, 8080),
            service("gone", "10.1.1.3", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)])),
            address(&workload("two-1", "127.0.0.3", "two", &[("two", 80, 8080)])),
            address(&workload("gone-1", "127.0.0.9", "gone", &[("gone", 80, 8080)])),
        ];
        let weighted = |weight, index| l7::WeightedBackend {
            weight,
            target: Some(l7::weighted_backend::Target::Backend(index)),
            ..l7::WeightedBackend::default()
        };
        let split = l7::Port {
            backends: vec![backend("one", 80), backend("two", 80)],
            tcp_rules: vec![l7::L4Rule { backends: vec![weighted(50, 0), weighted(50, 1)], ..l7::L4Rule::default() }],
            ..port("one", "10.1.1.1", 80, Protocol::Tcp)
        };
        let gone = port("gone", "10.1.1.3", 80, Protocol::Tcp);
        let world = World::waypoint(proxy(), &[split, gone], addresses).await;
        let client = Client::new(CLIENT).await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            seen.insert(client.ask("10.1.1.1:80", "x").await);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["one: x", "two: x"]);
        assert_eq!(client.refused("10.1.1.3:80").await, StatusCode::SERVICE_UNAVAILABLE);
        world.metric(&["istio_tcp_connections_closed_total", "gone.shop", "response_flags=\"UF\""]).await;
    }
}
