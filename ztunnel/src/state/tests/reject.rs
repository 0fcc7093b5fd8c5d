//! What is refused, and what the refusal says.

use mesh_wire::{security, workload as wire};
use mesh_xds::client::Rejection;

use crate::state::fixture::*;

fn reason(resource: wire::Address) -> String {
    let mut world = World::new();
    let rejected = world.feed.addresses(vec![("name".to_owned(), resource)], &[]);
    match rejected.as_slice() {
        [Rejection { name, reason }] if name == "name" => reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn workload(change: impl FnOnce(&mut wire::Workload)) -> String {
    let mut workload = pod("a/w", "10.0.0.1");
    change(&mut workload);
    reason(address(workload))
}

fn of_service(change: impl FnOnce(&mut wire::Service)) -> String {
    let mut changed = service("a/x.svc", &["10.9.0.1"], &[(80, 8080)]);
    change(&mut changed);
    reason(service_address(changed))
}

#[test]
fn every_refusal_names_field_value_and_what_was_expected() {
    let scope = |scope: i32| {
        of_service(|s| {
            s.load_balancing = Some(wire::LoadBalancing { routing_preference: vec![scope], ..Default::default() })
        })
    };
    let cases = [
        (reason(wire::Address::default()), "type: nothing, expected a workload or a service"),
        (
            workload(|w| w.addresses.push(vec![1, 2, 3, 4, 5])),
            "workload.addresses[1]: 5 bytes [01, 02, 03, 04, 05], expected 4 or 16 bytes",
        ),
        (
            workload(|w| w.tunnel_protocol = 2),
            "workload.tunnel_protocol: 2 (LEGACY_ISTIO_MTLS), expected 0 (NONE) or 1 (HBONE)",
        ),
        (
            workload(|w| w.tunnel_protocol = 9),
            "workload.tunnel_protocol: unknown number 9, expected 0 (NONE) or 1 (HBONE)",
        ),
        (workload(|w| w.status = 3), "workload.status: unknown number 3, expected 0 or 1"),
        (workload(|w| w.network_mode = 3), "workload.network_mode: unknown number 3, expected 0 or 1"),
        (
            workload(|w| {
                w.services.insert("noslash".into(), Default::default());
            }),
            "workload.services: key \"noslash\", expected <namespace>/<hostname>",
        ),
        (
            workload(|w| w.waypoint = Some(Default::default())),
            "workload.waypoint: no destination, expected a hostname or an address",
        ),
        (workload(|w| w.trust_domain = "a/b".into()), "workload.trust_domain: \"a/b\", expected a name without '/'"),
        (
            of_service(|s| s.addresses[0].address = vec![1]),
            "service.addresses[0].address: 1 bytes [01], expected 4 or 16 bytes",
        ),
        (
            of_service(|s| s.addresses[0].length = Some(33)),
            "service.addresses[0].length: 33, expected a prefix length of its family",
        ),
        (of_service(|s| s.ip_families = 7), "service.ip_families: unknown number 7, expected 0 to 3"),
        (
            of_service(|s| s.ports[0].target_port = 70_000),
            "service.ports[0].target_port: 70000, expected a port below 65536",
        ),
        (scope(0), "service.load_balancing.routing_preference[0]: UNSPECIFIED, expected 1 to 6"),
        (scope(8), "service.load_balancing.routing_preference[0]: unknown number 8, expected 1 to 6"),
        (
            of_service(|s| s.weighted_waypoints.push(Default::default())),
            "service.weighted_waypoints[0].destination: nothing, expected a hostname or an address",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn wds_row_5_and_18_the_good_part_of_a_batch_is_applied() {
    let mut bad = pod("a/bad", "10.0.0.2");
    bad.tunnel_protocol = 2;
    let mut world = World::new();
    let batch = vec![("good".to_owned(), address(pod("a/good", "10.0.0.1"))), ("bad".to_owned(), address(bad))];
    let rejected = world.feed.addresses(batch, &[]);
    assert_eq!(rejected.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["bad"]);
    assert!(world.snapshot().workload_by_uid("Kubernetes//Pod/a/good").is_some());
}

#[test]
fn an_earlier_good_copy_stays_in_force() {
    let mut world = World::new().with([address(pod("a/w", "10.0.0.1"))]);
    let mut bad = pod("a/w", "10.0.0.7");
    bad.status = 5;
    world.feed.addresses(vec![("w".to_owned(), address(bad))], &[]);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.workload_by_uid("Kubernetes//Pod/a/w").unwrap().ips[0].to_string(), "10.0.0.1");
    let good = policy("a/p", security::Scope::Namespace, security::Action::Deny);
    world.add_policy(good.clone());
    let rejected = world.feed.policies(vec![("a/p".to_owned(), security::Authorization { scope: 9, ..good })], &[]);
    assert_eq!(rejected, [Rejection::new("a/p", "scope 9 is unknown, expected 0, 1 or 2")]);
    assert!(world.snapshot().policy("a/p").is_some());
}

#[test]
fn some_unknown_numbers_are_tolerated() {
    let mut lenient = pod("a/w", "10.0.0.1");
    lenient.workload_type = 77;
    let mut visible = service("a/x.svc", &["10.9.0.1"], &[]);
    visible.visibility = 9;
    visible.subject_alt_names = vec!["not-spiffe".into(), "spiffe://td/ns/a/sa/b".into()];
    let snapshot = World::new().with([address(lenient), service_address(visible)]).snapshot();
    assert_eq!(snapshot.workloads().next().unwrap().workload_type.as_str(), "deployment");
    let service = snapshot.services().next().unwrap();
    assert!(service.visible_to(Some("other")));
    assert_eq!(service.identities.len(), 1);
}

#[test]
fn bytes_that_are_no_message_are_refused_by_name() {
    use mesh_xds::client::{Handler, Resource};
    let mut world = World::new();
    for type_url in [mesh_wire::type_url::ADDRESS, mesh_wire::type_url::AUTHORIZATION] {
        let resource =
            |name: &str, value: &[u8]| Resource { name: name.into(), aliases: Vec::new(), value: value.into() };
        let rejected = world.feed.apply(type_url, vec![resource("garbage", &[0xff; 9])], vec!["x/y".into()]);
        assert_eq!(rejected.len(), 1);
        assert!(rejected[0].name == "garbage" && rejected[0].reason.starts_with("undecodable message"), "{rejected:?}");
    }
}
