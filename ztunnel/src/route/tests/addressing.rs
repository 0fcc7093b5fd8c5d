//! Names, ranges, headless services and the other ways to be addressed.

use mesh_wire::workload as wire;

use super::outbound_rows::{WAYPOINT, waypoint, with_waypoint};
use super::*;
use crate::route::{Families, Hop};
use crate::state::Local;

/// An endpoint of `cart` that is known by its DNS name only.
fn named(protocol: i32) -> wire::Workload {
    let named = wire::Workload { hostname: "db.example".into(), tunnel_protocol: protocol, ..pod("shop/cart-1", "") };
    backs(named, CART, &[(80, 5432)])
}

#[test]
fn a_workload_known_by_name_is_looked_up_for_each_connection() {
    let decision = decide(&world([address(named(0))]), "172.20.0.9:80");
    assert_eq!(brief(&decision), "plain db.example:5432");
    let path = decision.unwrap().path;
    let (host, families) = path.lookup().unwrap();
    assert_eq!((&**host, families), ("db.example", Families { v4: true, v6: true, prefer_v4: true }));
    assert_eq!(path.addr(), None);
    assert_eq!(
        path.at("198.51.100.7".parse().unwrap()),
        Path::Plain { dial: crate::route::Dial::Addr("198.51.100.7:5432".parse().unwrap()) }
    );
}

#[test]
fn a_tunnel_to_a_looked_up_workload_asks_for_the_address_that_was_found() {
    let path = decide(&world([address(named(1))]), "172.20.0.9:80").unwrap().path;
    let Path::Hbone { dial, authority, .. } = path.at("fd00::7".parse().unwrap()) else { panic!() };
    assert_eq!((dial.to_string().as_str(), authority.to_string().as_str()), ("[fd00::7]:15008", "[fd00::7]:5432"));
}

#[test]
fn only_families_that_the_service_allows_are_looked_up() {
    let families = |ip_families: i32, dst: &str| {
        let service = wire::Service { ip_families, ..service(CART, &["172.20.0.9", "fd00:9::9"], &[(80, 8080)]) };
        let world = world([service_address(service), address(named(0))]);
        let Families { v4, v6, prefer_v4 } =
            *decide(&world, dst).unwrap().path.lookup().as_ref().map(|(_, f)| f).unwrap();
        (v4, v6, prefer_v4)
    };
    let (four, six) = ("172.20.0.9:80", "[fd00:9::9]:80");
    assert_eq!(families(0, four), (true, true, true));
    assert_eq!(families(0, six), (true, true, false));
    assert_eq!(families(1, six), (true, false, false));
    assert_eq!(families(2, four), (false, true, true));
    assert_eq!(families(3, six), (true, true, false));
}

#[test]
fn an_address_makes_a_host_name_an_alias() {
    let alias = wire::Workload { hostname: "db.example".into(), ..cart_endpoint() };
    assert_eq!(brief(&decide(&world([address(alias)]), "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn a_workload_without_address_name_or_gateway_is_no_candidate() {
    let nothing = backs(pod("shop/nothing", ""), CART, &[(80, 8080)]);
    let world = world([address(nothing)]);
    for number in 0..2 {
        let workload = source_of(&world, "shop/web");
        let source = Source { addr: "10.1.0.5:40000".parse().unwrap(), workload: &workload };
        let pick = &mut |all| std::cmp::min(number, all - 1);
        let decision = outbound(&world.snapshot(), &source, "172.20.0.9:80".parse().unwrap(), pick);
        assert_eq!(brief(&decision), "hbone 10.1.0.77:15008 10.1.0.77:8080");
    }
}

#[test]
fn hbone_row_4_a_waypoint_may_be_a_workload_with_a_host_name() {
    let wp = wire::Workload { hostname: "wp.example".into(), ..pod("shop/wp", "") };
    let world = world([address(wp), with_waypoint(gateway("shop/wp.example"))]);
    let decision = decide(&world, "172.20.0.9:80");
    assert_eq!(brief(&decision), "hbone wp.example:15008 172.20.0.9:80");
    let path = decision.unwrap().path.at("fd00::8".parse().unwrap());
    assert_eq!(path.addr(), Some("[fd00::8]:15008".parse().unwrap()));
    assert_eq!(path.authority().unwrap().to_string(), "172.20.0.9:80", "the original destination, whatever is dialled");
    let alias = wire::Workload { hostname: "wp.example".into(), ..pod("shop/wp", "10.1.0.200") };
    let world = super::world([address(alias), with_waypoint(gateway("shop/wp.example"))]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.200:15008 172.20.0.9:80");
    let elsewhere = super::world([with_waypoint(gateway("other/wp.example"))]);
    assert!(decide(&elsewhere, "172.20.0.9:80").is_err(), "the namespace counts");
}

#[test]
fn hbone_row_4_a_waypoint_may_be_a_service_by_its_address() {
    let wp = service(WAYPOINT, &["172.20.0.200"], &[(15008, 15008)]);
    let [_, endpoint] = waypoint();
    let world = world([service_address(wp), endpoint, with_waypoint(gateway_at("172.20.0.200"))]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.200:15008 172.20.0.9:80");
}

#[test]
fn hbone_row_4_the_waypoint_follows_the_dialled_family_and_the_authority_stays() {
    let mut wp = backs(pod("shop/wp", "10.1.0.200"), WAYPOINT, &[(15008, 15008)]);
    wp.addresses.push(pod("a/b", "fd00::200").addresses.remove(0));
    let cart = service(CART, &["172.20.0.9", "fd00:9::9"], &[(80, 8080)]);
    let dual = |ip_families| {
        let wp_service = wire::Service { ip_families, ..service(WAYPOINT, &[], &[(15008, 15008)]) };
        let guarded = wire::Service { waypoint: Some(gateway(WAYPOINT)), ..cart.clone() };
        world([service_address(wp_service), address(wp.clone()), service_address(guarded)])
    };
    assert_eq!(brief(&decide(&dual(0), "172.20.0.9:80")), "hbone 10.1.0.200:15008 172.20.0.9:80");
    assert_eq!(brief(&decide(&dual(0), "[fd00:9::9]:80")), "hbone [fd00::200]:15008 [fd00:9::9]:80");
    assert_eq!(brief(&decide(&dual(1), "[fd00:9::9]:80")), "hbone 10.1.0.200:15008 [fd00:9::9]:80");
}

#[test]
fn hbone_row_4_a_passthrough_service_still_uses_its_waypoint() {
    let balancing = wire::LoadBalancing { mode: 3, ..Default::default() };
    let guarded = wire::Service { load_balancing: Some(balancing), waypoint: Some(gateway(WAYPOINT)), ..cart() };
    let world = world(waypoint()).with([service_address(guarded)]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.200:15008 172.20.0.9:80");
}

#[test]
fn hbone_row_4_a_sandwiched_waypoint_needs_no_service_port() {
    let tunnel = |port| wire::Workload {
        application_tunnel: Some(wire::ApplicationTunnel { protocol: 1, port }),
        ..backs(pod("shop/wp", "10.1.0.200"), WAYPOINT, &[])
    };
    let wp = |endpoint| {
        let wp = service_address(service(WAYPOINT, &[], &[(15021, 15021)]));
        brief(&decide(&world([wp, address(endpoint), with_waypoint(gateway(WAYPOINT))]), "172.20.0.9:80"))
    };
    assert_eq!(wp(tunnel(15088)), "hbone 10.1.0.200:15008 172.20.0.9:80");
    assert!(wp(tunnel(0)).contains("it has no healthy endpoint"), "without a port of its own it leads nowhere");
    assert!(wp(backs(pod("shop/wp", "10.1.0.200"), WAYPOINT, &[])).contains("it has no healthy endpoint"));
}

#[test]
fn an_unhealthy_waypoint_is_not_skipped() {
    let [service, _] = waypoint();
    let mut sick = backs(pod("shop/wp", "10.1.0.200"), WAYPOINT, &[(15008, 15008)]);
    sick.status = 1;
    let world = world([service, address(sick), with_waypoint(gateway(WAYPOINT))]);
    assert!(brief(&decide(&world, "172.20.0.9:80")).contains("it has no healthy endpoint"));
}

#[test]
fn wds_row_12_the_exact_address_wins_over_a_range() {
    let exact = "shop/exact.example";
    let range = service("shop/range.example", &["198.18.0.0/15"], &[(80, 8080)]);
    let world = world([
        service_address(range),
        service_address(service(exact, &["198.18.0.9"], &[(80, 8080)])),
        address(backs(pod("shop/r", "10.1.0.50"), "shop/range.example", &[(80, 8081)])),
        address(backs(pod("shop/e", "10.1.0.51"), exact, &[(80, 8082)])),
    ]);
    assert_eq!(brief(&decide(&world, "198.18.0.9:80")), "hbone 10.1.0.51:15008 10.1.0.51:8082");
    assert_eq!(brief(&decide(&world, "198.19.255.1:80")), "hbone 10.1.0.50:15008 10.1.0.50:8081");
    assert_eq!(brief(&decide(&world, "198.20.0.1:80")), "passthrough 198.20.0.1:80");
}

#[test]
fn wds_row_11_a_service_of_another_namespace_may_be_invisible() {
    let mut hidden = service("other/hidden.svc", &["172.20.0.50"], &[(80, 8080)]);
    hidden.visibility = 1;
    let inside = backs(pod("other/inside", "10.1.0.60"), "other/hidden.svc", &[(80, 8080)]);
    let world = world([service_address(hidden), address(inside)]);
    assert_eq!(brief(&decide(&world, "172.20.0.50:80")), "passthrough 172.20.0.50:80");
    assert_eq!(brief(&decide_from(&world, "other/inside", "172.20.0.50:80")), "hbone 10.1.0.60:15008 10.1.0.60:8080");
}

#[test]
fn a_headless_endpoint_is_reached_by_its_own_address() {
    let headless = "shop/db.shop.svc.cluster.local";
    let world = world([
        service_address(service(headless, &[], &[(5432, 5432)])),
        address(backs(pod("shop/db-0", "10.1.0.90"), headless, &[(5432, 5432)])),
    ]);
    let decision = decide(&world, "10.1.0.90:5432").unwrap();
    assert_eq!(decision.service, None, "an address is not a service");
    assert_eq!(brief(&Ok(decision)), "hbone 10.1.0.90:15008 10.1.0.90:5432");
}

#[test]
fn a_service_waypoint_does_not_see_calls_to_a_pod() {
    let world = world(waypoint()).with([with_waypoint(gateway(WAYPOINT))]);
    assert_eq!(brief(&decide(&world, "10.1.0.77:8080")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn the_sources_own_waypoint_is_never_used() {
    let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..web() };
    let world = world(waypoint()).with([address(guarded)]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn a_native_tunnel_is_dialled_on_the_tunnel_port() {
    let native = wire::Workload { native_tunnel: true, ..cart_endpoint() };
    assert_eq!(brief(&decide(&world([address(native)]), "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn a_pod_that_calls_its_own_service_goes_through_its_own_tunnel() {
    let decision = decide_from(&world([]), "shop/cart-1", "172.20.0.9:80");
    assert_eq!(brief(&decision), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn a_neighbour_on_the_node_gets_no_short_cut() {
    let near = |workload: wire::Workload| address(wire::Workload { node: NODE.into(), ..workload });
    let world = world([near(web()), near(cart_endpoint())]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn a_host_network_peer_is_reached_through_its_service_with_its_own_protocol() {
    let mut host = backs(pod("shop/host", "10.0.0.4"), CART, &[(80, 9100)]);
    host.network_mode = 1;
    let mut world = world([address(host)]);
    world.remove(&["Kubernetes//Pod/shop/cart-1"]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.0.0.4:15008 10.0.0.4:9100");
    assert_eq!(brief(&decide(&world, "10.0.0.4:9100")), "passthrough 10.0.0.4:9100");
}

#[test]
fn the_port_is_the_endpoints_own_before_the_services() {
    type Ports<'a> = &'a [(u32, u32)];
    let table: [(Ports<'_>, Ports<'_>, &str); 4] = [
        (&[(80, 8080)], &[(80, 7070)], "hbone 10.1.0.77:15008 10.1.0.77:7070"),
        (&[(80, 8080)], &[], "hbone 10.1.0.77:15008 10.1.0.77:8080"),
        (&[(80, 8080)], &[(80, 0)], "hbone 10.1.0.77:15008 10.1.0.77:8080"),
        (&[(80, 0)], &[(80, 7070)], "hbone 10.1.0.77:15008 10.1.0.77:7070"),
    ];
    for (service_ports, own, expected) in table {
        let world = world([
            service_address(service(CART, &["172.20.0.9"], service_ports)),
            address(backs(pod("shop/cart-1", "10.1.0.77"), CART, own)),
        ]);
        assert_eq!(brief(&decide(&world, "172.20.0.9:80")), expected, "{service_ports:?} {own:?}");
    }
}

#[test]
fn wds_row_4_an_unhealthy_endpoint_is_used_only_where_all_are() {
    let sick = wire::Workload { status: 1, ..cart_endpoint() };
    let world = world([address(sick)]);
    assert!(brief(&decide(&world, "172.20.0.9:80")).contains("no healthy upstream"));
    let balancing = wire::LoadBalancing { health_policy: 1, ..Default::default() };
    let mut world = world.with([service_address(wire::Service { load_balancing: Some(balancing), ..cart() })]);
    world.add([address(wire::Workload { status: 1, ..cart_endpoint() })]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "hbone 10.1.0.77:15008 10.1.0.77:8080");
}

#[test]
fn the_socks_port_belongs_to_the_proxy_where_it_listens() {
    let listening = |socks5| {
        let local = Local { network: NETWORK.into(), socks5, ..Local::default() };
        World::of(local).with([address(web())])
    };
    assert_eq!(brief(&decide(&listening(false), "127.0.0.1:15080")), "passthrough 127.0.0.1:15080");
    assert_eq!(decide(&listening(true), "127.0.0.1:15080"), Err(Refusal::ProxyPort { port: 15080 }));
}

#[test]
fn hbone_row_7_a_service_behind_a_workload_waypoint_is_direct_and_says_so() {
    let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..cart_endpoint() };
    let world = world(waypoint()).with([address(guarded)]);
    assert_eq!(decide(&world, "172.20.0.9:80").unwrap().hop, Hop::Direct);
    assert_eq!(decide(&world, "10.1.0.77:8080").unwrap().hop, Hop::Waypoint);
}
