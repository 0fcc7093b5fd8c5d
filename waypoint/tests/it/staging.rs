//! Changes of configuration: complete or not at all, and bad ones not at all.

use std::time::{Duration, Instant};

use mesh_wire::l7::{self, Protocol};
use mesh_wire::type_url;

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, backend, port, proxy, service, workload};
use crate::world::World;

const CLIENT: &str = "spiffe://cluster.local/ns/ns1/sa/a";

isolated_test! {
    async fn a_bad_resource_leaves_the_last_good_one_in_force_and_others_are_not_concerned() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Bytes("one")).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            service("two", "10.1.1.2", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080), ("two", 80, 8080)])),
        ];
        let one = port("one", "10.1.1.1", 80, Protocol::Tcp);
        let world = World::waypoint(proxy(), std::slice::from_ref(&one), addresses).await;
        let client = Client::new(CLIENT).await;
        assert_eq!(client.ask("10.1.1.1:80", "x").await, "one: x");
        let two = port("two", "10.1.1.2", 80, Protocol::Tcp);
        let names = [crate::resources::port_name(&one), crate::resources::port_name(&two)];
        let bad = l7::Port { default_backend: 7, ..one };
        let both = [bad, two].map(l7::resource::Kind::Port);
        let both = names.iter().zip(both).map(|(name, kind)| crate::resources::l7(name, kind));
        world.publish(type_url::L7, both.collect());
        world.eventually("the other is live", async |_| client.open("10.1.1.2:80").await.is_ok()).await;
        assert_eq!(client.ask("10.1.1.1:80", "x").await, "one: x");
        assert!(world.log().contains("default_backend: 7, expected an index below 1"), "{}", world.log());
    }
}

isolated_test! {
    async fn a_route_to_another_service_is_live_only_with_its_endpoints() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Bytes("one")).await;
        let _two = Endpoint::start("127.0.0.3", "two", Application::Bytes("two")).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)])),
            service("two", "10.1.1.2", 80, 8080),
            address(&workload("two-1", "127.0.0.3", "two", &[("two", 80, 8080)])),
        ];
        let one = port("one", "10.1.1.1", 80, Protocol::Tcp);
        let world = World::waypoint(proxy(), std::slice::from_ref(&one), addresses).await;
        let client = Client::new(CLIENT).await;
        assert_eq!(client.ask("10.1.1.1:80", "x").await, "one: x");
        world.port(&l7::Port { backends: vec![backend("two", 80)], ..one.clone() });
        // Never an answer that is neither of both: the change waits for what it needs.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match client.ask("10.1.1.1:80", "x").await.as_str() {
                "two: x" => break,
                "one: x" => assert!(Instant::now() < until, "the change never came"),
                other => panic!("{other:?}"),
            }
        }
        // A service that does not exist is answered too: no need to wait for long.
        world.port(&l7::Port { backends: vec![backend("nowhere", 80)], ..one });
        world.eventually("it goes nowhere", async |_| client.open("10.1.1.1:80").await.is_err()).await;
    }
}

isolated_test! {
    async fn a_service_that_goes_is_no_longer_served_and_others_are_not_disturbed() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Bytes("one")).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            service("two", "10.1.1.2", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080), ("two", 80, 8080)])),
        ];
        let (one, two) = (port("one", "10.1.1.1", 80, Protocol::Tcp), port("two", "10.1.1.2", 80, Protocol::Tcp));
        let world = World::waypoint(proxy(), &[one, two.clone()], addresses).await;
        let client = Client::new(CLIENT).await;
        let held = client.open("10.1.1.1:80").await.unwrap();
        let also = client.open("10.1.1.2:80").await.unwrap();
        world.remove(type_url::L7, &[&crate::resources::port_name(&two)]);
        world.eventually("it is not served", async |_| client.open("10.1.1.2:80").await.is_err()).await;
        for (stream, name) in [(held, "one"), (also, "one")] {
            assert_eq!(crate::client::exchange(stream, "still here").await, format!("{name}: still here"));
        }
    }
}
