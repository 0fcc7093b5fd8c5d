//! The stream to the discovery server: what the client says, in which order, and what it makes of the answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conformance::grpc::code;
use conformance::isolated_test;
use conformance::pki::{Authority, Leaf};
use conformance::tls;
use conformance::wait::{eventually, never_within};
use conformance::wire::discovery::{DeltaRequest, DeltaResponse};
use conformance::wire::workload::{Address, TUNNEL_LEGACY, Workload};
use conformance::wire::{ADDRESS, AUTHORIZATION};
use conformance::world::{World, gateway_at, service, svc, wl, workload};
use prost_types::value::Kind;

use crate::shop::{Shop, echoed};

/// The texts of the node's metadata.
fn metadata(request: &DeltaRequest) -> BTreeMap<String, Kind> {
    let node = request.node.as_ref().expect("the first request of a type names the node");
    let fields = node.metadata.clone().unwrap_or_default().fields;
    fields.into_iter().filter_map(|(name, value)| Some((name, value.kind?))).collect()
}

isolated_test! {
    async fn wds_row_1_a_control_plane_without_resources_makes_ready() {
        let world = World::new();
        let running = world.start(&[]).await;
        for kind in [ADDRESS, AUTHORIZATION] {
            let first = world.ads.first(0, kind).await;
            assert_eq!(first.node.as_ref().unwrap().id, "ztunnel~10.0.0.4~ztunnel-abc.istio-system~istio-system.svc.cluster.local");
            assert!(first.subscribe.is_empty() && first.unsubscribe.is_empty(), "a wildcard is nothing at all: {first:?}");
            assert!(first.initial_resource_versions.is_empty());
            assert_eq!(first.response_nonce, "");
            let answer = world.ads.request("an ACK", |r| r.request.type_url == kind && !r.request.response_nonce.is_empty());
            let answer = answer.await.request;
            assert_eq!(answer.error_detail, None);
            assert!(answer.subscribe.is_empty() && answer.unsubscribe.is_empty(), "{answer:?}");
        }
        assert_eq!(world.ads.opened().len(), 1, "both types share one stream");
        assert_eq!(running.proxy.readiness().await.unwrap().status, 200);
    }
}

isolated_test! {
    async fn wds_the_node_says_who_it_is() {
        let world = World::new();
        let _running = world
            .start(&[
                ("ISTIO_META_CLUSTER_ID", "cluster-meta"),
                ("ISTIO_META_FLAVOUR", "sweet"),
                ("ISTIO_METAJSON_LABELS", r#"{"COUNT": 3, "DEEP": {"yes": true}}"#),
            ])
            .await;
        let request = world.ads.first(0, ADDRESS).await;
        let metadata = metadata(&request);
        let text = |name: &str| match metadata.get(name) {
            Some(Kind::StringValue(text)) => text.clone(),
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!(text("NAME"), "ztunnel-abc");
        assert_eq!(text("NAMESPACE"), "istio-system");
        assert_eq!(text("INSTANCE_IPS"), "10.0.0.4");
        assert_eq!(text("NODE_NAME"), "node-1");
        assert_eq!(text("CLUSTER_ID"), "cluster-meta");
        assert_eq!(text("FLAVOUR"), "sweet");
        assert_eq!(text("DNS_CAPTURE"), "false");
        assert_eq!(metadata.get("COUNT"), Some(&Kind::NumberValue(3.0)), "native types are kept");
        assert!(matches!(metadata.get("DEEP"), Some(Kind::StructValue(_))), "{metadata:?}");
        let headers = world.ads.headers(0).await;
        assert_eq!(headers["clusterid"], "cluster-meta");
    }
}

isolated_test! {
    async fn wds_every_stream_carries_its_headers_and_the_token_of_the_moment() {
        let world = World::new();
        let _running = world.start(&[("XDS_HEADER_x-tenant", "blue")]).await;
        let headers = world.ads.headers(0).await;
        assert_eq!(headers["authorization"], "Bearer token-of-the-node");
        assert_eq!(headers["clusterid"], "cluster-1");
        assert_eq!(headers["x-tenant"], "blue");
        assert_eq!(headers["content-type"].to_str().unwrap().split('+').next(), Some("application/grpc"));
        assert_eq!(world.control.server_names()[0].as_deref(), Some("localhost"), "SNI is sent");
        std::fs::write(world.dir.path().join("token"), "token-of-tomorrow").unwrap();
        world.control.cut();
        assert_eq!(world.ads.headers(1).await["authorization"], "Bearer token-of-tomorrow");
    }
}

isolated_test! {
    async fn wds_row_5_a_bad_resource_is_refused_by_name_and_the_good_ones_count() {
        let world = World::new();
        let running = world.start(&[]).await;
        let good = world.hub.pod("shop", "good", "10.1.0.1");
        let bad = world.hub.pod("shop", "bad", "10.1.0.2");
        let nonces = world.ads.set(vec![
            wl(&workload(&good, 1)),
            wl(&Workload { addresses: vec![vec![1, 2, 3, 4, 5]], ..workload(&bad, 1) }),
        ]);
        let answer = world.ads.answer(&nonces[0]).await;
        let message = answer.error_detail.expect("a NACK").message;
        assert!(message.starts_with("cluster-1//Pod/shop/bad: "), "{message}");
        assert!(!message.contains("good"), "{message}");
        assert!(message.contains("addresses"), "the field is named: {message}");
        let dump = running.proxy.dump().await;
        let uids: Vec<_> = dump["workloads"].as_array().unwrap().iter().map(|w| w["uid"].as_str().unwrap()).collect();
        assert_eq!(uids, ["cluster-1//Pod/shop/good"]);
    }
}

isolated_test! {
    async fn wds_row_18_each_kind_of_bad_resource_is_named_with_its_field() {
        let world = World::new();
        let _running = world.start(&[]).await;
        let pod = world.hub.pod("shop", "bad", "10.1.0.2");
        let base = workload(&pod, 1);
        let bare_gateway = conformance::wire::workload::GatewayAddress { destination: None, hbone_mtls_port: 15008 };
        let mut key = base.clone();
        key.services.insert("no-slash".into(), Default::default());
        let mut length = service("shop", "s", &["10.1.2.3"], &[]);
        length.addresses[0].length = Some(40);
        let mut bytes = service("shop", "s", &["10.1.2.3"], &[]);
        bytes.addresses[0].address = vec![1; 5];
        let mut scope = service("shop", "s", &[], &[]);
        scope.load_balancing = Some(conformance::wire::workload::LoadBalancing {
            routing_preference: vec![0],
            mode: 2,
            health_policy: 0,
        });
        let table: Vec<(&str, (&'static str, conformance::wire::discovery::Resource))> = vec![
            ("tunnel_protocol", wl(&Workload { tunnel_protocol: TUNNEL_LEGACY, ..base.clone() })),
            ("tunnel_protocol", wl(&Workload { tunnel_protocol: 77, ..base.clone() })),
            ("status", wl(&Workload { status: 9, ..base.clone() })),
            ("network_mode", wl(&Workload { network_mode: 9, ..base.clone() })),
            ("waypoint", wl(&Workload { waypoint: Some(bare_gateway.clone()), ..base.clone() })),
            ("network_gateway", wl(&Workload { network_gateway: Some(bare_gateway.clone()), ..base.clone() })),
            ("services", wl(&key)),
            ("addresses", svc(&length)),
            ("addresses", svc(&bytes)),
            ("routing_preference", svc(&scope)),
            ("workload", conformance::ads::resource(ADDRESS, "empty", &Address { kind: None })),
        ];
        for (field, resource) in table {
            let name = resource.1.name.clone();
            let nonces = world.ads.set(vec![resource]);
            let answer = world.ads.answer(&nonces[0]).await;
            let message = answer.error_detail.unwrap_or_else(|| panic!("{field} of {name} was accepted")).message;
            assert!(message.starts_with(&format!("{name}: ")), "{message}");
            let words = [field, &field.replace('_', " "), &field.to_lowercase()].map(str::to_owned);
            assert!(words.iter().any(|word| message.contains(word.as_str())), "{field} is not named: {message}");
        }
        // Those that the table tolerates.
        for tolerated in [Workload { workload_type: 42, ..base.clone() }, base.clone()] {
            world.ads.apply(vec![wl(&tolerated)]).await;
        }
        let mut public = service("shop", "s", &[], &[]);
        public.visibility = 42;
        world.ads.apply(vec![svc(&public)]).await;
    }
}

isolated_test! {
    async fn wds_several_bad_resources_are_joined_and_bytes_that_are_no_message_are_one_of_them() {
        let world = World::new();
        let _running = world.start(&[]).await;
        let pod = world.hub.pod("shop", "bad", "10.1.0.2");
        let legacy = Workload { tunnel_protocol: TUNNEL_LEGACY, ..workload(&pod, 1) };
        let mut garbage = wl(&legacy);
        garbage.1.name = "garbage".into();
        garbage.1.resource.as_mut().unwrap().value = vec![0xff; 9];
        let nonces = world.ads.set(vec![wl(&legacy), garbage]);
        let message = world.ads.answer(&nonces[0]).await.error_detail.expect("a NACK").message;
        let mut parts: Vec<_> = message.split("; ").map(|part| part.split(": ").next().unwrap()).collect();
        parts.sort_unstable();
        assert_eq!(parts, ["cluster-1//Pod/shop/bad", "garbage"], "{message}");
    }
}

isolated_test! {
    async fn wds_a_refused_update_keeps_the_earlier_copy_and_its_version() {
        let world = World::new();
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        let mut good = wl(&workload(&pod, 1));
        good.1.version = "good".into();
        world.ads.set(vec![good]);
        let running = world.start(&[]).await;
        let mut bad = wl(&Workload { tunnel_protocol: TUNNEL_LEGACY, ..workload(&pod, 1) });
        bad.1.version = "bad".into();
        let nonces = world.ads.set(vec![bad]);
        assert!(world.ads.answer(&nonces[0]).await.error_detail.is_some());
        assert_eq!(running.proxy.dump().await["workloads"][0]["protocol"], "HBONE");
        world.control.cut();
        let first = world.ads.first(1, ADDRESS).await;
        assert_eq!(first.initial_resource_versions["cluster-1//Pod/shop/pod"], "good");
    }
}

isolated_test! {
    async fn wds_row_6_a_new_stream_starts_with_the_versions_that_are_known() {
        let world = World::new();
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        let mut resource = wl(&workload(&pod, 1));
        resource.1.version = "ab12".into();
        let policy = conformance::wire::security::Authorization {
            name: "p".into(),
            namespace: "shop".into(),
            scope: 1,
            ..Default::default()
        };
        world.ads.set(vec![resource, conformance::ads::policy(&policy)]);
        let running = world.start(&[]).await;
        world.control.cut();
        let first = world.ads.first(1, ADDRESS).await;
        assert_eq!(first.initial_resource_versions, [("cluster-1//Pod/shop/pod".to_owned(), "ab12".to_owned())].into());
        assert!(first.node.is_some() && first.subscribe.is_empty() && first.unsubscribe.is_empty());
        assert_eq!(first.response_nonce, "", "nonces do not outlive their stream");
        let policies = world.ads.first(1, AUTHORIZATION).await;
        assert_eq!(policies.initial_resource_versions, [("shop/p".to_owned(), String::new())].into());
        assert!(policies.node.is_some());
        running.proxy.metric_is("istio_xds_message_total", &[("url", AUTHORIZATION)], 2.0).await;
    }
}

isolated_test! {
    async fn wds_row_7_what_the_server_has_lost_meanwhile_is_deleted() {
        let world = World::new();
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        let stays = service("shop", "stays", &["172.20.0.1"], &[(80, 80)]);
        world.ads.set(vec![wl(&workload(&pod, 1)), svc(&stays)]);
        let running = world.start(&[]).await;
        world.control.stop().await;
        world.ads.remove(ADDRESS, &["cluster-1//Pod/shop/pod"]);
        world.control.listen();
        let dump = running.proxy.dump_that("the workload is gone", |dump| dump["workloads"] == serde_json::json!([])).await;
        assert_eq!(dump["services"][0]["hostname"], "stays.shop.svc.cluster.local");
        world.control.cut();
        let second = world.ads.streams_first(ADDRESS).await;
        assert!(!second.initial_resource_versions.contains_key("cluster-1//Pod/shop/pod"), "{second:?}");
    }
}

isolated_test! {
    async fn wds_removals_are_applied_and_of_the_unknown_are_no_error() {
        let world = World::new();
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        let s = service("shop", "s", &["172.20.0.1"], &[(80, 80)]);
        world.ads.set(vec![wl(&workload(&pod, 1)), svc(&s)]);
        let running = world.start(&[]).await;
        let removed = ["shop/s.shop.svc.cluster.local", "nobody", "a/b/c", "shop/unknown.example"];
        let nonce = world.ads.send(DeltaResponse {
            type_url: ADDRESS.into(),
            removed: removed.map(str::to_owned).into(),
            ..Default::default()
        });
        assert_eq!(world.ads.answer(&nonce).await.error_detail, None);
        let dump = running.proxy.dump().await;
        assert_eq!(dump["services"], serde_json::json!([]));
        assert_eq!(dump["workloads"].as_array().unwrap().len(), 1);
    }
}

isolated_test! {
    async fn wds_a_type_that_nobody_knows_is_acknowledged() {
        let world = World::new();
        let running = world.start(&[]).await;
        let nonce = world.ads.send(DeltaResponse { type_url: "type.googleapis.com/some.Thing".into(), ..Default::default() });
        let answer = world.ads.answer(&nonce).await;
        assert_eq!(answer.type_url, "type.googleapis.com/some.Thing");
        assert_eq!(answer.error_detail, None);
        // And the stream goes on.
        let pod = world.hub.pod("shop", "pod", "10.1.0.2");
        world.ads.apply(vec![wl(&workload(&pod, 1))]).await;
        assert_eq!(running.proxy.dump().await["workloads"].as_array().unwrap().len(), 1);
    }
}

isolated_test! {
    async fn ops_row_8_before_the_first_answers_the_state_manager_is_not_ready() {
        let world = World::new();
        world.ads.be_silent();
        let proxy = world.launch(&[]);
        let session = world.agent.session().await;
        session.snapshot_sent().await;
        world.ads.first(0, AUTHORIZATION).await;
        proxy.unready("state manager").await;
        world.ads.send(DeltaResponse { type_url: ADDRESS.into(), ..Default::default() });
        world.ads.request("an ACK", |r| r.request.type_url == ADDRESS && !r.request.response_nonce.is_empty()).await;
        proxy.unready("state manager").await;
        world.ads.send(DeltaResponse { type_url: AUTHORIZATION.into(), ..Default::default() });
        proxy.ready().await;
    }
}

isolated_test! {
    async fn wds_no_connection_is_taken_before_the_first_state_is_complete() {
        let world = World::new();
        world.ads.be_silent();
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let client = world.hub.pod("out", "client", "10.9.0.9");
        cart.serve_copies(8080);
        let _proxy = world.launch(&[]);
        let session = world.agent.session().await;
        conformance::rules::redirect(&cart.netns, false);
        assert_eq!(session.add(&cart).await, "");
        world.ads.first(0, AUTHORIZATION).await;
        let mut early = client.connect(cart.at(8080)).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut early, b"x").await.unwrap();
        let mut byte = [0; 1];
        let read = tokio::io::AsyncReadExt::read(&mut early, &mut byte);
        never_within("served without policies", Duration::from_millis(700), read).await;
        let known = wl(&workload(&cart, 1));
        world.ads.send(DeltaResponse { type_url: ADDRESS.into(), resources: vec![known.1], ..Default::default() });
        world.ads.send(DeltaResponse { type_url: AUTHORIZATION.into(), ..Default::default() });
        conformance::wait::soon("served", tokio::io::AsyncReadExt::read_exact(&mut early, &mut byte)).await.unwrap();
    }
}

isolated_test! {
    async fn wds_the_ordinary_ends_of_streams_are_followed_by_a_new_one_at_once() {
        let shop = Shop::open().await;
        let _proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"before").await;
        let ads = &shop.world.ads;
        let ends: [(&str, &dyn Fn()); 6] = [
            ("Unknown", &|| ads.end(code::UNKNOWN, "h2 protocol error")),
            ("Cancelled", &|| ads.end(code::CANCELLED, "rotation")),
            ("Unavailable, transport is closing", &|| ads.end(code::UNAVAILABLE, "transport is closing")),
            ("clean end", &|| ads.end_cleanly()),
            ("GOAWAY and end", &|| {
                shop.world.control.goaway();
                ads.end(code::UNAVAILABLE, "prior GOAWAY");
            }),
            ("cut", &|| shop.world.control.cut()),
        ];
        for (number, (what, end)) in ends.into_iter().enumerate() {
            let ended = Instant::now();
            end();
            ads.first(number + 1, ADDRESS).await;
            assert!(ended.elapsed() < Duration::from_secs(2), "{what}: {:?}", ended.elapsed());
        }
        echoed(&mut app, b"after").await;
        let terminations = shop.running.proxy.metric("istio_xds_connection_terminations_total", &[]).await;
        assert!(terminations >= 6.0, "{terminations}");
    }
}

isolated_test! {
    async fn wds_an_ordinary_refusal_is_tried_again_without_growing_delays() {
        let world = World::new();
        world.ads.refuse(Some((code::UNKNOWN, "not yet")));
        let _proxy = world.launch(&[]);
        // Doubling from 10 ms, the fifteenth attempt would come after five minutes.
        eventually("fifteen attempts", async || (world.ads.opened().len() >= 15).then_some(())).await;
    }
}

isolated_test! {
    async fn wds_another_refusal_doubles_the_delay_each_time() {
        let world = World::new();
        world.ads.refuse(Some((code::RESOURCE_EXHAUSTED, "too much")));
        let proxy = world.launch(&[]);
        eventually("seven attempts", async || (world.ads.opened().len() >= 7).then_some(())).await;
        let opened = world.ads.opened();
        let pause = |n: usize| opened[n + 1] - opened[n];
        // 20, 40, … ms: the sixth pause is 640 ms. Jitter and a busy machine only make it longer.
        assert!(pause(5) >= Duration::from_millis(450), "{:?}", pause(5));
        assert!(pause(5) > pause(1) * 3, "{:?} after {:?}", pause(5), pause(1));
        world.ads.refuse(None);
        let session = world.agent.session().await;
        session.snapshot_sent().await;
        proxy.ready().await;
    }
}

isolated_test! {
    async fn wds_the_root_is_read_again_for_each_stream() {
        let world = World::new();
        let _running = world.start(&[]).await;
        let successor = Authority::root("next control plane");
        world.control.set_tls(tls::plain_server(&successor.issue(&Leaf::server("localhost"))));
        std::fs::write(world.dir.path().join("root.pem"), successor.root_pem()).unwrap();
        world.control.cut();
        world.ads.first(1, ADDRESS).await;
    }
}

isolated_test! {
    async fn wds_another_server_name_must_be_allowed_by_name() {
        let world = World::new();
        let own = world.control_authority.issue(&Leaf::server("istiod.istio-system.svc"));
        world.control.set_tls(tls::plain_server(&own));
        {
            let _proxy = world.launch(&[]);
            let refused = eventually("the server is refused", async || {
                assert!(world.ads.opened().is_empty());
                (_proxy.log().iter().any(|line| line.contains("warn") || line.contains("error"))).then_some(())
            });
            refused.await;
        }
        let _proxy = world.launch(&[("ALT_XDS_HOSTNAME", "istiod.istio-system.svc")]);
        world.ads.first(0, ADDRESS).await;
    }
}

isolated_test! {
    async fn wds_the_root_may_be_given_as_text() {
        let world = World::new();
        let pem = world.control_authority.root_pem();
        let _proxy = world.launch(&[("XDS_ROOT_CA", &pem)]);
        world.ads.first(0, ADDRESS).await;
    }
}

isolated_test! {
    async fn wds_a_large_first_answer_is_taken() {
        let world = World::new();
        let all = (0..20_000_u32).map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let mut w = Workload {
                uid: format!("cluster-1//Pod/big/pod-{n}"),
                name: format!("pod-{n}"),
                namespace: "big".into(),
                addresses: vec![vec![11, a, b, c]],
                network: "n1".into(),
                node: "far".into(),
                waypoint: Some(gateway_at("n1", "10.0.0.1")),
                ..Workload::default()
            };
            // Larger than the 4 MiB that libraries take by default.
            w.canonical_name = "x".repeat(400);
            wl(&w)
        });
        world.ads.set(all.collect());
        let running = world.start(&[]).await;
        let bytes = running.proxy.metric("istio_xds_message_bytes_total", &[("url", ADDRESS)]).await;
        assert!(bytes > 8e6, "{bytes}");
    }
}

isolated_test! {
    async fn wds_extensions_are_announced_and_the_servers_promises_are_kept() {
        let world = World::new();
        world.ads.set_metadata("x-meltemi-promises", "policyBeforeTraffic=reference");
        let store = crate::shop::Store::open_world(world, &[]).await;
        assert_eq!(store.world.ads.headers(0).await["x-meltemi-extensions"], "promises,waypoint-required");
        store.cart.serve_copies(8080);
        let cart = Workload { authorization_policies: vec!["shop/missing".into()], ..workload(&store.cart, 1) };
        store.world.ads.apply(vec![wl(&cart)]).await;
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 200, "as the reference: skipped");
    }
}
