use mesh_core::NamespacedName;
use mesh_wire::workload as wire;
use mesh_xds::client::{Resource, Subscriptions};
use prost::Message as _;

use super::*;

fn bytes(ip: &str) -> Vec<u8> {
    mesh_core::addr::ip_to_bytes(ip.parse().unwrap())
}

fn feed() -> Feed {
    let place = Place { network: "n1".into(), ..Place::default() };
    Feed::new(Arc::new(Store::new(place)), Subscriptions::new(), ["10.0.0.9".parse().unwrap()].into())
}

fn wrapped(name: &str, kind: wire::address::Type) -> Resource {
    let value = wire::Address { r#type: Some(kind) }.encode_to_vec();
    Resource { name: name.into(), aliases: vec![], value }
}

fn service(name: &str) -> wire::Service {
    wire::Service {
        name: name.into(),
        namespace: "ns".into(),
        hostname: name.into(),
        addresses: vec![wire::NetworkAddress { network: "n1".into(), address: bytes("10.9.0.1"), length: None }],
        ports: vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }],
        ..wire::Service::default()
    }
}

fn workload(name: &str, ip: &str, service: &str) -> wire::Workload {
    wire::Workload {
        uid: name.into(),
        name: name.into(),
        namespace: "ns".into(),
        network: "n1".into(),
        addresses: vec![bytes(ip)],
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        service_account: name.into(),
        services: [(format!("ns/{service}"), wire::PortList::default())].into(),
        ..wire::Workload::default()
    }
}

fn of_service(service: wire::Service) -> Resource {
    wrapped(&format!("{}/{}", service.namespace, service.hostname), wire::address::Type::Service(service))
}

fn of_workload(workload: wire::Workload) -> Resource {
    wrapped(&workload.uid.clone(), wire::address::Type::Workload(workload))
}

fn key(hostname: &str, via_waypoint: bool) -> ServiceKey {
    ServiceKey { namespace: "ns".into(), hostname: hostname.into(), port: 80, via_waypoint }
}

fn name(hostname: &str) -> NamespacedName {
    NamespacedName::new("ns", hostname)
}

fn addresses(view: &ServiceView) -> Vec<String> {
    view.endpoints().list.iter().map(|one| one.address.to_string()).collect()
}

#[test]
fn endpoints_come_and_go_with_their_workloads_and_versions_tell() {
    let mut feed = feed();
    feed.follow([(name("a"), false)].into());
    let view = feed.view(&key("a", false));
    assert!(!feed.is_answered(&name("a")) && view.endpoints().list.is_empty());
    let plain = wire::Workload { tunnel_protocol: 0, ..workload("w2", "10.0.0.2", "a") };
    let own_port =
        wire::PortList { ports: vec![wire::Port { service_port: 80, target_port: 9090, ..wire::Port::default() }] };
    let other_port = wire::Workload {
        services: [("ns/a".to_owned(), own_port)].into(),
        status: wire::WorkloadStatus::Unhealthy.into(),
        ..workload("w3", "10.0.0.3", "a")
    };
    let all = vec![
        of_workload(workload("w1", "10.0.0.1", "a")),
        of_workload(plain),
        of_workload(other_port),
        of_service(service("a")),
    ];
    assert!(feed.apply(all, &[]).is_empty());
    assert!(feed.is_answered(&name("a")));
    let set = view.endpoints();
    assert_eq!(addresses(&view), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9090"]);
    let proxy = "10.0.0.1:15008".parse().unwrap();
    let expected = ["spiffe://cluster.local/ns/ns/sa/w1".parse().unwrap()].into();
    assert_eq!(set.list[0].transport, Transport::Hbone { proxy, expected });
    assert_eq!((&set.list[1].transport, &set.list[1].identity), (&Transport::Plain, &None));
    assert!(set.list[0].healthy && !set.list[2].healthy);
    feed.apply(vec![of_workload(workload("w1", "10.0.0.1", "a"))], &[]);
    assert_eq!(view.endpoints().version, set.version, "nothing has changed");
    feed.apply(vec![], &["w2".into(), "w3".into()]);
    assert_eq!(addresses(&view), ["10.0.0.1:8080"]);
    assert!(view.endpoints().version > set.version);
    feed.apply(vec![], &["ns/a".into()]);
    assert!(!view.endpoints().exists && view.endpoints().list.is_empty());
}

#[test]
fn a_bad_workload_is_refused_and_the_others_are_taken() {
    let mut feed = feed();
    feed.follow([(name("a"), false)].into());
    let view = feed.view(&key("a", false));
    let bad = wire::Workload { addresses: vec![vec![1, 2, 3]], ..workload("bad", "10.0.0.1", "a") };
    let all = vec![of_workload(bad), of_workload(workload("w1", "10.0.0.1", "a")), of_service(service("a"))];
    let rejected = feed.apply(all, &[]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(
        (rejected[0].name.as_str(), rejected[0].reason.as_str()),
        ("bad", "addresses[0]: 3 bytes, expected 4 or 16 bytes")
    );
    assert_eq!(addresses(&view), ["10.0.0.1:8080"]);
}

#[test]
fn services_through_their_waypoint_are_called_by_their_own_address_or_not_at_all() {
    let mut feed = feed();
    feed.follow([(name("a"), true)].into());
    let view = feed.view(&key("a", true));
    let waypoint = wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
            namespace: "ns".into(),
            hostname: "wp".into(),
        })),
        hbone_mtls_port: 15008,
    };
    let guarded = wire::Service { waypoint: Some(waypoint), ..service("a") };
    feed.apply(vec![of_workload(workload("w1", "10.0.0.1", "a")), of_service(guarded)], &[]);
    assert!(view.endpoints().exists && addresses(&view).is_empty(), "never past a waypoint that is not known");
    let of_waypoint = wire::Service { addresses: vec![], ports: vec![], ..service("wp") };
    feed.apply(vec![of_workload(workload("wp-1", "10.0.0.7", "wp")), of_service(of_waypoint)], &[]);
    assert_eq!(addresses(&view), ["10.9.0.1:80"]);
    let Transport::Hbone { proxy, expected } = &view.endpoints().list[0].transport else { panic!("a tunnel") };
    assert_eq!(proxy.to_string(), "10.0.0.7:15008");
    assert_eq!(expected[0].to_string(), "spiffe://cluster.local/ns/ns/sa/wp-1");
}

#[test]
fn workloads_of_other_networks_are_reached_through_their_gateway_or_not_at_all() {
    let mut feed = feed();
    feed.follow([(name("a"), false)].into());
    let view = feed.view(&key("a", false));
    let gateway = wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
            namespace: "ns".into(),
            hostname: "ew".into(),
        })),
        hbone_mtls_port: 15008,
    };
    let far =
        wire::Workload { network: "n2".into(), network_gateway: Some(gateway), ..workload("far", "10.0.0.1", "a") };
    let identity = "spiffe://cluster.local/ns/ns/sa/far";
    let remote = wire::Service { subject_alt_names: vec![identity.into()], ..service("a") };
    feed.apply(vec![of_workload(far), of_service(remote)], &[]);
    assert!(addresses(&view).is_empty());
    let of_gateway = wire::Service { addresses: vec![], ports: vec![], ..service("ew") };
    feed.apply(vec![of_workload(workload("ew-1", "10.0.0.8", "ew")), of_service(of_gateway)], &[]);
    let set = view.endpoints();
    let Transport::Nested { gateway, authority, expected, .. } = &set.list[0].transport else { panic!("nested") };
    assert_eq!((gateway.to_string().as_str(), &**authority), ("10.0.0.8:15008", "a:80"));
    assert_eq!(expected[0].to_string(), identity);
}

#[test]
fn what_is_no_longer_followed_is_forgotten() {
    let mut feed = feed();
    feed.follow([(name("a"), false), (name("b"), false)].into());
    let view = feed.view(&key("a", false));
    let both = vec![
        of_workload(workload("w1", "10.0.0.1", "a")),
        of_workload(workload("w2", "10.0.0.2", "b")),
        of_service(service("a")),
        of_service(service("b")),
    ];
    feed.apply(both, &[]);
    assert_eq!(addresses(&view), ["10.0.0.1:8080"]);
    drop(view);
    feed.follow([(name("b"), false)].into());
    assert!(!feed.is_answered(&name("a")) && feed.is_answered(&name("b")));
    assert!(feed.store().views().iter().all(|view| *view.key().hostname != *"a"));
    let again = feed.view(&key("a", false));
    assert!(!again.endpoints().exists, "asked for anew when it is wanted again");
}

/// Who may write services and slices can say that somebody else's pod is an endpoint of theirs.
#[test]
fn a_guarded_port_of_a_pod_is_no_endpoint_of_services_of_other_namespaces() {
    let mut feed = feed();
    let evil = wire::Service { namespace: "evil".into(), ..service("x") };
    let pod = |services: &[&str]| {
        let ports = || wire::PortList {
            ports: vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }],
        };
        let services = services.iter().map(|name| ((*name).to_owned(), ports())).collect();
        wire::Workload { uid: "c//Pod/ns/cart-1".into(), services, ..workload("cart-1", "10.0.0.1", "cart") }
    };
    let guarded = |guards: bool| {
        let mark = wire::Extension { name: mesh_wire::meltemi::WAYPOINT_REQUIRED.into(), config: None };
        wire::Service { extensions: if guards { vec![mark] } else { vec![] }, ..service("cart") }
    };
    let of = |namespace: &str, host: &str| ServiceKey { namespace: namespace.into(), ..key(host, false) };
    let (taken, own) = (feed.view(&of("evil", "x")), feed.view(&of("ns", "cart")));
    let count = || (taken.endpoints().list.len(), own.endpoints().list.len());
    feed.follow([(NamespacedName::new("evil", "x"), false), (name("cart"), false)].into());
    feed.apply(
        vec![of_service(evil.clone()), of_service(guarded(false)), of_workload(pod(&["ns/cart", "evil/x"]))],
        &[],
    );
    assert_eq!(count(), (1, 1), "nothing is guarded");
    feed.apply(vec![of_service(guarded(true))], &[]);
    assert_eq!(count(), (0, 1), "guarded, and still an endpoint of its own service");
    // The same by its address: somebody else's workload that claims to be there.
    let claimed = wire::Workload {
        uid: "c/networking.istio.io/ServiceEntry/evil/x/10.0.0.1".into(),
        namespace: "evil".into(),
        services: [("evil/x".to_owned(), wire::PortList::default())].into(),
        ..workload("claimed", "10.0.0.1", "x")
    };
    feed.apply(vec![of_workload(pod(&["ns/cart"])), of_workload(claimed)], &[]);
    assert_eq!(count(), (0, 1));
    feed.apply(vec![of_service(guarded(false))], &[]);
    assert_eq!(count(), (1, 1));
    // What the others guard takes nothing from the pod's own service.
    let mark = guarded(true).extensions;
    feed.apply(vec![of_service(wire::Service { extensions: mark, ..evil })], &[]);
    assert_eq!(count(), (1, 1));
}

#[test]
fn calls_to_a_workload_are_told_apart_by_the_services_that_it_serves() {
    let mut feed = feed();
    feed.serve_workloads(true);
    let store = feed.store().clone();
    let destination = wire::NamespacedHostname { namespace: "ns".into(), hostname: "wp".into() };
    let waypoint = wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Hostname(destination)),
        hbone_mtls_port: 15008,
    };
    feed.apply(
        vec![of_workload(wire::Workload { waypoint: Some(waypoint), ..workload("w", "10.0.0.1", "cart") })],
        &[],
    );
    let said = |port| store.guarded(&store.workload("10.0.0.1".parse().unwrap()).unwrap(), port);
    assert_eq!(said(8080), Guarded::Unknown(vec![name("cart")]));
    let changes = store.guards_changes();
    let mut cart = service("cart");
    cart.extensions = vec![wire::Extension { name: mesh_wire::meltemi::WAYPOINT_REQUIRED.into(), config: None }];
    feed.apply(vec![of_service(cart)], &[]);
    assert_eq!((said(8080), said(8081)), (Guarded::By(name("cart")), Guarded::No));
    assert!(changes.has_changed().unwrap());
    feed.apply(vec![of_service(service("cart"))], &[]);
    assert_eq!(said(8080), Guarded::No);
    feed.apply(vec![], &["ns/cart".to_owned()]);
    assert_eq!(said(8080), Guarded::No, "the control plane knows of no such service");
}

/// The address of a host-network pod is that of its node: kubelet and whatever else listens there are not for callers.
#[test]
fn addresses_of_nodes_are_not_served() {
    let address = mesh_core::NetworkAddr::new("n1", "10.9.0.9".parse().unwrap());
    let place = Place { network: "n1".into(), addresses: [address].into(), ..Place::default() };
    let mut message = workload("pod", "10.0.0.1", "a");
    message.waypoint = Some(wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Address(wire::NetworkAddress {
            network: "n1".into(),
            address: bytes("10.9.0.9"),
            length: None,
        })),
        ..wire::GatewayAddress::default()
    });
    let served = |message: &wire::Workload| {
        let mut words = words::Words::default();
        Peer::for_test(Workload::decode(message.clone(), &mut words).unwrap()).is_served_from(&place)
    };
    assert!(served(&message));
    message.network_mode = wire::NetworkMode::HostNetwork.into();
    assert!(!served(&message));
}
