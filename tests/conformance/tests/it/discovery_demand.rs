//! Discovery on demand.

use conformance::isolated_test;
use conformance::wire::discovery::DeltaResponse;
use conformance::wire::{ADDRESS, AUTHORIZATION};
use conformance::world::{World, service, svc, wl, workload};

isolated_test! {
    async fn wds_row_17_on_demand_an_unknown_address_is_asked_for_and_passed_through() {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let other = world.hub.pod("out", "other", "10.9.9.9");
        other.serve_echo(8080);
        world.ads.set(vec![wl(&workload(&web, 1))]);
        let running = world.start(&[("XDS_ON_DEMAND", "true")]).await;
        let first = world.ads.first(0, ADDRESS).await;
        assert_eq!((first.subscribe, first.unsubscribe), (vec!["*".to_owned()], vec!["*".to_owned()]));
        let policies = world.ads.first(0, AUTHORIZATION).await;
        assert!(policies.subscribe.is_empty() && policies.unsubscribe.is_empty(), "policies are always all");
        running.enrol(&web).await;
        // The pods of the node are pushed unasked.
        let own = wl(&workload(&web, 1)).1;
        let nonce = world.ads.send(DeltaResponse { type_url: ADDRESS.into(), resources: vec![own], ..Default::default() });
        assert_eq!(world.ads.answer(&nonce).await.error_detail, None);
        assert_eq!(web.ask(other.at(8080), "who?").await.unwrap(), "10.1.0.5 said who?");
        let asked = world.ads.request("n1/10.9.9.9 is asked for", |r| r.request.subscribe == ["n1/10.9.9.9"]).await;
        assert_eq!(asked.request.response_nonce, "", "a spontaneous request");
        assert_eq!(asked.request.error_detail, None);
    }
}

isolated_test! {
    async fn wds_on_demand_a_service_is_asked_for_once_and_known_before_the_connection_goes_on() {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        cart.serve_echo(8080);
        let s = service("shop", "cart", &["172.20.0.9"], &[(80, 8080)]);
        let endpoint = conformance::world::backing(workload(&cart, 0), &s, &[(80, 8080)]);
        let running = world.start(&[("XDS_ON_DEMAND", "true")]).await;
        world.ads.be_silent();
        running.enrol(&web).await;
        let own = wl(&workload(&web, 1)).1;
        let nonce = world.ads.send(DeltaResponse { type_url: ADDRESS.into(), resources: vec![own], ..Default::default() });
        world.ads.answer(&nonce).await;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let web = web.clone();
            all.spawn(async move { web.ask("172.20.0.9:80".parse().unwrap(), "once").await.unwrap() });
        }
        let name = "n1/172.20.0.9".to_owned();
        world.ads.request("the address is asked for", |r| r.request.subscribe.contains(&name)).await;
        // The answer has its own name, with the address as an alias, and brings the endpoint along.
        let resources = vec![svc(&s).1, wl(&endpoint).1];
        let nonce = world.ads.send(DeltaResponse { type_url: ADDRESS.into(), resources, ..Default::default() });
        assert_eq!(world.ads.answer(&nonce).await.error_detail, None);
        while let Some(answer) = all.join_next().await {
            assert_eq!(answer.unwrap(), "10.1.0.5 said once");
        }
        let times = world.ads.requests().iter().filter(|r| r.request.subscribe.contains(&name)).count();
        assert_eq!(times, 1, "one request for all who wait");
        // A new stream reports what is known and what is still wanted.
        world.control.cut();
        let first = world.ads.first(1, ADDRESS).await;
        assert!(first.initial_resource_versions.contains_key("shop/cart.shop.svc.cluster.local"), "{first:?}");
    }
}

isolated_test! {
    async fn wds_on_demand_only_policies_are_needed_to_be_ready_and_dns_must_be_off() {
        let world = World::new();
        world.ads.be_silent();
        let proxy = world.launch(&[("XDS_ON_DEMAND", "true")]);
        let session = world.agent.session().await;
        session.snapshot_sent().await;
        world.ads.first(0, AUTHORIZATION).await;
        world.ads.send(DeltaResponse { type_url: AUTHORIZATION.into(), ..Default::default() });
        proxy.ready().await;
        drop(proxy);
        let both = world.launch(&[("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "true")]);
        assert_eq!(both.exit().await, Some(1), "the two exclude each other");
    }
}
