//! Extensions of our own controller: services that take traffic only through their waypoint, and promises.

use std::time::Duration;

use conformance::isolated_test;
use conformance::net::Pod;
use conformance::peer::Client;
use conformance::wait::{soon, within};
use conformance::wire::ADDRESS;
use conformance::wire::workload::{Extension, Service, Workload};
use conformance::world::{backing, gateway_host, service, svc, wl, workload};
use tokio::io::AsyncReadExt;

use crate::shop::{Store, cancelled, echoed};

/// `cart` serves the guarded service at 8080 and something else at 9090; its waypoint is at 10.1.0.200.
struct Guarded {
    store: Store,
    waypoint: Pod,
    waypoint_service: Service,
}

/// The mark of a guarded service: an empty message.
fn required() -> Extension {
    let config =
        prost_types::Any { type_url: "type.googleapis.com/meltemi.v1.WaypointRequired".into(), value: Vec::new() };
    Extension { name: "meltemi.waypoint-required".into(), config: Some(config) }
}

impl Guarded {
    async fn open() -> Self {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        store.cart.serve_copies(9090);
        let waypoint = store.world.hub.pod("shop", "waypoint", "10.1.0.200");
        let waypoint_service = service("shop", "waypoint", &[], &[(15008, 15008)]);
        let guarded = Self { store, waypoint, waypoint_service };
        guarded.tell_waypoint().await;
        guarded.guard(true).await;
        guarded
    }

    async fn tell_waypoint(&self) {
        let own = Workload { node: "node-2".into(), ..workload(&self.waypoint, 1) };
        let own = backing(own, &self.waypoint_service, &[(15008, 15008)]);
        self.store.world.ads.apply(vec![svc(&self.waypoint_service), wl(&own)]).await;
    }

    async fn guard(&self, on: bool) {
        let mut service = self.store.service.clone();
        service.waypoint = Some(gateway_host(&self.waypoint_service));
        service.extensions = if on { vec![required()] } else { Vec::new() };
        self.store.world.ads.apply(vec![svc(&service)]).await;
    }

    async fn client(&self, from: &Pod, identity: &str) -> Client {
        let own = self.store.world.credentials(identity);
        Client::connect(from, self.store.cart.at(15008), &own).await.unwrap()
    }
}

isolated_test! {
    async fn hbone_guarded_services_take_only_what_came_through_their_waypoint() {
        let guarded = Guarded::open().await;
        let (store, waypoint) = (&guarded.store, &guarded.waypoint);
        let direct = store.client().await;
        assert_eq!(direct.status(&store.authority(8080)).await, 401, "who skips the waypoint");
        assert_eq!(direct.status("cart.shop.svc.cluster.local:80").await, 401, "by name, too");
        assert_eq!(direct.status(&store.authority(9090)).await, 200, "ports of no guarded service are exempt");
        let line = store.running.proxy.log_line(&["connection complete", "error=", "cart.shop.svc.cluster.local"]).await;
        assert!(line.contains("waypoint"), "{line}");
        let failed = [("reporter", "destination"), ("response_flags", "DENY")];
        store.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 2.0).await;
        let through = guarded.client(waypoint, &waypoint.identity()).await;
        assert_eq!(through.status(&store.authority(8080)).await, 200);
        let elsewhere = guarded.client(&store.peer, &waypoint.identity()).await;
        assert_eq!(elsewhere.status(&store.authority(8080)).await, 401, "its identity from another address");
        let somebody = guarded.client(waypoint, &store.peer.identity()).await;
        assert_eq!(somebody.status(&store.authority(8080)).await, 401, "its address with another identity");
        let plain = soon("an end", store.peer.ask(store.cart.at(8080), "plain?")).await;
        assert_eq!(plain.unwrap_or_default(), "");
        assert_eq!(soon("an answer", store.peer.ask(store.cart.at(9090), "plain?")).await.unwrap(), "plain?");
    }
}

isolated_test! {
    async fn hbone_a_guarded_service_without_a_usable_waypoint_refuses() {
        let guarded = Guarded::open().await;
        let (store, waypoint) = (&guarded.store, &guarded.waypoint);
        let through = guarded.client(waypoint, &waypoint.identity()).await;
        store.world.ads.withdraw(ADDRESS, &["shop/waypoint.shop.svc.cluster.local"]).await;
        assert_eq!(through.status(&store.authority(8080)).await, 401);
        let bare = Service { extensions: vec![required()], ..store.service.clone() };
        store.world.ads.apply(vec![svc(&bare)]).await;
        assert_eq!(through.status(&store.authority(8080)).await, 401);
        store.world.ads.apply(vec![svc(&store.service)]).await;
        assert_eq!(through.status(&store.authority(8080)).await, 200, "without the extension, as the reference");
    }
}

isolated_test! {
    async fn hbone_open_connections_end_when_their_service_becomes_guarded() {
        let guarded = Guarded::open().await;
        let (store, waypoint) = (&guarded.store, &guarded.waypoint);
        guarded.guard(false).await;
        let direct = store.client().await;
        let through = guarded.client(waypoint, &waypoint.identity()).await;
        let mut bypass = direct.open(&store.authority(8080)).await.unwrap().tunnel;
        let mut other = direct.open(&store.authority(9090)).await.unwrap().tunnel;
        let mut proper = through.open(&store.authority(8080)).await.unwrap().tunnel;
        for tunnel in [&mut bypass, &mut other, &mut proper] {
            echoed(tunnel, b"before").await;
        }
        guarded.guard(true).await;
        let read = within("the stream is reset", Duration::from_secs(2), bypass.read(&mut [0; 1])).await;
        assert!(read.is_err_and(|error| cancelled(&error)));
        for tunnel in [&mut other, &mut proper] {
            echoed(tunnel, b"after").await;
        }
    }
}

isolated_test! {
    async fn policy_promises_of_the_server_that_nobody_knows_leave_the_strict_defaults() {
        let world = conformance::world::World::new();
        world.ads.set_metadata("x-meltemi-promises", "policyBeforeTraffic=sometimes,unknown=reference,,=");
        let store = Store::open_world(world, &[]).await;
        store.cart.serve_copies(8080);
        let cart = Workload { authorization_policies: vec!["shop/missing".into()], ..workload(&store.cart, 1) };
        store.world.ads.apply(vec![wl(&cart)]).await;
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 401);
    }
}
