use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, SystemClock};
use mesh_wire::{l7, type_url};
use mesh_xds::client::{Handler as _, Resource, Subscriptions};
use prost::Message as _;

use super::compile::{Compiled, compile};
use super::*;
use crate::endpoints::{Place, Store};
use crate::own::Own;
use crate::upstream::UpstreamShared;

fn error(kind: l7::resource::Kind) -> BadResource {
    match compile("ns/gw/x", &l7::Resource { kind: Some(kind) }.encode_to_vec()) {
        Err(error) => error,
        Ok(_) => panic!("taken"),
    }
}

fn backend() -> l7::Backend {
    l7::Backend { namespace: "ns".into(), hostname: "a".into(), port: 80, ..l7::Backend::default() }
}

fn port() -> l7::Port {
    l7::Port {
        namespace: "ns".into(),
        hostname: "a".into(),
        port: 80,
        backends: vec![backend()],
        ..l7::Port::default()
    }
}

#[test]
fn a_bad_field_is_named_with_its_value_and_what_was_expected() {
    use l7::resource::Kind;
    let rule = |index| l7::L4Rule {
        backends: vec![l7::WeightedBackend {
            weight: 1,
            target: Some(l7::weighted_backend::Target::Backend(index)),
            ..l7::WeightedBackend::default()
        }],
        ..l7::L4Rule::default()
    };
    let cases = [
        (Kind::Port(l7::Port { port: 70_000, ..port() }), "port: 70000, expected a port below 65536"),
        (
            Kind::Port(l7::Port { addresses: vec![vec![1, 2]], ..port() }),
            "addresses[0]: 2 bytes, expected 4 or 16 bytes",
        ),
        (Kind::Port(l7::Port { default_backend: 1, ..port() }), "default_backend: 1, expected an index below 1"),
        (Kind::Port(l7::Port { protocol: 99, ..port() }), "protocol: unknown number 99, expected 0 to 7"),
        (
            Kind::Port(l7::Port { tcp_rules: vec![rule(3)], ..port() }),
            "tcp_rules[0].backends[0].backend: 3, expected an index below 1",
        ),
        (
            Kind::Listener(l7::Listener { protocol: l7::Protocol::Https.into(), ..l7::Listener::default() }),
            "tls: nothing, expected a certificate, for protocol HTTPS",
        ),
        (
            Kind::Proxy(l7::Proxy {
                settings: Some(l7::Settings { trust_domains: vec!["a/b".into()], ..l7::Settings::default() }),
                ..l7::Proxy::default()
            }),
            "settings.trust_domains[0]",
        ),
    ];
    for (kind, expected) in cases {
        let text = error(kind).to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    assert_eq!(compile("ns/gw/x", &[0xff]).err().unwrap().expected, "a resource");
}

#[test]
fn what_cannot_be_used_of_a_rule_closes_or_drops_that_rule_alone() {
    let backends = vec![l7::WeightedBackend {
        weight: 1,
        target: Some(l7::weighted_backend::Target::Backend(0)),
        ..l7::WeightedBackend::default()
    }];
    let rule = |subnets: &[&str]| l7::L4Rule {
        backends: backends.clone(),
        destination_subnets: subnets.iter().map(ToString::to_string).collect(),
        ..l7::L4Rule::default()
    };
    let tls = |hostnames: &[&str]| l7::TlsRule {
        hostnames: hostnames.iter().map(ToString::to_string).collect(),
        rule: Some(rule(&[])),
        ..l7::TlsRule::default()
    };
    let message = l7::Port {
        tcp_rules: vec![rule(&["10.0.0.0/8", "10/x"]), rule(&["11.0.0.0/8"])],
        tls_rules: vec![tls(&["a b", "c.example"]), tls(&["a b"])],
        ..port()
    };
    let bytes = l7::Resource { kind: Some(l7::resource::Kind::Port(message)) }.encode_to_vec();
    let Ok(Compiled::Parts(parts)) = compile("ns/gw/x", &bytes) else { panic!("taken") };
    let closed: Vec<_> = parts.tcp_rules.iter().map(|rule| rule.backends[0].target.is_err()).collect();
    assert_eq!(closed, [true, false]);
    assert_eq!(parts.tcp_rules[0].subnets.len(), 1, "it takes what the others cover");
    let names: Vec<_> = parts.tls_rules.iter().map(|rule| rule.hostnames.clone()).collect();
    assert_eq!(names, [[Box::<str>::from("c.example")].into()], "nobody can ask for the other");
    let said: Vec<_> = parts.impaired.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(said, ["tls_rules[0].hostnames[0]", "tls_rules[1].hostnames[0]", "tcp_rules[0].destination_subnets[1]"]);
}

#[test]
fn absent_settings_are_those_of_the_mesh() {
    let bytes = l7::Resource { kind: Some(l7::resource::Kind::Proxy(l7::Proxy::default())) }.encode_to_vec();
    let Ok(Compiled::Proxy(proxy)) = compile("ns/gw", &bytes) else { panic!("a proxy") };
    let Settings { normalization, .. } = Settings::default();
    assert_eq!(proxy.settings, Settings { normalization, ..proxy.settings.clone() });
    assert_eq!((proxy.role, proxy.settings.detection_timeout), (Role::Waypoint, None));
    assert_eq!(proxy.settings.connect_timeout, std::time::Duration::from_secs(10));
    assert!(proxy.settings.debug_headers && proxy.settings.request_id && !proxy.settings.http10);
}

/// A feed that knows the proxy `ns/gw`.
fn feed() -> (Feed, Snapshots, Arc<UpstreamShared>) {
    let certs = CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock));
    let own = Own::new("spiffe://cluster.local/ns/ns/sa/gw".parse().unwrap(), certs);
    let store = Arc::new(Store::new(Place::default()));
    let upstream = UpstreamShared::new(own, store.clone(), None);
    let endpoints = crate::endpoints::Feed::new(store, Subscriptions::new(), Box::default());
    let snapshots = Snapshots::new();
    let (mut feed, _complete) = Feed::new("ns/gw", endpoints, upstream.clone(), snapshots.clone());
    let proxy = l7::Proxy { namespace: "ns".into(), name: "gw".into(), ..l7::Proxy::default() };
    feed.apply(type_url::L7, vec![resource("ns/gw", l7::resource::Kind::Proxy(proxy))], Vec::new());
    (feed, snapshots, upstream)
}

fn resource(name: &str, kind: l7::resource::Kind) -> Resource {
    Resource { name: name.into(), aliases: Vec::new(), value: l7::Resource { kind: Some(kind) }.encode_to_vec() }
}

#[tokio::test(start_paused = true)]
async fn changes_that_keep_coming_do_not_hold_each_other_back() {
    let (mut feed, snapshots, _upstream) = feed();
    let timing = tokio::spawn(feed.clone().keep_time());
    let called = crate::connection::Destination::Address("10.1.1.1:80".parse().unwrap());
    // Nobody tells of the endpoints.
    for _ in 0..10 {
        let port = l7::Port { addresses: vec![vec![10, 1, 1, 1]], ..port() };
        feed.apply(type_url::L7, vec![resource("ns/gw/ns/a:80", l7::resource::Kind::Port(port))], Vec::new());
        tokio::time::sleep(crate::limits::STAGING_BUDGET / 4).await;
    }
    assert!(snapshots.load().find(&called).is_some(), "the change never came");
    timing.abort();
}

/// No request waits for a table of hashes to be made.
#[tokio::test]
async fn tables_of_hashes_follow_the_endpoints_without_a_request() {
    use mesh_wire::workload as wire;
    let (mut feed, _snapshots, upstream) = feed();
    let hash = l7::ConsistentHash {
        source: Some(l7::consistent_hash::Source::SourceIp(true)),
        algorithm: Some(l7::consistent_hash::Algorithm::RingSizeMin(16)),
    };
    let balancer = l7::LoadBalancer { consistent_hash: Some(hash), ..l7::LoadBalancer::default() };
    let policy = l7::TrafficPolicy { load_balancer: Some(balancer), ..l7::TrafficPolicy::default() };
    let port = l7::Port { backends: vec![l7::Backend { policy: Some(policy), ..backend() }], ..port() };
    feed.apply(type_url::L7, vec![resource("ns/gw/ns/a:80", l7::resource::Kind::Port(port))], Vec::new());
    let told = |name: &str, kind| Resource {
        name: name.into(),
        aliases: Vec::new(),
        value: wire::Address { r#type: Some(kind) }.encode_to_vec(),
    };
    let service = wire::Service {
        name: "a".into(),
        namespace: "ns".into(),
        hostname: "a".into(),
        ports: vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }],
        ..wire::Service::default()
    };
    let workload = wire::Workload {
        uid: "a-1".into(),
        name: "a-1".into(),
        namespace: "ns".into(),
        addresses: vec![vec![10, 0, 0, 1]],
        services: [("ns/a".to_owned(), wire::PortList::default())].into(),
        ..wire::Workload::default()
    };
    let told =
        vec![told("ns/a", wire::address::Type::Service(service)), told("a-1", wire::address::Type::Workload(workload))];
    feed.apply(type_url::ADDRESS, told, Vec::new());
    let [cluster] = &*upstream.clusters() else { panic!("one pool") };
    assert_eq!(cluster.hosts().len(), 1);
}
