//! Which endpoint a service leads to.

use std::collections::BTreeMap;

use mesh_wire::workload as wire;

use super::*;

const REGION: i32 = 1;
const ZONE: i32 = 2;
const NODE_SCOPE: i32 = 4;
const NETWORK_SCOPE: i32 = 6;
const STRICT: i32 = 1;
const FAILOVER: i32 = 2;

fn placed(name: &str, ip: &str, region: &str, zone: &str) -> wire::Workload {
    let locality = wire::Locality { region: region.into(), zone: zone.into(), ..Default::default() };
    let mut workload = backs(pod(&format!("shop/{name}"), ip), CART, &[(80, 8080)]);
    workload.locality = Some(locality);
    workload
}

/// Names of all endpoints that some random number leads to, with the numbers that do.
fn choices(mode: i32, scopes: &[i32], candidates: Vec<wire::Workload>) -> BTreeMap<String, u64> {
    let balancing = wire::LoadBalancing { mode, routing_preference: scopes.to_vec(), ..Default::default() };
    let mut source = placed("web", "10.1.0.5", "r1", "z9");
    source.services.clear();
    let mut world = World::new()
        .with([address(source), service_address(wire::Service { load_balancing: Some(balancing), ..cart() })]);
    world.add(candidates.into_iter().map(address));
    let workload = source_of(&world, "shop/web");
    let from = Source { addr: "10.1.0.5:40000".parse().unwrap(), workload: &workload };
    let mut found = BTreeMap::new();
    let (mut number, mut total) = (0, 1);
    while number < total {
        let mut pick = |all: u64| {
            total = all;
            number
        };
        match outbound(&world.snapshot(), &from, "172.20.0.9:80".parse().unwrap(), &mut pick) {
            Ok(decision) => *found.entry(decision.workload.unwrap().name.to_string()).or_insert(0) += 1,
            // A chosen endpoint of another network is refused, but it was chosen.
            Err(Refusal::OtherNetwork { .. } | Refusal::NobodyExpected { .. }) => {
                *found.entry("remote".to_owned()).or_insert(0) += 1
            }
            Err(_) => return found,
        }
        number += 1;
    }
    found
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn wds_row_13_failover_keeps_the_best_rank_only() {
    let candidates = vec![
        placed("a", "10.1.1.1", "r1", "z1"),
        placed("b", "10.1.1.2", "r1", "z2"),
        placed("c", "10.1.1.3", "r2", "z1"),
    ];
    assert_eq!(choices(FAILOVER, &[REGION, ZONE], candidates), counts(&[("a", 1), ("b", 1)]));
}

#[test]
fn wds_row_14_strict_without_a_match_has_no_upstream() {
    assert_eq!(
        choices(
            STRICT,
            &[NODE_SCOPE],
            vec![{
                let mut far = placed("a", "10.1.1.1", "r1", "z9");
                far.node = "elsewhere".into();
                far
            }]
        ),
        counts(&[])
    );
    let near = placed("b", "10.1.1.2", "r1", "z9");
    assert_eq!(choices(STRICT, &[NODE_SCOPE, ZONE], vec![near]), counts(&[("b", 1)]));
}

#[test]
fn wds_row_15_the_own_network_comes_first_when_it_is_listed_first() {
    let remote = |zone: &str| {
        let mut workload = placed("remote", "10.1.1.2", "r1", zone);
        workload.network = "n2".into();
        workload.network_gateway = Some(gateway_at("192.0.2.1"));
        workload
    };
    let local = placed("local", "10.1.1.1", "r1", "z1");
    let found = choices(FAILOVER, &[NETWORK_SCOPE, ZONE], vec![local, remote("z9")]);
    assert_eq!(found, counts(&[("local", 1)]));
    // Later scopes still tell remote ones apart.
    let found = choices(FAILOVER, &[NETWORK_SCOPE, ZONE], vec![remote("z9")]);
    assert_eq!(found, counts(&[("remote", 1)]));
}

#[test]
fn wds_row_16_capacities_are_weights_and_zero_is_never_chosen() {
    let weighted = |name: &str, ip: &str, capacity: u32| wire::Workload {
        capacity: Some(capacity),
        ..placed(name, ip, "r1", "z1")
    };
    let candidates = vec![weighted("a", "10.1.1.1", 3), weighted("b", "10.1.1.2", 1), weighted("c", "10.1.1.3", 0)];
    assert_eq!(choices(0, &[], candidates), counts(&[("a", 3), ("b", 1)]));
    assert_eq!(choices(0, &[], vec![weighted("c", "10.1.1.3", 0)]), counts(&[]));
}

#[test]
fn wds_row_20_an_endpoint_without_the_named_port_is_never_chosen() {
    let mut world = world([
        service_address(service(CART, &["172.20.0.9"], &[(80, 0)])),
        address(backs(pod("shop/without", "10.1.1.1"), CART, &[(81, 8081)])),
        address(backs(pod("shop/cart-1", "10.1.0.77"), CART, &[(80, 7777)])),
    ]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:7777");
    world.remove(&["Kubernetes//Pod/shop/cart-1"]);
    assert!(decide(&world, "172.20.0.9:80").is_err());
}

#[test]
fn wds_row_10_to_12_lead_to_the_right_service() {
    let mut hidden = service("other/hidden.svc", &["172.20.0.50"], &[(80, 8080)]);
    hidden.visibility = 1;
    let world = world([service_address(hidden)]);
    assert_eq!(brief(&decide(&world, "172.20.0.50:80")), "passthrough 172.20.0.50:80");
}
