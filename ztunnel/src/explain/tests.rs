//! Answers of `explain`.

#![allow(clippy::indexing_slicing)] // reason: tests

use mesh_wire::security::{Action, Authorization, Scope};
use mesh_wire::workload as wire;

use super::*;
use crate::state::fixture::*;

const DOMAIN: &str = "cluster.local";
const STRICT: Strict = Strict { waypoint_required: true, policy_before_traffic: true };

fn world() -> World {
    let cart = "shop/cart.shop.svc.cluster.local";
    World::new().with([
        address(pod("web/api", "10.1.0.5")),
        address(wire::Workload { tunnel_protocol: 0, ..pod("web/outside", "10.1.0.6") }),
        service_address(service(cart, &["172.20.0.9"], &[(80, 8080)])),
        address(backs(pod("shop/cart-1", "10.1.0.77"), cart, &[(80, 8080)])),
    ])
}

fn ask(world: &World, src: &str, dst: &str) -> Value {
    explain(&world.snapshot(), STRICT, DOMAIN, src, dst).unwrap()
}

#[test]
fn an_allowed_connection_shows_its_tunnel() {
    let world = world();
    for dst in ["cart.shop:80", "cart.shop.svc.cluster.local:80", "172.20.0.9:80", "shop/cart-1:8080"] {
        let answer = ask(&world, "web/api", dst);
        assert_eq!(answer["path"]["kind"], "hbone", "{answer}");
        assert_eq!(answer["path"]["dial"], "10.1.0.77:15008");
        assert_eq!(answer["path"]["authority"], "10.1.0.77:8080");
        assert_eq!(answer["verdict"]["allowed"], true);
        assert_eq!(answer["destination"]["workload"]["identity"], "spiffe://cluster.local/ns/shop/sa/cart-1");
        assert!(answer.get("nearestAllow").is_none());
    }
    assert_eq!(ask(&world, "10.1.0.5", "cart.shop:80")["source"]["name"], "api");
}

#[test]
fn a_denied_connection_names_the_rule_and_the_nearest_change() {
    let mut world = world();
    let rule = from_principal("cluster.local/ns/web/sa/api");
    let deny = policy("shop/no-api", Scope::Namespace, Action::Deny);
    world.add_policy(Authorization { rules: vec![rule], ..deny });
    world.add_policy(policy("other/p", Scope::Namespace, Action::Deny));
    let answer = ask(&world, "web/api", "cart.shop:80");
    assert_eq!(answer["verdict"]["allowed"], false);
    assert_eq!(answer["verdict"]["policy"], "shop/no-api");
    assert_eq!(answer["verdict"]["rule"], 0);
    assert_eq!(answer["policies"].as_array().unwrap().len(), 1);
    assert_eq!(answer["policies"][0]["matchedRule"], 0);
    let change = answer["nearestAllow"].as_str().unwrap();
    assert!(change.starts_with("remove rule 0 of deny policy shop/no-api"), "{change}");
}

#[test]
fn a_source_that_is_not_enrolled_is_seen_in_plaintext() {
    let mut world = world();
    let rule = from_principal("cluster.local/ns/web/sa/outside");
    world.add_policy(Authorization { rules: vec![rule], ..policy("shop/p", Scope::Namespace, Action::Allow) });
    for dst in ["cart.shop:80", "shop/cart-1:8080"] {
        let answer = ask(&world, "web/outside", dst);
        assert_eq!(answer["path"]["encrypted"], false, "{answer}");
        assert_eq!(answer["verdict"]["allowed"], false);
        assert_eq!(answer["verdict"]["identitySeen"], Value::Null);
        assert!(answer["nearestAllow"].as_str().unwrap().contains("enrol the client"));
    }
}

#[test]
fn a_source_that_makes_tunnels_itself_is_seen_with_its_identity() {
    let mut world = world();
    let rule = from_principal("cluster.local/ns/web/sa/outside");
    world.add_policy(Authorization { rules: vec![rule], ..policy("shop/p", Scope::Namespace, Action::Allow) });
    let answer = ask(&world, "tunnel:web/outside", "shop/cart-1:8080");
    assert_eq!(answer["path"]["kind"], "hbone", "{answer}");
    assert_eq!(answer["verdict"]["allowed"], true);
    assert_eq!(answer["verdict"]["identitySeen"], "spiffe://cluster.local/ns/web/sa/outside");
}

#[test]
fn a_policy_that_is_not_known_yet_denies() {
    let mut named = backs(pod("shop/cart-1", "10.1.0.77"), "shop/cart.shop.svc.cluster.local", &[(80, 8080)]);
    named.authorization_policies = vec!["shop/late".into()];
    let answer = ask(&world().with([address(named)]), "web/api", "cart.shop:80");
    assert_eq!(answer["verdict"]["allowed"], false);
    assert_eq!(answer["verdict"]["missingPolicies"][0], "shop/late");
}

#[test]
fn a_policy_that_is_not_known_is_left_out_where_the_reference_holds() {
    let mut named = backs(pod("shop/cart-1", "10.1.0.77"), "shop/cart.shop.svc.cluster.local", &[(80, 8080)]);
    named.authorization_policies = vec!["shop/late".into()];
    let snapshot = world().with([address(named)]).snapshot();
    let reference = Strict { waypoint_required: false, policy_before_traffic: false };
    let answer = explain(&snapshot, reference, DOMAIN, "web/api", "cart.shop:80").unwrap();
    assert_eq!(answer["verdict"]["allowed"], true, "{answer}");
    assert_eq!(answer["verdict"]["missingPolicies"][0], "shop/late");
}

#[test]
fn refusals_and_unknown_addresses_are_explained() {
    let answer = ask(&world(), "web/api", "cart.shop:81");
    assert_eq!(answer["path"]["kind"], "refused");
    assert!(answer["verdict"]["reason"].as_str().unwrap().contains("no healthy upstream"));
    assert_eq!(ask(&world(), "web/api", "203.0.113.4:443")["path"]["kind"], "passthrough");
}

#[test]
fn bad_questions_say_what_is_wrong() {
    let error = |src: &str, dst: &str| explain(&world().snapshot(), STRICT, DOMAIN, src, dst).unwrap_err().to_string();
    assert!(error("web/nobody", "cart.shop:80").contains("\"web/nobody\" is not known"));
    assert!(error("web/api", "cart.shop").contains("is not <host or address>:<port>"));
    assert!(error("web/api", "cart.shop:http").contains("is not <host or address>:<port>"));
    assert!(error("web/api", "nowhere:80").contains("\"nowhere\" is not known"));
}

#[test]
fn a_service_of_another_network_shows_its_gateway_and_leaves_the_verdict_open() {
    let cart = "shop/cart.shop.svc.cluster.local";
    let remote = wire::Workload {
        network: "n2".into(),
        network_gateway: Some(gateway("net/east.example")),
        ..backs(pod("shop/cart-1", ""), cart, &[(80, 80)])
    };
    let identity = "spiffe://cluster.local/ns/shop/sa/cart";
    let named =
        wire::Service { subject_alt_names: vec![identity.into()], ..service(cart, &["172.20.0.9"], &[(80, 8080)]) };
    let east =
        wire::Workload { hostname: "east.example".into(), network: "n2".into(), ..pod("net/east", "192.0.2.10") };
    let world = world().with([address(remote), service_address(named), address(east)]);
    let answer = ask(&world, "web/api", "cart.shop:80");
    assert_eq!(answer["path"]["kind"], "double-hbone", "{answer}");
    assert_eq!(answer["path"]["dial"], "192.0.2.10:15008");
    assert_eq!(answer["path"]["authority"], "cart.shop.svc.cluster.local:80");
    assert_eq!(answer["path"]["expectedIdentities"][0], identity);
    assert_eq!(answer["destination"]["gateway"]["name"], "east");
    assert!(answer["verdict"]["allowed"].is_null(), "nobody here knows the policies there: {answer}");
}

#[test]
fn a_way_past_a_required_waypoint_is_shown_as_refused() {
    use mesh_wire::meltemi::WAYPOINT_REQUIRED;
    let cart = "shop/cart.shop.svc.cluster.local";
    let mut world = world();
    let mut guarded = service(cart, &["172.20.0.9"], &[(80, 8080)]);
    guarded.waypoint = Some(gateway("shop/waypoint.svc"));
    guarded.extensions = vec![wire::Extension { name: WAYPOINT_REQUIRED.into(), config: None }];
    world.add([
        service_address(guarded),
        service_address(service("shop/waypoint.svc", &[], &[(15008, 15008)])),
        address(backs(pod("shop/waypoint", "10.1.0.20"), "shop/waypoint.svc", &[(15008, 15008)])),
    ]);
    let answer = ask(&world, "web/api", "shop/cart-1:8080");
    assert_eq!(
        (&answer["verdict"]["allowed"], &answer["verdict"]["waypointRequiredBy"]),
        (&json!(false), &json!(cart))
    );
    assert!(answer["verdict"]["reason"].as_str().unwrap().contains("is not its waypoint"), "{answer}");
    assert_eq!(ask(&world, "web/api", "cart.shop:80")["verdict"]["allowed"], true);
    assert_eq!(ask(&world, "shop/waypoint", "shop/cart-1:8080")["verdict"]["allowed"], true);
}
