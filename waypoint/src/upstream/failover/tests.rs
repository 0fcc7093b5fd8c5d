use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::endpoints::Transport;

fn locality(text: &str) -> Locality {
    let mut parts = text.split('/').map(Arc::<str>::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), subzone: next() }
}

fn at(text: &str) -> Endpoint {
    Endpoint {
        id: text.into(),
        address: "10.0.0.1:80".parse().unwrap(),
        hostname: None,
        transport: Transport::Plain,
        weight: 1,
        healthy: true,
        locality: Arc::new(locality(text)),
        network: "n1".into(),
        cluster: "c1".into(),
        node: "node".into(),
        labels: Arc::default(),
        identity: None,
        end: Arc::default(),
    }
}

fn place() -> Place {
    Place {
        locality: Arc::new(locality("r1/z1/s1")),
        node: "node".into(),
        network: "n1".into(),
        cluster: "c1".into(),
        labels: Arc::new(BTreeMap::from([("version".into(), "v1".into())])),
        ..Place::default()
    }
}

fn levels(endpoints: &[Endpoint], rules: &Rules, preference: &Preference) -> Vec<Option<u32>> {
    let endpoints: Vec<_> = endpoints.iter().collect();
    let standings = standings(&endpoints, &place(), rules, preference);
    standings.into_iter().map(|standing| standing.map(|standing| standing.level)).collect()
}

fn near_and_far() -> Vec<Endpoint> {
    ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"].map(at).to_vec()
}

#[test]
fn priorities_need_outlier_detection() {
    let none = Preference::default();
    assert_eq!(levels(&near_and_far(), &Rules::default(), &none), [Some(0); 5]);
    let detecting = Rules { outlier_detection: true, ..Rules::default() };
    assert_eq!(levels(&near_and_far(), &detecting, &none), [0, 1, 2, 3, 3].map(Some));
    let disabled = Rules { disabled: true, ..detecting.clone() };
    assert_eq!(levels(&near_and_far(), &disabled, &none), [Some(0); 5]);
}

#[test]
fn levels_are_dense() {
    let detecting = Rules { outlier_detection: true, ..Rules::default() };
    let far = ["r1/z2/s1", "r2/z1/s1"].map(at);
    assert_eq!(levels(&far, &detecting, &Preference::default()), [Some(0), Some(1)]);
}

#[test]
fn a_region_to_fail_over_to_comes_before_others() {
    let failover = vec![("r1".to_owned(), "r3".to_owned())];
    let rules = Rules { outlier_detection: true, failover, ..Rules::default() };
    assert_eq!(levels(&near_and_far(), &rules, &Preference::default()), [0, 1, 2, 4, 3].map(Some));
}

#[test]
fn an_unknown_place_turns_localities_off() {
    let detecting = Rules { outlier_detection: true, ..Rules::default() };
    let endpoints = near_and_far();
    let endpoints: Vec<_> = endpoints.iter().collect();
    let standings = standings(&endpoints, &Place::default(), &detecting, &Preference::default());
    assert!(standings.iter().all(|standing| standing.is_some_and(|standing| standing.level == 0)));
}

#[test]
fn failover_priority_counts_the_labels_that_match_in_order() {
    let mut v2 = at("r1/z1/s1");
    v2.labels = Arc::new(BTreeMap::from([("version".into(), "v2".into())]));
    let mut v1 = at("r1/z2/s1");
    v1.labels = Arc::new(BTreeMap::from([("version".into(), "v1".into())]));
    let mut far = at("r2/z1/s1");
    far.labels = v1.labels.clone();
    let priority = ["topology.kubernetes.io/region", "version", "topology.kubernetes.io/zone"];
    let rules = l7::Locality { failover_priority: priority.map(str::to_owned).to_vec(), ..l7::Locality::default() };
    let rules = Rules::of(Some(&rules), true);
    let endpoints = [v2.clone(), v1.clone(), far.clone()];
    assert_eq!(levels(&endpoints, &rules, &Preference::default()), [1, 0, 2].map(Some));
    let rules = l7::Locality { failover_priority: vec!["version=v2".to_owned()], ..l7::Locality::default() };
    let rules = Rules::of(Some(&rules), true);
    assert_eq!(levels(&[v2, v1, far], &rules, &Preference::default()), [0, 1, 1].map(Some));
}

#[test]
fn what_the_service_prefers_needs_no_outlier_detection() {
    let scopes = Box::new([Scope::Network, Scope::Region, Scope::Zone]);
    let failover = Preference { scopes, mode: PreferenceMode::Failover, allow_unhealthy: false };
    let mut elsewhere = at("r1/z1/s1");
    elsewhere.network = "n2".into();
    let endpoints = [at("r1/z1/s1"), at("r1/z2/s1"), at("r2/z1/s1"), elsewhere];
    assert_eq!(levels(&endpoints, &Rules::default(), &failover), [0, 1, 2, 3].map(Some));
    let strict = Preference { scopes: Box::new([Scope::Zone]), mode: PreferenceMode::Strict, allow_unhealthy: false };
    let endpoints = [at("r1/z1/s1"), at("r1/z2/s1")];
    assert_eq!(levels(&endpoints, &Rules::default(), &strict), [Some(0), None]);
}

#[test]
fn distribute_weighs_localities_and_leaves_others_out() {
    let to = [("r1/z1/*", 80), ("r1/z2", 20)].map(|(to, weight)| (to.to_owned(), weight)).into();
    let distribute = vec![l7::locality::Distribute { from: "r1/z1/*".to_owned(), to }];
    let rules = Rules::of(Some(&l7::Locality { distribute, ..l7::Locality::default() }), false);
    let endpoints = near_and_far();
    let endpoints: Vec<_> = endpoints.iter().collect();
    let standings = standings(&endpoints, &place(), &rules, &Preference::default());
    let weights: Vec<_> = standings.iter().map(|standing| standing.and_then(|s| s.locality_weight)).collect();
    assert_eq!(weights, [Some(80), Some(80), Some(20), None, None]);
    assert!(standings[3].is_none(), "a locality that is not listed gets nothing");
}

#[test]
fn patterns_of_localities() {
    for (pattern, place, wanted) in [
        ("*", "r1/z1/s1", true),
        ("r1", "r1/z1/s1", true),
        ("r1/*", "r1/z1/s1", true),
        ("r1/z1", "r1/z1/s1", true),
        ("r1/z1/s1", "r1/z1/s1", true),
        ("r1/z1/s2", "r1/z1/s1", false),
        ("r2/*", "r1/z1/s1", false),
        ("r1/z2/*", "r1/z1/s1", false),
    ] {
        assert_eq!(matches(pattern, &locality(place)), wanted, "{pattern} {place}");
    }
}
