//! Routes that lead to services of others: whoever is sent on must be allowed to call them.

use std::time::Duration;

use http::StatusCode;
use mesh_wire::l7::{self, Protocol};
use mesh_wire::type_url;
use tokio::io::AsyncReadExt;

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, allow, backend, port, port_name, proxy, service, workload};
use crate::world::World;

const A: &str = "spiffe://cluster.local/ns/ns1/sa/a";
const B: &str = "spiffe://cluster.local/ns/ns1/sa/b";
const HTTP: Application = Application::Http(Duration::ZERO);

/// Nobody may ask for this path.
fn deny(path: &str) -> l7::Authorization {
    let operation = l7::AuthorizationOperation { paths: vec![path.into()], ..l7::AuthorizationOperation::default() };
    let rule = l7::AuthorizationRule { to: vec![operation], ..l7::AuthorizationRule::default() };
    let action = l7::authorization::Action::Deny.into();
    l7::Authorization {
        namespace: "shop".into(),
        name: "no-admin".into(),
        action,
        rules: vec![rule],
        ..l7::Authorization::default()
    }
}

/// The cart as it is called by routes of others.
fn cart(authorizations: Vec<l7::Authorization>) -> l7::Backend {
    let address = mesh_core::addr::ip_to_bytes("10.1.1.5".parse().unwrap());
    let guard = l7::BackendGuard { authorizations, address, ..l7::BackendGuard::default() };
    l7::Backend { guard: Some(guard), ..backend("cart", 80) }
}

fn to(index: u32) -> Vec<l7::WeightedBackend> {
    let target = Some(l7::weighted_backend::Target::Backend(index));
    vec![l7::WeightedBackend { weight: 1, target, ..l7::WeightedBackend::default() }]
}

fn rule(prefix: &str, number: u32, index: u32) -> (l7::HttpEntry, l7::HttpRule) {
    let path =
        l7::PathMatch { kind: Some(l7::path_match::Kind::SegmentPrefix(prefix.into())), ..l7::PathMatch::default() };
    let matched = l7::HttpMatch { path: Some(path), ..l7::HttpMatch::default() };
    let action = l7::http_rule::Action::Forward(l7::Forward { backends: to(index) });
    (
        l7::HttpEntry { r#match: Some(matched), rule: number },
        l7::HttpRule { action: Some(action), ..l7::HttpRule::default() },
    )
}

/// A service of nobody in particular, whose routes lead to the cart: by `/rewritten` as another path, by `/mirrored` as a
/// copy, by everything else as it is.
fn decoy(authorizations: Vec<l7::Authorization>) -> l7::Port {
    let mut rewritten = rule("/rewritten", 0, 1);
    let path = l7::PathRewrite { kind: Some(l7::path_rewrite::Kind::Full("/x/../admin".into())) };
    rewritten.1.rewrite = Some(l7::Rewrite { path: Some(path), ..l7::Rewrite::default() });
    let mut mirrored = rule("/mirrored", 1, 0);
    let target = Some(l7::mirror::Target::Backend(1));
    mirrored.1.mirrors = vec![l7::Mirror { per_million: 1_000_000, target }];
    let (entries, rules) = [rewritten, mirrored, rule("/", 2, 1)].into_iter().unzip();
    let host = l7::VirtualHost { hostnames: vec!["*".into()], entries };
    l7::Port {
        backends: vec![backend("decoy", 80), cart(authorizations)],
        http: Some(l7::HttpTable { hosts: vec![host], rules }),
        ..port("decoy", "10.1.1.9", 80, Protocol::Http)
    }
}

fn addresses() -> Vec<std::sync::Arc<mesh_xds::server::Resource>> {
    vec![
        service("decoy", "10.1.1.9", 80, 8080),
        service("cart", "10.1.1.5", 80, 8080),
        address(&workload("decoy-1", "127.0.0.2", "decoy", &[("decoy", 80, 8080)])),
        address(&workload("cart-1", "127.0.0.3", "cart", &[("cart", 80, 8080)])),
    ]
}

isolated_test! {
    async fn a_route_leads_no_request_past_the_policies_of_the_service_that_it_leads_to() {
        let own = Endpoint::start("127.0.0.2", "decoy", HTTP).await;
        let guarded = Endpoint::start("127.0.0.3", "cart", HTTP).await;
        let world = World::waypoint(proxy(), &[decoy(vec![deny("/admin")])], addresses()).await;
        let client = Client::new(A).await;
        assert!(client.get("10.1.1.9:80", "/items", "").await.starts_with("HTTP/1.1 200 OK"), "what is allowed goes on");
        let before = guarded.asked().len();
        // As it is, in another form, and made of another path by the route.
        for path in ["/admin", "/items/../admin", "/%61dmin", "/rewritten"] {
            let answer = client.get("10.1.1.9:80", path, "").await;
            assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("RBAC: access denied"), "{path}: {answer}");
        }
        assert_eq!(guarded.asked().len(), before);
        // It can be asked beforehand.
        let explained = async |path: &str| {
            let question = format!("{{\"destination\": \"10.1.1.9:80\", \"path\": \"{path}\", \"sourceIdentity\": \"{A}\"}}");
            world.post(15000, "/explain", &question).await
        };
        for (path, refused) in [("/items", false), ("/admin", true), ("/rewritten", true), ("/mirrored", false)] {
            let answer = explained(path).await;
            assert_eq!(answer.contains("403"), refused, "{path}: {answer}");
            assert_eq!(answer.contains("a route leads to cart.shop.svc.cluster.local:80"), refused, "{path}: {answer}");
        }
        world.eventually("the log says why", async |world| {
            let log = world.log();
            // Paths in the one form that policies see.
            assert!(!log.contains("/items/../admin") && !log.contains("/%61dmin"), "{log}");
            log.contains("rbac_access_denied_matched_policy[ns[shop]-policy[no-admin]-rule[0]]")
                && log.contains("a route leads to cart.shop.svc.cluster.local:80")
        }).await;

        // Who may call the cart may be sent on to it, and nobody else; nobody gets a copy of what he may not ask for.
        world.port(&decoy(vec![allow("only-b", "cluster.local/ns/ns1/sa/b")]));
        world.eventually("the other policy is in force", async |_| {
            client.get("10.1.1.9:80", "/items", "").await.starts_with("HTTP/1.1 403")
        }).await;
        let before = (own.asked().len(), guarded.asked().len());
        assert!(client.get("10.1.1.9:80", "/mirrored", "").await.starts_with("HTTP/1.1 200 OK"), "the original goes on");
        let b = Client::new(B).await;
        assert!(b.get("10.1.1.9:80", "/items", "").await.starts_with("HTTP/1.1 200 OK"));
        assert!(own.asked().len() > before.0);
        let admin = world.get(15000, "/clusters?format=json").await;
        assert!(admin.contains("rbac_denied"), "{admin}");
        for asked in guarded.asked().split_off(before.1) {
            assert_eq!(asked.authority, "127.0.0.3:8080");
        }
    }
}

isolated_test! {
    async fn a_route_leads_no_connection_past_the_policies_of_the_service_that_it_leads_to() {
        let guarded = Endpoint::start("127.0.0.3", "cart", Application::Bytes("cart")).await;
        let open = |authorizations| l7::Port {
            backends: vec![backend("decoy", 80), cart(authorizations)],
            tcp_rules: vec![l7::L4Rule { backends: to(1), ..l7::L4Rule::default() }],
            ..port("decoy", "10.1.1.9", 80, Protocol::Tcp)
        };
        let only_b = || vec![allow("only-b", "cluster.local/ns/ns1/sa/b")];
        let only_a = || vec![allow("only-a", "cluster.local/ns/ns1/sa/a")];
        let world = World::waypoint(proxy(), &[open(only_b())], addresses()).await;
        let (a, b) = (Client::new(A).await, Client::new(B).await);
        assert_eq!(a.refused("10.1.1.9:80").await, StatusCode::FORBIDDEN);
        assert!(guarded.asked().is_empty());
        assert_eq!(b.ask("10.1.1.9:80", "x").await, "cart: x");

        // A policy that turns against an open connection cuts it; so does a route that ends, whose policies nobody follows.
        for next in [open(only_a()), port("decoy", "10.1.1.9", 80, Protocol::Tcp)] {
            let client = if next.backends.len() > 1 { &b } else { &a };
            let mut stream = client.open("10.1.1.9:80").await.unwrap();
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"cart: ");
            world.port(&next);
            let mut rest = Vec::new();
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("cut").ok();
        }
    }
}

isolated_test! {
    async fn what_services_of_two_namespaces_claim_is_neithers() {
        let _cart = Endpoint::start("127.0.0.3", "cart", HTTP).await;
        let named = |service: &str, ip: &str| l7::Port { by_hostname: true, ..port(service, ip, 80, Protocol::Http) };
        let world = World::waypoint(proxy(), &[named("cart", "10.1.1.5")], addresses()).await;
        let client = Client::new(A).await;
        let calls = ["10.1.1.5:80", "cart.shop.svc.cluster.local:80"];
        for call in calls {
            assert!(client.get(call, "/", "").await.starts_with("HTTP/1.1 200 OK"), "{call}");
        }
        // It comes first by name, says other bytes, and leads somewhere else.
        let taker = l7::Port {
            namespace: "aaa".into(),
            protocol: Protocol::Tcp.into(),
            backends: vec![backend("decoy", 80)],
            ..named("cart", "10.1.1.5")
        };
        world.port(&taker);
        world.eventually("it is live", async |_| client.open("10.1.1.5:80").await.is_err()).await;
        for call in calls {
            assert_eq!(client.refused(call).await, StatusCode::NOT_FOUND, "{call}");
        }
        world.remove(type_url::L7, &[&port_name(&taker)]);
        world.eventually("it is gone", async |_| client.open("10.1.1.5:80").await.is_ok()).await;
    }
}

isolated_test! {
    async fn a_backend_that_cannot_be_called_holds_up_nothing_else_of_its_resource() {
        let _cart = Endpoint::start("127.0.0.3", "cart", HTTP).await;
        let cookie = l7::HashCookie { name: "c".into(), path: "/\n".into(), ..l7::HashCookie::default() };
        let hash = l7::ConsistentHash { source: Some(l7::consistent_hash::Source::Cookie(cookie)), algorithm: None };
        let balancer = l7::LoadBalancer { consistent_hash: Some(hash), ..l7::LoadBalancer::default() };
        let policy = l7::TrafficPolicy { load_balancer: Some(balancer), ..l7::TrafficPolicy::default() };
        let bad = l7::Backend { policy: Some(policy), ..backend("decoy", 80) };
        let (entries, rules): (Vec<_>, Vec<_>) = [rule("/bad", 0, 1), rule("/", 1, 0)].into_iter().unzip();
        let host = |name: &str| l7::VirtualHost { hostnames: vec![name.into()], entries: entries.clone() };
        let port = l7::Port {
            backends: vec![backend("cart", 80), bad],
            http: Some(l7::HttpTable { hosts: vec![host("*"), host("*"), host("bad name")], rules }),
            authorizations: vec![deny("/admin")],
            ..port("cart", "10.1.1.5", 80, Protocol::Http)
        };
        let world = World::waypoint(proxy(), &[port], addresses()).await;
        let client = Client::new(A).await;
        assert!(client.get("10.1.1.5:80", "/", "").await.starts_with("HTTP/1.1 200 OK"));
        assert!(client.get("10.1.1.5:80", "/admin", "").await.starts_with("HTTP/1.1 403"), "its policies are in force");
        assert!(client.get("10.1.1.5:80", "/bad", "").await.starts_with("HTTP/1.1 503"), "that one alone refuses");
        let dump = world.get(15000, "/config_dump").await;
        for part in ["consistent_hash.cookie", "http.hosts[1].hostnames[0]", "http.hosts[2].hostnames[0]"] {
            assert!(dump.contains(part), "{part} in {dump}");
        }
    }
}
