//! Clients that send what nobody reads, and memory that is limited.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use mesh_wire::l7::Protocol;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, port, service, workload};
use crate::world::World;

const DEAF: &str = "10.1.1.7:5432";
const CLIENT: &str = "spiffe://cluster.local/ns/ns1/sa/a";
const STREAMS: usize = 20;

/// A waypoint with so much memory, in front of an application that reads nothing.
async fn deaf(memory_mib: u64) -> (Endpoint, World) {
    let endpoint = Endpoint::start("127.0.0.2", "db", Application::Deaf).await;
    let pod = address(&workload("db-1", "127.0.0.2", "db", &[("db", 5432, 5432)]));
    let addresses = vec![service("db", "10.1.1.7", 5432, 5432), pod];
    let world = World::small(memory_mib, &port("db", "10.1.1.7", 5432, Protocol::Tcp), addresses).await;
    (endpoint, world)
}

/// A tunnel of its own from this address, whose streams send as much as they may.
async fn attack(from: Ipv4Addr) -> Vec<JoinHandle<()>> {
    let client = Rc::new(Client::at(CLIENT, from).await);
    let send = |client: Rc<Client>| async move {
        let Ok(mut stream) = client.open(DEAF).await else { return };
        let piece = vec![7; 64 << 10];
        while stream.write_all(&piece).await.is_ok() {}
    };
    (0..STREAMS).map(|_| tokio::task::spawn_local(send(client.clone()))).collect()
}

isolated_test! {
    async fn many_tunnels_of_one_client_that_nobody_reads_do_not_fill_the_memory() {
        let (_endpoint, world) = deaf(256).await;
        let before = world.memory_mib("VmRSS");
        let mut attacks = Vec::new();
        for _ in 0..64 {
            attacks.extend(attack(Ipv4Addr::LOCALHOST).await);
        }
        // As much as they are given: then nothing moves any more.
        let mut last = 0;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = world.memory_mib("VmRSS");
            if now == last && now > before + 32 {
                break;
            }
            last = now;
        }
        let most = world.memory_mib("VmHWM");
        println!("{before} MiB before, at most {most} MiB");
        assert!(most > before + 32, "{before} MiB before, then {most} MiB: nobody filled anything");
        assert!(most < 256, "{before} MiB before, then {most} MiB");
        drop(attacks);
    }
}

isolated_test! {
    async fn when_many_clients_fill_the_memory_those_that_hold_most_are_cut_and_others_are_served() {
        const LIMIT_MIB: u64 = 160;
        let (_endpoint, world) = deaf(LIMIT_MIB).await;
        let other = Client::at(CLIENT, Ipv4Addr::new(127, 0, 0, 9)).await;
        let _open = other.open(DEAF).await.unwrap();
        let before = world.memory_mib("VmRSS");
        let mut attacks = Vec::new();
        for number in 0..200_u8 {
            attacks.extend(attack(Ipv4Addr::new(127, 0, 1, number)).await);
            // One after the other fills what it was given.
            tokio::time::sleep(Duration::from_millis(100)).await;
            if world.log().contains("held back most were cut") {
                break;
            }
        }
        world.eventually("who holds most is cut", async |world| world.log().contains("held back most were cut")).await;
        world.eventually("an open tunnel takes connections", async |_| other.open(DEAF).await.is_ok()).await;
        world.metric(&["istio_tcp_connections_closed_total", "response_flags=\"OM\""]).await;
        attacks.iter().for_each(JoinHandle::abort);
        world.eventually("there is memory again", async |world| world.log().contains("there is memory again")).await;
        let newcomer = Client::at(CLIENT, Ipv4Addr::new(127, 0, 0, 10)).await;
        world.eventually("new tunnels are taken", async |_| newcomer.open(DEAF).await.is_ok()).await;
        let most = world.memory_mib("VmHWM");
        println!("{before} MiB before, at most {most} MiB");
        assert!(most < LIMIT_MIB, "{before} MiB before, then {most} MiB");
    }
}
