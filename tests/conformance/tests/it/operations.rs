//! Settings, admin, metrics, logs, and the end of the process.

use std::net::SocketAddr;
use std::time::Duration;

use conformance::isolated_test;
use conformance::proxy::samples;
use conformance::wait::{soon, within};
use conformance::wire::security::{ALLOW, Authorization, NAMESPACE};
use conformance::wire::workload::{Locality, Workload};
use conformance::world::{World, wl, workload};
use tokio::io::AsyncReadExt;

use crate::shop::{Store, echoed};

isolated_test! {
    async fn ops_row_1_and_2_the_deadline_follows_the_grace_period() {
        for (grace, expected) in [("45", "40s"), ("4", "3s")] {
            let world = World::new();
            let running = world.start(&[("TERMINATION_GRACE_PERIOD_SECONDS", grace)]).await;
            assert_eq!(running.proxy.dump().await["config"]["selfTerminationDeadline"], expected);
        }
    }
}

isolated_test! {
    async fn ops_row_3_and_4_contradictions_end_the_start() {
        let world = World::new();
        let table: [(&[(&str, &str)], &str); 6] = [
            (&[("LOCAL_XDS", "workloads: []"), ("LOCAL_XDS_PATH", "x.yaml")], "LOCAL_XDS"),
            (&[("PROXY_MODE", "dedicated")], "PROXY_WORKLOAD_INFO"),
            (&[("PROXY_MODE", "sideways")], "PROXY_MODE"),
            (&[("SECRET_TTL", "soon")], "SECRET_TTL"),
            (&[("COMPLIANCE_POLICY", "rot13")], "COMPLIANCE_POLICY"),
            (&[("POOL_MAX_STREAMS_PER_CONNECTION", "many"), ("KEEPALIVE_TIME", "x")], "KEEPALIVE_TIME"),
        ];
        for (settings, name) in table {
            let proxy = world.launch(settings);
            assert_eq!(proxy.exit().await, Some(1), "{settings:?}");
            let log = proxy.log().join("\n");
            assert!(log.contains(name), "{name} is not named: {log}");
        }
    }
}

isolated_test! {
    async fn ops_row_5_an_address_without_scheme_is_https() {
        let world = World::new();
        let running = world.start(&[("XDS_ADDRESS", "localhost:15012")]).await;
        assert_eq!(running.proxy.dump().await["config"]["xdsAddress"], "https://localhost:15012");
    }
}

isolated_test! {
    async fn ops_row_6_only_a_post_ends_the_process() {
        let world = World::new();
        let running = world.start(&[]).await;
        assert_eq!(running.proxy.admin("GET", "/quitquitquit").await.status, 405);
        assert!(running.proxy.runs());
        let reply = running.proxy.admin("POST", "/quitquitquit").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "shutdown now\n"));
        assert_eq!(running.proxy.exit().await, Some(0));
    }
}

isolated_test! {
    async fn ops_row_7_the_log_filter_changes_while_running() {
        let store = Store::open().await;
        store.cart.serve_echo(8080);
        let proxy = &store.running.proxy;
        let plain = store.world.hub.pod("out", "plain", "10.9.0.9");
        let complete = |proxy: &conformance::proxy::Proxy| {
            proxy.log().iter().filter(|line| line.contains("connection complete")).count()
        };
        plain.ask(store.cart.at(8080), "logged").await.unwrap();
        proxy.log_line(&["connection complete"]).await;
        let reply = proxy.admin("POST", "/logging?level=access:off").await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.starts_with("current log level is"), "{}", reply.body);
        assert!(reply.body.contains("hickory_server::server=off"), "{}", reply.body);
        let before = complete(proxy);
        plain.ask(store.cart.at(8080), "not logged").await.unwrap();
        // Other lines still come: here, those of a pod that is added.
        let other = store.world.hub.pod("shop", "other", "10.1.0.78");
        store.running.enrol(&other).await;
        proxy.log_line(&["uid-of-other"]).await;
        assert_eq!(complete(proxy), before);
        let reply = proxy.admin("POST", "/logging?reset").await;
        assert_eq!(reply.status, 200);
        plain.ask(store.cart.at(8080), "logged again").await.unwrap();
        conformance::wait::eventually("lines come again", async || (complete(proxy) > before).then_some(())).await;
        assert_eq!(proxy.admin("GET", "/logging").await.status, 405);
        assert_eq!(proxy.admin("POST", "/logging?level=access:loud").await.status, 400);
        assert!(proxy.admin("POST", "/logging").await.body.starts_with("current log level is"));
    }
}

isolated_test! {
    async fn ops_the_http_ports_answer_as_the_tables_say() {
        let world = World::new();
        let running = world.start(&[]).await;
        let proxy = &running.proxy;
        let ready = proxy.readiness().await.unwrap();
        assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
        assert_eq!(proxy.http(15021, "GET", "/nonsense").await.unwrap().status, 404);
        assert_eq!(proxy.http(15021, "POST", "/healthz/ready").await.unwrap().status, 405);
        assert_eq!(proxy.admin("GET", "/nonsense").await.status, 404);
        let index = proxy.admin("GET", "/").await;
        assert!(index.status == 200 && index.head.contains("text/html"), "{}", index.head);
        for path in ["/metrics", "/stats/prometheus"] {
            let page = proxy.http(15020, "GET", path).await.unwrap();
            assert_eq!(page.status, 200);
            assert_eq!(samples(&page.body, "istio_build", &[("component", "ztunnel")]).len(), 1, "{}", page.body);
        }
        // Admin is for the node alone.
        let outside = world.hub.pod("out", "outside", "10.9.0.9");
        assert!(outside.connect(world.node.at(15000)).await.is_err());
        assert!(outside.connect(world.node.at(15020)).await.is_ok());
        assert!(outside.connect(world.node.at(15021)).await.is_ok());
    }
}

isolated_test! {
    async fn ops_the_configuration_dump_has_the_shape_that_tools_read() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"x").await;
        let policy = Authorization {
            name: "p".into(),
            namespace: "shop".into(),
            scope: NAMESPACE,
            action: ALLOW,
            rules: vec![Default::default()],
            ..Authorization::default()
        };
        store.world.ads.apply(vec![conformance::ads::policy(&policy)]).await;
        let dump = store.running.proxy.dump().await;
        let keys = ["workloads", "services", "policies", "stagedServices", "staticConfig", "version", "config", "certificates", "workloadState"];
        for key in keys {
            assert!(dump.get(key).is_some(), "{key} is missing");
        }
        let uids: Vec<_> = dump["workloads"].as_array().unwrap().iter().map(|w| w["uid"].as_str().unwrap()).collect();
        assert!(uids.is_sorted() && uids.len() == 2, "{uids:?}");
        let cart = &dump["workloads"].as_array().unwrap().iter().find(|w| w["name"] == "cart").unwrap();
        assert_eq!(cart["workloadIps"][0], "10.1.0.77");
        assert_eq!(cart["protocol"], "HBONE");
        assert_eq!(cart["serviceAccount"], "cart");
        let service = &dump["services"][0];
        assert_eq!(service["vips"][0], "n1/172.20.0.9");
        let endpoint = &service["endpoints"]["cluster-1//Pod/shop/cart"];
        assert_eq!(endpoint["workloadUid"], "cluster-1//Pod/shop/cart");
        assert_eq!(endpoint["port"]["80"], 8080);
        let cert = &dump["certificates"].as_array().unwrap().iter().find(|c| c["identity"] == store.cart.identity()).unwrap();
        assert_eq!(cert["state"], "Available");
        for field in ["pem", "serialNumber", "validFrom", "expirationTime"] {
            assert!(cert["certChain"][0][field].is_string() && cert["rootCerts"][0][field].is_string(), "{field}: {cert}");
        }
        let state = &dump["workloadState"][&store.cart.uid];
        assert_eq!(state["state"], "Up");
        assert_eq!(state["info"]["serviceAccount"], "cart");
        let open = &state["connections"]["inbound"][0];
        assert_eq!(open["actualDst"], "10.1.0.77:8080");
        assert_eq!(open["src"].as_str().unwrap().split(':').next(), Some("10.1.0.5"));
        let text = dump.to_string();
        assert!(!text.contains("token-of-the-node") && !text.contains("PRIVATE KEY"), "a secret is shown");
    }
}

isolated_test! {
    async fn ops_version_and_help_and_nothing_else_are_commands() {
        let run = |args: &[&str]| {
            let output = std::process::Command::new(conformance::proxy::program()).args(args).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (code, text) = run(&["version"]);
        assert!(code == Some(0) && !text.is_empty());
        assert_eq!(run(&["help"]).0, Some(0));
        assert_eq!(run(&["dance"]).0, Some(1));
    }
}

isolated_test! {
    async fn ops_a_local_file_and_a_development_authority_need_nobody_else() {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let file = "
workloads:
- {uid: web, name: web, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.5], protocol: HBONE, network: n1, node: node-1}
- {uid: cart, name: cart, namespace: shop, serviceAccount: cart, workloadIps: [10.1.0.77], protocol: HBONE, network: n1, node: node-1,
   services: {shop/cart.shop.svc.cluster.local: {80: 8080}}}
services:
- {name: cart, namespace: shop, hostname: cart.shop.svc.cluster.local, vips: [n1/172.20.0.9], ports: {80: 8080}}
policies:
- {name: only-web, namespace: shop, scope: Namespace, action: Allow, rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/web}]}]]]}
";
        std::fs::write(world.dir.path().join("local.yaml"), file).unwrap();
        world.control.stop().await;
        let settings = [("LOCAL_XDS_PATH", "local.yaml"), ("FAKE_CA", "true"), ("XDS_ADDRESS", ""), ("CA_ADDRESS", "")];
        let mut env = world.env();
        for (name, value) in settings {
            env.insert(name.into(), value.into());
        }
        let proxy = conformance::proxy::Proxy::launch(&world.node.netns, world.dir.path(), &env);
        let session = world.agent.session().await;
        session.snapshot_sent().await;
        proxy.ready().await;
        for pod in [&web, &cart] {
            conformance::rules::redirect(&pod.netns, false);
            assert_eq!(session.add(pod).await, "");
        }
        cart.serve_echo(8080);
        let vip: SocketAddr = "172.20.0.9:80".parse().unwrap();
        assert_eq!(soon("an answer", web.ask(vip, "alone")).await.unwrap(), "10.1.0.5 said alone");
        let plain = world.hub.pod("out", "plain", "10.9.0.9");
        assert_eq!(soon("an end", plain.ask(cart.at(8080), "?")).await.unwrap_or_default(), "");
        let dump = proxy.dump().await;
        assert_eq!(dump["services"][0]["hostname"], "cart.shop.svc.cluster.local");
    }
}

isolated_test! {
    async fn ops_a_cpu_profile_can_be_taken_and_a_silent_client_is_let_go() {
        let world = World::new();
        let running = world.start(&[]).await;
        let socket = world.node.connect(([127, 0, 0, 1], 15000).into());
        let mut silent = socket.await.unwrap();
        let mut byte = [0; 1];
        let end = within("the silent client is let go", Duration::from_secs(6), silent.read(&mut byte));
        let profile = running.proxy.admin("GET", "/debug/pprof/profile?seconds=1&frequency=50");
        let (ended, profile) = tokio::join!(end, profile);
        assert_eq!(ended.unwrap_or(0), 0);
        // Built in or not, and then it says so.
        let absent = profile.status == 501 && profile.body.contains("pprof");
        assert!(profile.status == 200 || absent, "{} {}", profile.status, profile.body);
        assert!(!profile.body.is_empty());
        for bad in ["seconds=0", "seconds=301", "frequency=1001", "seconds=x"] {
            let reply = running.proxy.admin("GET", &format!("/debug/pprof/profile?{bad}")).await;
            assert!(reply.status == 400, "{bad}: {} {}", reply.status, reply.body);
        }
        let heap = running.proxy.admin("GET", "/debug/pprof/heap").await;
        assert!(heap.status == 200 || !heap.body.is_empty(), "{heap:?}");
    }
}

isolated_test! {
    async fn ops_references_and_places_are_dumped_in_their_own_form() {
        let world = World::new();
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        let gateway = conformance::world::service("shop", "waypoint", &[], &[(15008, 15008)]);
        let full = Workload {
            waypoint: Some(conformance::world::gateway_host(&gateway)),
            network_gateway: Some(conformance::world::gateway_at("n2", "192.0.2.1")),
            locality: Some(Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() }),
            authorization_policies: vec!["shop/p".into()],
            status: 1,
            capacity: Some(7),
            ..workload(&pod, 1)
        };
        let staged = conformance::world::backing(full, &gateway, &[(15008, 15008)]);
        world.ads.set(vec![wl(&staged)]);
        let running = world.start(&[]).await;
        let dump = running.proxy.dump().await;
        let shown = &dump["workloads"][0];
        assert_eq!(shown["waypoint"], serde_json::json!({"destination": "shop/waypoint.shop.svc.cluster.local", "hboneMtlsPort": 15008}));
        assert_eq!(shown["networkGateway"], serde_json::json!({"destination": "n2/192.0.2.1", "hboneMtlsPort": 15008}));
        assert_eq!(shown["locality"], serde_json::json!({"region": "r", "zone": "z", "subzone": "s"}));
        assert_eq!(shown["status"], "Unhealthy");
        assert_eq!(shown["capacity"], 7);
        assert_eq!(shown["authorizationPolicies"], serde_json::json!(["shop/p"]));
        assert_eq!(shown["canonicalName"], "pod-app");
        assert_eq!(shown["workloadType"], "deployment");
        assert!(dump["stagedServices"].to_string().contains("shop/waypoint.shop.svc.cluster.local"), "{}", dump["stagedServices"]);
        // What was dumped can be loaded again.
        let text = serde_json::json!({"workloads": dump["workloads"]}).to_string();
        drop(running);
        let again = world.launch(&[("LOCAL_XDS", &text), ("FAKE_CA", "true")]);
        let session = world.agent.session().await;
        session.snapshot_sent().await;
        again.ready().await;
        assert_eq!(again.dump().await["workloads"], dump["workloads"]);
    }
}

isolated_test! {
    async fn ops_unknown_fields_of_the_local_file_are_refused() {
        let world = World::new();
        for (text, name) in [
            ("workloads: [{uid: a, name: a, namespace: b, workloadIps: [10.0.0.1], colour: red}]", "colour"),
            ("services: [{name: a, namespace: b, hostname: c, vips: [10.0.0.1], ports: {80: 80}}]", "10.0.0.1"),
            ("policies: [{name: a, namespace: b, scope: Sideways, action: Allow, rules: []}]", "Sideways"),
            ("wurkloads: []", "wurkloads"),
        ] {
            let proxy = world.launch(&[("LOCAL_XDS", text), ("FAKE_CA", "true")]);
            assert_eq!(proxy.exit().await, Some(1), "{text}");
            assert!(proxy.log().join("\n").contains(name), "{name}: {:?}", proxy.log());
        }
    }
}
