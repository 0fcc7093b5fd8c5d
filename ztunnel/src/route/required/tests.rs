//! Who gets through to a guarded service: by caller, by port, by what is known of the waypoint.

use super::*;
use crate::state::fixture::{NETWORK, NODE, World, address, backs, gateway, gateway_at, pod, service, service_address};
use mesh_wire::{meltemi, workload as wire};

const HOST: &str = "shop/cart.shop.svc.cluster.local";
const WAYPOINT: &str = "shop/waypoint.shop.svc.cluster.local";

fn guarded_by(mut service: wire::Service, waypoint: Option<wire::GatewayAddress>) -> wire::Service {
    service.waypoint = waypoint;
    service.extensions = vec![wire::Extension { name: meltemi::WAYPOINT_REQUIRED.to_owned(), config: None }];
    service
}

/// `shop/cart` on this node backs a guarded service, 80 to 8080; its waypoint is at 10.1.0.20, and 10.1.0.21 shares the
/// waypoint's identity without being one.
fn world() -> World {
    world_with(guarded_by(service(HOST, &["10.2.0.1"], &[(80, 8080)]), Some(gateway(WAYPOINT))))
}

fn world_with(guarded: wire::Service) -> World {
    World::new().with([
        service_address(guarded),
        service_address(service(WAYPOINT, &["10.2.0.9"], &[(15008, 15008)])),
        address(backs(here(pod("shop/cart", "10.1.0.77")), HOST, &[(80, 8080)])),
        address(backs(pod("shop/waypoint", "10.1.0.20"), WAYPOINT, &[(15008, 15008)])),
        address(with_account(pod("shop/other", "10.1.0.21"), "waypoint")),
        address(pod("shop/web", "10.1.0.5")),
    ])
}

fn here(mut workload: wire::Workload) -> wire::Workload {
    workload.node = NODE.to_owned();
    workload
}

fn with_account(mut workload: wire::Workload, account: &str) -> wire::Workload {
    workload.service_account = account.to_owned();
    workload
}

/// `account@ip`, or `plain@ip`.
fn ask(world: &World, caller: &str, port: u16) -> Result<(), String> {
    let snapshot = world.snapshot();
    let local = snapshot.local_workload("cart", "shop", "cart").unwrap();
    let (account, ip) = caller.split_once('@').unwrap();
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
    let caller = Caller { identity: (account != "plain").then_some(&identity), ip: ip.parse().unwrap() };
    required(&snapshot, local, port, caller).map_err(|bypass| bypass.to_string())
}

fn check(world: &World, table: &[(&str, u16, bool)]) {
    for (caller, port, through) in table {
        let answer = ask(world, caller, *port);
        assert_eq!(answer.is_ok(), *through, "{caller} to {port}: {answer:?}");
    }
}

const ONLY_THE_WAYPOINT: &[(&str, u16, bool)] = &[
    ("waypoint@10.1.0.20", 8080, true),
    ("waypoint@10.1.0.21", 8080, false),
    ("waypoint@10.1.0.5", 8080, false),
    ("web@10.1.0.20", 8080, false),
    ("web@10.1.0.5", 8080, false),
    ("plain@10.1.0.20", 8080, false),
    ("plain@10.1.0.5", 8080, false),
    ("cart@10.1.0.77", 8080, false),
];

#[test]
fn a_guarded_port_takes_its_waypoint_by_identity_and_address_and_nobody_else() {
    check(&world(), ONLY_THE_WAYPOINT);
}

#[test]
fn other_ports_and_services_without_a_guard_are_exempt() {
    let exempt = [("web@10.1.0.5", 9000, true), ("plain@10.1.0.5", 9000, true), ("web@10.1.0.5", 80, true)];
    check(&world(), &exempt);
    let mut open = service(HOST, &["10.2.0.1"], &[(80, 8080)]);
    open.waypoint = Some(gateway(WAYPOINT));
    let world = world_with(open);
    check(&world, &[("web@10.1.0.5", 8080, true), ("plain@10.1.0.5", 8080, true)]);
    assert!(!is_guarded(&world.snapshot(), world.snapshot().local_workload("cart", "shop", "cart").unwrap()));
}

#[test]
fn the_reference_may_be_an_address_of_a_service_or_of_a_workload() {
    for reference in ["10.2.0.9", "10.1.0.20"] {
        let guarded = guarded_by(service(HOST, &["10.2.0.1"], &[(80, 8080)]), Some(gateway_at(reference)));
        check(&world_with(guarded), ONLY_THE_WAYPOINT);
    }
}

#[test]
fn without_a_usable_waypoint_everybody_is_refused_and_told_why() {
    let service_of = |waypoint| guarded_by(service(HOST, &["10.2.0.1"], &[(80, 8080)]), waypoint);
    let table = [
        (service_of(None), "it has none; give it one"),
        (
            service_of(Some(gateway("shop/nobody.shop.svc.cluster.local"))),
            "nobody.shop.svc.cluster.local:15008 is not known",
        ),
        (service_of(Some(gateway_at("10.9.9.9"))), "is not known to this proxy"),
    ];
    for (guarded, words) in table {
        let world = world_with(guarded);
        check(
            &world,
            &[("waypoint@10.1.0.20", 8080, false), ("plain@10.1.0.5", 8080, false), ("web@10.1.0.5", 9000, true)],
        );
        let refusal = ask(&world, "waypoint@10.1.0.20", 8080).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn refusals_name_the_service_the_port_the_waypoint_and_the_caller() {
    assert_eq!(
        ask(&world(), "web@10.1.0.5", 8080).unwrap_err(),
        "service shop/cart.shop.svc.cluster.local takes connections to port 8080 only from its waypoint, since a policy of \
         it needs layer 7: spiffe://cluster.local/ns/shop/sa/web at 10.1.0.5 is not its waypoint \
         shop/waypoint.shop.svc.cluster.local:15008; call the service, by its name or address, from an enrolled pod"
    );
    assert!(ask(&world(), "plain@10.1.0.5", 8080).unwrap_err().contains("plaintext from 10.1.0.5 is not"));
}

#[test]
fn any_of_several_weighted_waypoints_will_do_even_one_that_gets_no_new_traffic() {
    let mut guarded = guarded_by(service(HOST, &["10.2.0.1"], &[(80, 8080)]), Some(gateway(WAYPOINT)));
    let weighted = |key: &str, weight| wire::WeightedWaypoint { destination: Some(gateway(key)), weight };
    guarded.weighted_waypoints = vec![weighted("shop/blue.svc", 90), weighted("shop/green.svc", 0)];
    let mut world = world_with(guarded.clone());
    world.add(["blue", "green"].into_iter().zip(["10.1.0.31", "10.1.0.32"]).flat_map(|(name, ip)| {
        let key = format!("shop/{name}.svc");
        [
            service_address(service(&key, &[], &[(15008, 15008)])),
            address(backs(pod(&format!("shop/{name}"), ip), &key, &[(15008, 15008)])),
        ]
    }));
    let answers =
        [("blue@10.1.0.31", 8080, true), ("green@10.1.0.32", 8080, true), ("waypoint@10.1.0.20", 8080, false)];
    check(&world, &answers);
    // Without any weight the single one counts.
    guarded.weighted_waypoints.iter_mut().for_each(|one| one.weight = 0);
    world.add([service_address(guarded)]);
    check(&world, &[("blue@10.1.0.31", 8080, false), ("waypoint@10.1.0.20", 8080, true)]);
}

#[test]
fn a_waypoint_that_is_not_healthy_may_finish_and_one_that_is_gone_may_not() {
    let mut world = world();
    let mut leaving = backs(pod("shop/waypoint", "10.1.0.20"), WAYPOINT, &[(15008, 15008)]);
    leaving.status = wire::WorkloadStatus::Unhealthy.into();
    world.add([address(leaving)]);
    check(&world, &[("waypoint@10.1.0.20", 8080, true)]);
    world.remove(&["Kubernetes//Pod/shop/waypoint"]);
    check(&world, &[("waypoint@10.1.0.20", 8080, false)]);
}

#[test]
fn a_waypoint_on_another_network_is_known_by_its_identity_alone() {
    let mut world = world();
    let mut remote = with_account(backs(pod("shop/far", "10.77.0.1"), WAYPOINT, &[(15008, 15008)]), "far");
    remote.network = "elsewhere".into();
    world.add([address(remote)]);
    check(
        &world,
        &[("far@10.1.0.99", 8080, true), ("waypoint@10.1.0.99", 8080, false), ("waypoint@10.1.0.20", 8080, true)],
    );
}

#[test]
fn the_port_is_the_one_that_the_service_leads_to_at_this_workload() {
    type Case = (&'static [(u32, u32)], &'static [(u32, u32)], Option<(u32, u32)>, u16, bool);
    // Ports of the service, own ports of the workload, application tunnel (protocol, port), port asked for, guarded.
    let table: [Case; 11] = [
        (&[(80, 8080)], &[], None, 8080, true),
        (&[(80, 8080)], &[(80, 9090)], None, 9090, true),
        (&[(80, 8080)], &[(80, 9090)], None, 8080, false),
        (&[(80, 0)], &[(80, 9090)], None, 9090, true),
        (&[(80, 0)], &[], None, 80, false),
        (&[(80, 8080), (443, 8443)], &[(443, 9443)], None, 9443, true),
        // A port that only the endpoint names.
        (&[], &[(80, 8080)], None, 8080, true),
        // A service without ports guards none.
        (&[], &[], None, 8080, false),
        (&[(80, 8080)], &[], Some((0, 7000)), 7000, true),
        (&[(80, 0)], &[], Some((1, 0)), 80, true),
        (&[], &[], Some((0, 7000)), 7000, false),
    ];
    for (service_ports, own, tunnel, port, guarded) in table {
        let mut world = world_with(guarded_by(service(HOST, &[], service_ports), Some(gateway(WAYPOINT))));
        let mut cart = backs(here(pod("shop/cart", "10.1.0.77")), HOST, own);
        cart.application_tunnel =
            tunnel.map(|(protocol, port)| wire::ApplicationTunnel { protocol: i32::try_from(protocol).unwrap(), port });
        world.add([address(cart)]);
        let case = format!("{service_ports:?} {own:?} {tunnel:?} {port}");
        assert_eq!(ask(&world, "web@10.1.0.5", port).is_err(), guarded, "{case}");
        assert_eq!(ask(&world, "waypoint@10.1.0.20", port), Ok(()), "{case}");
    }
}

#[test]
fn of_two_guarded_services_at_one_port_both_must_be_satisfied() {
    const OTHER: &str = "shop/api.shop.svc.cluster.local";
    let cart = || {
        let cart = backs(here(pod("shop/cart", "10.1.0.77")), HOST, &[(80, 8080)]);
        address(backs(cart, OTHER, &[(80, 8080)]))
    };
    let second = |waypoint| guarded_by(service(OTHER, &["10.2.0.2"], &[(80, 8080)]), waypoint);
    let mut world = world();
    world.add([service_address(second(Some(gateway(WAYPOINT)))), cart()]);
    check(&world, ONLY_THE_WAYPOINT);
    // Another waypoint for one of them: nobody satisfies both, and the refusal names the service that is in the way.
    world.add([
        service_address(service("shop/own.svc", &[], &[(15008, 15008)])),
        address(backs(pod("shop/own", "10.1.0.33"), "shop/own.svc", &[(15008, 15008)])),
        service_address(second(Some(gateway("shop/own.svc")))),
    ]);
    check(
        &world,
        &[("waypoint@10.1.0.20", 8080, false), ("own@10.1.0.33", 8080, false), ("own@10.1.0.33", 9000, true)],
    );
    assert!(ask(&world, "waypoint@10.1.0.20", 8080).unwrap_err().starts_with(&format!("service {OTHER} ")));
    // A second service without a guard asks for nothing.
    let mut open = service(OTHER, &["10.2.0.2"], &[(80, 8080)]);
    open.waypoint = Some(gateway("shop/own.svc"));
    world.add([service_address(open)]);
    check(&world, ONLY_THE_WAYPOINT);
}

#[test]
fn what_is_not_known_yet_is_named_for_those_who_ask_one_by_one() {
    let mut world = World::new().with([address(backs(here(pod("shop/cart", "10.1.0.77")), HOST, &[(80, 8080)]))]);
    let peer = "10.1.0.20:4000".parse().unwrap();
    let unknown = |world: &World| {
        let snapshot = world.snapshot();
        unknown(&snapshot, snapshot.local_workload("cart", "shop", "cart").unwrap(), peer)
    };
    assert_eq!(unknown(&world), [HOST]);
    world.add([service_address(guarded_by(service(HOST, &["10.2.0.1"], &[(80, 8080)]), Some(gateway(WAYPOINT))))]);
    assert_eq!(unknown(&world), [WAYPOINT.to_owned(), format!("{NETWORK}/10.1.0.20")]);
    world.add([
        service_address(service(WAYPOINT, &["10.2.0.9"], &[(15008, 15008)])),
        address(backs(pod("shop/waypoint", "10.1.0.20"), WAYPOINT, &[(15008, 15008)])),
    ]);
    assert_eq!(unknown(&world), [""; 0]);
}

#[test]
fn the_extension_counts_by_its_name_and_a_configuration_of_another_kind_is_rejected() {
    let with = |name: &str, type_url: Option<&str>| {
        let mut guarded = service(HOST, &["10.2.0.1"], &[(80, 8080)]);
        let config = type_url.map(|url| prost_types::Any { type_url: url.to_owned(), value: Vec::new() });
        guarded.extensions = vec![wire::Extension { name: name.to_owned(), config }];
        vec![(HOST.to_owned(), service_address(guarded))]
    };
    let key = HOST.parse().unwrap();
    let table = [
        ("something.else", None, false),
        ("something.else", Some("type.googleapis.com/else"), false),
        (meltemi::WAYPOINT_REQUIRED, None, true),
        (meltemi::WAYPOINT_REQUIRED, Some(meltemi::WAYPOINT_REQUIRED_TYPE), true),
    ];
    for (name, type_url, guarded) in table {
        let mut world = World::new();
        assert_eq!(world.feed.addresses(with(name, type_url), &[]), []);
        assert_eq!(world.snapshot().service_by_key(&key).unwrap().waypoint_required, guarded, "{name} {type_url:?}");
    }
    let mut world = World::new();
    let rejected = world.feed.addresses(with(meltemi::WAYPOINT_REQUIRED, Some("type.googleapis.com/else")), &[]);
    let reason = format!("{:?}", rejected.first().unwrap());
    assert!(reason.contains("service.extensions[0].config.type_url"), "{reason}");
}
