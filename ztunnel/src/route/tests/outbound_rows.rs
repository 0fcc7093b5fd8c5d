//! Where connections of a pod go.

use mesh_wire::workload as wire;

use super::*;
use crate::route::Hop;

#[test]
fn hbone_row_1_a_service_leads_to_the_endpoints_tunnel() {
    let decision = decide(&world([]), "172.20.0.9:80");
    assert_eq!(brief(&decision), "hbone 10.1.0.77:15008 10.1.0.77:8080");
    assert_eq!(expected(&decision), ["spiffe://cluster.local/ns/shop/sa/cart-1"]);
    let outbound = decision.unwrap();
    assert_eq!(&**outbound.service.unwrap().hostname(), "cart.shop.svc.cluster.local");
    assert_eq!((&*outbound.workload.unwrap().name, outbound.hop), ("cart-1", Hop::Direct));
}

#[test]
fn hbone_row_2_an_endpoint_that_is_not_enrolled_is_reached_in_plain() {
    let plain = wire::Workload { tunnel_protocol: 0, ..cart_endpoint() };
    assert_eq!(brief(&decide(&world([address(plain)]), "172.20.0.9:80")), "plain 10.1.0.77:8080");
}

#[test]
fn hbone_row_3_an_unknown_address_passes_through() {
    assert_eq!(brief(&decide(&world([]), "203.0.113.4:443")), "passthrough 203.0.113.4:443");
    assert_eq!(brief(&decide(&world([]), "[::ffff:203.0.113.4]:443")), "passthrough 203.0.113.4:443");
}

pub(super) const WAYPOINT: &str = "shop/wp.shop.svc.cluster.local";

pub(super) fn waypoint() -> [wire::Address; 2] {
    let mut wp = service(WAYPOINT, &[], &[(15008, 15008)]);
    wp.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/extra".into()];
    [service_address(wp), address(backs(pod("shop/wp", "10.1.0.200"), WAYPOINT, &[(15008, 15008)]))]
}

pub(super) fn with_waypoint(reference: wire::GatewayAddress) -> wire::Address {
    service_address(wire::Service { waypoint: Some(reference), ..cart() })
}

#[test]
fn hbone_row_4_a_service_with_a_waypoint_goes_there_under_its_original_address() {
    let world = world(waypoint()).with([with_waypoint(gateway(WAYPOINT))]);
    let decision = decide(&world, "172.20.0.9:80");
    assert_eq!(brief(&decision), "hbone 10.1.0.200:15008 172.20.0.9:80");
    let names = ["spiffe://cluster.local/ns/shop/sa/extra", "spiffe://cluster.local/ns/shop/sa/wp"];
    assert_eq!(expected(&decision), names);
    let outbound = decision.unwrap();
    assert_eq!(outbound.hop, Hop::Waypoint);
    assert_eq!(&*outbound.service.unwrap().name, "cart");
    // Also for ports that the service does not have.
    assert_eq!(brief(&decide(&world, "172.20.0.9:81")), "hbone 10.1.0.200:15008 172.20.0.9:81");
}

#[test]
fn a_waypoint_by_address_is_found_too() {
    let world = world(waypoint()).with([with_waypoint(gateway_at("10.1.0.200"))]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.200:15008 172.20.0.9:80");
}

#[test]
fn hbone_row_5_a_waypoint_that_is_missing_or_empty_is_never_skipped() {
    let world = world([with_waypoint(gateway("shop/nowhere"))]);
    assert_eq!(
        brief(&decide(&world, "172.20.0.9:80")),
        format!("refused: waypoint shop/nowhere:15008 of service {CART} cannot be used: it is not known to this proxy")
    );
    let [service, _] = waypoint();
    let world = super::world([service, with_waypoint(gateway(WAYPOINT))]);
    assert!(brief(&decide(&world, "172.20.0.9:80")).ends_with("it has no healthy endpoint"));
    let world = super::world([with_waypoint(gateway_at("10.1.9.9"))]);
    assert!(decide(&world, "172.20.0.9:80").is_err());
}

#[test]
fn hbone_row_6_and_7_a_workload_waypoint_is_for_calls_to_the_workload_only() {
    let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..cart_endpoint() };
    let world = world(waypoint()).with([address(guarded)]);
    assert_eq!(brief(&decide(&world, "10.1.0.77:8080")), "hbone 10.1.0.200:15008 10.1.0.77:8080");
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
    let from_waypoint = decide_from(&world, "shop/wp", "10.1.0.77:8080");
    assert_eq!(brief(&from_waypoint), "hbone 10.1.0.77:15008 10.1.0.77:8080", "the waypoint does not call itself");
}

#[test]
fn a_stranger_with_the_waypoints_identity_is_not_the_waypoint() {
    let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..cart_endpoint() };
    let twin = wire::Workload { service_account: "wp".into(), ..pod("shop/twin", "10.1.0.201") };
    let world = world(waypoint()).with([address(guarded), address(twin)]);
    assert_eq!(brief(&decide_from(&world, "shop/twin", "10.1.0.77:8080")), "hbone 10.1.0.200:15008 10.1.0.77:8080");
}

#[test]
fn weighted_waypoints_replace_the_single_one() {
    let other = "shop/other.shop.svc.cluster.local";
    let weighted = |weights: [u32; 2]| {
        let entry = |(key, weight)| wire::WeightedWaypoint { destination: Some(gateway(key)), weight };
        let weighted_waypoints = [WAYPOINT, other].into_iter().zip(weights).map(entry).collect();
        service_address(wire::Service { waypoint: Some(gateway(WAYPOINT)), weighted_waypoints, ..cart() })
    };
    let more = [
        service_address(service(other, &[], &[(15008, 15008)])),
        address(backs(pod("shop/other", "10.1.0.201"), other, &[(15008, 15008)])),
    ];
    let dialled = |weights| {
        let world = world(waypoint()).with(more.clone()).with([weighted(weights)]);
        brief(&decide(&world, "172.20.0.9:80"))
    };
    assert!(dialled([0, 5]).starts_with("hbone 10.1.0.201:15008"));
    assert!(dialled([5, 5]).starts_with("hbone 10.1.0.200:15008"));
    assert!(dialled([0, 0]).starts_with("hbone 10.1.0.200:15008"), "all zero: the single one");
}

#[test]
fn hbone_row_20_a_node_address_passes_through() {
    let host = wire::Workload { network_mode: 1, ..pod("shop/host", "10.0.0.4") };
    assert_eq!(brief(&decide(&world([address(host)]), "10.0.0.4:9100")), "passthrough 10.0.0.4:9100");
}

#[test]
fn wds_row_19_a_host_network_endpoint_is_reached_through_its_service() {
    let mut host = backs(pod("shop/host", "10.0.0.4"), CART, &[(80, 9100)]);
    host.network_mode = 1;
    host.tunnel_protocol = 0;
    let mut world = world([address(host)]);
    world.remove(&["Kubernetes//Pod/shop/cart-1"]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "plain 10.0.0.4:9100");
}

#[test]
fn a_pod_address_keeps_its_port() {
    assert_eq!(brief(&decide(&world([]), "10.1.0.77:9999")), "hbone 10.1.0.77:15008 10.1.0.77:9999");
}

#[test]
fn the_proxys_own_ports_on_loopback_are_refused() {
    for port in [15001, 15006, 15008] {
        let refused = Err(Refusal::ProxyPort { port });
        assert_eq!(decide(&world([]), &format!("127.0.0.1:{port}")), refused);
        assert_eq!(decide(&world([]), &format!("[::1]:{port}")), refused);
    }
    assert_eq!(brief(&decide(&world([]), "203.0.113.4:15008")), "passthrough 203.0.113.4:15008");
}

#[test]
fn a_service_without_endpoints_or_port_is_refused() {
    let mut world = world([]);
    let text = brief(&decide(&world, "172.20.0.9:81"));
    assert_eq!(text, format!("refused: no healthy upstream for port 81 of service {CART}"));
    world.remove(&["Kubernetes//Pod/shop/cart-1"]);
    assert!(decide(&world, "172.20.0.9:80").is_err());
}

#[test]
fn a_passthrough_service_keeps_the_original_address() {
    let balancing = wire::LoadBalancing { mode: 3, ..Default::default() };
    let passthrough = service_address(wire::Service { load_balancing: Some(balancing), ..cart() });
    let decision = decide(&world([passthrough]), "172.20.0.9:80");
    assert_eq!(brief(&decision), "passthrough 172.20.0.9:80");
    assert_eq!(decision.unwrap().service, None);
}

#[test]
fn a_known_workload_is_never_taken_for_an_unknown_address() {
    // An address that belongs to a workload and to a service that has no endpoint.
    let both = service_address(service("shop/both.svc", &["10.1.0.77"], &[(80, 80)]));
    assert_eq!(brief(&decide(&world([both]), "10.1.0.77:8080")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn families_follow_the_dialled_address_and_the_service() {
    let mut dual = cart_endpoint();
    dual.addresses.push(mesh_core::addr::ip_to_bytes("fd00::77".parse().unwrap()));
    let both = |families: i32| {
        let mut changed = service(CART, &["172.20.0.9", "fd00:9::9"], &[(80, 8080)]);
        changed.ip_families = families;
        world([address(dual.clone()), service_address(changed)])
    };
    assert_eq!(brief(&decide(&both(0), "[fd00:9::9]:80")), "hbone [fd00::77]:15008 [fd00::77]:8080");
    assert_eq!(brief(&decide(&both(0), "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
    assert_eq!(brief(&decide(&both(1), "[fd00:9::9]:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
    assert_eq!(brief(&decide(&both(2), "172.20.0.9:80")), "hbone [fd00::77]:15008 [fd00::77]:8080");
    let v6_only = service_address(wire::Service { ip_families: 2, ..cart() });
    assert!(brief(&decide(&world([v6_only]), "172.20.0.9:80")).contains("none is of a family"));
}

#[test]
fn service_identities_come_before_the_workloads_own() {
    let mut named = cart();
    named.subject_alt_names = vec!["spiffe://td/ns/x/sa/y".into(), "garbage".into()];
    let decision = decide(&world([service_address(named)]), "172.20.0.9:80");
    assert_eq!(expected(&decision), ["spiffe://td/ns/x/sa/y", "spiffe://cluster.local/ns/shop/sa/cart-1"]);
}
