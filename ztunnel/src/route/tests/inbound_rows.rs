//! What arriving tunnels and plaintext connections are for.

use mesh_wire::workload as wire;

use super::*;
use crate::route::{InboundRefusal, InboundTarget, destination_service, inbound, inbound_plaintext};
use crate::state::Local;

fn arrive(world: &World, local: &str, authority: &str, at: &str) -> Result<String, u16> {
    let workload = source_of(world, local);
    inbound(&world.snapshot(), &workload, authority, at.parse().unwrap())
        .map(|target| target.addr.to_string())
        .map_err(|InboundRefusal { status, .. }| status)
}

const AT: &str = "10.1.0.77:15008";

#[test]
fn the_pods_own_address_leads_to_the_port_of_the_authority() {
    assert_eq!(arrive(&world([]), "shop/cart-1", "10.1.0.77:8080", AT), Ok("10.1.0.77:8080".into()));
    assert_eq!(arrive(&world([]), "shop/cart-1", "[::ffff:10.1.0.77]:8080", AT), Ok("10.1.0.77:8080".into()));
}

#[test]
fn hbone_row_13_an_address_of_somebody_else_is_a_bad_request() {
    assert_eq!(arrive(&world([]), "shop/cart-1", "10.1.0.99:8080", AT), Err(400));
    assert_eq!(arrive(&world([]), "shop/cart-1", "172.20.0.9:80", AT), Err(400), "no waypoint relation");
}

#[test]
fn hbone_row_14_the_proxys_own_ports_are_unavailable() {
    for port in [15001, 15006, 15008] {
        assert_eq!(arrive(&world([]), "shop/cart-1", &format!("10.1.0.77:{port}"), AT), Err(503));
        assert!(inbound_plaintext(&Local::default(), format!("10.1.0.77:{port}").parse().unwrap()).is_err());
    }
    assert!(inbound_plaintext(&Local::default(), "10.1.0.77:8080".parse().unwrap()).is_ok());
}

#[test]
fn what_is_no_authority_is_a_bad_request() {
    for bad in
        ["", "10.1.0.77", "10.1.0.77:", "10.1.0.77:70000", ":80", "a b:80", "[::1]", "fd00::77:80x", "host/path:80"]
    {
        assert_eq!(arrive(&world([]), "shop/cart-1", bad, AT), Err(400), "{bad:?}");
    }
}

#[test]
fn host_names_resolve_to_the_workloads_own_port() {
    let world = world([service_address(service(CART, &["172.20.0.9"], &[(80, 8080), (81, 0), (82, 8082)]))])
        .with([address(backs(pod("shop/cart-1", "10.1.0.77"), CART, &[(80, 7070), (81, 7071)]))]);
    let host = "cart.shop.svc.cluster.local";
    for (port, expected) in
        [(80, Ok("10.1.0.77:7070")), (81, Ok("10.1.0.77:7071")), (82, Ok("10.1.0.77:8082")), (83, Err(503))]
    {
        let found = arrive(&world, "shop/cart-1", &format!("{host}:{port}"), AT);
        assert_eq!(found, expected.map(str::to_owned), "{port}");
    }
    assert_eq!(arrive(&world, "shop/cart-1", "unknown.example:80", AT), Err(503));
}

#[test]
fn a_waypoint_accepts_what_refers_to_it() {
    let wp = "shop/wp.svc";
    let world = world([
        service_address(service(wp, &[], &[(15008, 15008)])),
        address(backs(pod("shop/wp", "10.1.0.200"), wp, &[])),
        service_address(wire::Service { waypoint: Some(gateway(wp)), ..cart() }),
        address(wire::Workload { waypoint: Some(gateway_at("10.1.0.200")), ..cart_endpoint() }),
    ]);
    let at = "10.1.0.200:15008";
    assert_eq!(arrive(&world, "shop/wp", "172.20.0.9:80", at), Ok("10.1.0.200:80".into()));
    assert_eq!(arrive(&world, "shop/wp", "10.1.0.77:8080", at), Ok("10.1.0.200:8080".into()));
    assert_eq!(arrive(&world, "shop/wp", "10.1.0.5:8080", at), Err(400), "web has no waypoint");
}

/// `cart-1` with an application that terminates tunnels itself.
fn tunnelling(protocol: i32, port: u32) -> wire::Workload {
    wire::Workload { application_tunnel: Some(wire::ApplicationTunnel { protocol, port }), ..cart_endpoint() }
}

#[test]
fn application_tunnels_take_any_address_to_their_port() {
    let plain = world([address(tunnelling(0, 15088))]);
    assert_eq!(arrive(&plain, "shop/cart-1", "192.0.2.1:80", AT), Ok("10.1.0.77:15088".into()));
    let no_port = world([address(tunnelling(0, 0))]);
    assert_eq!(arrive(&no_port, "shop/cart-1", "192.0.2.1:80", AT), Ok("10.1.0.77:80".into()));
    assert_eq!(arrive(&plain, "shop/cart-1", "192.0.2.1:15006", AT), Err(503), "checked before the port is replaced");
}

fn proxied(world: &World, authority: &str, at: &str) -> InboundTarget {
    let workload = source_of(world, "shop/cart-1");
    inbound(&world.snapshot(), &workload, authority, at.parse().unwrap()).unwrap()
}

#[test]
fn an_application_that_takes_the_proxy_protocol_is_reached_over_loopback() {
    let world = world([address(tunnelling(1, 15088))]);
    let target = proxied(&world, "192.0.2.1:80", AT);
    assert_eq!(target.addr, "127.0.0.1:15088".parse().unwrap());
    assert_eq!(target.announce, Some("192.0.2.1:80".parse().unwrap()));
    assert!(!target.keep_source, "a foreign address on loopback would be dropped");
    let six = proxied(&world, "[fd00::1]:80", "[fd00::77]:15008");
    assert_eq!(six.addr, "[::1]:15088".parse().unwrap());
}

#[test]
fn loopback_can_be_switched_off_for_the_proxy_protocol() {
    let local = Local { network: NETWORK.into(), localhost_app_tunnel: false, ..Local::default() };
    let world = World::of(local).with([address(tunnelling(1, 15088))]);
    let target = proxied(&world, "192.0.2.1:80", AT);
    assert_eq!(target.addr, "10.1.0.77:15088".parse().unwrap());
    assert!(target.keep_source && target.announce.is_some());
}

#[test]
fn a_host_name_is_announced_as_an_address_of_its_service() {
    let host = "cart.shop.svc.cluster.local:80";
    let announced = |addresses: Vec<wire::NetworkAddress>| {
        let service = wire::Service { addresses, ..cart() };
        let world = world([service_address(service), address(tunnelling(1, 15088))]);
        let workload = source_of(&world, "shop/cart-1");
        inbound(&world.snapshot(), &workload, host, AT.parse().unwrap())
            .map(|target| target.announce.unwrap().to_string())
            .map_err(|refusal| refusal.status)
    };
    let on_n2 = |ip| wire::NetworkAddress { network: "n2".into(), ..network_address(ip) };
    let (four, six) = (network_address("172.20.0.9"), network_address("fd00:9::9"));
    assert_eq!(announced(vec![six.clone(), four.clone()]), Ok("172.20.0.9:80".into()));
    assert_eq!(announced(vec![on_n2("172.21.0.9"), six.clone()]), Ok("[fd00:9::9]:80".into()), "the own network first");
    assert_eq!(announced(vec![on_n2("fd01::9"), on_n2("172.21.0.9")]), Ok("172.21.0.9:80".into()));
    assert_eq!(announced(vec![]), Err(503), "there is nothing to announce");
}

#[test]
fn hbone_row_14_the_socks_port_belongs_to_the_proxy_where_it_listens() {
    let listening = |socks5| {
        let local = Local { network: NETWORK.into(), socks5, ..Local::default() };
        let world = World::of(local).with([address(cart_endpoint())]);
        let plaintext = inbound_plaintext(&world.snapshot().local, "10.1.0.77:15080".parse().unwrap());
        (arrive(&world, "shop/cart-1", "10.1.0.77:15080", AT), plaintext.is_ok())
    };
    assert_eq!(listening(false), (Ok("10.1.0.77:15080".into()), true));
    assert_eq!(listening(true), (Err(503), false));
}

#[test]
fn hbone_row_14_a_service_port_that_leads_to_a_proxy_port_is_unavailable() {
    let world = world([service_address(service(CART, &["172.20.0.9"], &[(80, 15006)]))]).with([address(backs(
        pod("shop/cart-1", "10.1.0.77"),
        CART,
        &[(80, 15006)],
    ))]);
    assert_eq!(arrive(&world, "shop/cart-1", "cart.shop.svc.cluster.local:80", AT), Err(503));
}

#[test]
fn hbone_row_13_only_the_waypoint_itself_takes_what_refers_to_it() {
    let (wp, other) = ("shop/wp.svc", "shop/other.svc");
    let weighted = |destination| wire::WeightedWaypoint { destination: Some(destination), weight: 1 };
    let world = world([
        service_address(service(wp, &["172.20.0.200"], &[(15008, 15008)])),
        service_address(service(other, &[], &[(15008, 15008)])),
        address(wire::Workload { status: 1, ..backs(pod("shop/wp", "10.1.0.200"), wp, &[]) }),
        address(backs(pod("shop/other", "10.1.0.201"), other, &[])),
    ]);
    let takes = |world: &World, who: &str, at: &str| arrive(world, who, "172.20.0.9:80", at).is_ok();
    let by_name = world.with([service_address(wire::Service { waypoint: Some(gateway(wp)), ..cart() })]);
    assert!(takes(&by_name, "shop/wp", "10.1.0.200:15008"), "also while it drains, unhealthy");
    assert!(!takes(&by_name, "shop/other", "10.1.0.201:15008"));
    let by_vip =
        by_name.with([service_address(wire::Service { waypoint: Some(gateway_at("172.20.0.200")), ..cart() })]);
    assert!(takes(&by_vip, "shop/wp", "10.1.0.200:15008"));
    assert!(!takes(&by_vip, "shop/other", "10.1.0.201:15008"));
    let split = wire::Service {
        waypoint: Some(gateway(wp)),
        weighted_waypoints: vec![weighted(gateway(wp)), weighted(gateway(other))],
        ..cart()
    };
    let split = by_vip.with([service_address(split)]);
    assert!(takes(&split, "shop/wp", "10.1.0.200:15008") && takes(&split, "shop/other", "10.1.0.201:15008"));
    let pod_waypoint = wire::Workload { waypoint: Some(gateway_at("10.1.0.201")), ..cart_endpoint() };
    let by_pod = split.with([address(pod_waypoint)]);
    assert!(arrive(&by_pod, "shop/other", "10.1.0.77:8080", "10.1.0.201:15008").is_ok());
    assert_eq!(arrive(&by_pod, "shop/wp", "10.1.0.77:8080", "10.1.0.200:15008"), Err(400));
}

#[test]
fn the_reported_service_is_the_one_that_was_addressed() {
    let other = "shop/other.shop.svc.cluster.local";
    let world = world([service_address(service(other, &[], &[(90, 8080)]))]).with([address(backs(
        cart_endpoint(),
        other,
        &[],
    ))]);
    let local = source_of(&world, "shop/cart-1");
    let service =
        |port, host| destination_service(&world.snapshot(), &local, port, host).map(|service| service.name.to_string());
    assert_eq!(service(8080, Some("other.shop.svc.cluster.local")).as_deref(), Some("other"));
    assert_eq!(service(8080, Some("stranger.svc")).as_deref(), Some("cart"));
    assert_eq!(service(8080, None).as_deref(), Some("cart"));
    assert_eq!(service(9999, None), None);
}
