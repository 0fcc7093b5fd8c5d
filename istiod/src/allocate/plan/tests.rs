use std::str::FromStr;

use super::*;
use crate::translate::fixture;
use crate::world::MeshSettings;

fn entry(name: &str, created: &str, spec: &str, status: &str) -> String {
    format!(
        "kind: ServiceEntry\nmetadata: {{name: {name}, namespace: a, uid: u-{name}, creationTimestamp: '2026-01-{created}T00:00:00Z'}}\n\
         spec: {{resolution: DNS, {spec}}}\nstatus: {{addresses: [{status}]}}\n---\n"
    )
}

fn world(yaml: &[String]) -> World {
    fixture::model(&yaml.concat(), MeshSettings::default()).world().clone()
}

fn small() -> Pools {
    Pools { v4: Ipv4Net::from_str("10.9.0.0/29").unwrap(), v6: Ipv6Net::from_str("fd00::/120").unwrap() }
}

/// What each entry is to have, as text.
fn planned(planner: &mut Planner, world: &World) -> Vec<String> {
    let text = |(key, one): (&NamespacedName, &Allocation)| {
        let all: Vec<_> = one.new.iter().map(|(host, ip)| format!("{host}={ip}")).collect();
        format!("{}: {}", key.name, all.join(" "))
    };
    planner.plan(world).iter().map(text).collect()
}

fn plan(yaml: &[String]) -> Vec<String> {
    planned(&mut Planner::new(small()), &world(yaml))
}

#[test]
fn each_host_gets_one_address_of_each_family_in_order_of_age() {
    let hosts = "hosts: [x.io, y.io, '*.z.io']";
    let told = plan(&[entry("young", "02", hosts, ""), entry("old", "01", "hosts: [o.io]", "")]);
    assert_eq!(
        told,
        ["old: o.io=10.9.0.1 o.io=fd00::1", "young: x.io=10.9.0.2 x.io=fd00::2 y.io=10.9.0.3 y.io=fd00::3"]
    );
}

#[test]
fn the_default_pools_start_at_their_first_addresses() {
    let mut planner = Planner::new(Pools::default());
    let told = planned(&mut planner, &world(&[entry("one", "01", "hosts: [x.io]", "")]));
    assert_eq!(told, ["one: x.io=240.240.0.1 x.io=2001:2::1"]);
}

#[test]
fn who_takes_no_address_gets_none_and_gives_back_what_it_has() {
    let had = "{host: x.io, value: 10.9.0.1}";
    assert_eq!(plan(&[entry("e", "01", "addresses: [1.2.3.4], hosts: [x.io]", "")]), Vec::<String>::new());
    assert_eq!(plan(&[entry("e", "01", "addresses: [1.2.3.4], hosts: [x.io]", had)]), ["e: "]);
    let none = entry("e", "01", "hosts: [x.io]", had).replace("resolution: DNS", "resolution: NONE");
    assert_eq!(plan(&[none]), ["e: "]);
    let refused = entry("e", "01", "hosts: [x.io]", had)
        .replace("uid:", "labels: {networking.istio.io/enable-autoallocate-ip: 'FALSE'}, uid:");
    assert_eq!(plan(&[refused]), ["e: "]);
    let dynamic = entry("e", "01", "hosts: ['*.x.io']", "").replace("resolution: DNS", "resolution: DYNAMIC_DNS");
    assert_eq!(plan(&[dynamic]), ["e: *.x.io=10.9.0.1 *.x.io=fd00::1"]);
}

#[test]
fn an_address_that_was_given_stays_and_those_of_gone_hosts_go() {
    let had = "{host: x.io, value: 10.9.0.4}, {host: x.io, value: 'fd00::4'}, {host: gone.io, value: 10.9.0.5}";
    assert_eq!(plan(&[entry("e", "01", "hosts: [x.io]", had)]), ["e: x.io=10.9.0.4 x.io=fd00::4"]);
    // Nothing to do, in whatever order it is written.
    let complete = "{host: x.io, value: 'fd00::4'}, {host: x.io, value: 10.9.0.4}";
    assert_eq!(plan(&[entry("e", "01", "hosts: [x.io]", complete)]), Vec::<String>::new());
    // A new host starts behind everything that is in use.
    let grown = plan(&[entry("e", "01", "hosts: [x.io, y.io]", complete)]);
    assert_eq!(grown, ["e: x.io=10.9.0.4 x.io=fd00::4 y.io=10.9.0.5 y.io=fd00::5"]);
}

#[test]
fn of_two_claims_the_written_one_wins_then_the_older() {
    let had = "{host: x.io, value: 10.9.0.1}, {host: x.io, value: 'fd00::1'}";
    let written = entry("w", "09", "addresses: [10.9.0.1], hosts: [w.io]", "");
    assert_eq!(plan(&[entry("e", "01", "hosts: [x.io]", had), written]), ["e: x.io=10.9.0.2 x.io=fd00::1"]);
    let block = entry("w", "09", "addresses: [10.9.0.0/30], hosts: [w.io]", "");
    assert_eq!(plan(&[entry("e", "01", "hosts: [x.io]", had), block]), ["e: x.io=10.9.0.4 x.io=fd00::1"]);
    let young = entry("young", "02", "hosts: [x.io]", had);
    assert_eq!(plan(&[young, entry("old", "01", "hosts: [x.io]", had)]), ["young: x.io=10.9.0.2 x.io=fd00::2"]);
}

#[test]
fn what_is_being_written_is_not_planned_again_nor_given_twice() {
    let mut planner = Planner::new(small());
    let first = world(&[entry("one", "02", "hosts: [x.io]", "")]);
    assert_eq!(planned(&mut planner, &first), ["one: x.io=10.9.0.1 x.io=fd00::1"]);
    let both = world(&[entry("one", "02", "hosts: [x.io]", ""), entry("two", "01", "hosts: [y.io]", "")]);
    assert_eq!(planned(&mut planner, &both), ["two: y.io=10.9.0.2 y.io=fd00::2"]);
    // What was not written is planned again, with addresses that are free.
    planner.forget(&NamespacedName::new("a", "one"));
    assert_eq!(planned(&mut planner, &both), ["one: x.io=10.9.0.3 x.io=fd00::3"]);
}

#[test]
fn a_freed_address_is_the_last_to_be_given_again_and_a_full_pool_gives_none() {
    let mut planner = Planner::new(small());
    let hosts = |names: &str| world(&[entry("e", "01", &format!("hosts: [{names}]"), "")]);
    assert_eq!(planned(&mut planner, &hosts("a.io, b.io")).len(), 1);
    planner.forget(&NamespacedName::new("a", "e"));
    let told = planned(&mut planner, &hosts("c.io, d.io, e.io, f.io, g.io, h.io, i.io"));
    // Six addresses are in the block, and of those the two that were freed come last.
    let v4: Vec<_> = told[0].split(' ').filter_map(|one| one.split_once("10.9.0.").map(|(_, last)| last)).collect();
    assert_eq!(v4, ["3", "4", "5", "6", "1", "2"]);
}

#[test]
fn entries_that_are_not_looked_at_keep_their_addresses() {
    let selector = serde_json::from_str(r#"{"matchLabels": {"mesh": "on"}}"#).unwrap();
    let settings = MeshSettings { discovery_selectors: vec![selector], ..MeshSettings::default() };
    let hidden = entry("h", "01", "hosts: [h.io]", "{host: h.io, value: 10.9.0.1}");
    let seen = entry("s", "02", "hosts: [s.io]", "").replace("namespace: a", "namespace: b");
    let namespace = "kind: Namespace\nmetadata: {name: b, labels: {mesh: 'on'}}\n---\n".to_owned();
    let model = fixture::model(&[hidden, seen, namespace].concat(), settings);
    assert_eq!(planned(&mut Planner::new(small()), model.world()), ["s: s.io=10.9.0.2 s.io=fd00::1"]);
}
