//! The session with the node agent, over a real socket with a scripted agent.

#![allow(clippy::indexing_slicing)] // reason: tests

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::zds::{self, workload_request::Payload};
use prost::Message as _;
use serde_json::Value;

use super::*;

/// Pods that start unless told not to; writes down what happens.
#[derive(Default)]
struct Fake {
    log: Mutex<Vec<String>>,
    /// Stops wait here for each other.
    together: Mutex<Option<Arc<tokio::sync::Barrier>>>,
    failing: Mutex<Option<String>>,
}

struct FakeSource(Arc<Fake>);

struct FakePod(String, Arc<Fake>);

impl PodStarter for FakeSource {
    fn start(&self, pod: Pod) -> BoxFuture<'static, Result<Box<dyn RunningPod>, String>> {
        let fake = self.0.clone();
        async move {
            pod.netns.as_ref().map_err(Clone::clone)?;
            if let Some(error) = fake.failing.lock().unwrap().clone() {
                return Err(error);
            }
            fake.log
                .lock()
                .unwrap()
                .push(format!("start {} {}/{}/{}", pod.uid, pod.namespace, pod.name, pod.service_account));
            Ok(Box::new(FakePod(pod.uid, fake.clone())) as Box<dyn RunningPod>)
        }
        .boxed()
    }
}

impl RunningPod for FakePod {
    fn stop(self: Arc<Self>, mode: DrainMode) -> BoxFuture<'static, ()> {
        self.1.log.lock().unwrap().push(format!("stop {} {mode:?}", self.0));
        let together = self.1.together.lock().unwrap().clone();
        async move {
            if let Some(barrier) = together {
                barrier.wait().await;
            }
        }
        .boxed()
    }

    fn connections(&self) -> Value {
        serde_json::json!({"inbound": [], "outbound": []})
    }
}

struct Agent {
    listener: SeqpacketListener,
    fake: Arc<Fake>,
    readiness: Readiness,
    pods: Pods,
    drain: DrainSignal,
    node: tokio::task::JoinHandle<Result<(), ProtocolError>>,
    _dir: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zds.sock");
        let listener = SeqpacketListener::bind(&path).unwrap();
        let (fake, readiness) = (Arc::new(Fake::default()), Readiness::new());
        let pods = Pods::new(Arc::new(FakeSource(fake.clone())), &Registry::new());
        let (drain, watch) = drain::channel();
        let node = tokio::spawn(Node::new(path, pods.clone(), readiness.gate(READY_TASK)).run(watch));
        Self { listener, fake, readiness, pods, drain, node, _dir: dir }
    }

    /// The next connection, after its hello.
    async fn accept(&self) -> SeqpacketStream {
        let stream = soon(self.listener.accept()).await.unwrap();
        let packet = receive(&stream).await;
        let hello = zds::ZdsHello::decode(packet.as_slice()).unwrap();
        assert_eq!(hello.version, i32::from(zds::Version::V1));
        stream
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.log.lock().unwrap())
    }

    fn is_ready(&self) -> bool {
        self.readiness.pending().is_empty()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within ten seconds")
}

async fn receive(stream: &SeqpacketStream) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let received = soon(stream.recv(&mut buffer)).await.unwrap();
    buffer.truncate(received.len);
    buffer
}

async fn ack(stream: &SeqpacketStream) -> String {
    let response = zds::WorkloadResponse::decode(receive(stream).await.as_slice()).unwrap();
    let Some(zds::workload_response::Payload::Ack(ack)) = response.payload else { panic!("no ack") };
    ack.error
}

fn request(payload: Payload) -> Vec<u8> {
    zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

fn add(uid: &str) -> Vec<u8> {
    let info = zds::WorkloadInfo { name: "p".into(), namespace: "n".into(), service_account: "s".into() };
    request(Payload::Add(zds::AddWorkload { uid: uid.into(), workload_info: Some(info) }))
}

fn keep(uid: &str) -> Vec<u8> {
    request(Payload::Keep(zds::KeepWorkload { uid: uid.into() }))
}

fn del(uid: &str) -> Vec<u8> {
    request(Payload::Del(zds::DelWorkload { uid: uid.into() }))
}

fn snapshot_sent() -> Vec<u8> {
    request(Payload::SnapshotSent(zds::SnapshotSent {}))
}

/// Some network namespace: the test's own. Each call is another descriptor of the same one.
fn netns() -> OwnedFd {
    std::fs::File::open("/proc/self/ns/net").unwrap().into()
}

async fn send(stream: &SeqpacketStream, packet: &[u8]) -> String {
    stream.send(packet, None).await.unwrap();
    ack(stream).await
}

async fn send_add(stream: &SeqpacketStream, uid: &str) -> String {
    stream.send(&add(uid), Some(netns().as_fd())).await.unwrap();
    ack(stream).await
}

#[tokio::test]
async fn zds_row_1_to_4_snapshot_then_ready_and_a_repeated_add_changes_nothing() {
    let agent = Agent::start();
    assert!(!agent.is_ready());
    let stream = agent.accept().await;
    assert_eq!(send_add(&stream, "A").await, "");
    assert!(!agent.is_ready(), "not before the snapshot is complete");
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert_eq!(agent.log(), ["start A n/p/s"]);
    assert!(agent.is_ready());
    assert_eq!(send_add(&stream, "A").await, "");
    assert_eq!(agent.log(), [""; 0]);
}

#[tokio::test]
async fn zds_row_3_an_empty_snapshot_is_enough() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert!(agent.is_ready());
}

#[tokio::test]
async fn zds_row_5_a_pod_that_cannot_start_is_pending_and_tried_again() {
    let agent = Agent::start();
    *agent.fake.failing.lock().unwrap() = Some("port 15008 cannot be bound".into());
    let stream = agent.accept().await;
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert_eq!(send_add(&stream, "A").await, "port 15008 cannot be bound");
    assert!(!agent.is_ready());
    assert_eq!(agent.pods.dump()["A"]["state"], "Pending");
    *agent.fake.failing.lock().unwrap() = None;
    soon(async {
        while !agent.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(agent.log(), ["start A n/p/s"]);
    assert_eq!(agent.pods.dump()["A"]["state"], "Up");
}

#[tokio::test]
async fn zds_row_6_deleting_a_pending_pod_makes_ready() {
    let agent = Agent::start();
    *agent.fake.failing.lock().unwrap() = Some("no".into());
    let stream = agent.accept().await;
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    send_add(&stream, "A").await;
    assert_eq!(send(&stream, &del("A")).await, "");
    assert!(agent.is_ready());
}

#[tokio::test]
async fn zds_row_7_8_and_14_a_reconnect_stops_what_the_new_snapshot_does_not_name() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    for uid in ["A", "B", "C"] {
        send_add(&stream, uid).await;
    }
    send(&stream, &snapshot_sent()).await;
    agent.log();
    drop(stream);
    let stream = agent.accept().await;
    assert!(!agent.is_ready(), "not while nothing is known of the agent's view");
    assert_eq!(send_add(&stream, "A").await, "");
    assert_eq!(send(&stream, &keep("C")).await, "");
    assert_eq!(agent.log(), [""; 0], "running pods stay until the snapshot is complete");
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert_eq!(agent.log(), ["stop B Immediate"]);
    assert!(agent.is_ready());
}

#[tokio::test]
async fn zds_row_9_and_15_del_cuts_at_once_and_of_the_unknown_is_fine() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    send_add(&stream, "A").await;
    send(&stream, &snapshot_sent()).await;
    assert_eq!(send(&stream, &del("unknown")).await, "");
    assert_eq!(send(&stream, &del("A")).await, "");
    assert_eq!(agent.log(), ["start A n/p/s", "stop A Immediate"]);
}

#[tokio::test]
async fn zds_row_10_breaking_the_protocol_ends_the_process() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    send_add(&stream, "A").await;
    send(&stream, &snapshot_sent()).await;
    let error = send(&stream, &snapshot_sent()).await;
    assert!(error.contains("snapshot_sent came twice"), "{error}");
    assert!(soon(agent.node).await.unwrap().is_err());
    for packet in [keep("A"), request(Payload::Add(zds::AddWorkload { uid: "B".into(), workload_info: None }))] {
        let agent = Agent::start();
        let stream = agent.accept().await;
        send(&stream, &snapshot_sent()).await;
        let netns = netns();
        let fd = packet.windows(1).next().filter(|first| first[0] == 0x0a).map(|_| netns.as_fd());
        stream.send(&packet, fd).await.unwrap();
        assert!(ack(&stream).await.contains("broke the protocol"));
        assert!(soon(agent.node).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn zds_row_11_to_13_bad_packets_cost_the_connection_only() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    assert!(send(&stream, &add("A")).await.contains("without a network namespace"));
    let stream = agent.accept().await;
    let (one, two) = (netns(), netns());
    stream.send_all(&add("A"), &[one.as_fd(), two.as_fd()]).await.unwrap();
    let error = ack(&stream).await;
    assert!(error.contains("descriptor"), "{error}");
    let stream = agent.accept().await;
    stream.send(&del("A"), Some(one.as_fd())).await.unwrap();
    assert!(ack(&stream).await.contains("del came with 1 descriptors"));
    for garbage in [vec![0xff; 40], Vec::from(b"\x12\x00garbage"), vec![0; 1], vec![7; 1500]] {
        let stream = agent.accept().await;
        assert_ne!(send(&stream, &garbage).await, "");
    }
    let stream = agent.accept().await;
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert!(agent.is_ready());
}

#[tokio::test]
async fn what_is_no_namespace_leaves_a_running_pod_alone() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    send_add(&stream, "A").await;
    for _ in ["before the snapshot is complete", "after it"] {
        let file: OwnedFd = std::fs::File::open("/proc/self/ns/mnt").unwrap().into();
        stream.send(&add("A"), Some(file.as_fd())).await.unwrap();
        assert!(ack(&stream).await.contains("network namespace"));
        if !agent.is_ready() {
            assert_eq!(send(&stream, &snapshot_sent()).await, "");
        }
    }
    assert_eq!(agent.log(), ["start A n/p/s"]);
    assert!(agent.is_ready());
    assert_eq!(agent.pods.dump()["A"]["state"], "Up");
}

#[tokio::test]
async fn pods_that_the_snapshot_does_not_name_stop_at_the_same_time() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    for uid in ["A", "B", "C"] {
        send_add(&stream, uid).await;
    }
    send(&stream, &snapshot_sent()).await;
    drop(stream);
    *agent.fake.together.lock().unwrap() = Some(Arc::new(tokio::sync::Barrier::new(3)));
    let stream = agent.accept().await;
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    assert!(agent.is_ready());
}

#[tokio::test]
async fn a_drain_leaves_the_pods_to_be_stopped_in_their_own_time() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    send_add(&stream, "A").await;
    agent.drain.start(DrainMode::Graceful);
    assert_eq!(soon(agent.node).await.unwrap(), Ok(()));
    let log = std::mem::take(&mut *agent.fake.log.lock().unwrap());
    assert_eq!(log, ["start A n/p/s"]);
    agent.pods.stop_all(DrainMode::Graceful).await;
    assert_eq!(*agent.fake.log.lock().unwrap(), ["stop A Graceful"]);
}

#[tokio::test]
async fn a_long_error_still_fits_a_packet() {
    let agent = Agent::start();
    *agent.fake.failing.lock().unwrap() = Some("é".repeat(2000));
    let stream = agent.accept().await;
    let error = send_add(&stream, "A").await;
    assert!(error.len() <= ACK_ERROR_BYTES_MAX && error.len() > ACK_ERROR_BYTES_MAX - 2);
}

#[tokio::test]
async fn zds_row_12_descriptors_that_do_not_belong_are_closed() {
    let agent = Agent::start();
    for packet in [add("A"), del("A"), snapshot_sent()] {
        let stream = agent.accept().await;
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let netns = netns();
        stream.send_all(&packet, &[netns.as_fd(), writer.as_fd()]).await.unwrap();
        assert!(ack(&stream).await.contains("descriptors"));
        drop(writer);
        // Ends only when nobody holds the other end any more, the proxy included.
        let mut byte = [0];
        let read = tokio::task::spawn_blocking(move || nix::unistd::read(&reader, &mut byte));
        assert_eq!(soon(read).await.unwrap(), Ok(0));
    }
    assert_eq!(agent.log(), [""; 0]);
}

#[tokio::test]
async fn zds_row_16_two_proxies_of_one_agent_do_not_know_of_each_other() {
    let (older, newer) = (Agent::start(), Agent::start());
    let (old_stream, new_stream) = (older.accept().await, newer.accept().await);
    for stream in [&old_stream, &new_stream] {
        assert_eq!(send_add(stream, "C").await, "");
        assert_eq!(send(stream, &snapshot_sent()).await, "");
    }
    // The older one never gets to its Ack; the agent goes on with the newer one.
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    *older.fake.together.lock().unwrap() = Some(barrier.clone());
    old_stream.send(&del("C"), None).await.unwrap();
    assert_eq!(send(&new_stream, &del("C")).await, "");
    assert_eq!(newer.log(), ["start C n/p/s", "stop C Immediate"]);
    soon(barrier.wait()).await;
    assert_eq!(ack(&old_stream).await, "");
}

#[tokio::test(start_paused = true)]
async fn zds_row_17_nothing_is_said_unasked() {
    let agent = Agent::start();
    *agent.fake.failing.lock().unwrap() = Some("no".into());
    let stream = agent.accept().await;
    assert_eq!(send_add(&stream, "A").await, "no");
    assert_eq!(send(&stream, &snapshot_sent()).await, "");
    let mut buffer = [0; 1024];
    let heard = tokio::time::timeout(Duration::from_secs(600), stream.recv(&mut buffer)).await;
    assert!(heard.is_err(), "retries of pending pods are no news for the agent");
    *agent.fake.failing.lock().unwrap() = None;
    let heard = tokio::time::timeout(Duration::from_secs(600), stream.recv(&mut buffer)).await;
    assert!(heard.is_err() && agent.is_ready());
}

#[tokio::test]
async fn a_pod_in_a_new_namespace_is_cut_and_served_there() {
    let agent = Agent::start();
    let stream = agent.accept().await;
    assert_eq!(send_add(&stream, "A").await, "");
    let Ok(other) = mesh_sys::netns::NetNs::create() else {
        eprintln!("skipped: this needs the right to make network namespaces");
        return;
    };
    stream.send(&add("A"), Some(other.as_fd())).await.unwrap();
    assert_eq!(ack(&stream).await, "");
    assert_eq!(agent.log(), ["start A n/p/s", "stop A Immediate", "start A n/p/s"]);
    // A new one that cannot be served waits; the old one is gone, for its traffic is.
    *agent.fake.failing.lock().unwrap() = Some("no".into());
    assert_eq!(send_add(&stream, "A").await, "no");
    assert_eq!(agent.log(), ["stop A Immediate"]);
    assert_eq!(agent.pods.dump()["A"]["state"], "Pending");
}
