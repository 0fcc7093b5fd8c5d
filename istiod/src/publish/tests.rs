//! Bursts, lone changes, and what is held back until everything is known.

use mesh_core::names::NamespacedName;
use mesh_telemetry::ready::Readiness;
use mesh_wire::workload::Workload;
use mesh_xds::server::{HubOptions, Observer};
use prost::Message;

use super::*;
use crate::world::{Object, Pod};

fn pod(name: &str) -> Change {
    Change::Upsert(Object::Pod(Pod {
        key: NamespacedName::new("ns", name),
        uid: name.into(),
        service_account: "sa".into(),
        node: "n".into(),
        labels: Default::default(),
        workload_name: name.into(),
        ips: [std::net::IpAddr::from([10, 0, 0, 1])].into(),
        ready: true,
        host_network: false,
        redirected: false,
        ports: Box::default(),
        binding: None,
    }))
}

struct Bench {
    changes: mpsc::Sender<Change>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    registry: mesh_telemetry::metrics::Registry,
    known: watch::Receiver<bool>,
}

fn start(awaited: &[Kind]) -> Bench {
    let (after, max) = (Duration::from_millis(100), Duration::from_secs(10));
    start_with(awaited, Debounce { after, max, endpoints: true })
}

fn start_with(awaited: &[Kind], debounce: Debounce) -> Bench {
    let registry = mesh_telemetry::metrics::Registry::new();
    let metrics = Arc::new(Metrics::new(&registry));
    let observer: Box<dyn Observer> = Box::new(crate::metrics::HubMetrics(metrics.clone()));
    let hub = Hub::new(&TYPES, HubOptions::default(), observer);
    let (changes, receiver) = mpsc::channel(1024);
    let readiness = Readiness::new();
    let (progress, known) = watch::channel(false);
    let publisher = Publisher {
        model: Arc::default(),
        hub: hub.clone(),
        changes: receiver,
        awaited: awaited.iter().copied().collect(),
        awaits_clusters: false,
        ready: Some(readiness.register("discovery")),
        debounce,
        statuses: Arc::default(),
        metrics: metrics.clone(),
        published: 0,
        publications: watch::channel(()).0,
        progress,
        reasons: BTreeSet::new(),
        renew: false,
        named: 0,
    };
    tokio::spawn(publisher.run());
    Bench { changes, hub, metrics, readiness, registry, known }
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn xds_row_14_fifty_pods_within_60_ms_are_one_push() {
    let bench = start(&[]);
    for number in 0..50 {
        bench.changes.send(pod(&format!("p{number}"))).await.unwrap();
        wait(1).await;
    }
    assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 0);
    wait(150).await;
    assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 50);
    assert_eq!(bench.metrics.push_triggers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lone_change_does_not_wait_for_a_burst() {
    let bench = start(&[]);
    bench.changes.send(pod("p")).await.unwrap();
    wait(15).await;
    assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_never_ends_is_published_in_between() {
    let bench = start(&[]);
    for number in 0..600 {
        bench.changes.send(pod(&format!("p{number}"))).await.unwrap();
        wait(20).await;
    }
    assert!(bench.metrics.push_triggers() >= 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_everything_is_known() {
    let bench = start(&[Kind::Pod, Kind::Service]);
    bench.changes.send(pod("p")).await.unwrap();
    bench.changes.send(Change::Synced(Kind::Pod)).await.unwrap();
    wait(500).await;
    assert!(!bench.hub.is_ready() && bench.readiness.pending() == ["discovery"]);
    assert!(bench.hub.resources(type_url::ADDRESS).is_empty());
    bench.changes.send(Change::Synced(Kind::Service)).await.unwrap();
    wait(500).await;
    assert!(bench.hub.is_ready() && bench.readiness.pending().is_empty());
    assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn older_clients_get_the_workload_inside_the_address() {
    let bench = start(&[]);
    bench.changes.send(pod("p")).await.unwrap();
    wait(50).await;
    let resource = bench.hub.resources(type_url::ADDRESS).remove(0);
    let workload = Workload::decode(inner_workload(&resource).unwrap()).unwrap();
    assert_eq!(workload.uid, "Kubernetes//Pod/ns/p");
}

#[tokio::test(start_paused = true)]
async fn xds_row_4_changes_that_touch_nothing_neither_delay_nor_cause_a_publication() {
    let bench = start(&[]);
    bench.changes.send(pod("p")).await.unwrap();
    wait(500).await;
    assert_eq!(bench.metrics.push_triggers(), 1);
    // Heartbeats, more often than the quiet time; one real change among them.
    for number in 0..40 {
        bench.changes.send(pod("p")).await.unwrap();
        if number == 5 {
            bench.changes.send(pod("q")).await.unwrap();
        }
        wait(5).await;
        if number == 10 {
            assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 2, "published although it is not quiet");
        }
    }
    wait(500).await;
    assert_eq!(bench.metrics.push_triggers(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_promise_makes_told_proxies_come_again_and_a_policy_reason_is_counted() {
    use crate::world::{MeshSettings, Promise, Promises};
    let bench = start(&[]);
    bench.changes.send(pod("p")).await.unwrap();
    wait(500).await;
    let promises = Promises { waypoint_required: Promise::Reference, ..Promises::default() };
    let settings = MeshSettings { promises, ..MeshSettings::default() };
    bench.changes.send(Change::Settings(Arc::new(settings))).await.unwrap();
    wait(500).await;
    let text = bench.registry.encode();
    assert!(text.contains("pilot_push_triggers{type=\"endpoint\"} 1"), "{text}");
    assert!(text.contains("pilot_inbound_updates{type=\"eds\"} 1"), "{text}");
    assert!(text.contains("pilot_pushcontext_init_seconds_count"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn xds_row_16_two_replicas_agree_on_every_version_whatever_the_order_they_hear_in() {
    let (one, other) = (start(&[]), start(&[]));
    for number in 0..20 {
        one.changes.send(pod(&format!("p{number}"))).await.unwrap();
        other.changes.send(pod(&format!("p{}", 19 - number))).await.unwrap();
        // Another rhythm: other batches.
        wait(if number % 7 == 0 { 300 } else { 0 }).await;
    }
    other.changes.send(Change::Delete(Kind::Pod, NamespacedName::new("ns", "p3"))).await.unwrap();
    wait(500).await;
    other.changes.send(pod("p3")).await.unwrap();
    wait(500).await;
    let versions = |bench: &Bench| {
        let all = bench.hub.resources(type_url::ADDRESS).into_iter().map(|one| (one.name.clone(), one.version.clone()));
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(versions(&one).len(), 20);
    assert_eq!(versions(&one), versions(&other));
}

#[tokio::test(start_paused = true)]
async fn endpoints_need_not_wait_where_they_are_not_to() {
    let bench =
        start_with(&[], Debounce { after: Duration::from_secs(5), max: Duration::from_secs(10), endpoints: false });
    bench.changes.send(pod("p")).await.unwrap();
    wait(1).await;
    assert_eq!(bench.hub.resources(type_url::ADDRESS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_secrets_is_told_when_other_ones_are_needed() {
    let mut bench = start(&[]);
    let world = "
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Service
metadata: {name: web, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{name: http, port: 80}]}
";
    let rule = |name: &str| {
        format!(
            "kind: DestinationRule\nmetadata: {{name: dr, namespace: ns}}\nspec: {{host: web, trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: {name}}}}}}}\n"
        )
    };
    for yaml in [world.to_owned(), rule("one"), rule("two")] {
        for change in crate::translate::fixture::changes(&yaml) {
            bench.changes.send(change).await.unwrap();
        }
        // Taken, and not yet published.
        wait(1).await;
        bench.known.borrow_and_update();
        wait(500).await;
        let named = yaml.contains("credentialName");
        assert_eq!(bench.known.has_changed().unwrap(), named, "{yaml}");
    }
}
