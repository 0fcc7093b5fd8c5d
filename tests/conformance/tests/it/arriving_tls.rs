//! TLS and HTTP/2 of tunnels that arrive.

use std::sync::Arc;
use std::time::Duration;

use conformance::ca::Answer;
use conformance::frames::{PING, SETTINGS, WINDOW_UPDATE};
use conformance::isolated_test;
use conformance::peer::Client;
use conformance::pki::{Authority, Credentials, Leaf, parse_pem, uris_of};
use conformance::tls::Negotiation;
use conformance::wait::{soon, within};
use conformance::world::World;
use rustls::CipherSuite;
use tokio::io::AsyncReadExt;

use crate::shop::{Store, echoed};

#[track_caller]
fn refused(store: &Store, own: Option<&Credentials>, how: &Negotiation) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let connected = Client::connect_with(&store.peer, store.cart.at(15008), own, how).await;
        assert!(connected.is_err(), "{caller}: the handshake succeeded");
    }
}

isolated_test! {
    async fn hbone_row_11_a_client_of_another_trust_domain_is_refused() {
        let store = Store::open().await;
        let foreign = store.world.credentials("spiffe://other.example/ns/web/sa/api");
        refused(&store, Some(&foreign), &Negotiation::default()).await;
        store.running.proxy.log_line(&["connection failed", "src.addr=10.1.0.5", "direction=inbound"]).await;
        let opened = store.running.proxy.metric("istio_tcp_connections_opened_total", &[]).await;
        assert!(opened == 0.0, "refused before there is a context: no counter changes");
    }
}

isolated_test! {
    async fn hbone_clients_without_a_valid_certificate_are_refused() {
        let store = Store::open().await;
        let how = Negotiation::default();
        refused(&store, None, &how).await;
        let stranger = Authority::root("somebody else").of(&store.peer.identity());
        refused(&store, Some(&stranger), &how).await;
        let now = std::time::SystemTime::now();
        let (before, hour) = (now - Duration::from_secs(7200), now - Duration::from_secs(3600));
        let expired = Leaf { not_before: before, not_after: hour, ..Leaf::of(&store.peer.identity()) };
        refused(&store, Some(&store.world.authority.issue(&expired)), &how).await;
        let nameless = Leaf { uris: vec!["https://x.example/".into()], ..Leaf::of("") };
        refused(&store, Some(&store.world.authority.issue(&nameless)), &how).await;
        // One identity of the own trust domain is enough.
        let several = Leaf {
            uris: vec!["spiffe://other.example/ns/a/sa/b".into(), store.peer.identity()],
            ..Leaf::of("")
        };
        let own = store.world.authority.issue(&several);
        Client::connect(&store.peer, store.cart.at(15008), &own).await.unwrap();
    }
}

isolated_test! {
    async fn hbone_only_tls_1_3_with_the_two_suites_is_accepted() {
        let store = Store::open().await;
        let own = store.world.credentials(&store.peer.identity());
        let old = Negotiation { versions: vec![&rustls::version::TLS12], ..Negotiation::default() };
        refused(&store, Some(&own), &old).await;
        let chacha = Negotiation {
            suites: Some(vec![CipherSuite::TLS13_CHACHA20_POLY1305_SHA256]),
            ..Negotiation::default()
        };
        refused(&store, Some(&own), &chacha).await;
        for suite in [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384] {
            let how = Negotiation { suites: Some(vec![suite]), ..Negotiation::default() };
            let client = Client::connect_with(&store.peer, store.cart.at(15008), Some(&own), &how).await.unwrap();
            assert_eq!(client.version, rustls::ProtocolVersion::TLSv1_3);
        }
    }
}

isolated_test! {
    async fn hbone_tls_1_2_is_accepted_once_it_is_allowed() {
        let store = Store::open_with(&[("TLS12_ENABLED", "true")]).await;
        let own = store.world.credentials(&store.peer.identity());
        let old = Negotiation { versions: vec![&rustls::version::TLS12], ..Negotiation::default() };
        let client = Client::connect_with(&store.peer, store.cart.at(15008), Some(&own), &old).await.unwrap();
        assert_eq!(client.version, rustls::ProtocolVersion::TLSv1_2);
        let chacha = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
        refused(&store, Some(&own), &Negotiation { suites: Some(vec![chacha]), ..old }).await;
        assert_eq!(store.client().await.version, rustls::ProtocolVersion::TLSv1_3);
    }
}

isolated_test! {
    async fn hbone_the_server_presents_leaf_and_intermediates_of_the_pods_identity() {
        let world = World::new();
        let intermediate = Arc::new(world.authority.intermediate("intermediate"));
        let signer = Arc::clone(&intermediate);
        world.ca.behave(move |asked| Answer::Chain(signer.sign(&asked.request.csr, &Leaf::of(&asked.identity()))));
        let store = Store::open_world(world, &[]).await;
        let client = store.client().await;
        assert_eq!(uris_of(&client.chain[0]), [store.cart.identity()]);
        assert_eq!(client.chain[1..], parse_pem(&intermediate.intermediates_pem()[0]));
    }
}

isolated_test! {
    async fn hbone_each_pod_of_the_node_presents_its_own_identity() {
        let store = Store::open().await;
        let other = store.world.hub.pod("shop", "other", "10.1.0.78");
        store.world.ads.apply(vec![conformance::world::wl(&conformance::world::workload(&other, 1))]).await;
        store.running.enrol(&other).await;
        let own = store.world.credentials(&store.peer.identity());
        for pod in [&store.cart, &other] {
            let client = Client::connect(&store.peer, pod.at(15008), &own).await.unwrap();
            assert_eq!(uris_of(&client.chain[0]), [pod.identity()]);
        }
    }
}

isolated_test! {
    async fn hbone_a_peer_with_an_rsa_certificate_is_accepted() {
        let store = Store::open().await;
        let own = store.world.authority.issue_rsa(&Leaf::of(&store.peer.identity()));
        store.cart.serve_copies(8080);
        let client = Client::connect(&store.peer, store.cart.at(15008), &own).await.unwrap();
        assert_eq!(client.status(&store.authority(8080)).await, 200);
    }
}

isolated_test! {
    async fn hbone_the_servers_settings_are_those_of_the_table() {
        let store = Store::open().await;
        let client = store.client().await;
        let settings = client.frames.settings().await;
        for expected in [(3, 200), (4, 4 << 20), (5, 1 << 20), (6, 64 << 10)] {
            assert!(settings.contains(&expected), "{expected:?} is not among {settings:?}");
        }
        assert_eq!(client.frames.all()[0].kind, SETTINGS);
        let window = client.frames.wait("the connection window", |f| f.kind == WINDOW_UPDATE && f.stream == 0).await;
        assert_eq!(window.number(0), (16 << 20) - 65_535);
    }
}

isolated_test! {
    async fn hbone_an_idle_client_is_probed_after_ten_seconds_and_a_dead_one_torn_down() {
        let store = Store::open().await;
        let listener = store.cart.listen_any(8080);
        let client = store.client().await;
        let answer = client.open(&store.authority(8080)).await.unwrap();
        assert_eq!(answer.status, 200);
        let (mut app, _) = listener.accept().await.unwrap();
        within("a ping", Duration::from_secs(13), async {
            while !client.frames.all().iter().any(|f| f.kind == PING && f.flags & 1 == 0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let silence = "table ip silence { chain in { type filter hook prerouting priority -400; drop\n}\n}\n";
        store.peer.netns.run(|| mesh_sys::nft::apply(silence)).unwrap().unwrap();
        let read = within("the tunnel is given up", Duration::from_secs(35), app.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
    }
}

isolated_test! {
    async fn hbone_an_unread_stream_does_not_stall_the_others_on_its_connection() {
        let store = Store::open().await;
        let listener = store.cart.listen_any(9000);
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut stuck = client.open(&store.authority(9000)).await.unwrap().tunnel;
        // Accepted and never read.
        let _app = soon("the application is called", listener.accept()).await.unwrap();
        let chunk = vec![0; 64 << 10];
        let mut sent = 0;
        loop {
            let write = tokio::io::AsyncWriteExt::write(&mut stuck, &chunk);
            let Ok(written) = tokio::time::timeout(Duration::from_millis(500), write).await else { break };
            sent += written.unwrap();
            assert!(sent < 256 << 20, "no end of buffering");
        }
        let mut other = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut other, b"free").await;
    }
}

isolated_test! {
    async fn hbone_the_server_name_of_a_client_is_ignored() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let own = store.world.credentials(&store.peer.identity());
        let how = Negotiation { server_name: Some("somebody.else.example"), ..Negotiation::default() };
        let client = Client::connect_with(&store.peer, store.cart.at(15008), Some(&own), &how).await.unwrap();
        assert_eq!(client.status(&store.authority(8080)).await, 200);
    }
}
