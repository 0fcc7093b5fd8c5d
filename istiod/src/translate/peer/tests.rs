//! Every row of the PeerAuthentication table, and the two cases that the reference loses.

use std::collections::BTreeMap;

use super::*;
use crate::world::{Change, Dirty, Labels, Object};

fn peer(name: &str, mode: Mode, ports: &[(u16, Mode)], created_s: i64) -> PeerAuthentication {
    let (namespace, name) = name.split_once('/').unwrap();
    PeerAuthentication {
        key: NamespacedName::new(namespace, name),
        created_s,
        generation: 1,
        selector: name.starts_with("w-").then(|| [("app", "web")].into_iter().collect()),
        mode,
        ports: ports.iter().copied().collect::<BTreeMap<_, _>>(),
    }
}

fn web() -> Labels {
    [("app", "web")].into_iter().collect()
}

fn world(peers: &[PeerAuthentication]) -> World {
    let mut world = World::default();
    for peer in peers {
        world.apply(Change::Upsert(Object::Peer(peer.clone())), &mut Dirty::default());
    }
    world
}

/// What the pod refers to, and the rules of the converted policy of `ns/w-1` as text.
fn outcome(peers: &[PeerAuthentication]) -> (Option<String>, Option<Vec<String>>) {
    let world = world(peers);
    let own = world.peer(&NamespacedName::new("ns", "w-1"));
    let rules = own.and_then(|one| converted(one, &world)).map(|policy| policy.rules.iter().map(text).collect());
    (reference(&"ns".into(), &web(), &world), rules)
}

fn text(rule: &Rule) -> String {
    let clauses = rule.clauses.iter().map(|clause| {
        let parts = clause.matches.iter().map(|one| {
            let mut parts = Vec::new();
            if !one.not_principals.is_empty() {
                parts.push("anonymous".to_owned());
            }
            parts.extend(one.destination_ports.iter().map(|port| format!("port {port}")));
            parts.extend(one.not_destination_ports.iter().map(|port| format!("not port {port}")));
            parts.join(" & ")
        });
        parts.collect::<Vec<_>>().join(" | ")
    });
    let mut clauses: Vec<_> = clauses.collect();
    clauses.sort();
    clauses.join(", ")
}

const STATIC: &str = "istio-system/istio_converted_static_strict";
const OWN: &str = "ns/converted_peer_authentication_w-1";
const MESH_STRICT: (&str, Mode) = ("istio-system/default", Strict);

use Mode::{Disable, Permissive, Strict, Unset};

/// Name, namespace mode, own mode, port modes, reference, rules of the converted policy.
type Row = (&'static str, Option<Mode>, Mode, &'static [(u16, Mode)], Option<&'static str>, Option<Vec<String>>);

#[test]
fn each_row_of_the_port_table() {
    let exempt = || Some(vec!["anonymous, not port 7001".to_owned()]);
    let strict_port = || Some(vec!["anonymous & port 7001".to_owned()]);
    let rows: Vec<Row> = vec![
        ("strict, some exempt", None, Strict, &[(7001, Disable)], Some(OWN), exempt()),
        ("strict, all strict", None, Strict, &[(7001, Strict)], Some(STATIC), None),
        ("strict, port inherits", None, Strict, &[(7001, Unset)], Some(STATIC), None),
        ("permissive, some strict", None, Permissive, &[(7001, Strict), (9, Disable)], Some(OWN), strict_port()),
        ("disable, some strict", None, Disable, &[(7001, Strict)], Some(OWN), strict_port()),
        ("permissive, none strict", None, Permissive, &[(7001, Disable)], None, None),
        ("unset below strict, some permissive", Some(Strict), Unset, &[(7001, Permissive)], Some(OWN), exempt()),
        ("unset below strict, some disabled", Some(Strict), Unset, &[(7001, Disable)], Some(OWN), exempt()),
        ("unset below strict, only strict", Some(Strict), Unset, &[(7001, Strict)], Some(STATIC), None),
        ("unset below permissive, some strict", Some(Permissive), Unset, &[(7001, Strict)], Some(OWN), strict_port()),
        ("unset below nothing, some strict", None, Unset, &[(7001, Strict)], Some(OWN), strict_port()),
    ];
    for (row, namespace, mode, ports, reference, rules) in rows {
        let mut peers = vec![peer("ns/w-1", mode, ports, 1)];
        peers.extend(namespace.map(|mode| peer("ns/default", mode, &[], 1)));
        assert_eq!(outcome(&peers), (reference.map(str::to_owned), rules), "{row}");
    }
}

#[test]
fn a_strict_port_below_a_strict_mesh_is_not_lost() {
    let mesh = peer(MESH_STRICT.0, MESH_STRICT.1, &[], 1);
    let own = peer("ns/w-1", Permissive, &[(7001, Strict)], 1);
    let expected = (Some(OWN.to_owned()), Some(vec!["anonymous & port 7001".to_owned()]));
    assert_eq!(outcome(&[mesh.clone(), own.clone()]), expected);
    assert_eq!(outcome(&[mesh, own, peer("ns/default", Unset, &[], 1)]), expected);
}

#[test]
fn an_exempt_port_below_an_unset_namespace_keeps_the_rest_strict() {
    let mesh = peer(MESH_STRICT.0, MESH_STRICT.1, &[], 1);
    let peers = [mesh, peer("ns/default", Unset, &[], 1), peer("ns/w-1", Unset, &[(7001, Permissive)], 1)];
    assert_eq!(outcome(&peers), (Some(OWN.to_owned()), Some(vec!["anonymous, not port 7001".to_owned()])));
}

#[test]
fn levels_inherit_and_the_oldest_of_a_level_wins() {
    let mesh = peer(MESH_STRICT.0, MESH_STRICT.1, &[], 1);
    assert_eq!(outcome(std::slice::from_ref(&mesh)).0.as_deref(), Some(STATIC));
    assert_eq!(outcome(&[mesh.clone(), peer("ns/default", Permissive, &[], 1)]).0, None);
    assert_eq!(outcome(&[mesh.clone(), peer("ns/default", Unset, &[], 1)]).0.as_deref(), Some(STATIC));
    assert_eq!(outcome(&[mesh, peer("ns/w-1", Disable, &[], 1)]).0, None);
    let two = [peer("ns/a", Permissive, &[], 2), peer("ns/b", Strict, &[], 1)];
    assert_eq!(outcome(&two).0.as_deref(), Some(STATIC));
    assert_eq!(outcome(&[]).0, None);
    // A selector in the root namespace counts for nothing.
    assert_eq!(outcome(&[peer("istio-system/w-1", Strict, &[], 1)]).0, None);
}

#[test]
fn model_row_15_the_older_of_two_workload_policies_wins() {
    let old = peer("ns/w-old", Strict, &[(7001, Disable)], 1);
    let new = peer("ns/w-new", Permissive, &[], 2);
    let both = world(&[old, new.clone()]);
    assert_eq!(reference(&"ns".into(), &web(), &both).as_deref(), Some("ns/converted_peer_authentication_w-old"));
    assert_eq!(reference(&"ns".into(), &web(), &world(&[new])), None);
}

#[test]
fn policy_row_19_strict_with_an_exempt_port() {
    let rules = Some(vec!["anonymous, not port 9000".to_owned()]);
    assert_eq!(outcome(&[peer("ns/w-1", Strict, &[(9000, Permissive)], 1)]), (Some(OWN.to_owned()), rules));
}

#[test]
fn policy_row_20_permissive_with_a_strict_port() {
    let rules = Some(vec!["anonymous & port 5432".to_owned()]);
    assert_eq!(outcome(&[peer("ns/w-1", Permissive, &[(5432, Strict)], 1)]), (Some(OWN.to_owned()), rules));
}

#[test]
fn policy_row_9_strict_refuses_who_proved_no_identity() {
    let rules: Vec<_> = strict(&MeshSettings::default()).rules.iter().map(text).collect();
    assert_eq!(rules, ["anonymous"]);
}

#[test]
fn the_status_says_what_is_not_enforced() {
    let said = |peers: &[PeerAuthentication], name: &str| {
        let world = world(peers);
        let (namespace, name) = name.split_once('/').unwrap();
        let condition = condition(world.peer(&NamespacedName::new(namespace, name)).unwrap(), &world);
        (condition.holds, condition.reason, condition.message)
    };
    let (holds, reason, _) = said(&[peer("ns/default", Strict, &[], 1)], "ns/default");
    assert_eq!((holds, reason), (true, "Accepted"));
    let two = [peer("ns/old", Strict, &[], 1), peer("ns/young", Permissive, &[], 2)];
    let (holds, reason, message) = said(&two, "ns/young");
    assert!(!holds && reason == "UnsupportedValue" && message.contains("ns/old is older"), "{message}");
    assert!(said(&two, "ns/old").0);
    let (holds, _, message) = said(&[peer("istio-system/w-1", Strict, &[], 1)], "istio-system/w-1");
    assert!(!holds && message.contains("root namespace"), "{message}");
    for open in [peer("ns/w-1", Disable, &[], 1), peer("ns/w-1", Strict, &[(80, Disable)], 1)] {
        let (holds, reason, message) = said(&[open], "ns/w-1");
        assert!(holds && reason == "UnsupportedValue" && message.contains("PERMISSIVE"), "{message}");
    }
}
