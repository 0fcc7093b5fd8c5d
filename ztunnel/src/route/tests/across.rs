//! Connections to other networks.

use mesh_wire::workload as wire;

use super::outbound_rows::{WAYPOINT, with_waypoint};
use super::*;
use crate::route::Hop;

const EAST: &str = "istio-system/east.istio-system.svc.cluster.local";
const REMOTE: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// On the gateway's own network.
fn on_n2(mut workload: wire::Workload) -> wire::Workload {
    workload.network = "n2".into();
    workload
}

fn gateway_on_n2(ip: &str) -> wire::GatewayAddress {
    use wire::gateway_address::Destination;
    let address = wire::NetworkAddress { network: "n2".into(), ..network_address(ip) };
    wire::GatewayAddress { destination: Some(Destination::Address(address)), hbone_mtls_port: 15008 }
}

/// What a control plane sends for all endpoints of `cart` on network n2 together.
fn aggregate(gateway: Option<wire::GatewayAddress>) -> wire::Workload {
    let mut remote = on_n2(backs(pod("shop/remote", ""), CART, &[(80, 80)]));
    remote.network_gateway = gateway;
    remote
}

/// `cart` lives on network n2 only; its gateway there is at 192.0.2.10.
fn elsewhere() -> World {
    let gateway = on_n2(pod("istio-system/east", "192.0.2.10"));
    let cart = wire::Service { subject_alt_names: vec![REMOTE.into()], ..cart() };
    let remote = aggregate(Some(gateway_on_n2("192.0.2.10")));
    let mut world = world([address(gateway), service_address(cart), address(remote)]);
    world.remove(&["Kubernetes//Pod/shop/cart-1"]);
    world
}

#[test]
fn hbone_row_17_a_service_of_another_network_goes_through_its_gateway() {
    let decision = decide(&elsewhere(), "172.20.0.9:80").unwrap();
    let Path::DoubleHbone { gateway, authority, outer, inner } = &decision.path else { panic!("{decision:?}") };
    assert_eq!(gateway.to_string(), "192.0.2.10:15008");
    assert_eq!(authority.to_string(), "cart.shop.svc.cluster.local:80", "the service's port, not the endpoint's");
    assert_eq!(
        outer.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["spiffe://cluster.local/ns/istio-system/sa/east"]
    );
    assert_eq!(inner.iter().map(ToString::to_string).collect::<Vec<_>>(), [REMOTE], "not that of the aggregate");
    assert_eq!(decision.hop, Hop::Gateway);
    assert_eq!(&*decision.workload.unwrap().name, "east");
    assert_eq!(&*decision.service.unwrap().name, "cart");
}

#[test]
fn hbone_row_17_without_identities_nobody_is_believed() {
    let world = elsewhere().with([service_address(cart())]);
    let text = brief(&decide(&world, "172.20.0.9:80"));
    assert!(text.starts_with("refused: service") && text.contains("names no identities"), "{text}");
    let garbage = wire::Service { subject_alt_names: vec!["*".into()], ..cart() };
    let world = elsewhere().with([service_address(garbage)]);
    assert!(brief(&decide(&world, "172.20.0.9:80")).contains("names no identities"));
}

#[test]
fn hbone_row_17_without_a_gateway_the_connection_fails() {
    let text = |remote| brief(&decide(&elsewhere().with([address(remote)]), "172.20.0.9:80"));
    // Neither address nor gateway: not even a candidate.
    assert!(text(aggregate(None)).contains("no healthy upstream"));
    // An address of the other network means nothing on ours.
    let addressed = wire::Workload { addresses: pod("a/b", "10.9.0.1").addresses, ..aggregate(None) };
    assert!(text(addressed).contains("is on network \"n2\" and cannot be reached: its network has no gateway"));
    assert!(text(aggregate(Some(gateway_on_n2("192.0.2.99")))).contains("gateway n2/192.0.2.99:15008 of network"));
    assert!(text(aggregate(Some(gateway("nowhere/gateway.svc")))).contains("it is not known to this proxy"));
}

#[test]
fn hbone_row_17_a_workload_of_another_network_needs_a_service() {
    // The proxy's network is not the one that the source is on.
    let mut source = on_n2(web());
    source.addresses.push(pod("a/b", "fd00::5").addresses.remove(0));
    let world = world([address(source)]);
    let workload = world.snapshot().workload_by_uid("Kubernetes//Pod/shop/web").unwrap().clone();
    let source = Source { addr: "10.1.0.5:40000".parse().unwrap(), workload: &workload };
    let decision = outbound(&world.snapshot(), &source, "10.1.0.77:8080".parse().unwrap(), &mut |_| 0);
    assert!(brief(&decision).contains("dialled by its address"), "{decision:?}");
}

#[test]
fn a_gateway_may_be_a_service() {
    let east = service(EAST, &[], &[(15008, 15443)]);
    let east = wire::Service { subject_alt_names: vec!["spiffe://cluster.local/ns/istio-system/sa/gw".into()], ..east };
    let endpoint = backs(on_n2(pod("istio-system/east-1", "192.0.2.11")), EAST, &[(15008, 15443)]);
    let world = elsewhere().with([
        service_address(east.clone()),
        address(endpoint.clone()),
        address(aggregate(Some(gateway(EAST)))),
    ]);
    let decision = decide(&world, "172.20.0.9:80");
    assert_eq!(brief(&decision), "double 192.0.2.11:15443 cart.shop.svc.cluster.local:80");
    let Path::DoubleHbone { outer, .. } = decision.unwrap().path else { panic!() };
    let names = ["spiffe://cluster.local/ns/istio-system/sa/gw", "spiffe://cluster.local/ns/istio-system/sa/east-1"];
    assert_eq!(outer.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
    // A port that the gateway's service does not have leads nowhere, other than for a waypoint.
    let tunnelling =
        wire::Workload { application_tunnel: Some(wire::ApplicationTunnel { protocol: 0, port: 15088 }), ..endpoint };
    let world = world.with([service_address(wire::Service { ports: vec![], ..east }), address(tunnelling)]);
    assert!(brief(&decide(&world, "172.20.0.9:80")).contains("it has no healthy endpoint"));
}

#[test]
fn a_gateway_that_is_known_by_name_is_looked_up() {
    let named = wire::Workload { hostname: "east.example".into(), addresses: vec![], ..on_n2(pod("net/east", "")) };
    let world = elsewhere().with([address(named), address(aggregate(Some(gateway("net/east.example"))))]);
    let decision = decide(&world, "172.20.0.9:80");
    assert_eq!(brief(&decision), "double east.example:15008 cart.shop.svc.cluster.local:80");
    let path = decision.unwrap().path.at("192.0.2.77".parse().unwrap());
    assert_eq!(path.addr(), Some("192.0.2.77:15008".parse().unwrap()));
    assert_eq!(
        path.authority().unwrap().to_string(),
        "cart.shop.svc.cluster.local:80",
        "the service, looked up or not"
    );
}

#[test]
fn a_gateway_keeps_the_family_of_its_reference() {
    let mut dual = on_n2(pod("istio-system/east", "192.0.2.10"));
    dual.addresses.push(pod("a/b", "2001:db8::10").addresses.remove(0));
    let world = elsewhere().with([address(dual), address(aggregate(Some(gateway_on_n2("2001:db8::10"))))]);
    assert_eq!(brief(&decide(&world, "172.20.0.9:80")), "double [2001:db8::10]:15008 cart.shop.svc.cluster.local:80");
}

#[test]
fn hbone_row_17_a_waypoint_on_another_network_is_reached_through_that_networks_gateway() {
    let mut wp = service(WAYPOINT, &[], &[(15008, 15008)]);
    wp.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/wp".into()];
    let mut endpoint = on_n2(backs(pod("shop/wp", ""), WAYPOINT, &[(15008, 15008)]));
    endpoint.network_gateway = Some(gateway_on_n2("192.0.2.10"));
    let world = elsewhere().with([service_address(wp), address(endpoint), with_waypoint(gateway(WAYPOINT))]);
    let decision = decide(&world, "172.20.0.9:80").unwrap();
    let Path::DoubleHbone { gateway, authority, inner, .. } = &decision.path else { panic!("{decision:?}") };
    assert_eq!(
        (gateway.to_string().as_str(), authority.to_string().as_str()),
        ("192.0.2.10:15008", "cart.shop.svc.cluster.local:80")
    );
    // The waypoint ends the inner tunnel, so its identities are expected, not those of the service.
    assert_eq!(inner.iter().map(ToString::to_string).collect::<Vec<_>>(), ["spiffe://cluster.local/ns/shop/sa/wp"]);
}

#[test]
fn a_workloads_waypoint_on_another_network_cannot_be_asked_for_an_address() {
    let mut endpoint = on_n2(backs(pod("shop/wp", ""), WAYPOINT, &[(15008, 15008)]));
    endpoint.network_gateway = Some(gateway_on_n2("192.0.2.10"));
    let guarded = wire::Workload { waypoint: Some(gateway(WAYPOINT)), ..cart_endpoint() };
    let wp = service(WAYPOINT, &[], &[(15008, 15008)]);
    let world = elsewhere().with([service_address(wp), address(endpoint), address(guarded)]);
    assert!(brief(&decide(&world, "10.1.0.77:8080")).contains("dialled by its address"));
}

#[test]
fn endpoints_of_the_own_network_need_no_gateway() {
    let world = elsewhere().with([address(cart_endpoint())]);
    let chosen = |number: u64| {
        let workload = source_of(&world, "shop/web");
        let source = Source { addr: "10.1.0.5:40000".parse().unwrap(), workload: &workload };
        brief(&outbound(&world.snapshot(), &source, "172.20.0.9:80".parse().unwrap(), &mut |_| number))
    };
    let both = [chosen(0), chosen(1)];
    assert!(both.contains(&"hbone 10.1.0.77:15008 10.1.0.77:8080".to_owned()), "{both:?}");
    assert!(both.contains(&"double 192.0.2.10:15008 cart.shop.svc.cluster.local:80".to_owned()), "{both:?}");
}
