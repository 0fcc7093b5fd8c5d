//! Metrics and the access log.

use conformance::isolated_test;
use conformance::proxy::samples;
use conformance::wait::soon;
use conformance::wire::security::{ALLOW, Authorization, NAMESPACE};
use conformance::wire::workload::{Locality, Workload};
use conformance::world::{World, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{Shop, Store, echoed};

/// A `web` and a `cart` that are both enrolled at the one proxy, with an application that answers ten bytes.
async fn both_ends(world: World) -> (World, conformance::net::Pod, conformance::net::Pod, conformance::world::Running) {
    let web = world.hub.pod("shop", "web", "10.1.0.5");
    let cart = world.hub.pod("shop", "cart", "10.1.0.77");
    world.ads.set(vec![wl(&workload(&web, 1)), wl(&workload(&cart, 1))]);
    let running = world.start(&[]).await;
    running.enrol(&web).await;
    running.enrol(&cart).await;
    let listener = cart.listen_any(8080);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = stream.write_all(b"0123456789").await;
        }
    });
    (world, web, cart, running)
}

isolated_test! {
    async fn ops_row_16_and_17_both_sides_count_bytes_their_way() {
        let (_world, web, cart, running) = both_ends(World::new()).await;
        let answer = soon("an answer", web.ask(cart.at(8080), &"x".repeat(1000))).await.unwrap();
        assert_eq!(answer.len(), 10);
        for reporter in ["source", "destination"] {
            let labels = [("reporter", reporter), ("connection_security_policy", "mutual_tls"), ("response_flags", "-")];
            running.proxy.metric_is("istio_tcp_received_bytes_total", &labels, 1000.0).await;
            running.proxy.metric_is("istio_tcp_sent_bytes_total", &labels, 10.0).await;
            running.proxy.metric_is("istio_tcp_connections_opened_total", &labels[..2], 1.0).await;
            running.proxy.metric_is("istio_tcp_connections_closed_total", &labels, 1.0).await;
        }
        let outbound = running.proxy.log_line(&["connection complete", "direction=outbound"]).await;
        assert!(outbound.contains("bytes_sent=1000 bytes_recv=10 "), "{outbound}");
        let inbound = running.proxy.log_line(&["connection complete", "direction=inbound"]).await;
        assert!(inbound.contains("bytes_sent=10 bytes_recv=1000 "), "{inbound}");
        access_log_fields(&outbound, &inbound, &web.v4.to_string());
    }
}

/// The fields of both lines, in the order of the table.
fn access_log_fields(outbound: &str, inbound: &str, web: &str) {
    let order = [
        "src.addr",
        "src.workload",
        "src.namespace",
        "src.identity",
        "src.cluster",
        "dst.addr",
        "dst.hbone_addr",
        "dst.service",
        "dst.workload",
        "dst.namespace",
        "dst.identity",
        "dst.cluster",
        "direction",
        "bytes_sent",
        "bytes_recv",
        "duration",
    ];
    let field = regex::Regex::new(r#"([a-z_.]+)=("[^"]*"|\S+)"#).unwrap();
    let duration = regex::Regex::new(r"duration=\d+ms").unwrap();
    for line in [outbound, inbound] {
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!(&columns[1..4], ["info", "access", "connection complete"], "{line}");
        let names: Vec<_> = field.captures_iter(columns[4]).map(|c| c.get(1).unwrap().as_str().to_owned()).collect();
        let places: Vec<_> = names.iter().filter_map(|name| order.iter().position(|known| known == name)).collect();
        assert!(places.is_sorted(), "{names:?}");
        for needed in order.iter().filter(|name| **name != "dst.service") {
            assert!(names.iter().any(|name| name == needed), "{needed} is missing: {line}");
        }
        assert!(duration.is_match(line), "{line}");
        assert!(line.contains("src.identity=spiffe://cluster.local/ns/shop/sa/web"), "{line}");
        assert!(line.contains("dst.addr=10.1.0.77:15008 dst.hbone_addr=10.1.0.77:8080"), "{line}");
        assert!(line.contains(&format!("src.addr={web}:")), "{line}");
        assert!(line.contains("dst.workload=cart-deploy") || line.contains("dst.workload=cart "), "{line}");
    }
}

isolated_test! {
    async fn ops_row_16_every_label_of_the_table_is_there() {
        let world = World::new();
        let (world, web, cart, running) = both_ends(world).await;
        let placed = |pod: &conformance::net::Pod, zone: &str| Workload {
            locality: Some(Locality { region: "r1".into(), zone: zone.into(), subzone: String::new() }),
            ..workload(pod, 1)
        };
        soon("an answer", web.ask(cart.at(8080), "x")).await.unwrap();
        running.proxy.metric_is("istio_tcp_connections_closed_total", &[("reporter", "source")], 1.0).await;
        let labels = "reporter source_workload source_canonical_service source_canonical_revision \
            source_workload_namespace source_principal source_app source_version source_cluster destination_service \
            destination_service_namespace destination_service_name destination_workload destination_canonical_service \
            destination_canonical_revision destination_workload_namespace destination_principal destination_app \
            destination_version destination_cluster request_protocol response_flags connection_security_policy";
        let page = running.proxy.metrics().await;
        let line = &samples(&page, "istio_tcp_connections_closed_total", &[("reporter", "source")])[0].0;
        let names = regex::Regex::new(r#"([a-z_]+)=""#).unwrap();
        let mut seen: Vec<_> = names.captures_iter(line).map(|c| c.get(1).unwrap().as_str().to_owned()).collect();
        let mut wanted: Vec<_> = labels.split_whitespace().map(str::to_owned).collect();
        seen.sort();
        wanted.sort();
        assert_eq!(seen, wanted);
        for value in ["source_workload=\"web-deploy\"", "source_app=\"web-app\"", "source_version=\"v1\"", "destination_cluster=\"cluster-1\"", "destination_service=\"unknown\"", "request_protocol=\"tcp\""] {
            assert!(line.contains(value), "{value} is not in {line}");
        }
        // Places come all four together once one is known.
        world.ads.apply(vec![wl(&placed(&web, "z1"))]).await;
        soon("an answer", web.ask(cart.at(8080), "x")).await.unwrap();
        let placed = [("reporter", "source"), ("source_region", "r1"), ("source_zone", "z1"), ("destination_region", "unknown"), ("destination_zone", "unknown")];
        running.proxy.metric_is("istio_tcp_connections_closed_total", &placed, 1.0).await;
    }
}

isolated_test! {
    async fn ops_row_18_a_denial_is_counted_and_logged() {
        let store = Store::open().await;
        let nobody = Authorization {
            name: "nobody".into(),
            namespace: "shop".into(),
            scope: NAMESPACE,
            action: ALLOW,
            ..Authorization::default()
        };
        store.world.ads.apply(vec![conformance::ads::policy(&nobody)]).await;
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 401);
        let proxy = &store.running.proxy;
        let deny = [("reporter", "destination"), ("response_flags", "DENY")];
        proxy.metric_is("istio_tcp_connections_failed_total", &deny, 1.0).await;
        proxy.metric_is("istio_tcp_connections_closed_total", &deny, 1.0).await;
        let opened = [("reporter", "destination"), ("response_flags", "-")];
        proxy.metric_is("istio_tcp_connections_opened_total", &opened, 1.0).await;
        let line = proxy.log_line(&["connection complete", "error", "direction=inbound"]).await;
        assert!(line.split('\t').nth(1) == Some("error"), "{line}");
    }
}

isolated_test! {
    async fn ops_row_19_passthrough_knows_nothing_of_its_destination() {
        let shop = Shop::open().await;
        shop.cart.add_address("203.0.113.4/32");
        shop.cart.serve_echo(443);
        soon("an answer", shop.web.ask("203.0.113.4:443".parse().unwrap(), "out")).await.unwrap();
        let labels = [
            ("reporter", "source"),
            ("destination_workload", "unknown"),
            ("destination_service", "unknown"),
            ("destination_principal", "unknown"),
            ("destination_cluster", "unknown"),
            ("connection_security_policy", "unknown"),
            ("source_principal", "unknown"),
            ("source_workload", "web-deploy"),
        ];
        shop.running.proxy.metric_is("istio_tcp_connections_closed_total", &labels, 1.0).await;
    }
}

isolated_test! {
    async fn ops_open_sockets_are_counted_while_they_are_open() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut one = client.open(&store.authority(8080)).await.unwrap().tunnel;
        let mut two = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut one, b"x").await;
        echoed(&mut two, b"x").await;
        let inbound = [("reporter", "destination")];
        store.running.proxy.metric_is("istio_tcp_sockets_open", &inbound, 1.0).await;
        drop((one, two, client));
        store.running.proxy.metric_is("istio_tcp_sockets_open", &inbound, 0.0).await;
    }
}

isolated_test! {
    async fn ops_early_refusals_are_logged_with_a_warning_and_change_no_counter() {
        let store = Store::open().await;
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        let _ = soon("an end", plain.ask(store.cart.at(15006), "hello?")).await;
        let line = store.running.proxy.log_line(&["connection failed", "src.addr=10.9.0.9"]).await;
        assert!(line.contains("\twarn\taccess\t") && line.contains("error="), "{line}");
        let names = ["src.addr=", "dst.addr=", "direction=", "error="].map(|name| line.find(name).unwrap());
        assert!(names.is_sorted(), "{line}");
        assert_eq!(store.running.proxy.metric("istio_tcp_connections_opened_total", &[]).await, 0.0);
    }
}

isolated_test! {
    async fn ops_json_logs_are_one_object_a_line() {
        let store = Store::open_with(&[("LOG_FORMAT", "json")]).await;
        store.cart.serve_echo(8080);
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        plain.ask(store.cart.at(8080), "logged").await.unwrap();
        let line = store.running.proxy.log_line(&["connection complete"]).await;
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["level"], &json["scope"]), (&"info".into(), &"access".into()));
        assert_eq!(json["message"], "connection complete");
        assert!(json["time"].is_string());
        assert!(line.find("\"level\"").unwrap() < line.find("\"time\"").unwrap());
        for line in store.running.proxy.log() {
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        }
    }
}

isolated_test! {
    async fn ops_metrics_come_in_the_form_and_coding_that_is_asked_for() {
        let world = World::new();
        let running = world.start(&[]).await;
        let text = running.proxy.http(15020, "GET", "/metrics").await.unwrap();
        assert!(text.head.contains("content-type: text/plain"), "{}", text.head);
        let accept = "accept: application/openmetrics-text;version=1.0.0\r\n";
        let open = running.proxy.http_with(15020, "GET", "/metrics", accept).await.unwrap();
        assert!(open.head.contains("content-type: application/openmetrics-text"), "{}", open.head);
        assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
        let zipped = running.proxy.http_with(15020, "GET", "/metrics", "accept-encoding: gzip\r\n").await.unwrap();
        assert!(zipped.head.contains("content-encoding: gzip"), "{}", zipped.head);
        for name in [
            "istio_build",
            "istio_xds_message_total",
            "istio_xds_message_bytes_total",
            "workload_manager_active_proxy_count",
            "workload_manager_pending_proxy_count",
            "process_open_fds",
            "process_max_fds",
        ] {
            assert!(!samples(&text.body, name, &[]).is_empty(), "{name} is missing:\n{}", text.body);
        }
        let limit = |text: &str| samples(text, "process_max_fds", &[])[0].1;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.proxy.pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let hard: f64 = files.split_whitespace().nth(4).unwrap().parse().unwrap();
        assert_eq!(limit(&text.body), hard, "the soft limit is raised to the hard one");
    }
}
