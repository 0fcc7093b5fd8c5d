//! What arriving tunnels and plaintext connections are for.

use mesh_wire::workload as wire;

use super::*;
use crate::route::{InboundRefusal, destination_service, inbound, inbound_plaintext};

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
fn row_13_an_address_of_somebody_else_is_a_bad_request() {
    assert_eq!(arrive(&world([]), "shop/cart-1", "10.1.0.99:8080", AT), Err(400));
    assert_eq!(arrive(&world([]), "shop/cart-1", "172.20.0.9:80", AT), Err(400), "no waypoint relation");
}

#[test]
fn row_14_the_proxys_own_ports_are_unavailable() {
    for port in [15001, 15006, 15008] {
        assert_eq!(arrive(&world([]), "shop/cart-1", &format!("10.1.0.77:{port}"), AT), Err(503));
        assert!(inbound_plaintext(format!("10.1.0.77:{port}").parse().unwrap()).is_err());
    }
    assert!(inbound_plaintext("10.1.0.77:8080".parse().unwrap()).is_ok());
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

#[test]
fn application_tunnels_take_their_port_or_are_refused() {
    let tunnel = |protocol| wire::Workload {
        application_tunnel: Some(wire::ApplicationTunnel { protocol, port: 15088 }),
        ..cart_endpoint()
    };
    let plain = world([address(tunnel(0))]);
    assert_eq!(arrive(&plain, "shop/cart-1", "192.0.2.1:80", AT), Ok("10.1.0.77:15088".into()));
    assert_eq!(arrive(&world([address(tunnel(1))]), "shop/cart-1", "10.1.0.77:80", AT), Err(503));
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
