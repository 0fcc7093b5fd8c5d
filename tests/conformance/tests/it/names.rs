//! The DNS proxy of a pod.

use std::net::SocketAddr;

use conformance::dns::{self, A, AAAA, CNAME, MX, Message, NOERROR, NameServer, Query, SRV, TXT, ask, ask_tcp, query};
use conformance::isolated_test;
use conformance::net::Pod;
use conformance::wire::workload::{IPV4_ONLY, NetworkAddress, Service, UNHEALTHY, VISIBILITY_NAMESPACE, Workload};
use conformance::world::{NAME_SERVER, Running, World, address, backing, octets, service, svc, wl, workload};

const VIP: &str = "172.20.0.9";

/// A pod that asks, and the name server beyond.
struct Names {
    world: World,
    web: Pod,
    cart: Pod,
    running: Running,
    upstream: NameServer,
    server: SocketAddr,
}

/// What the name server beyond answers to everything: an address that no service has.
fn beyond(query: &Query) -> Option<Vec<u8>> {
    let (host, kind) = query.message.question.clone()?;
    let answers = match kind {
        A => vec![(A, 77, vec![192, 0, 2, 99])],
        MX => vec![(MX, 60, [vec![0, 10], dns::encode("mail.example")].concat())],
        TXT => vec![(TXT, 60, b"\x05hello".to_vec())],
        SRV => vec![(SRV, 60, [vec![0, 1, 0, 2, 0, 80], dns::encode("x.example")].concat())],
        _ => Vec::new(),
    };
    Some(dns::message(query.message.id, 0x8180, &host, kind, &answers))
}

impl Names {
    async fn open() -> Self {
        Self::open_with(beyond).await
    }

    async fn open_with(behaviour: fn(&Query) -> Option<Vec<u8>>) -> Self {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let dns = world.hub.pod("kube-system", "dns", NAME_SERVER);
        let upstream = NameServer::serve(&dns, behaviour);
        let cart_service = service("shop", "cart", &[VIP], &[(80, 8080)]);
        let endpoint = backing(workload(&cart, 1), &cart_service, &[(80, 8080)]);
        world.ads.set(vec![wl(&workload(&web, 1)), svc(&cart_service), wl(&endpoint)]);
        let running = world.start(&[("ISTIO_META_DNS_CAPTURE", "true")]).await;
        running.enrol_with_dns(&web).await;
        // What the application believes to be its name server: capture redirects it.
        let server = SocketAddr::new(NAME_SERVER.parse().unwrap(), 53);
        Self { world, web, cart, running, upstream, server }
    }

    async fn ask(&self, host: &str, kind: u16) -> Message {
        let answer = ask(&self.web, self.server, &query(0x1234, host, kind)).await;
        assert_eq!(answer.id, 0x1234);
        assert!(answer.response());
        answer
    }

    /// The addresses of a name.
    async fn resolve(&self, host: &str) -> Vec<String> {
        let mut all: Vec<_> = self.ask(host, A).await.addresses().into_iter().map(|(_, ip)| ip.to_string()).collect();
        all.sort();
        all
    }

    async fn tell(&self, service: &Service, workloads: &[Workload]) {
        let all = std::iter::once(svc(service)).chain(workloads.iter().map(wl));
        self.world.ads.apply(all.collect()).await;
    }

    fn forwarded(&self) -> usize {
        self.upstream.queries().len()
    }
}

isolated_test! {
    async fn ops_row_9_a_short_name_is_answered_here() {
        let names = Names::open().await;
        let answer = names.ask("cart", A).await;
        assert_eq!(answer.rcode(), NOERROR);
        assert!(answer.authoritative() && answer.recursion_available());
        assert_eq!(answer.addresses(), [("cart.".to_owned(), VIP.parse().unwrap())]);
        assert_eq!(answer.answers[0].ttl, 30);
        assert_eq!(answer.answers[0].class, 1);
        assert_eq!(answer.question, Some(("cart.".to_owned(), A)));
        for host in ["cart.shop", "cart.shop.svc", "CART.shop.SVC.cluster.local", "cart.shop.svc.cluster.local."] {
            assert_eq!(names.resolve(host).await, [VIP], "{host}");
        }
        assert_eq!(names.forwarded(), 0);
        let by_tcp = ask_tcp(&names.web, names.server, &query(7, "cart", A)).await;
        assert_eq!(by_tcp.addresses().len(), 1);
        let labels = [("request_query_type", "a"), ("request_protocol", "udp")];
        assert!(names.running.proxy.metric("istio_dns_requests_total", &labels).await >= 5.0);
    }
}

isolated_test! {
    async fn ops_row_10_a_name_with_a_search_domain_gets_a_cname() {
        let names = Names::open().await;
        let host = "cart.shop.svc.cluster.local.shop.svc.cluster.local";
        let answer = names.ask(host, A).await;
        assert!(answer.authoritative());
        let [cname, a] = &answer.answers[..] else { panic!("{answer:?}") };
        assert_eq!((cname.kind, cname.owner.as_str()), (CNAME, format!("{host}.").as_str()));
        assert_eq!(cname.name.as_deref(), Some("cart.shop.svc.cluster.local."));
        assert_eq!((a.kind, a.owner.as_str()), (A, "cart.shop.svc.cluster.local."));
        assert_eq!((cname.ttl, a.ttl), (30, 30));
        assert_eq!(names.forwarded(), 0);
    }
}

isolated_test! {
    async fn ops_row_11_a_family_that_a_service_lacks_is_an_empty_answer() {
        let names = Names::open().await;
        let answer = names.ask("cart.shop", AAAA).await;
        assert_eq!((answer.rcode(), answer.answers.len()), (NOERROR, 0));
        assert!(answer.authoritative());
        // Addresses that the service's families exclude are not shown either.
        let both = Service { ip_families: IPV4_ONLY, ..service("shop", "four", &["172.20.0.4", "fd99::4"], &[(80, 80)]) };
        names.tell(&both, &[]).await;
        assert!(names.ask("four", AAAA).await.answers.is_empty());
        assert_eq!(names.resolve("four").await, ["172.20.0.4"]);
        assert_eq!(names.forwarded(), 0);
    }
}

isolated_test! {
    async fn ops_row_12_a_wildcard_answers_under_the_name_that_was_asked() {
        let names = Names::open().await;
        let mut wild = service("shop", "wild", &["240.0.0.4"], &[(443, 443)]);
        wild.hostname = "*.api.test".into();
        names.tell(&wild, &[]).await;
        let answer = names.ask("v1.eu.api.test", A).await;
        assert_eq!(answer.addresses(), [("v1.eu.api.test.".to_owned(), "240.0.0.4".parse().unwrap())]);
        let searched = names.ask("v1.eu.api.test.shop.svc.cluster.local", A).await;
        let owner = "v1.eu.api.test.shop.svc.cluster.local.".to_owned();
        assert_eq!(searched.addresses(), [(owner, "240.0.0.4".parse().unwrap())], "no CNAME for a wildcard");
        assert_eq!(names.resolve("api.test").await, ["192.0.2.99"], "the wildcard does not cover its own parent");
        assert_eq!(names.forwarded(), 1);
    }
}

isolated_test! {
    async fn ops_row_13_addresses_of_other_networks_are_not_shown() {
        let names = Names::open().await;
        let far = Service { addresses: vec![address("n2", "172.20.9.9")], ..service("shop", "far", &[], &[(80, 80)]) };
        names.tell(&far, &[]).await;
        let answer = names.ask("far", A).await;
        assert_eq!((answer.rcode(), answer.answers.len()), (NOERROR, 0));
        assert!(answer.authoritative());
        assert_eq!(names.forwarded(), 0);
    }
}

isolated_test! {
    async fn ops_row_14_other_types_are_forwarded_untouched() {
        let names = Names::open().await;
        for (number, kind) in [MX, TXT, SRV, 64].into_iter().enumerate() {
            let asked = query(0x4242, "cart.shop", kind);
            let answer = ask(&names.web, names.server, &asked).await;
            let seen = names.upstream.queries()[number].clone();
            assert_eq!(seen.message.raw[2..], asked[2..], "the query as it came, whatever its id");
            let expected = beyond(&Query { message: Message::read(&asked).unwrap(), ..seen }).unwrap();
            assert_eq!(answer.raw, expected, "the answer as it came");
            assert!(!answer.authoritative());
        }
        assert_eq!(names.upstream.queries()[0].from.ip(), names.web.v4, "asked from inside the pod");
        let labels = [("request_query_type", "mx")];
        names.running.proxy.metric_is("istio_dns_upstream_requests_total", &labels, 1.0).await;
    }
}

isolated_test! {
    async fn ops_row_15_a_service_without_addresses_outside_the_cluster_is_forwarded() {
        let names = Names::open().await;
        let mut external = service("shop", "ext", &[], &[(443, 443)]);
        external.hostname = "ext.example".into();
        let ranged = NetworkAddress { network: "n1".into(), address: octets("198.18.0.0".parse().unwrap()), length: Some(16) };
        let range = Service { addresses: vec![ranged], hostname: "range.example".into(), ..external.clone() };
        names.tell(&external, &[]).await;
        names.tell(&range, &[]).await;
        for host in ["ext.example", "range.example", "anything.else"] {
            let answer = names.ask(host, A).await;
            assert_eq!(answer.addresses()[0].1.to_string(), "192.0.2.99", "{host}");
            assert_eq!(answer.answers[0].ttl, 77, "not ours");
        }
        assert_eq!(names.forwarded(), 3);
    }
}

isolated_test! {
    async fn ops_headless_services_are_their_healthy_endpoints() {
        let names = Names::open().await;
        let headless = service("shop", "nodes", &[], &[(80, 8080)]);
        let pods: Vec<_> = (0..3).map(|n| names.world.hub.pod("shop", &format!("node-{n}"), &format!("10.1.0.9{n}"))).collect();
        let mut all: Vec<_> = pods.iter().map(|pod| backing(workload(pod, 1), &headless, &[(80, 8080)])).collect();
        all[2].status = UNHEALTHY;
        names.tell(&headless, &all).await;
        assert_eq!(names.resolve("nodes").await, ["10.1.0.90", "10.1.0.91"]);
        assert_eq!(names.ask("nodes.shop", AAAA).await.addresses().len(), 2);
        // A single pod of it is nobody's name here.
        assert_eq!(names.resolve("node-0.nodes.shop.svc.cluster.local").await, ["192.0.2.99"]);
        assert_eq!(names.forwarded(), 1);
        names.tell(&headless, &[Workload { services: Default::default(), ..all[0].clone() }]).await;
        assert_eq!(names.resolve("nodes").await, ["10.1.0.91"]);
    }
}

isolated_test! {
    async fn ops_names_are_seen_from_the_clients_namespace() {
        let names = Names::open().await;
        let mut other = service("other", "cart", &["172.20.7.7"], &[(80, 80)]);
        names.tell(&other, &[]).await;
        assert_eq!(names.resolve("cart").await, [VIP]);
        assert_eq!(names.resolve("cart.other").await, ["172.20.7.7"]);
        other.visibility = VISIBILITY_NAMESPACE;
        names.tell(&other, &[]).await;
        assert_eq!(names.resolve("cart.other").await, ["192.0.2.99"], "invisible from here");
        let shared = |namespace: &str, vip: &str, canonical: bool| Service {
            hostname: "shared.example".into(),
            canonical,
            ..service(namespace, "shared", &[vip], &[(80, 80)])
        };
        names.tell(&shared("x", "172.20.8.1", false), &[]).await;
        names.tell(&shared("y", "172.20.8.2", true), &[]).await;
        assert_eq!(names.resolve("shared.example").await, ["172.20.8.2"], "canonical");
        names.tell(&shared("shop", "172.20.8.3", false), &[]).await;
        assert_eq!(names.resolve("shared.example").await, ["172.20.8.3"], "the own namespace");
    }
}

isolated_test! {
    async fn ops_large_answers_are_cut_on_udp_and_whole_on_tcp() {
        let names = Names::open().await;
        let vips: Vec<_> = (1..=60).map(|n| format!("172.20.30.{n}")).collect();
        let many = service("shop", "many", &vips.iter().map(String::as_str).collect::<Vec<_>>(), &[(80, 80)]);
        names.tell(&many, &[]).await;
        let small = names.ask("many", A).await;
        assert!(small.truncated(), "60 addresses do not fit into 512 bytes");
        assert!(small.raw.len() <= 512);
        let whole = ask_tcp(&names.web, names.server, &query(9, "many", A)).await;
        assert!(!whole.truncated());
        assert_eq!(whole.addresses().len(), 60);
        let large = ask(&names.web, names.server, &dns::query_edns(5, "many", A, 4096)).await;
        assert!(!large.truncated());
        assert_eq!(large.addresses().len(), 60);
        let opt = large.others.iter().find(|record| record.kind == dns::OPT).expect("EDNS is echoed");
        assert_eq!(opt.class, 4096);
        // They come in another order each time.
        let first = whole.addresses();
        let other = ask_tcp(&names.web, names.server, &query(9, "many", A)).await.addresses();
        assert_ne!(first, other, "shuffled");
    }
}

isolated_test! {
    async fn ops_what_is_no_query_is_answered_with_its_error() {
        let names = Names::open().await;
        let mut garbage = query(2, "cart", A);
        garbage.truncate(16);
        assert_eq!(ask(&names.web, names.server, &garbage).await.rcode(), dns::FORMERR);
        let mut response = query(3, "cart", A);
        response[2] = 0x81;
        assert_eq!(ask(&names.web, names.server, &response).await.rcode(), dns::FORMERR);
        assert_eq!(names.resolve("cart").await, [VIP], "and it lives on");
    }
}

isolated_test! {
    async fn ops_answers_from_beyond_pass_whatever_they_say() {
        fn odd(query: &Query) -> Option<Vec<u8>> {
            let (host, kind) = query.message.question.clone()?;
            let flags = match host.as_str() {
                "nx.example." => 0x8183,
                "fail.example." => 0x8182,
                "refused.example." => 0x8185,
                "cut.example." => 0x8380,
                _ => return None,
            };
            let answers: &[_] = if query.tcp { &[(A, 5, vec![192, 0, 2, 1])] } else { &[] };
            Some(dns::message(query.message.id, if query.tcp { 0x8180 } else { flags }, &host, kind, answers))
        }
        let names = Names::open_with(odd).await;
        for (host, rcode) in [("nx.example", 3), ("fail.example", 2), ("refused.example", 5)] {
            assert_eq!(names.ask(host, A).await.rcode(), rcode, "{host}");
        }
        let cut = names.ask("cut.example", A).await;
        assert!(cut.truncated(), "the client shall ask by TCP");
        let whole = ask_tcp(&names.web, names.server, &query(3, "cut.example", A)).await;
        assert_eq!(whole.addresses()[0].1.to_string(), "192.0.2.1");
        assert!(names.upstream.queries().iter().any(|query| query.tcp), "TCP is forwarded by TCP");
    }
}

isolated_test! {
    async fn ops_an_update_is_passed_on_and_its_answer_back() {
        fn accepts(query: &Query) -> Option<Vec<u8>> {
            let mut answer = query.message.raw.clone();
            answer[2] |= 0x80;
            Some(answer)
        }
        let names = Names::open_with(accepts).await;
        let mut update = query(1, "cart", A);
        update[2] = 0x28;
        let answer = ask(&names.web, names.server, &update).await;
        assert_eq!(names.upstream.queries()[0].message.raw[2..], update[2..]);
        assert_eq!(answer.flags & 0x7800, 0x2800, "the operation is still an update");
        assert_eq!(answer.rcode(), NOERROR);
    }
}

isolated_test! {
    async fn ops_a_silent_name_server_is_silence_and_local_names_go_on() {
        let names = Names::open_with(|_| None).await;
        let socket = names.web.udp("0.0.0.0:0".parse().unwrap());
        socket.connect(names.server).await.unwrap();
        socket.send(&query(1, "gone.example", A)).await.unwrap();
        assert_eq!(names.resolve("cart").await, [VIP]);
        names.running.proxy.metric_is("istio_dns_upstream_failures_total", &[], 1.0).await;
        // A failure of the proxy's own making would hide that the name may exist.
        let mut buffer = [0; 512];
        let answer = socket.try_recv(&mut buffer);
        assert!(answer.is_err(), "{:?}", Message::read(&buffer));
    }
}

isolated_test! {
    async fn ops_the_listener_is_on_loopback_alone() {
        let names = Names::open().await;
        assert!(names.web.connect_marked(names.web.at(15053)).await.is_err());
        assert!(names.web.connect(([127, 0, 0, 1], 15053).into()).await.is_ok());
        let six = SocketAddr::new("::1".parse().unwrap(), 15053);
        assert!(names.web.connect(six).await.is_ok());
        let _ = &names.cart;
    }
}

isolated_test! {
    async fn ops_queries_over_ipv6_are_captured_too() {
        let names = Names::open().await;
        let six = SocketAddr::new("fd00::53".parse().unwrap(), 53);
        let answer = ask(&names.web, six, &query(1, "cart", A)).await;
        assert_eq!(answer.addresses().len(), 1);
    }
}
