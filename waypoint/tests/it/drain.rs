//! The end of the process.

use std::time::Duration;

use mesh_wire::l7::Protocol;
use nix::sys::signal::Signal;

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, port, proxy, service, workload};
use crate::world::{HBONE_PORT, World};

isolated_test! {
    async fn waypoint_row_15_requests_in_flight_finish_when_the_process_is_told_to_end() {
        let slow = Application::Http(Duration::from_secs(2));
        let endpoint = Endpoint::start("127.0.0.2", "reviews", slow).await;
        let pod = workload("reviews-1", "127.0.0.2", "reviews", &[("reviews", 80, 8080)]);
        let addresses = vec![service("reviews", "10.1.1.5", 80, 8080), address(&pod)];
        let port = port("reviews", "10.1.1.5", 80, Protocol::Http);
        let mut world = World::waypoint(proxy(), &[port], addresses).await;
        let client = std::rc::Rc::new(Client::new("spiffe://cluster.local/ns/ns1/sa/a").await);
        let requests: Vec<_> = (0..100)
            .map(|n| {
                let client = client.clone();
                tokio::task::spawn_local(async move { client.get("10.1.1.5:80", &format!("/{n}"), "").await })
            })
            .collect();
        world.eventually("all are in flight", async |_| endpoint.asked().len() == 100).await;
        world.signal(Signal::SIGTERM);
        world.eventually("not ready", async |world| world.get(15021, "/healthz/ready").await.contains("500")).await;
        for request in requests {
            let answer = request.await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        assert!(world.ended().await.success());
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", HBONE_PORT)).await.is_err());
        assert!(!world.log().contains("connections are cut"), "{}", world.log());
    }
}
