#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": spec})).unwrap()
}

fn slice(address_type: &str, endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": address_type, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]
        }))
        .unwrap(),
    )
}

fn endpoint(ip: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({"addresses": [ip], "nodeName": node,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
}

fn dual() -> Service {
    service(json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:10:96::5"],
        "ports": [{"name": "http", "port": 80}]}))
}

#[test]
fn only_ready_endpoints_of_the_family_are_chosen() {
    let slices = [
        slice(
            "IPv4",
            json!([
                endpoint("10.244.1.2", "node-1", true, true, false),
                endpoint("10.244.2.2", "node-2", false, false, false),
                endpoint("10.244.2.3", "node-2", false, true, true)
            ]),
        ),
        slice("IPv6", json!([endpoint("fd00::2", "node-1", true, true, false)])),
    ];
    let ports = service_ports(&dual(), &slices, "node-1");
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[0].endpoints, [("10.244.1.2".parse().unwrap(), 8080)]);
    assert_eq!(ports[1].endpoints, [("fd00::2".parse().unwrap(), 8080)]);
}

#[test]
fn the_last_pods_serve_until_they_are_gone() {
    let leaving = [slice(
        "IPv4",
        json!([
            endpoint("10.244.2.2", "node-2", false, false, false),
            endpoint("10.244.2.3", "node-2", false, true, true)
        ]),
    )];
    let ports = service_ports(&dual(), &leaving, "node-1");
    assert_eq!(ports[0].endpoints, [("10.244.2.3".parse().unwrap(), 8080)]);
    assert!(ports[1].endpoints.is_empty());
}

#[test]
fn local_traffic_stays_on_the_node_and_headless_has_no_rules() {
    let slices = [slice(
        "IPv4",
        json!([
            endpoint("10.244.1.2", "node-1", true, true, false),
            endpoint("10.244.2.2", "node-2", true, true, false)
        ]),
    )];
    let local = service(json!({"clusterIP": "10.96.0.5", "internalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80}]}));
    assert_eq!(service_ports(&local, &slices, "node-2")[0].endpoints, [("10.244.2.2".parse().unwrap(), 8080)]);
    assert!(service_ports(&local, &slices, "node-3")[0].endpoints.is_empty());
    let headless = service(json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
    assert!(service_ports(&headless, &slices, "node-1").is_empty());
    let external = service(json!({"type": "ExternalName", "externalName": "x.org"}));
    assert!(service_ports(&external, &slices, "node-1").is_empty());
}

fn example() -> Vec<ServicePort> {
    let port = |address: &str, number, node_port, endpoints: &[(&str, u16)]| ServicePort {
        service: "demo/web".into(),
        address: address.parse().unwrap(),
        protocol: "tcp",
        port: number,
        node_port,
        endpoints: endpoints.iter().map(|(ip, port)| (ip.parse().unwrap(), *port)).collect(),
    };
    vec![
        port("10.96.0.5", 80, Some(30080), &[("10.244.1.2", 8080), ("10.244.2.2", 8080)]),
        port("10.96.0.5", 81, None, &[]),
        port("fd00:10:96::5", 80, None, &[("fd00:10:244:1::2", 8080)]),
    ]
}

#[test]
fn the_rules_are_these() {
    let text = render(&example());
    let (own, hooks) = text.split_once(HOOKS).unwrap();
    assert_eq!(hooks, "}\n");
    assert_eq!(own, include_str!("golden.nft"));
}

/// The tool and the kernel accept what is rendered; needs the right to make namespaces.
#[test]
fn the_kernel_takes_the_rules() {
    let Ok(netns) = mesh_sys::netns::NetNs::create() else {
        eprintln!("skipped: no right to make a network namespace");
        return;
    };
    for ports in [example(), Vec::new()] {
        let text = render(&ports);
        let table = netns.run(|| {
            mesh_sys::nft::apply(&text).unwrap();
            // Twice: the old table is replaced, not added to.
            mesh_sys::nft::apply(&text).unwrap();
            mesh_sys::nft::list_table("inet", TABLE).unwrap().unwrap()
        });
        assert_eq!(
            table.unwrap().matches(" to numgen ").count(),
            ports.iter().filter(|port| !port.endpoints.is_empty()).count()
        );
    }
}

#[test]
fn addresses_of_a_load_balancer_lead_where_the_cluster_ip_leads() {
    let mut service = service(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.5",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}));
    service.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}})).unwrap();
    let slices = [slice("IPv4", json!([endpoint("10.244.1.2", "node-1", true, true, false)]))];
    let mut ports = service_ports(&service, &slices, "node-1");
    ports.sort_by(|one, other| one.order().cmp(&other.order()));
    let text = render(&ports);
    for line in [
        "10.96.0.5 . tcp . 80 : goto service-demo/web/tcp/80/v4",
        "203.0.113.1 . tcp . 80 : goto service-demo/web/tcp/80/v4",
        "tcp . 30080 : goto node-service-demo/web/tcp/80/v4",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
    }
    assert_eq!(text.matches("chain service-demo/web").count(), 1, "{text}");
}
