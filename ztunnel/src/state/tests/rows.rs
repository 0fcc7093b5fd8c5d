//! Must-pass rows and update rules.

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_wire::{security, workload as wire};

use crate::state::Snapshot;
use crate::state::fixture::*;

fn at(ip: &str) -> NetworkAddr {
    NetworkAddr::new(NETWORK, ip.parse().unwrap())
}

fn key(text: &str) -> NamespacedName {
    text.parse().unwrap()
}

/// `uid suffix -> target of port 80` of a service's endpoints.
fn endpoints(snapshot: &Snapshot, service: &str) -> Vec<(String, Option<u16>)> {
    let Some(service) = snapshot.service_by_key(&key(service)) else { return Vec::new() };
    let set = snapshot.endpoints(service).into_iter().flat_map(|set| set.values());
    set.map(|endpoint| (endpoint.workload.name.to_string(), endpoint.ports.target(80))).collect()
}

fn vip_owner(snapshot: &Snapshot, client: &str, ip: &str) -> Option<String> {
    snapshot.service_by_vip(Some(client), &at(ip)).map(|service| service.key.to_string())
}

#[test]
fn wds_row_2_a_workload_that_came_before_its_service_becomes_an_endpoint() {
    let mut world = World::new().with([address(backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[(80, 8080)]))]);
    assert_eq!(world.snapshot().staged().count(), 1);
    world.add([service_address(service("a/x.svc", &["10.9.0.1"], &[(80, 8080)]))]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), [("w".to_owned(), Some(8080))]);
    assert_eq!(world.snapshot().staged().count(), 0);
}

#[test]
fn wds_row_3_a_workload_that_leaves_a_service_is_no_endpoint_any_more() {
    let mut world = World::new().with([
        address(backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[(80, 8080)])),
        service_address(service("a/x.svc", &[], &[(80, 8080)])),
    ]);
    world.add([address(pod("a/w", "10.0.0.1"))]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), []);
}

#[test]
fn wds_row_4_unhealthy_endpoints_count_only_where_all_do() {
    let mut ill = backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[(80, 8080)]);
    ill.status = wire::WorkloadStatus::Unhealthy.into();
    let mut all = service("a/x.svc", &[], &[(80, 8080)]);
    let only_healthy = all.clone();
    let policy = wire::load_balancing::HealthPolicy::AllowAll.into();
    all.load_balancing = Some(wire::LoadBalancing { health_policy: policy, ..Default::default() });
    let mut world = World::new().with([service_address(only_healthy.clone()), address(ill.clone())]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), []);
    world.add([service_address(all.clone())]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), [], "reappears when its workload is next updated");
    world.add([address(ill.clone())]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc").len(), 1);
    world.add([service_address(only_healthy)]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), [], "the current health policy filters");
    // Staged whatever its health, filtered when the service comes.
    let world = World::new().with([address(ill), service_address(all)]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc").len(), 1);
}

#[test]
fn wds_row_8_and_9_a_pod_hides_a_workload_entry_of_its_address_until_it_goes() {
    let mut entry = pod("a/vm", "10.0.0.1");
    entry.uid = "Kubernetes/networking.istio.io/WorkloadEntry/a/vm".to_owned();
    entry.tunnel_protocol = 0;
    let mut world = World::new().with([address(entry), address(pod("a/w", "10.0.0.1"))]);
    assert_eq!(&*world.snapshot().workload_by_ip(&at("10.0.0.1")).unwrap().name, "w");
    world.remove(&["Kubernetes//Pod/a/w"]);
    assert_eq!(&*world.snapshot().workload_by_ip(&at("10.0.0.1")).unwrap().name, "vm");
    world.remove(&["Kubernetes/networking.istio.io/WorkloadEntry/a/vm"]);
    assert!(world.snapshot().workload_by_ip(&at("10.0.0.1")).is_none());
}

#[test]
fn wds_row_10_own_namespace_then_canonical_among_services_of_one_address() {
    let mut x = service("x/w", &["10.9.0.1"], &[]);
    x.canonical = true;
    let mut z = service("z/w", &["10.9.0.1"], &[]);
    z.visibility = wire::Visibility::Namespace.into();
    let world = World::new().with([x, service("y/w", &["10.9.0.1"], &[]), z].map(service_address));
    let snapshot = world.snapshot();
    for (client, expected) in [("y", "y/w"), ("z", "z/w"), ("q", "x/w")] {
        assert_eq!(vip_owner(&snapshot, client, "10.9.0.1").as_deref(), Some(expected));
        let by_name = snapshot.service_by_hostname(Some(client), "w").unwrap();
        assert_eq!(by_name.key.to_string(), expected);
    }
}

#[test]
fn wds_row_11_a_service_of_another_namespace_may_be_invisible() {
    let mut hidden = service("a/h", &["10.9.0.1"], &[]);
    hidden.visibility = wire::Visibility::Namespace.into();
    let snapshot = World::new().with([service_address(hidden)]).snapshot();
    assert_eq!(vip_owner(&snapshot, "b", "10.9.0.1"), None);
    assert!(snapshot.service_by_vip(None, &at("10.9.0.1")).is_some(), "no client, nothing is enforced");
    assert!(snapshot.service_by_key(&key("a/h")).is_some());
}

#[test]
fn wds_row_12_an_exact_address_wins_over_a_range() {
    let mut world = World::new().with(
        [service("a/range", &["198.18.0.0/15"], &[]), service("a/exact", &["198.18.0.9"], &[])].map(service_address),
    );
    assert_eq!(vip_owner(&world.snapshot(), "q", "198.18.0.9").as_deref(), Some("a/exact"));
    assert_eq!(vip_owner(&world.snapshot(), "q", "198.19.255.1").as_deref(), Some("a/range"));
    world.add([service_address(service("q/narrow", &["198.18.0.0/24"], &[]))]);
    assert_eq!(vip_owner(&world.snapshot(), "other", "198.18.0.7").as_deref(), Some("q/narrow"), "longest");
    assert_eq!(vip_owner(&world.snapshot(), "a", "198.18.0.7").as_deref(), Some("a/range"), "own namespace first");
    world.remove(&["a/range", "q/narrow"]);
    assert_eq!(vip_owner(&world.snapshot(), "a", "198.18.0.7"), None);
}

#[test]
fn a_service_found_by_range_has_the_current_endpoints() {
    let mut world = World::new().with([service_address(service("a/x.svc", &["198.18.0.0/15"], &[(80, 8080)]))]);
    world.add([address(backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[]))]);
    let snapshot = world.snapshot();
    let service = snapshot.service_by_vip(Some("a"), &at("198.18.3.3")).unwrap();
    assert_eq!(snapshot.endpoints(service).unwrap().len(), 1);
}

#[test]
fn host_network_workloads_are_not_found_by_address() {
    let mut host = pod("a/host", "10.0.0.4");
    host.network_mode = wire::NetworkMode::HostNetwork.into();
    let snapshot = World::new().with([address(host)]).snapshot();
    assert!(snapshot.workload_by_ip(&at("10.0.0.4")).is_none());
    assert!(snapshot.workload_by_uid("Kubernetes//Pod/a/host").is_some());
}

#[test]
fn a_removed_service_takes_its_endpoints_along_and_starts_over() {
    let workload = backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[(80, 8080)]);
    let added = service_address(service("a/x.svc", &[], &[(80, 8080)]));
    let mut world = World::new().with([address(workload.clone()), added.clone()]);
    world.remove(&["a/x.svc"]);
    assert!(world.snapshot().service_by_key(&key("a/x.svc")).is_none());
    world.add([added]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc"), [], "not staged again");
    world.add([address(workload)]);
    assert_eq!(endpoints(&world.snapshot(), "a/x.svc").len(), 1);
}

#[test]
fn removing_what_is_unknown_or_no_hostname_changes_nothing() {
    let mut world = World::new().with([service_address(service("a/x.svc", &[], &[]))]);
    world.remove(&["a/other", "a/x.svc/more", "nothing", ""]);
    assert!(world.snapshot().service_by_key(&key("a/x.svc")).is_some());
}

#[test]
fn a_response_applies_as_a_whole_and_old_snapshots_stay() {
    let mut world = World::new();
    let before = world.snapshot();
    let named = |resource| (String::new(), resource);
    let upserts = vec![named(address(pod("a/one", "10.0.0.1"))), named(address(pod("a/two", "10.0.0.2")))];
    world.feed.addresses(upserts, &["Kubernetes//Pod/a/two".to_owned()]);
    assert_eq!(before.workloads().count(), 0);
    assert_eq!(world.snapshot().workloads().count(), 1, "removals come after upserts");
    assert_eq!(world.snapshot().generation, before.generation + 1);
    assert_eq!(*world.state.changed().borrow(), world.snapshot().generation);
}

#[test]
fn certificates_follow_the_first_and_last_workload_of_an_identity_on_this_node() {
    let local = |name: &str, ip: &str| {
        let mut workload = pod(name, ip);
        workload.node = NODE.to_owned();
        workload.service_account = "sa".to_owned();
        workload
    };
    let mut world = World::new().with([address(pod("a/far", "10.0.0.9"))]);
    assert!(world.identities.take().is_empty(), "other nodes' workloads need no certificate here");
    world.add([address(local("a/one", "10.0.0.1"))]);
    world.add([address(local("a/two", "10.0.0.2")), address(local("a/one", "10.0.0.3"))]);
    assert_eq!(world.identities.take(), ["+cluster.local/ns/a/sa/sa"]);
    world.remove(&["Kubernetes//Pod/a/one"]);
    assert!(world.identities.take().is_empty());
    let mut plain = local("a/two", "10.0.0.2");
    plain.tunnel_protocol = 0;
    world.add([address(plain)]);
    assert_eq!(world.identities.take(), ["-cluster.local/ns/a/sa/sa"]);
}

#[test]
fn only_workloads_of_this_node_are_local() {
    let mut local = pod("a/w", "10.0.0.1");
    local.node = NODE.to_owned();
    let snapshot = World::new().with([address(local), address(pod("a/far", "10.0.0.2"))]).snapshot();
    assert!(snapshot.local_workload("w", "a", "w").is_some());
    assert!(snapshot.local_workload("w", "a", "other").is_none());
    assert!(snapshot.local_workload("far", "a", "far").is_none());
}

#[test]
fn policies_are_the_union_of_namespace_mesh_and_attached_ones() {
    use security::{Action::Allow, Scope};
    let mut named = pod("db/w", "10.0.0.1");
    named.authorization_policies = vec!["db/own".into(), "db/ns".into(), "db/p1".into()];
    let mut world = World::new().with([address(named)]);
    for (key, scope) in [
        ("db/ns", Scope::Namespace),
        ("other/ns", Scope::Namespace),
        ("istio-system/all", Scope::Global),
        ("db/own", Scope::WorkloadSelector),
        ("db/unattached", Scope::WorkloadSelector),
    ] {
        world.add_policy(policy(key, scope, Allow));
    }
    let applied = |world: &World| {
        let snapshot = world.snapshot();
        let policies = snapshot.policies_for(snapshot.workload_by_uid("Kubernetes//Pod/db/w").unwrap());
        let mut keys: Vec<_> = policies.applied.iter().map(|policy| policy.key.to_string()).collect();
        keys.sort();
        (keys, policies.missing.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let expected = ["db/ns", "db/own", "istio-system/all"].map(str::to_owned).to_vec();
    assert_eq!(applied(&world), (expected, vec!["db/p1".to_owned()]));
    // A changed scope moves the index entries.
    world.add_policy(policy("db/ns", Scope::WorkloadSelector, Allow));
    world.add_policy(policy("db/unattached", Scope::Namespace, Allow));
    world.feed.policies(Vec::new(), &["istio-system/all".to_owned(), "db/own".to_owned()]);
    let (keys, missing) = applied(&world);
    assert_eq!((keys, missing), (vec!["db/ns".into(), "db/unattached".into()], vec!["db/own".into(), "db/p1".into()]));
}

#[test]
fn the_dump_has_the_names_that_tools_parse() {
    let mut workload = backs(pod("a/w", "10.0.0.1"), "a/x.svc", &[(80, 8080)]);
    workload.waypoint = Some(gateway("a/wp.svc"));
    let mut world = World::new().with([
        address(workload),
        service_address(service("a/x.svc", &["10.9.0.1", "10.8.0.0/16"], &[(80, 8080)])),
        address(backs(pod("a/early", "10.0.0.2"), "a/later.svc", &[])),
    ]);
    world.add_policy(security::Authorization {
        rules: vec![from_principal("p")],
        ..policy("a/p", security::Scope::Namespace, security::Action::Deny)
    });
    let dump = serde_json::Value::Object(world.snapshot().dump());
    let workload = &dump["workloads"][1];
    assert_eq!(workload["uid"], "Kubernetes//Pod/a/w");
    assert_eq!(workload["workloadIps"][0], "10.0.0.1");
    assert_eq!(workload["protocol"], "HBONE");
    assert_eq!(workload["serviceAccount"], "w");
    assert_eq!(workload["status"], "Healthy");
    assert_eq!(workload["waypoint"]["destination"], "a/wp.svc");
    assert_eq!(workload["waypoint"]["hboneMtlsPort"], 15008);
    let service = &dump["services"][0];
    assert_eq!(service["vips"][0], "n1/10.9.0.1");
    assert_eq!(service["cidrVips"][0], "n1/10.8.0.0/16");
    assert_eq!(service["endpoints"]["Kubernetes//Pod/a/w"]["port"]["80"], 8080);
    assert_eq!(dump["policies"][0]["rules"][0][0][0]["principals"][0]["Exact"], "p");
    assert_eq!(dump["policies"][0]["action"], "Deny");
    assert!(dump["stagedServices"]["a/later.svc"]["Kubernetes//Pod/a/early"].is_object());
}
