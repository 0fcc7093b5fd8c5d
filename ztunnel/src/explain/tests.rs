//! Answers of `explain`.

#![allow(clippy::indexing_slicing)] // reason: tests

use mesh_wire::security::{Action, Authorization, Scope};
use mesh_wire::workload as wire;

use super::*;
use crate::state::fixture::*;

const DOMAIN: &str = "cluster.local";

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
    explain(&world.snapshot(), DOMAIN, src, dst).unwrap()
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
fn a_policy_that_is_not_known_yet_denies() {
    let mut named = backs(pod("shop/cart-1", "10.1.0.77"), "shop/cart.shop.svc.cluster.local", &[(80, 8080)]);
    named.authorization_policies = vec!["shop/late".into()];
    let answer = ask(&world().with([address(named)]), "web/api", "cart.shop:80");
    assert_eq!(answer["verdict"]["allowed"], false);
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
    let error = |src: &str, dst: &str| explain(&world().snapshot(), DOMAIN, src, dst).unwrap_err().to_string();
    assert!(error("web/nobody", "cart.shop:80").contains("\"web/nobody\" is not known"));
    assert!(error("web/api", "cart.shop").contains("is not <host or address>:<port>"));
    assert!(error("web/api", "cart.shop:http").contains("is not <host or address>:<port>"));
    assert!(error("web/api", "nowhere:80").contains("\"nowhere\" is not known"));
}
