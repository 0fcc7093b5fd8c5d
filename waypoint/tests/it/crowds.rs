//! Clients that take places and turns and make nothing of them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_wire::l7::Protocol;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, connect};
use crate::endpoint::{Application, Endpoint};
use crate::gateway::client_hello;
use crate::isolate::isolated_test;
use crate::resources::{address, listener, port, proxy, service, workload};
use crate::world::{HBONE_PORT, World};

/// Of what says nothing at a listener, one address may have so many.
const SHARE: usize = 4_096;

async fn from(address: [u8; 4], port: u16) -> TcpStream {
    connect(Ipv4Addr::from(address).into(), SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap()
}

/// The first number in a text.
fn number(text: &str) -> Option<usize> {
    let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

async fn is_served(stream: &mut TcpStream) -> bool {
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The application answers with the head that it saw.
    while answer.windows(4).filter(|part| *part == b"\r\n\r\n").count() < 2 {
        answer.push(stream.read_u8().await.unwrap());
    }
    answer.starts_with(b"HTTP/1.1 200 OK")
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn allow_many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

isolated_test! {
    async fn silent_clients_of_one_address_make_room_among_themselves_and_others_do_not() {
        allow_many_descriptors();
        let _one = Endpoint::start("127.0.0.2", "one", Application::Http(Duration::ZERO)).await;
        let pod = address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)]));
        let addresses = vec![service("one", "10.1.1.1", 80, 8080), pod];
        let world = World::gateway(&[listener("a", 8080, Protocol::Http, "one")], addresses).await;
        let mut other = from([127, 0, 0, 9], 8080).await;
        let mut spoken = from([127, 0, 0, 1], 8080).await;
        assert!(is_served(&mut spoken).await);
        let mut crowd = Vec::new();
        for _ in 0..5_000 {
            crowd.push(from([127, 0, 0, 1], 8080).await);
        }
        let is_share = async |_: &World| crowd.iter().filter(|stream| is_open(stream)).count() == SHARE;
        world.eventually("no more than its share is open", is_share).await;
        assert!(crowd.iter().rev().take(SHARE).all(is_open), "the latest have their places");
        let last = crowd.last_mut().unwrap();
        for stream in [last, &mut other, &mut spoken] {
            assert!(is_served(stream).await);
        }
        // Not with a line for each: the others are summed up.
        let said = async |world: &World| {
            let log = world.log();
            let lines = log.lines().filter(|line| line.contains("it made room for others")).count();
            let sums = log.lines().filter(|line| line.contains("made room for others") && line.contains("suppressed"));
            let suppressed = |line: &str| line.split("suppressed").nth(1).and_then(number).unwrap();
            assert!(lines < 200, "{lines} lines");
            lines > 0 && lines + sums.map(suppressed).sum::<usize>() == 5_000 - SHARE
        };
        world.eventually("the log says why, and how many", said).await;
    }
}

isolated_test! {
    async fn handshakes_that_stall_lose_their_turn_to_who_waits() {
        allow_many_descriptors();
        let _db = Endpoint::start("127.0.0.2", "db", Application::Bytes("db")).await;
        let pod = address(&workload("db-1", "127.0.0.2", "db", &[("db", 5432, 5432)]));
        let addresses = vec![service("db", "10.1.1.7", 5432, 5432), pod];
        let world = World::waypoint(proxy(), &[port("db", "10.1.1.7", 5432, Protocol::Tcp)], addresses).await;
        let hello = client_hello("x");
        let mut stalled = Vec::new();
        // As many as there are turns, none of more than a source's share, and some that wait.
        for last in 10..30 {
            for _ in 0..32 {
                let mut stream = from([127, 0, 0, last], HBONE_PORT).await;
                stream.write_all(&hello).await.unwrap();
                stalled.push(stream);
            }
        }
        // They have been told who we are: their turn has come, and they do not go on.
        for stream in stalled.iter_mut().take(500) {
            stream.read_u8().await.unwrap();
        }
        let began = Instant::now();
        let client = Client::at("spiffe://cluster.local/ns/ns1/sa/a", Ipv4Addr::new(127, 0, 0, 9)).await;
        assert_eq!(client.ask("10.1.1.7:5432", "x").await, "db: x");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        let cut = "did not go on while others waited";
        world.eventually("the log tells who was cut", async |world| world.log().contains(cut)).await;
    }
}
