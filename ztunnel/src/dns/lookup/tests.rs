use mesh_wire::workload as wire;

use super::*;
use crate::state::fixture::{NETWORK, World, address, backs, network_address, pod, service, service_address};

fn zone() -> Zone {
    Zone { domain: "cluster.local".into(), search: Search::Kubernetes, preferred_namespace: None, ipv6: true }
}

fn names(name: &str, zone: &Zone) -> Vec<String> {
    candidates(name, zone, "shop").into_iter().map(|candidate| candidate.name).collect()
}

fn ask(world: &World, zone: &Zone, name: &str, kind: RecordType) -> Option<Answer> {
    let client = Client { namespace: "shop", network: NETWORK };
    let question = Question { name: name.to_owned(), kind, class: 1, end: 0 };
    let mut answer = answer(&world.snapshot(), zone, client, &question)?;
    answer.addresses.sort();
    Some(answer)
}

/// What is answered, in words: `forward`, or the labels of an alias and the addresses.
fn told(world: &World, name: &str, kind: RecordType) -> String {
    match ask(world, &zone(), name, kind) {
        None => "forward".to_owned(),
        Some(Answer { alias_labels, addresses }) => {
            let alias = alias_labels.map(|labels| format!("alias of {labels}: ")).unwrap_or_default();
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{alias}{}", list.join(" "))
        }
    }
}

fn cart(vips: &[&str]) -> wire::Service {
    service("shop/cart.shop.svc.cluster.local", vips, &[(80, 8080)])
}

fn world(services: impl IntoIterator<Item = wire::Service>) -> World {
    World::new().with(services.into_iter().map(service_address))
}

#[test]
fn short_names_stand_for_names_of_the_cluster() {
    let table: &[(&str, &[&str])] = &[
        ("cart", &["cart", "cart.shop.svc.cluster.local"]),
        ("cart.other", &["cart.other", "cart.other.svc.cluster.local", "cart.other.shop.svc.cluster.local"]),
        ("cart.other.svc", &["cart.other.svc", "cart.other.svc.cluster.local", "cart.other.svc.svc.cluster.local"]),
        ("www.example.org", &["www.example.org", "www.example.org.svc.cluster.local"]),
        ("zero.cart.other.svc", &["zero.cart.other.svc", "zero.cart.other.svc.cluster.local"]),
        ("a.b.c.d", &["a.b.c.d"]),
        ("a.b.c.d.e", &["a.b.c.d.e"]),
        ("", &[""]),
    ];
    for (name, expected) in table {
        assert_eq!(names(name, &zone()), *expected, "{name}");
    }
}

#[test]
fn search_domains_are_taken_off_again() {
    let table: &[(&str, &[&str])] = &[
        (
            "www.example.org.shop.svc.cluster.local",
            &[
                "www.example.org.shop.svc.cluster.local",
                "www.example.org",
                "www.example.org.svc.cluster.local",
                "www.example.org.shop",
                "www.example.org.shop.svc",
            ],
        ),
        (
            "cart.shop.svc.cluster.local",
            &[
                "cart.shop.svc.cluster.local",
                "cart",
                "cart.shop",
                "cart.shop.shop.svc.cluster.local",
                "cart.shop.svc",
                "cart.shop.svc.svc.cluster.local",
            ],
        ),
        // A suffix is whole labels, and something must be left of it.
        (
            "xcluster.local",
            &["xcluster.local", "xcluster.local.svc.cluster.local", "xcluster.local.shop.svc.cluster.local"],
        ),
        (
            "svc.cluster.local",
            &["svc.cluster.local", "svc.cluster.local.svc.cluster.local", "svc", "svc.shop.svc.cluster.local"],
        ),
    ];
    for (name, expected) in table {
        assert_eq!(names(name, &zone()), *expected, "{name}");
    }
    let listed = Zone { search: Search::Listed(vec!["corp.example".into()]), ..zone() };
    assert_eq!(names("cart.corp.example", &listed).last().unwrap(), "cart.shop.svc.cluster.local");
    assert!(!names("cart.shop.svc.cluster.local", &listed).contains(&"cart".to_owned()));
}

#[test]
fn wildcards_replace_labels_from_the_left_but_never_all() {
    assert_eq!(wildcards("a.b.c").collect::<Vec<_>>(), ["*.b.c", "*.c"]);
    assert_eq!(wildcards("a.b").collect::<Vec<_>>(), ["*.b"]);
    assert_eq!(wildcards("a").count() + wildcards("").count() + wildcards("a.").count(), 0);
}

#[test]
fn ops_row_9_a_short_name_is_answered_with_the_address_of_the_service() {
    let world = world([cart(&["172.20.0.9"])]);
    for name in ["cart", "cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local"] {
        assert_eq!(told(&world, name, RecordType::A), "172.20.0.9", "{name}");
    }
}

#[test]
fn ops_row_10_a_search_domain_that_was_appended_shows_as_an_alias() {
    let world = world([cart(&["172.20.0.9"])]);
    let asked = "cart.shop.svc.cluster.local.shop.svc.cluster.local";
    assert_eq!(told(&world, asked, RecordType::A), "alias of 5: 172.20.0.9");
    assert_eq!(told(&world, "cart.shop.cluster.local", RecordType::A), "alias of 2: 172.20.0.9");
}

#[test]
fn ops_row_11_another_family_is_empty_not_unknown() {
    let world = world([cart(&["172.20.0.9"])]);
    assert_eq!(told(&world, "cart.shop", RecordType::AAAA), "");
}

#[test]
fn ops_row_12_a_wildcard_takes_any_depth_below_it() {
    let wild = service("shop/*.api.test", &["240.0.0.4"], &[(443, 443)]);
    let world = world([wild]);
    assert_eq!(told(&world, "v1.eu.api.test", RecordType::A), "240.0.0.4");
    assert_eq!(told(&world, "v1.api.test", RecordType::A), "240.0.0.4");
    // By a wildcard the appended domain is no alias.
    assert_eq!(told(&world, "v1.api.test.shop.svc.cluster.local", RecordType::A), "240.0.0.4");
    assert_eq!(told(&world, "api.test", RecordType::A), "forward");
}

#[test]
fn ops_row_13_an_address_of_another_network_is_left_out() {
    let mut far = cart(&["172.20.0.9"]);
    far.addresses[0].network = "n2".to_owned();
    let mut both = service("shop/both.shop.svc.cluster.local", &["172.20.0.10", "172.20.0.11"], &[]);
    both.addresses[1].network = "n2".to_owned();
    let world = world([far, both]);
    assert_eq!(told(&world, "cart", RecordType::A), "");
    assert_eq!(told(&world, "both", RecordType::A), "172.20.0.10");
}

#[test]
fn ops_row_14_other_types_are_forwarded() {
    let world = world([cart(&["172.20.0.9"])]);
    for kind in [15, 16, 33, 65, 255].map(RecordType) {
        assert_eq!(told(&world, "cart.shop", kind), "forward", "{kind:?}");
    }
    let client = Client { namespace: "shop", network: NETWORK };
    let chaos = Question { name: "cart.shop".into(), kind: RecordType::A, class: 3, end: 0 };
    assert_eq!(answer(&world.snapshot(), &zone(), client, &chaos), None);
}

#[test]
fn ops_row_15_a_service_without_addresses_outside_the_cluster_is_forwarded() {
    let bare = service("shop/www.example.org", &[], &[(443, 443)]);
    let range = service("shop/range.shop.svc.cluster.local", &["172.30.0.0/16"], &[(443, 443)]);
    let world = world([bare, range]);
    assert_eq!(told(&world, "www.example.org", RecordType::A), "forward");
    assert_eq!(told(&world, "range.shop", RecordType::A), "forward", "a range is no address");
    assert_eq!(told(&world, "other.example.org", RecordType::A), "forward");
}

#[test]
fn a_headless_service_gives_one_address_of_each_healthy_endpoint() {
    let key = "shop/db.shop.svc.cluster.local";
    let mut dual = backs(pod("shop/db-0", "10.1.0.10"), key, &[]);
    dual.addresses.push(mesh_core::addr::ip_to_bytes("10.1.0.99".parse().unwrap()));
    dual.addresses.push(mesh_core::addr::ip_to_bytes("fd00::10".parse().unwrap()));
    let mut sick = backs(pod("shop/db-1", "10.1.0.11"), key, &[]);
    sick.status = wire::WorkloadStatus::Unhealthy.into();
    let well = backs(pod("shop/db-2", "10.1.0.12"), key, &[]);
    let none = service("shop/none.shop.svc.cluster.local", &[], &[]);
    let world = world([service(key, &[], &[(80, 80)]), none]).with([dual, sick, well].map(address));
    assert_eq!(told(&world, "db", RecordType::A), "10.1.0.10 10.1.0.12");
    assert_eq!(told(&world, "db", RecordType::AAAA), "fd00::10");
    assert_eq!(told(&world, "none", RecordType::A), "");
    // The name of one pod is for others to know.
    assert_eq!(told(&world, "db-0.db.shop.svc.cluster.local", RecordType::A), "forward");
}

#[test]
fn families_that_the_service_or_the_proxy_excludes_are_empty() {
    let dual = |families: wire::IpFamilies| {
        let mut service = cart(&["172.20.0.9", "fd20::9"]);
        service.ip_families = families.into();
        world([service])
    };
    let table = [
        (wire::IpFamilies::Automatic, "172.20.0.9", "fd20::9"),
        (wire::IpFamilies::Dual, "172.20.0.9", "fd20::9"),
        (wire::IpFamilies::Ipv4Only, "172.20.0.9", ""),
        (wire::IpFamilies::Ipv6Only, "", "fd20::9"),
    ];
    for (families, v4, v6) in table {
        let world = dual(families);
        assert_eq!(told(&world, "cart", RecordType::A), v4, "{families:?}");
        assert_eq!(told(&world, "cart", RecordType::AAAA), v6, "{families:?}");
    }
    let world = dual(wire::IpFamilies::Dual);
    let off = Zone { ipv6: false, ..zone() };
    assert_eq!(ask(&world, &off, "cart", RecordType::AAAA).unwrap().addresses, Vec::<IpAddr>::new());
    assert_eq!(ask(&world, &off, "cart", RecordType::A).unwrap().addresses.len(), 1);
}

#[test]
fn among_equal_names_the_own_namespace_wins_then_canonical_then_preferred_then_the_first() {
    let of = |namespace: &str, vip: &str| service(&format!("{namespace}/www.example.org"), &[vip], &[(443, 443)]);
    let canonical = |mut service: wire::Service| {
        service.canonical = true;
        service
    };
    let private = |mut service: wire::Service| {
        service.visibility = wire::Visibility::Namespace.into();
        service
    };
    let preferring = |namespace: &str| Zone { preferred_namespace: Some(namespace.to_owned()), ..zone() };
    let (a, b, own) = (of("a", "240.0.0.1"), of("b", "240.0.0.2"), of("shop", "240.0.0.3"));
    let table = [
        (vec![a.clone(), canonical(b.clone()), own.clone()], zone(), Some("240.0.0.3")),
        (vec![a.clone(), canonical(b.clone())], preferring("a"), Some("240.0.0.2")),
        (vec![a.clone(), b.clone()], preferring("b"), Some("240.0.0.2")),
        (vec![a.clone(), b.clone()], zone(), Some("240.0.0.1")),
        (vec![private(a.clone()), b.clone()], zone(), Some("240.0.0.2")),
        (vec![private(a.clone())], preferring("a"), None),
        (vec![private(own)], zone(), Some("240.0.0.3")),
        // One that is not usable does not stand in the way.
        (vec![service("shop/www.example.org", &[], &[]), b], zone(), Some("240.0.0.2")),
    ];
    for (n, (services, zone, expected)) in table.into_iter().enumerate() {
        let found = ask(&world(services), &zone, "www.example.org", RecordType::A);
        let found = found.map(|answer| answer.addresses[0].to_string());
        assert_eq!(found.as_deref(), expected, "row {n}");
    }
}

#[test]
fn the_asked_name_itself_comes_before_what_it_may_be_short_for() {
    let exact = service("shop/cart.other", &["240.0.0.1"], &[]);
    let short = service("other/cart.other.svc.cluster.local", &["172.20.0.9"], &[]);
    let wild = service("shop/*.other", &["240.0.0.2"], &[]);
    assert_eq!(told(&world([exact, short.clone(), wild.clone()]), "cart.other", RecordType::A), "240.0.0.1");
    // A wildcard of an earlier name comes before a later name.
    assert_eq!(told(&world([short.clone(), wild]), "cart.other", RecordType::A), "240.0.0.2");
    assert_eq!(told(&world([short]), "cart.other", RecordType::A), "172.20.0.9");
}

#[test]
fn host_names_of_services_match_whatever_their_case() {
    let mut loud = service("shop/WWW.Example.org", &["240.0.0.1"], &[]);
    loud.addresses.push(network_address("240.0.0.2"));
    let mut world = world([loud]);
    assert_eq!(told(&world, "www.example.org", RecordType::A), "240.0.0.1 240.0.0.2");
    world.remove(&["shop/WWW.Example.org"]);
    assert_eq!(told(&world, "www.example.org", RecordType::A), "forward");
}
