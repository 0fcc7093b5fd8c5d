//! Replicas with their writers and upkeep, before one API server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_core::drain::{self, DrainSignal};
use mesh_wire::discovery::{self, DeltaDiscoveryRequest};
use mesh_xds::server::Attendant;
use tokio::sync::watch;

use super::server::Server;
use super::*;
use crate::registration::{Attendance, Limits, Refusal, RegistrationMetrics, Registry, Upkeep, Writer};

/// One replica.
struct Replica {
    registry: Arc<Registry>,
    signal: DrainSignal,
    _told: watch::Sender<()>,
    _leading: watch::Sender<bool>,
}

fn replica(server: &Arc<Server>, name: &str, leads: bool, limits: Limits) -> Replica {
    let registry = Registry::new(server.model.clone(), name, limits, RegistrationMetrics::default());
    let (signal, drain) = drain::channel();
    tokio::spawn(Writer { client: server.client(), registry: registry.clone() }.run(drain.clone()));
    let (told, publications) = watch::channel(());
    let (leading, receiver) = watch::channel(leads);
    let upkeep = Upkeep {
        client: server.client(),
        namespace: "istio-system".into(),
        registry: registry.clone(),
        publications,
        leading: receiver,
        max_age: None,
    };
    tokio::spawn(upkeep.run(drain));
    told.send_replace(());
    Replica { registry, signal, _told: told, _leading: leading }
}

fn stage() -> Arc<Server> {
    Server::new(model(&[(Kind::WorkloadGroup, group())]))
}

async fn come(replica: &Replica, ip: &str) -> Result<Attendance, Refusal> {
    let node = node(json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": ip}));
    let came = replica.registry.register(Some(&caller("a", "vm")), &node, "a").await;
    came.map(|attendance| attendance.expect("it names a group"))
}

/// Waits, in time that passes when nothing else happens.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute: {what}");
}

const ENTRY: &str = "vms-10.0.0.7";
const CONTROLLER: &str = "istio.io/workloadController";
const CONNECTED: &str = "istio.io/connectedAt";
const DISCONNECTED: &str = "istio.io/disconnectedAt";

#[tokio::test(start_paused = true)]
async fn an_entry_is_there_before_the_stream_is_answered_and_goes_after_the_grace_time() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let stream = come(&one, "10.0.0.7").await.unwrap();
    assert_eq!(stream.entry().to_string(), "a/vms-10.0.0.7");
    assert_eq!(server.annotation(ENTRY, CONTROLLER).as_deref(), Some("istiod-1"));
    assert!(server.annotation(ENTRY, CONNECTED).is_some());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*server.writes.lock().unwrap(), ["POST"], "nothing changes, nothing is written");
    drop(stream);
    until("it is marked", || server.annotation(ENTRY, DISCONNECTED).is_some()).await;
    assert_eq!(server.annotation(ENTRY, CONNECTED), None);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(server.entry(ENTRY).is_some(), "the grace time is not over");
    until("it is deleted", || server.entry(ENTRY).is_none()).await;
    assert_eq!(*server.writes.lock().unwrap(), ["POST", "PUT", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_within_the_grace_time_keeps_its_entry() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    drop(come(&one, "10.0.0.7").await.unwrap());
    until("it is marked", || server.annotation(ENTRY, DISCONNECTED).is_some()).await;
    let uid = server.entry(ENTRY).unwrap()["metadata"]["uid"].clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _stream = come(&one, "10.0.0.7").await.unwrap();
    assert_eq!(server.annotation(ENTRY, DISCONNECTED), None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.entry(ENTRY).unwrap()["metadata"]["uid"], uid);
}

#[tokio::test(start_paused = true)]
async fn a_workload_has_left_only_when_its_last_stream_has_ended() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let (first, second) = (come(&one, "10.0.0.7").await.unwrap(), come(&one, "10.0.0.7").await.unwrap());
    drop(first);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(server.annotation(ENTRY, CONNECTED).is_some());
    drop(second);
    until("it is deleted", || server.entry(ENTRY).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_went_on_to_another_replica_is_that_ones() {
    let server = stage();
    let (one, two) =
        (replica(&server, "istiod-1", true, Limits::default()), replica(&server, "istiod-2", false, Limits::default()));
    server.run_pod("istiod-2");
    let first = come(&one, "10.0.0.7").await.unwrap();
    let _second = come(&two, "10.0.0.7").await.unwrap();
    assert_eq!(server.annotation(ENTRY, CONTROLLER).as_deref(), Some("istiod-2"));
    // The first connection lingers on, then ends.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.annotation(ENTRY, CONTROLLER).as_deref(), Some("istiod-2"), "nobody fights for it");
    drop(first);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.annotation(ENTRY, CONTROLLER).as_deref(), Some("istiod-2"));
    assert_eq!(*server.writes.lock().unwrap(), ["POST", "PUT"]);
}

#[tokio::test(start_paused = true)]
async fn the_leader_looks_after_the_workloads_of_a_replica_that_is_gone() {
    let server = stage();
    server.run_pod("istiod-2");
    let two = replica(&server, "istiod-2", false, Limits::default());
    std::mem::forget(come(&two, "10.0.0.7").await.unwrap()); // its process is killed: nobody leaves in order
    let _one = replica(&server, "istiod-1", true, Limits::default());
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(server.annotation(ENTRY, CONTROLLER).as_deref(), Some("istiod-2"), "its pod runs");
    let server = stage();
    let two = replica(&server, "istiod-2", false, Limits::default());
    std::mem::forget(come(&two, "10.0.0.8").await.unwrap());
    let Replica { signal, .. } = two;
    let _one = replica(&server, "istiod-1", true, Limits::default());
    // What is left of the other must not reclaim it here as it would if it ran.
    signal.drain_within(Duration::ZERO).await;
    until("it is deleted", || server.entry("vms-10.0.0.8").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_name_no_pod_can_have_is_gone_and_nobody_is_asked() {
    let server = stage();
    for (ip, controller) in [("10.0.0.7", "../secrets/x"), ("10.0.0.8", "..")] {
        left_over(&server, ip, controller);
        // Something is there.
        server.run_pod(controller);
    }
    let _leader = replica(&server, "istiod-1", true, Limits::default());
    for name in [ENTRY, "vms-10.0.0.8"] {
        until("it is deleted", || server.entry(name).is_none()).await;
    }
}

/// An entry whose machine was connected to a replica, as somebody left it.
fn left_over(server: &Server, ip: &str, controller: &str) {
    server.put(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": format!("vms-{ip}"), "namespace": "a", "uid": ip, "annotations": {
            "istio.io/autoRegistrationGroup": "vms", CONTROLLER: controller, CONNECTED: "2026-01-01T00:00:00Z",
        }},
        "spec": {"address": ip},
    }));
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_replica_that_is_gone_are_found_behind_any_number_that_run() {
    let server = stage();
    for number in 0..40 {
        let name = format!("a-{number:02}");
        server.run_pod(&name);
        left_over(&server, &format!("10.0.1.{number}"), &name);
    }
    left_over(&server, "10.0.0.7", "z-gone");
    let _leader = replica(&server, "istiod-1", true, Limits::default());
    until("it is deleted", || server.entry(ENTRY).is_none()).await;
    assert!(server.entry("vms-10.0.1.39").is_some(), "its replica runs");
}

#[tokio::test(start_paused = true)]
async fn entries_of_an_earlier_process_go_unless_their_workloads_come_back() {
    let server = stage();
    left_over(&server, "10.0.0.7", "istiod-1");
    left_over(&server, "10.0.0.8", "istiod-1");
    let one = replica(&server, "istiod-1", false, Limits::default());
    let _stream = come(&one, "10.0.0.8").await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(server.entry(ENTRY).is_some(), "it may still come back");
    until("the other one goes", || server.entry(ENTRY).is_none()).await;
    assert!(server.annotation("vms-10.0.0.8", CONNECTED).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_or_marks_is_put_right_while_the_workload_is_connected() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let _stream = come(&one, "10.0.0.7").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.remove(ENTRY);
    until("it is there again", || server.annotation(ENTRY, CONNECTED).is_some()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut marked = server.entry(ENTRY).unwrap();
    marked["metadata"]["annotations"][DISCONNECTED] = json!("2026-01-01T00:00:00Z");
    server.put(marked);
    until("the mark is gone", || server.annotation(ENTRY, DISCONNECTED).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn entries_follow_their_group_and_go_with_it() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let _stream = come(&one, "10.0.0.7").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut edited = group();
    edited["metadata"]["generation"] = json!(2);
    edited["spec"]["metadata"]["labels"]["app"] = json!("market");
    tell(&server.model, Kind::WorkloadGroup, &edited);
    until("the label changes", || server.entry(ENTRY).unwrap()["metadata"]["labels"]["app"] == "market").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let key = mesh_core::names::NamespacedName::new("a", "vms");
    server.model.write().unwrap().apply(crate::world::Change::Delete(Kind::WorkloadGroup, key));
    until("it is deleted", || server.entry(ENTRY).is_none()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(server.entry(ENTRY).is_none());
    assert!(matches!(come(&one, "10.0.0.9").await, Err(Refusal::NoGroup { .. })));
    tell(&server.model, Kind::WorkloadGroup, &group());
    until("it is there again", || server.annotation(ENTRY, CONNECTED).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_keeps_no_proxy_waiting_for_long_and_is_told_later() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    server.broken.store(503, Ordering::Relaxed);
    let started = tokio::time::Instant::now();
    let _stream = come(&one, "10.0.0.7").await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(6), "{:?}", started.elapsed());
    assert!(server.entry(ENTRY).is_none());
    server.broken.store(0, Ordering::Relaxed);
    until("it is written", || server.annotation(ENTRY, CONNECTED).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_tried_again_and_refusals_are_told() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    server.conflicts.store(5, Ordering::Relaxed);
    let stream = come(&one, "10.0.0.7").await.unwrap();
    until("it is written all the same", || server.annotation(ENTRY, CONNECTED).is_some()).await;
    drop(stream);
    server.refusing.store(422, Ordering::Relaxed);
    let refusal = come(&one, "10.0.0.9").await.unwrap_err();
    assert_eq!(refusal, Refusal::Rejected { reason: "failed with 422".into() });
    server.refusing.store(0, Ordering::Relaxed);
    server.put(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": "vms-10.0.0.9", "namespace": "a"}, "spec": {"address": "10.0.0.9"},
    }));
    assert!(matches!(come(&one, "10.0.0.9").await.unwrap_err(), Refusal::ByHand { .. }));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(server.entry("vms-10.0.0.9").unwrap()["metadata"].get("annotations").is_none(), "it is not touched");
}

#[tokio::test(start_paused = true)]
async fn as_many_are_registered_as_there_is_room_for() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits { total: 3, group: 2, ..Limits::default() });
    let first = come(&one, "10.0.0.1").await.unwrap();
    let _second = come(&one, "10.0.0.2").await.unwrap();
    let _again = come(&one, "10.0.0.2").await.unwrap();
    let full = come(&one, "10.0.0.3").await.unwrap_err();
    assert_eq!(full, Refusal::Full { max: 2, of: "of this group" });
    assert_eq!(tonic::Status::from(full).code(), tonic::Code::ResourceExhausted);
    drop(first);
    until("there is room again", || server.entry("vms-10.0.0.1").is_none()).await;
    assert!(come(&one, "10.0.0.3").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_comes_back_is_let_in_and_takes_no_room_twice() {
    let full = Err(Refusal::Full { max: 2, of: "of this group" });
    let server = stage();
    left_over(&server, "10.0.0.7", "istiod-0");
    let one = replica(&server, "istiod-1", false, Limits { group: 2, ..Limits::default() });
    let group = mesh_core::names::NamespacedName::new("a", "vms");
    let entry = mesh_core::names::NamespacedName::new("a", ENTRY);
    one.registry.adopt(&entry, (group, "istiod-0".into()), jiff::Timestamp::now(), tokio::time::Instant::now());
    let first = come(&one, "10.0.0.1").await.unwrap();
    assert_eq!(come(&one, "10.0.0.2").await.map(drop), full, "one who may come back has a place");
    let _back = come(&one, "10.0.0.7").await.unwrap();
    assert_eq!(come(&one, "10.0.0.2").await.map(drop), full);
    drop(first);
    until("there is room again", || server.entry("vms-10.0.0.1").is_none()).await;
    let _second = come(&one, "10.0.0.2").await.unwrap();
    // Another replica ends: its workloads make the group no larger.
    left_over(&server, "10.0.0.9", "istiod-0");
    let _other = come(&one, "10.0.0.9").await.unwrap();
    assert_eq!(come(&one, "10.0.0.3").await.map(drop), full);
}

#[tokio::test(start_paused = true)]
async fn two_workloads_whose_entries_would_have_one_name_are_not_taken_for_one() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let first = come(&one, "fd00::1:2").await.unwrap();
    let other = node(json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "fd00::1", "NETWORK": "2"}));
    let refusal = one.registry.register(Some(&caller("a", "vm")), &other, "a").await.unwrap_err();
    assert_eq!(refusal, Refusal::ByHand { entry: first.entry().clone() });
    assert_eq!(server.entry("vms-fd00--1-2").unwrap()["spec"]["address"], "fd00::1:2");
}

#[tokio::test(start_paused = true)]
async fn health_is_told_once_and_a_workload_that_flaps_costs_few_writes() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let mut stream = come(&one, "10.0.0.7").await.unwrap();
    let said = |error: Option<&str>| DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/istio.v1.HealthInformation".into(),
        error_detail: error.map(|text| discovery::Status { code: 13, message: text.into(), ..Default::default() }),
        ..DeltaDiscoveryRequest::default()
    };
    let condition = |server: &Server| server.entry(ENTRY).unwrap()["status"]["conditions"][0].clone();
    stream.on_request(&DeltaDiscoveryRequest { type_url: "something/else".into(), ..Default::default() });
    stream.on_request(&said(None));
    stream.on_request(&said(None));
    until("it is healthy", || condition(&server)["status"] == "True").await;
    stream.on_request(&said(Some("connection refused")));
    until("it is not", || condition(&server)["status"] == "False").await;
    let told = condition(&server);
    assert_eq!((&told["type"], &told["message"]), (&json!("Healthy"), &json!("connection refused")));
    let before = server.writes.lock().unwrap().len();
    for number in 0..1000 {
        stream.on_request(&said((number % 2 == 0).then_some("no")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("the last one counts", || condition(&server)["status"] == "True").await;
    let writes = server.writes.lock().unwrap().len() - before;
    assert!(writes <= 8, "{writes} writes in five seconds");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_says_who_left_it() {
    let server = stage();
    let one = replica(&server, "istiod-1", true, Limits::default());
    let stream = come(&one, "10.0.0.7").await.unwrap();
    tokio::spawn(async move {
        // Streams end a moment after the drain begins.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
    });
    assert!(one.signal.drain_within(Duration::from_secs(10)).await, "the writer ends");
    assert!(server.annotation(ENTRY, DISCONNECTED).is_some());
}
