//! The agent's side of the conversation with node proxies, against a scripted proxy.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cni::zds::{self, PodEntry, Proxies, Snapshots, ZdsError};
use mesh_core::drain::{self, DrainSignal};
use mesh_sys::netns::NetNs;
use mesh_sys::seqpacket::SeqpacketStream;
use mesh_telemetry::metrics::Gauge;
use mesh_wire::zds::workload_request::Payload;
use mesh_wire::zds::{Ack, WorkloadInfo, WorkloadRequest, WorkloadResponse, ZdsHello, workload_response};
use prost::Message;

use crate::lab::PATIENCE;

/// The pods that snapshots carry.
#[derive(Default)]
pub(crate) struct Pods(pub(crate) Mutex<Vec<PodEntry>>);

impl Snapshots for Pods {
    fn snapshot(&self) -> Vec<PodEntry> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) struct Server {
    pub(crate) proxies: Proxies,
    pub(crate) connected: Gauge,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
    _drain: DrainSignal,
}

impl Server {
    pub(crate) fn start(pods: Arc<dyn Snapshots>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/ztunnel.sock");
        let connected = Gauge::default();
        let proxies = Proxies::new(connected.clone());
        let (signal, watch) = drain::channel();
        let listener = zds::listener::bind(&path).unwrap();
        tokio::spawn(zds::serve(listener, proxies.clone(), pods, watch));
        Self { proxies, connected, path, _dir: dir, _drain: signal }
    }

    pub(crate) async fn connect(&self) -> Proxy {
        let proxy = self.connect_silently();
        proxy.send(&ZdsHello { version: 1 }.encode_to_vec()).await;
        proxy
    }

    fn connect_silently(&self) -> Proxy {
        Proxy { stream: SeqpacketStream::connect(&self.path).unwrap() }
    }

    /// Connects, takes the snapshot and waits until the agent knows.
    pub(crate) async fn connect_ready(&self) -> Proxy {
        let proxy = self.connect().await;
        loop {
            let (payload, _) = proxy.next().await;
            proxy.ack("").await;
            if matches!(payload, Payload::SnapshotSent(_)) {
                return proxy;
            }
        }
    }

    pub(crate) async fn wait_connected(&self, count: usize) {
        let mut changes = self.proxies.changes();
        tokio::time::timeout(PATIENCE, changes.wait_for(|found| *found == count)).await.unwrap().unwrap();
    }
}

/// A scripted proxy.
pub(crate) struct Proxy {
    stream: SeqpacketStream,
}

impl Proxy {
    async fn send(&self, packet: &[u8]) {
        self.stream.send(packet, None).await.unwrap();
    }

    pub(crate) async fn ack(&self, error: &str) {
        let ack = workload_response::Payload::Ack(Ack { error: error.to_owned() });
        self.send(&WorkloadResponse { payload: Some(ack) }.encode_to_vec()).await;
    }

    pub(crate) async fn next(&self) -> (Payload, Vec<OwnedFd>) {
        let mut buffer = [0; 1024];
        let received = tokio::time::timeout(PATIENCE, self.stream.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(received.len > 0, "closed by the agent");
        (WorkloadRequest::decode(&buffer[..received.len]).unwrap().payload.unwrap(), received.fds)
    }

    async fn closed(&self, limit: Duration) -> bool {
        let mut buffer = [0; 1024];
        matches!(tokio::time::timeout(limit, self.stream.recv(&mut buffer)).await, Ok(Ok(received)) if received.len == 0)
            || matches!(tokio::time::timeout(limit, self.stream.recv(&mut buffer)).await, Ok(Err(_)))
    }
}

fn info(name: &str) -> WorkloadInfo {
    WorkloadInfo { name: name.into(), namespace: "demo".into(), service_account: "default".into() }
}

fn entry(uid: &str, netns: Option<NetNs>) -> PodEntry {
    PodEntry { uid: uid.into(), info: info(uid), netns: netns.map(Arc::new) }
}

fn own() -> Arc<NetNs> {
    Arc::new(NetNs::current().unwrap())
}

#[tokio::test]
async fn a_snapshot_adds_pods_with_their_namespace_and_keeps_those_without() {
    let pods = vec![entry("a", Some(NetNs::current().unwrap())), entry("b", None)];
    let server = Server::start(Arc::new(Pods(Mutex::new(pods))));
    let proxy = server.connect().await;
    let (payload, mut fds) = proxy.next().await;
    let Payload::Add(add) = payload else { panic!("{payload:?}") };
    assert_eq!((add.uid.as_str(), add.workload_info.unwrap()), ("a", info("a")));
    assert_eq!(fds.len(), 1);
    assert_eq!(NetNs::from_fd(fds.remove(0)).unwrap().id(), own().id());
    proxy.ack("").await;
    let (payload, fds) = proxy.next().await;
    assert!(matches!(&payload, Payload::Keep(keep) if keep.uid == "b") && fds.is_empty(), "{payload:?}");
    proxy.ack("").await;
    let (payload, fds) = proxy.next().await;
    assert!(matches!(payload, Payload::SnapshotSent(_)) && fds.is_empty());
    proxy.ack("").await;
    server.wait_connected(1).await;
    assert_eq!(server.connected.get(), 1);
}

#[tokio::test]
async fn a_refused_pod_does_not_end_the_snapshot() {
    let pods = vec![entry("a", Some(NetNs::current().unwrap()))];
    let server = Server::start(Arc::new(Pods(Mutex::new(pods))));
    let proxy = server.connect().await;
    assert!(matches!(proxy.next().await.0, Payload::Add(_)));
    proxy.ack("port in use").await;
    assert!(matches!(proxy.next().await.0, Payload::SnapshotSent(_)));
}

#[tokio::test]
async fn updates_wait_for_the_snapshot_and_answers_reach_the_caller() {
    let server = Server::start(Arc::new(Pods::default()));
    let proxy = server.connect().await;
    server.wait_connected(1).await;
    let proxies = server.proxies.clone();
    let add = tokio::spawn(async move { proxies.add("late".into(), info("late"), own()).await });
    assert!(matches!(proxy.next().await.0, Payload::SnapshotSent(_)));
    proxy.ack("").await;
    let (payload, fds) = proxy.next().await;
    assert!(matches!(payload, Payload::Add(add) if add.uid == "late"));
    assert_eq!(fds.len(), 1);
    proxy.ack("no room").await;
    assert_eq!(add.await.unwrap(), Err(ZdsError::Refused { message: "no room".into() }));
}

#[tokio::test]
async fn without_a_proxy_an_addition_fails_at_once_and_a_removal_is_done() {
    let server = Server::start(Arc::new(Pods::default()));
    assert_eq!(server.proxies.add("a".into(), info("a"), own()).await, Err(ZdsError::NoProxy));
    assert_eq!(server.proxies.delete("a").await, Ok(()));
}

#[tokio::test]
async fn the_newest_proxy_gets_additions_and_all_get_removals() {
    let server = Server::start(Arc::new(Pods::default()));
    let old = server.connect_ready().await;
    let new = server.connect_ready().await;
    server.wait_connected(2).await;
    let proxies = server.proxies.clone();
    let work = tokio::spawn(async move {
        proxies.add("a".into(), info("a"), own()).await.unwrap();
        proxies.delete("a").await.unwrap();
    });
    assert!(matches!(new.next().await.0, Payload::Add(_)));
    new.ack("").await;
    assert!(matches!(new.next().await.0, Payload::Del(del) if del.uid == "a"));
    new.ack("").await;
    // The first thing the older one hears is the removal.
    assert!(matches!(old.next().await.0, Payload::Del(del) if del.uid == "a"));
    old.ack("").await;
    work.await.unwrap();
}

#[tokio::test]
async fn zds_row_16_a_silent_proxy_is_reported_and_both_connections_stay() {
    let server = Server::start(Arc::new(Pods::default()));
    let silent = server.connect_ready().await;
    let new = server.connect_ready().await;
    server.wait_connected(2).await;
    let proxies = server.proxies.clone();
    let delete = tokio::spawn(async move { proxies.delete("c").await });
    assert!(matches!(new.next().await.0, Payload::Del(_)));
    new.ack("").await;
    assert!(matches!(silent.next().await.0, Payload::Del(_)));
    assert_eq!(delete.await.unwrap(), Err(ZdsError::NoAnswer { limit: zds::PACKET_TIMEOUT }));
    assert_eq!(server.proxies.connected(), 2);

    // Its answer, late, is not taken for that of the next request.
    let proxies = server.proxies.clone();
    let delete = tokio::spawn(async move { proxies.delete("d").await });
    silent.ack("").await;
    assert!(matches!(silent.next().await.0, Payload::Del(del) if del.uid == "d"));
    assert!(matches!(new.next().await.0, Payload::Del(del) if del.uid == "d"));
    new.ack("").await;
    silent.ack("cannot").await;
    assert_eq!(delete.await.unwrap(), Err(ZdsError::Refused { message: "cannot".into() }));
}

#[tokio::test]
async fn a_proxy_that_goes_away_is_noticed_at_once() {
    let server = Server::start(Arc::new(Pods::default()));
    let proxy = server.connect_ready().await;
    server.wait_connected(1).await;
    drop(proxy);
    server.wait_connected(0).await;
    assert_eq!(server.connected.get(), 0);
    assert_eq!(server.proxies.add("a".into(), info("a"), own()).await, Err(ZdsError::NoProxy));
}

#[tokio::test]
async fn a_proxy_that_leaves_during_a_request_fails_it() {
    let server = Server::start(Arc::new(Pods::default()));
    let proxy = server.connect_ready().await;
    server.wait_connected(1).await;
    let proxies = server.proxies.clone();
    let add = tokio::spawn(async move { proxies.add("a".into(), info("a"), own()).await });
    assert!(matches!(proxy.next().await.0, Payload::Add(_)));
    drop(proxy);
    assert!(matches!(add.await.unwrap(), Err(ZdsError::Disconnected { .. })));
}

#[tokio::test]
async fn peers_that_do_not_greet_as_they_should_are_dropped() {
    let server = Server::start(Arc::new(Pods::default()));
    for packet in [
        vec![0xff, 0xff, 0xff],
        ZdsHello { version: 0 }.encode_to_vec(),
        ZdsHello { version: 9 }.encode_to_vec(),
        vec![7; 2000],
    ] {
        let proxy = server.connect_silently();
        // An empty message is an empty packet, which a receiver takes for the end of the connection.
        proxy.send(if packet.is_empty() { &[8, 0] } else { &packet }).await;
        assert!(proxy.closed(PATIENCE).await, "{packet:?}");
    }
    let silent = server.connect_silently();
    assert!(silent.closed(zds::HELLO_TIMEOUT + PATIENCE).await);
    assert_eq!(server.proxies.connected(), 0);
}

#[tokio::test]
async fn an_unsolicited_packet_ends_the_connection() {
    let server = Server::start(Arc::new(Pods::default()));
    let proxy = server.connect_ready().await;
    server.wait_connected(1).await;
    proxy.ack("").await;
    server.wait_connected(0).await;
}

#[tokio::test]
async fn zds_row_17_an_idle_connection_carries_nothing() {
    let server = Server::start(Arc::new(Pods::default()));
    let proxy = server.connect_ready().await;
    let mut buffer = [0; 8];
    let quiet = tokio::time::timeout(Duration::from_millis(300), proxy.stream.recv(&mut buffer)).await;
    assert!(quiet.is_err(), "the agent spoke");
}

#[tokio::test]
async fn at_most_five_proxies_a_second_are_accepted() {
    let server = Server::start(Arc::new(Pods::default()));
    let began = std::time::Instant::now();
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.push(server.connect_ready().await);
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}
