//! What the proxy makes of the resources it is told: indexes, order, balancing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use conformance::isolated_test;
use conformance::net::Pod;
use conformance::wait::soon;
use conformance::wire::ADDRESS;
use conformance::wire::workload::{
    HOST_NETWORK, LoadBalancing, Locality, MODE_FAILOVER, MODE_STRICT, NetworkAddress, SCOPE_NETWORK, SCOPE_NODE,
    SCOPE_REGION, SCOPE_ZONE, Service, UNHEALTHY, VISIBILITY_NAMESPACE, Workload,
};
use conformance::world::{Running, World, backing, octets, service, svc, wl, workload};

const VIP: &str = "172.20.0.9";

/// Clients and plain servers: a server answers with its own name.
struct Fair {
    world: World,
    web: Pod,
    running: Running,
}

impl Fair {
    async fn open() -> Self {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        world.ads.set(vec![wl(&workload(&web, 1))]);
        let running = world.start(&[]).await;
        running.enrol(&web).await;
        Self { world, web, running }
    }

    /// A pod that answers with its name at 8080.
    fn server(&self, name: &str, ip: &str) -> Pod {
        let pod = self.world.hub.pod("shop", name, ip);
        serve_name(&pod, 8080);
        pod
    }

    async fn tell(&self, services: &[&Service], workloads: &[Workload]) {
        let services = services.iter().map(|service| svc(service));
        self.world.ads.apply(services.chain(workloads.iter().map(wl)).collect()).await;
    }

    /// Who answers at an address, `nobody` if nobody does.
    async fn who(&self, to: SocketAddr) -> String {
        who(&self.web, to).await
    }

    async fn who_at_vip(&self) -> String {
        self.who(SocketAddr::new(VIP.parse().unwrap(), 80)).await
    }

    /// How often each answers at the service's address.
    async fn share(&self, times: usize) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for _ in 0..times {
            *seen.entry(self.who_at_vip().await).or_default() += 1;
        }
        seen
    }
}

fn serve_name(pod: &Pod, port: u16) {
    let (listener, name) = (pod.listen_any(port), pod.name.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let name = name.clone();
            tokio::spawn(async move {
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await;
            });
        }
    });
}

async fn who(from: &Pod, to: SocketAddr) -> String {
    match soon("an answer or an end", from.ask(to, "?")).await {
        Ok(name) if !name.is_empty() => name,
        _ => "nobody".to_owned(),
    }
}

fn cart() -> Service {
    service("shop", "cart", &[VIP], &[(80, 8080)])
}

fn endpoint(pod: &Pod) -> Workload {
    backing(workload(pod, 0), &cart(), &[(80, 8080)])
}

fn balanced(mode: i32, scopes: &[i32]) -> Service {
    let load_balancing = LoadBalancing { mode, routing_preference: scopes.to_vec(), health_policy: 0 };
    Service { load_balancing: Some(load_balancing), ..cart() }
}

fn locality(region: &str, zone: &str) -> Option<Locality> {
    Some(Locality { region: region.into(), zone: zone.into(), subzone: String::new() })
}

isolated_test! {
    async fn wds_row_2_and_3_endpoints_wait_for_their_service_and_leave_it() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        fair.tell(&[], &[endpoint(&one)]).await;
        fair.tell(&[&cart()], &[]).await;
        assert_eq!(fair.who_at_vip().await, "one");
        fair.tell(&[], &[Workload { services: Default::default(), ..endpoint(&one) }]).await;
        assert_eq!(fair.who_at_vip().await, "nobody");
    }
}

isolated_test! {
    async fn wds_row_4_unhealthy_endpoints_are_not_used_unless_all_are_wanted() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        let sick = Workload { status: UNHEALTHY, ..endpoint(&one) };
        fair.tell(&[&cart()], std::slice::from_ref(&sick)).await;
        assert_eq!(fair.who_at_vip().await, "nobody");
        let all = LoadBalancing { health_policy: 1, ..Default::default() };
        fair.tell(&[&Service { load_balancing: Some(all), ..cart() }], &[sick]).await;
        assert_eq!(fair.who_at_vip().await, "one");
        fair.tell(&[&cart()], &[endpoint(&one)]).await;
        assert_eq!(fair.who_at_vip().await, "one");
    }
}

isolated_test! {
    async fn wds_row_9_a_pod_wins_over_an_entry_of_its_address_until_it_goes() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        let entry = Workload {
            uid: "cluster-1/networking.istio.io/WorkloadEntry/shop/one".into(),
            ..workload(&one, 0)
        };
        let pod = workload(&one, 1);
        let tunnels = conformance::peer::Server::listen(&one, 15008, fair.world.server_tls(&one.identity()));
        for both in [[entry.clone(), pod.clone()], [pod.clone(), entry.clone()]] {
            fair.tell(&[], &both).await;
            let app = fair.web.connect(one.at(8080)).await.unwrap();
            assert_eq!(tunnels.stream().await.authority, "10.1.0.11:8080", "the pod is in the mesh");
            drop(app);
            fair.world.ads.withdraw(ADDRESS, &[&pod.uid]).await;
            assert_eq!(fair.who(one.at(8080)).await, "one", "the entry is not");
            fair.world.ads.withdraw(ADDRESS, &[&entry.uid]).await;
        }
    }
}

isolated_test! {
    async fn wds_row_10_and_11_the_clients_namespace_decides_among_services_of_one_address() {
        let fair = Fair::open().await;
        let mut all = Vec::new();
        for (namespace, ip) in [("x", "10.1.0.21"), ("y", "10.1.0.22"), ("z", "10.1.0.23")] {
            let pod = fair.server(namespace, ip);
            let mut own = service(namespace, "w", &[VIP], &[(80, 8080)]);
            own.hostname = "w.example".into();
            own.canonical = namespace == "x";
            own.visibility = if namespace == "z" { VISIBILITY_NAMESPACE } else { 0 };
            fair.tell(&[&own], &[backing(workload(&pod, 0), &own, &[(80, 8080)])]).await;
            all.push((own, pod));
        }
        for (number, (namespace, expected)) in [("y", "y"), ("z", "z"), ("q", "x")].into_iter().enumerate() {
            let client = fair.world.hub.pod(namespace, &format!("client-{namespace}"), &format!("10.1.0.3{number}"));
            fair.tell(&[], &[workload(&client, 1)]).await;
            fair.running.enrol(&client).await;
            let at_vip = SocketAddr::new(VIP.parse().unwrap(), 80);
            assert_eq!(who(&client, at_vip).await, expected, "from namespace {namespace}");
            if namespace == "q" {
                // Only the private one is left: it is as if there were none, and the address is passed through.
                fair.world.ads.withdraw(ADDRESS, &["x/w.example", "y/w.example"]).await;
                let stranger = fair.world.hub.pod("out", "stranger", "10.9.0.9");
                stranger.add_address("172.20.0.9/32");
                serve_name(&stranger, 80);
                assert_eq!(who(&client, at_vip).await, "stranger");
            }
        }
    }
}

isolated_test! {
    async fn wds_row_12_an_exact_address_wins_over_a_range() {
        let fair = Fair::open().await;
        let range = NetworkAddress {
            network: "n1".into(),
            address: octets("198.18.0.0".parse().unwrap()),
            length: Some(15),
        };
        let wide = Service { addresses: vec![range.clone()], ..service("shop", "wide", &[], &[(80, 8080)]) };
        let narrower = NetworkAddress { length: Some(24), ..range };
        let narrow = Service { addresses: vec![narrower], ..service("shop", "narrow", &[], &[(80, 8080)]) };
        let exact = service("shop", "exact", &["198.18.0.9"], &[(80, 8080)]);
        let mut workloads = Vec::new();
        for (service, ip) in [(&wide, "10.1.0.21"), (&narrow, "10.1.0.22"), (&exact, "10.1.0.23")] {
            let pod = fair.server(&service.name, ip);
            workloads.push(backing(workload(&pod, 0), service, &[(80, 8080)]));
        }
        fair.tell(&[&wide, &narrow, &exact], &workloads).await;
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        assert_eq!(fair.who(at("198.18.0.9")).await, "exact");
        assert_eq!(fair.who(at("198.18.0.10")).await, "narrow");
        assert_eq!(fair.who(at("198.19.200.1")).await, "wide");
        // A range shows its current endpoints like any other service.
        fair.world.ads.withdraw(ADDRESS, &["cluster-1//Pod/shop/wide"]).await;
        assert_eq!(fair.who(at("198.19.200.1")).await, "nobody");
    }
}

isolated_test! {
    async fn wds_row_13_failover_takes_the_best_rank_only() {
        let fair = Fair::open().await;
        let web = Workload { locality: locality("r1", "z9"), ..workload(&fair.web, 1) };
        let mut all = vec![web];
        for (name, ip, place) in [
            ("a", "10.1.0.21", locality("r1", "z1")),
            ("b", "10.1.0.22", locality("r1", "z2")),
            ("c", "10.1.0.23", locality("r2", "z1")),
        ] {
            all.push(Workload { locality: place, ..endpoint(&fair.server(name, ip)) });
        }
        fair.tell(&[&balanced(MODE_FAILOVER, &[SCOPE_REGION, SCOPE_ZONE])], &all).await;
        let seen = fair.share(30).await;
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["a", "b"], "{seen:?}");
    }
}

isolated_test! {
    async fn wds_row_14_strict_without_a_match_has_no_upstream() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        let elsewhere = Workload { node: "node-2".into(), ..endpoint(&one) };
        fair.tell(&[&balanced(MODE_STRICT, &[SCOPE_NODE])], &[elsewhere]).await;
        assert_eq!(fair.who_at_vip().await, "nobody");
        fair.tell(&[], &[endpoint(&one)]).await;
        assert_eq!(fair.who_at_vip().await, "one");
    }
}

isolated_test! {
    async fn wds_row_15_the_own_network_comes_first_when_it_is_listed_first() {
        let fair = Fair::open().await;
        let web = Workload { locality: locality("r", "z1"), ..workload(&fair.web, 1) };
        let near = Workload { locality: locality("r", "z9"), ..endpoint(&fair.server("near", "10.1.0.21")) };
        let far_pod = fair.world.hub.pod("shop", "far", "10.1.0.22");
        let far = Workload {
            network: "n2".into(),
            locality: locality("r", "z1"),
            addresses: Vec::new(),
            network_gateway: Some(conformance::world::gateway_at("n2", "192.0.2.10")),
            ..endpoint(&far_pod)
        };
        fair.tell(&[&balanced(MODE_FAILOVER, &[SCOPE_NETWORK, SCOPE_ZONE])], &[web, near, far]).await;
        assert_eq!(fair.share(15).await, [("near".to_owned(), 15)].into());
    }
}

isolated_test! {
    async fn wds_row_16_capacities_are_weights() {
        let fair = Fair::open().await;
        let mut all = Vec::new();
        for (name, ip, capacity) in [("three", "10.1.0.21", 3), ("one", "10.1.0.22", 1), ("none", "10.1.0.23", 0)] {
            all.push(Workload { capacity: Some(capacity), ..endpoint(&fair.server(name, ip)) });
        }
        fair.tell(&[&cart()], &all).await;
        let seen = fair.share(400).await;
        assert!(!seen.contains_key("none"), "{seen:?}");
        // Five standard deviations to each side of 300.
        assert!((255..=345).contains(&seen["three"]), "{seen:?}");
    }
}

isolated_test! {
    async fn wds_row_19_a_host_network_endpoint_is_reached_through_its_service() {
        let fair = Fair::open().await;
        let node = fair.world.hub.pod("shop", "node-pod", "10.0.0.40");
        serve_name(&node, 9100);
        let exporter = service("shop", "exporter", &[VIP], &[(80, 9100)]);
        let host = Workload { network_mode: HOST_NETWORK, ..backing(workload(&node, 0), &exporter, &[(80, 9100)]) };
        fair.tell(&[&exporter], &[host]).await;
        assert_eq!(fair.who_at_vip().await, "node-pod");
    }
}

isolated_test! {
    async fn wds_row_20_an_endpoint_without_the_named_port_is_never_chosen() {
        let fair = Fair::open().await;
        let named = service("shop", "cart", &[VIP], &[(80, 0)]);
        let has = backing(workload(&fair.server("has", "10.1.0.21"), 0), &named, &[(80, 8080)]);
        let lacks = backing(workload(&fair.server("lacks", "10.1.0.22"), 0), &named, &[]);
        fair.tell(&[&named], &[has, lacks]).await;
        assert_eq!(fair.share(20).await, [("has".to_owned(), 20)].into());
    }
}

isolated_test! {
    async fn wds_an_endpoints_own_port_goes_before_the_services() {
        let fair = Fair::open().await;
        let pod = fair.world.hub.pod("shop", "own-port", "10.1.0.21");
        serve_name(&pod, 9090);
        fair.tell(&[&cart()], &[backing(workload(&pod, 0), &cart(), &[(80, 9090)])]).await;
        assert_eq!(fair.who_at_vip().await, "own-port");
    }
}

isolated_test! {
    async fn wds_a_pod_that_joins_the_mesh_is_reached_by_tunnel_from_then_on() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        fair.tell(&[&cart()], &[endpoint(&one)]).await;
        assert_eq!(fair.who_at_vip().await, "one");
        let tunnels = conformance::peer::Server::listen(&one, 15008, fair.world.server_tls(&one.identity()));
        fair.tell(&[], &[Workload { tunnel_protocol: 1, ..endpoint(&one) }]).await;
        let _app = fair.web.connect(SocketAddr::new(VIP.parse().unwrap(), 80)).await.unwrap();
        assert_eq!(tunnels.stream().await.authority, "10.1.0.11:8080");
    }
}

isolated_test! {
    async fn wds_a_restarted_pod_with_a_new_address_leaves_nothing_behind() {
        let fair = Fair::open().await;
        let old = fair.server("one", "10.1.0.11");
        let new = fair.server("one", "10.1.0.12");
        fair.tell(&[&cart()], &[endpoint(&old)]).await;
        fair.tell(&[], &[endpoint(&new)]).await;
        drop(old);
        assert_eq!(fair.share(10).await, [("one".to_owned(), 10)].into());
        let dump = fair.running.proxy.dump().await;
        let cart = dump["services"].as_array().unwrap().iter().find(|s| s["name"] == "cart").unwrap();
        assert_eq!(cart["endpoints"].as_object().unwrap().len(), 1, "{cart}");
    }
}

isolated_test! {
    async fn wds_a_service_that_returns_knows_the_endpoints_that_were_told_since() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        fair.tell(&[&cart()], &[endpoint(&one)]).await;
        fair.world.ads.withdraw(ADDRESS, &["shop/cart.shop.svc.cluster.local"]).await;
        fair.tell(&[&cart()], &[]).await;
        assert_eq!(fair.who_at_vip().await, "nobody");
        fair.tell(&[], &[endpoint(&one)]).await;
        assert_eq!(fair.who_at_vip().await, "one");
    }
}

isolated_test! {
    async fn wds_a_service_keeps_its_endpoints_when_it_changes() {
        let fair = Fair::open().await;
        let one = fair.server("one", "10.1.0.11");
        fair.tell(&[&cart()], &[endpoint(&one)]).await;
        let moved = service("shop", "cart", &["172.20.0.10"], &[(80, 8080)]);
        fair.tell(&[&moved], &[]).await;
        assert_eq!(fair.who(SocketAddr::new("172.20.0.10".parse().unwrap(), 80)).await, "one");
        let stranger = fair.server("stranger", "10.9.0.9");
        stranger.add_address("172.20.0.9/32");
        serve_name(&stranger, 80);
        assert_eq!(fair.who_at_vip().await, "stranger", "the old address is nobody's, and passed through");
    }
}
