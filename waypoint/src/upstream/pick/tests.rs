use std::collections::BTreeMap;

use mesh_identity::testing::TestCa;
use mesh_wire::l7;
use mesh_wire::l7::load_balancer::Simple;
use proptest::prelude::*;

use super::*;
use crate::endpoints::{Endpoint, Locality, Place};
use crate::upstream::cluster::Cluster;
use crate::upstream::host::testing::{backend, cluster, endpoint, endpoints, picked, publish, shared_of, view};
use crate::upstream::outlier::Outcome;

fn balanced(simple: Simple) -> l7::TrafficPolicy {
    let load_balancer = Some(l7::LoadBalancer { simple: simple.into(), ..Default::default() });
    l7::TrafficPolicy { load_balancer, ..Default::default() }
}

fn picker(cluster: &Cluster, random: &Random) -> Picker {
    Picker::new(cluster.set(), &cluster.policy, random)
}

/// How often each endpoint is picked.
fn spread(cluster: &Cluster, count: u32, now: Duration, busy: bool) -> BTreeMap<String, u32> {
    let random = Random::new(11);
    let picker = picker(cluster, &random);
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        let Some((position, _)) = picker.pick(&PickContext::default(), &random, now) else { continue };
        let host = picker.set().host(position).unwrap();
        *counts.entry(host.address().to_string()).or_default() += 1;
        if busy {
            host.state.active.fetch_add(1, Ordering::Relaxed);
        }
    }
    counts
}

fn at(address: &str, locality: &str) -> Endpoint {
    let mut parts = locality.split('/').map(Arc::<str>::from);
    let mut next = || parts.next().unwrap_or_default();
    let locality = Arc::new(Locality { region: next(), zone: next(), subzone: next() });
    Endpoint { locality, ..endpoint(address) }
}

fn local_place() -> Place {
    Place { locality: at("10.0.0.1:1", "r1/z1/s1").locality, ..Place::default() }
}

#[tokio::test]
async fn resilience_row_1_an_idle_endpoint_gets_what_a_busy_one_does_not() {
    let cluster = cluster(balanced(Simple::LeastRequest), endpoints(2));
    cluster.hosts()[0].state.active.store(50, Ordering::Relaxed);
    let counts = spread(&cluster, 20, Duration::ZERO, true);
    assert!(counts["10.0.0.2:80"] >= 14, "{counts:?}");
}

#[tokio::test]
async fn resilience_row_2_round_robin_by_weight() {
    let mut list = endpoints(3);
    list[2].weight = 2;
    let cluster = cluster(balanced(Simple::RoundRobin), list);
    let counts = spread(&cluster, 400, Duration::ZERO, false);
    for (count, wanted) in counts.values().zip([100_i64, 100, 200]) {
        assert!((i64::from(*count) - wanted).abs() <= 2, "{counts:?}");
    }
}

#[tokio::test]
async fn weight_zero_is_never_selected_and_random_ignores_weights() {
    let mut list = endpoints(3);
    (list[0].weight, list[1].weight) = (0, 9);
    for simple in [Simple::Random, Simple::RoundRobin, Simple::LeastRequest] {
        let cluster = cluster(balanced(simple), list.clone());
        let counts = spread(&cluster, 1000, Duration::ZERO, false);
        assert!(!counts.contains_key("10.0.0.1:80"), "{simple:?}");
        let heavy = counts["10.0.0.2:80"];
        let wanted = if simple == Simple::Random { 450..550 } else { 850..950 };
        assert!(wanted.contains(&heavy), "{simple:?}: {counts:?}");
    }
}

#[tokio::test]
async fn resilience_row_3_a_hash_sticks_to_its_endpoint() {
    let hash = l7::ConsistentHash::default();
    let load_balancer = Some(l7::LoadBalancer { consistent_hash: Some(hash), ..Default::default() });
    let policy = l7::TrafficPolicy { load_balancer, ..Default::default() };
    let (cluster, random) = (cluster(policy, endpoints(3)), Random::new(1));
    let picker = picker(&cluster, &random);
    let context = PickContext { hash: Some(0x1234_5678_9abc), ..Default::default() };
    let pick = |context: &PickContext<'_>| picker.pick(context, &random, Duration::ZERO).unwrap().0;
    let first = pick(&context);
    assert!((0..100).all(|_| pick(&context) == first));
    let tried = [Picked::new(picker.set().host(first).unwrap().clone(), 0)];
    assert_eq!(pick(&PickContext { tried: &tried, ..context }), first, "a retry does not leave the hash");
    let without = PickContext::default();
    assert!((0..100).any(|_| pick(&without) != first), "without a hash any will do");
}

#[tokio::test]
async fn resilience_row_5_a_sick_locality_spills_over() {
    let near = (1..=10).map(|i| at(&format!("10.0.0.{i}:80"), "r1/z1/s1"));
    let far = (1..=10).map(|i| at(&format!("10.0.1.{i}:80"), "r1/z2/s1"));
    let mut list: Vec<_> = near.chain(far).collect();
    for sick in &mut list[..6] {
        sick.healthy = false;
    }
    let policy = l7::TrafficPolicy { outlier_detection: Some(Default::default()), ..Default::default() };
    let shared = shared_of(Arc::new(TestCa::new()), local_place());
    let cluster = shared.cluster(&backend(policy), view(list)).unwrap();
    let counts = spread(&cluster, 1000, Duration::ZERO, false);
    let near: u32 = counts.iter().filter(|(address, _)| address.starts_with("10.0.0.")).map(|(_, count)| count).sum();
    assert!((510..610).contains(&near), "{near} of 1000 stayed");
    assert_eq!(counts.len(), 14, "unhealthy endpoints get nothing: {counts:?}");
}

#[tokio::test]
async fn distribute_sends_shares_to_localities() {
    let list = vec![at("10.0.0.1:80", "r1/z1/s1"), at("10.0.1.1:80", "r1/z2/s1"), at("10.0.2.1:80", "r2/z1/s1")];
    let to = [("r1/z1/*".to_owned(), 80), ("r1/z2/*".to_owned(), 20)].into();
    let distribute = vec![l7::locality::Distribute { from: "r1/*".into(), to }];
    let locality = Some(l7::Locality { distribute, ..Default::default() });
    let policy = l7::TrafficPolicy {
        load_balancer: Some(l7::LoadBalancer { locality, ..Default::default() }),
        ..Default::default()
    };
    let shared = shared_of(Arc::new(TestCa::new()), local_place());
    let cluster = shared.cluster(&backend(policy), view(list)).unwrap();
    let counts = spread(&cluster, 1000, Duration::ZERO, false);
    assert!((750..850).contains(&counts["10.0.0.1:80"]), "{counts:?}");
    assert!(!counts.contains_key("10.0.2.1:80"), "{counts:?}");
}

#[tokio::test]
async fn resilience_row_15_a_new_endpoint_starts_slowly() {
    let warmup = l7::Warmup {
        duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        minimum_percent: 10.0,
        aggression: 1.0,
    };
    let load_balancer =
        l7::LoadBalancer { simple: Simple::RoundRobin.into(), warmup: Some(warmup), ..Default::default() };
    let policy = l7::TrafficPolicy { load_balancer: Some(load_balancer), ..Default::default() };
    let shared = shared_of(Arc::new(TestCa::new()), Place::default());
    let view = view(endpoints(2));
    let cluster = shared.cluster(&backend(policy), view.clone()).unwrap();
    let all_new = spread(&cluster, 100, Duration::from_secs(1), false);
    assert_eq!(all_new.into_values().collect::<Vec<_>>(), [50, 50], "all of them new: as usual");
    publish(&view, endpoints(3));
    cluster.check(Duration::from_secs(1000));
    let counts = spread(&cluster, 2100, Duration::from_secs(1006), false);
    let (old, new) = (counts["10.0.0.1:80"], counts["10.0.0.3:80"]);
    assert!((80..120).contains(&(new * 1000 / old)), "{counts:?}");
    let counts = spread(&cluster, 300, Duration::from_secs(1061), false);
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test]
async fn resilience_row_16_unready_endpoints_take_nothing_and_there_is_no_panic() {
    let mut list = endpoints(3);
    list.iter_mut().for_each(|endpoint| endpoint.healthy = false);
    let cluster = cluster(balanced(Simple::LeastRequest), list);
    assert!(spread(&cluster, 100, Duration::ZERO, false).is_empty());
}

#[tokio::test]
async fn resilience_row_17_what_is_removed_gets_nothing_new() {
    let shared = shared_of(Arc::new(TestCa::new()), Place::default());
    let view = view(endpoints(2));
    let cluster = shared.cluster(&backend(Default::default()), view.clone()).unwrap();
    let gone = cluster.hosts()[0].clone();
    publish(&view, endpoints(2).split_off(1));
    cluster.check(Duration::from_secs(1));
    let counts = spread(&cluster, 100, Duration::ZERO, false);
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), ["10.0.0.2:80"]);
    assert!(gone.state.removed.load(Ordering::Relaxed));
    publish(&view, endpoints(2));
    cluster.check(Duration::from_secs(2));
    assert_eq!(spread(&cluster, 100, Duration::ZERO, false).len(), 2, "and is back when it comes back");
}

#[tokio::test]
async fn resilience_row_7_two_of_four_are_ejected_and_no_more() {
    let detection = l7::OutlierDetection { consecutive_5xx: 3, max_ejection_percent: 50, ..Default::default() };
    let policy = l7::TrafficPolicy { outlier_detection: Some(detection), ..Default::default() };
    let cluster = cluster(policy, endpoints(4));
    let hosts = cluster.hosts();
    for _ in 0..9 {
        for host in &hosts[..3] {
            cluster.outcome(host, Outcome::Status(503));
        }
    }
    let ejected: Vec<_> = hosts.iter().map(|host| host.is_ejected()).collect();
    assert_eq!(ejected, [true, true, false, false]);
    let stats: BTreeMap<_, _> = cluster.stats().list().into_iter().collect();
    assert_eq!(stats["outlier_detection_ejections_enforced_total"], 2);
    assert!(stats["outlier_detection_ejections_overflow"] >= 3);
    assert!(cluster.gauges().contains(&("outlier_detection_ejections_active", 2)));
    let counts = spread(&cluster, 100, Duration::ZERO, false);
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), ["10.0.0.3:80", "10.0.0.4:80"]);
}

#[tokio::test]
async fn resilience_row_6_an_ejected_endpoint_is_back_after_its_time() {
    let detection = l7::OutlierDetection { consecutive_5xx: 3, max_ejection_percent: 100, ..Default::default() };
    let policy = l7::TrafficPolicy { outlier_detection: Some(detection), ..Default::default() };
    let cluster = cluster(policy, endpoints(2));
    let host = cluster.hosts()[0].clone();
    let seconds = Duration::from_secs;
    cluster.check(seconds(0));
    let eject = || (0..3).for_each(|_| cluster.outcome(&host, Outcome::Status(500)));
    let back_at = |from: u64| {
        (from..).step_by(10).find(|now| {
            cluster.check(seconds(*now));
            !host.is_ejected()
        })
    };
    eject();
    assert!(host.is_ejected());
    assert_eq!(spread(&cluster, 50, Duration::ZERO, false).len(), 1);
    // Ejected at about 0 on the pools' clock.
    let first = back_at(10).unwrap();
    assert!((30..=40).contains(&first), "{first}");
    assert_eq!(spread(&cluster, 50, Duration::ZERO, false).len(), 2);
}

#[tokio::test]
async fn min_health_percent_uses_everybody_when_too_few_are_left() {
    let detection = l7::OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        min_health_percent: 50,
        ..Default::default()
    };
    let policy = l7::TrafficPolicy { outlier_detection: Some(detection), ..Default::default() };
    let cluster = cluster(policy, endpoints(4));
    for (n, host) in cluster.hosts().iter().take(3).enumerate() {
        cluster.outcome(host, Outcome::Status(500));
        let used = spread(&cluster, 400, Duration::ZERO, false).len();
        assert_eq!(used, [3, 2, 4][n], "{} ejected", n + 1);
    }
}

#[tokio::test]
async fn retries_go_to_others_as_long_as_there_are_any() {
    for balancer in [Simple::RoundRobin, Simple::LeastRequest, Simple::Random] {
        let (cluster, random) = (cluster(balanced(balancer), endpoints(8)), Random::new(1));
        let picker = picker(&cluster, &random);
        let hosts = cluster.hosts();
        let tried: Vec<_> = hosts[..7].iter().map(|host| Picked::new(host.clone(), 0)).collect();
        let context = PickContext { tried: &tried, ..Default::default() };
        for _ in 0..100 {
            assert_eq!(picker.pick(&context, &random, Duration::ZERO), Some((7, 0)), "{balancer:?}");
        }
        let all: Vec<_> = hosts.iter().map(|host| Picked::new(host.clone(), 0)).collect();
        assert!(picker.pick(&PickContext { tried: &all, ..Default::default() }, &random, Duration::ZERO).is_some());
    }
}

#[tokio::test]
async fn retries_leave_localities_that_were_tried_twice() {
    let list = vec![at("10.0.0.1:80", "r1/z1/s1"), at("10.0.0.2:80", "r1/z1/s1"), at("10.0.1.1:80", "r2/z1/s1")];
    let policy = l7::TrafficPolicy { outlier_detection: Some(Default::default()), ..Default::default() };
    let shared = shared_of(Arc::new(TestCa::new()), local_place());
    let cluster = shared.cluster(&backend(policy), view(list)).unwrap();
    let random = Random::new(1);
    let picker = picker(&cluster, &random);
    let hosts = cluster.hosts();
    let tried: Vec<_> = hosts[..2].iter().map(|host| Picked::new(host.clone(), 0)).collect();
    let level = |tried: &[Picked]| {
        let context = PickContext { tried, remote_localities: true, ..Default::default() };
        picker.pick(&context, &random, Duration::ZERO).unwrap().1
    };
    assert_eq!((level(&tried[..1]), level(&tried)), (0, 1));
}

#[tokio::test]
async fn a_session_leads_back_unless_its_endpoint_fails() {
    let (cluster, random) = (cluster(balanced(Simple::RoundRobin), endpoints(3)), Random::new(1));
    let now = std::time::SystemTime::now();
    let value = Session::write(&picked("10.0.0.2:80"), None, now);
    let session = Session::read(&value, None, None, now);
    let context = PickContext { session, ..Default::default() };
    let sticky = picker(&cluster, &random);
    assert!((0..20).all(|_| sticky.pick(&context, &random, Duration::ZERO) == Some((1, 0))));
    let tried = [Picked::new(cluster.hosts()[1].clone(), 0)];
    let again = PickContext { tried: &tried, ..context };
    assert!((0..20).all(|_| sticky.pick(&again, &random, Duration::ZERO).unwrap().0 != 1), "failed for this request");
    cluster.hosts()[1].state.ejected.store(true, Ordering::Relaxed);
    let moved = picker(&cluster, &random).pick(&context, &random, Duration::ZERO).unwrap();
    assert_ne!(moved.0, 1);
}

#[tokio::test]
async fn a_subset_takes_the_endpoints_with_its_labels() {
    let mut list = endpoints(3);
    list[1].labels = Arc::new(BTreeMap::from([("version".into(), "v2".into())]));
    let shared = shared_of(Arc::new(TestCa::new()), Place::default());
    let subset = |version: &str| l7::Backend {
        subset: version.into(),
        subset_labels: [("version".to_owned(), version.to_owned())].into(),
        ..backend(Default::default())
    };
    let v2 = shared.cluster(&subset("v2"), view(list.clone())).unwrap();
    assert_eq!(spread(&v2, 10, Duration::ZERO, false).into_keys().collect::<Vec<_>>(), ["10.0.0.2:80"]);
    assert_eq!(&**v2.name(), "outbound|80|v2|cart.shop");
    let v3 = shared.cluster(&subset("v3"), view(list)).unwrap();
    assert!(spread(&v3, 10, Duration::ZERO, false).is_empty());
}

#[tokio::test]
async fn another_policy_takes_over_what_is_known_of_endpoints() {
    let detection = l7::OutlierDetection { consecutive_5xx: 1, max_ejection_percent: 100, ..Default::default() };
    let policy = l7::TrafficPolicy { outlier_detection: Some(detection), ..Default::default() };
    let shared = shared_of(Arc::new(TestCa::new()), Place::default());
    let view = view(endpoints(2));
    let first = shared.cluster(&backend(policy.clone()), view.clone()).unwrap();
    first.outcome(&first.hosts()[0], Outcome::Status(500));
    let tuned = l7::TrafficPolicy { retry_budget: Some(Default::default()), ..policy };
    let second = shared.cluster(&backend(tuned), view.clone()).unwrap();
    assert!(second.hosts()[0].is_ejected());
    let third = shared.cluster(&backend(Default::default()), view).unwrap();
    assert!(!third.hosts()[0].is_ejected(), "nobody would let it back in");
}

#[tokio::test]
async fn passthrough_takes_the_endpoint_that_was_called() {
    let (cluster, random) = (cluster(balanced(Simple::Passthrough), endpoints(3)), Random::new(1));
    let picker = picker(&cluster, &random);
    let called = |address: &str| PickContext { destination: Some(address.parse().unwrap()), ..Default::default() };
    let pick = |address: &str| picker.pick(&called(address), &random, Duration::ZERO).map(|(position, _)| position);
    assert!((0..20).all(|_| pick("10.0.0.2:80") == Some(1)));
    assert!((0..20).any(|_| pick("172.20.0.1:80") != pick("172.20.0.1:80")), "of a virtual address, any will do");
}

proptest! {
    /// Whatever the balancer, the context and the state of endpoints: who cannot be used is never picked, and somebody is
    /// whenever there is anybody.
    #[test]
    fn only_usable_endpoints_are_picked(
        states in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..4, 0_u8..3), 0..8),
        simple in 0_i32..4,
        table in 0_u8..3,
        hash in any::<Option<u64>>(),
        detecting: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let endpoint = |(i, (healthy, _, weight, zone)): (usize, &(bool, bool, u32, u8))| {
            let located = at(&format!("10.0.0.{}:80", i + 1), &format!("r1/z{zone}/s1"));
            Endpoint { healthy: *healthy, weight: *weight, ..located }
        };
        let list: Vec<_> = states.iter().enumerate().map(endpoint).collect();
        let consistent_hash = match table {
            0 => None,
            1 => Some(l7::ConsistentHash::default()),
            _ => {
                let algorithm = Some(l7::consistent_hash::Algorithm::MaglevTableSize(251));
                Some(l7::ConsistentHash { source: None, algorithm })
            }
        };
        let policy = l7::TrafficPolicy {
            load_balancer: Some(l7::LoadBalancer { simple, consistent_hash, ..Default::default() }),
            outlier_detection: detecting.then(Default::default),
            ..Default::default()
        };
        let shared = shared_of(Arc::new(TestCa::new()), local_place());
        let cluster = shared.cluster(&backend(policy), view(list)).unwrap();
        for host in cluster.hosts() {
            let number: usize = host.address().to_string()[7..8].parse().unwrap();
            host.state.ejected.store(states[number - 1].1, Ordering::Relaxed);
        }
        let anybody = states.iter().any(|(healthy, ejected, weight, _)| *healthy && !ejected && *weight > 0);
        let random = Random::new(hash.unwrap_or(7));
        let picker = picker(&cluster, &random);
        for _ in 0..20 {
            let context = PickContext { hash, ..Default::default() };
            let picked = picker.pick(&context, &random, Duration::ZERO);
            prop_assert_eq!(picked.is_some(), anybody);
            if let Some((position, _)) = picked {
                let host = picker.set().host(position).unwrap();
                prop_assert!(host.endpoint().healthy && !host.is_ejected() && host.endpoint().weight > 0);
            }
        }
    }
}
