//! TLS of tunnels that the proxy opens.

use std::sync::Arc;

use conformance::ca::Answer;
use conformance::isolated_test;
use conformance::peer::Server;
use conformance::pki::{Authority, Leaf, uris_of};
use conformance::tls::{Negotiation, mutual_server};
use conformance::wait::soon;
use conformance::world::{World, svc};
use rustls::{CipherSuite, HandshakeKind, NamedGroup};

use crate::shop::{Shop, echoed, rest};

const SUITES: [CipherSuite; 2] = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_128_GCM_SHA256];

isolated_test! {
    async fn hbone_the_hello_of_the_client_is_that_of_the_table() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        proxy.cut(0);
        // The proxy has noticed once the application has.
        let _ = rest(&mut app).await;
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        let connections = proxy.connections();
        assert_eq!(connections.len(), 2);
        for connection in connections {
            assert_eq!(connection.alpn, [b"h2".to_vec()]);
            assert_eq!(connection.server_name, None);
            let real = |suite: &&CipherSuite| **suite != CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV;
            let suites: Vec<_> = connection.suites.iter().filter(real).copied().collect();
            assert_eq!(suites, SUITES, "no other suite is offered");
            assert_eq!(connection.kind, HandshakeKind::Full, "sessions are not resumed");
        }
    }
}

isolated_test! {
    async fn hbone_the_client_presents_leaf_and_intermediates_as_issued() {
        let world = World::new();
        let intermediate = Arc::new(world.authority.intermediate("intermediate"));
        let signer = Arc::clone(&intermediate);
        world.ca.behave(move |asked| Answer::Chain(signer.sign(&asked.request.csr, &Leaf::of(&asked.identity()))));
        let shop = Shop::open_world(world, &[]).await;
        let proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        let chain = &proxy.connections()[0].chain;
        assert_eq!(chain.len(), 2, "the root is not sent");
        assert_eq!(uris_of(&chain[0]), [shop.web.identity()]);
        let expected = conformance::pki::parse_pem(&intermediate.intermediates_pem()[0]);
        assert_eq!(chain[1], expected[0]);
    }
}

isolated_test! {
    async fn hbone_a_server_without_tls_1_3_is_refused() {
        let shop = Shop::open().await;
        let old = Negotiation { versions: vec![&rustls::version::TLS12], ..Negotiation::default() };
        let own = shop.world.credentials(&shop.cart.identity());
        let tls = mutual_server(&own, &[shop.world.authority.root_der()], &old);
        let proxy = Server::listen(&shop.cart, 15008, tls);
        shop.refused(shop.vip()).await;
        assert!(proxy.connections().is_empty(), "the handshake succeeded with TLS 1.2");
        let failed = [("reporter", "source"), ("response_flags", "TLS_FAILURE")];
        shop.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
    }
}

isolated_test! {
    async fn hbone_tls_1_2_can_be_allowed() {
        let shop = Shop::open_with(&[("TLS12_ENABLED", "true")]).await;
        let old = Negotiation { versions: vec![&rustls::version::TLS12], ..Negotiation::default() };
        let own = shop.world.credentials(&shop.cart.identity());
        let proxy = Arc::new(Server::listen(
            &shop.cart,
            15008,
            mutual_server(&own, &[shop.world.authority.root_der()], &old),
        ));
        proxy.serve_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        let offered = &proxy.connections()[0].suites;
        assert!(!offered.iter().any(|suite| suite.as_str().is_some_and(|name| name.contains("CHACHA"))), "{offered:?}");
    }
}

isolated_test! {
    async fn hbone_either_of_the_two_suites_will_do() {
        for suite in SUITES {
            let shop = Shop::open().await;
            let how = Negotiation { suites: Some(vec![suite]), ..Negotiation::default() };
            let own = shop.world.credentials(&shop.cart.identity());
            let tls = mutual_server(&own, &[shop.world.authority.root_der()], &how);
            let proxy = Arc::new(Server::listen(&shop.cart, 15008, tls));
            proxy.serve_copies();
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            echoed(&mut app, b"x").await;
        }
    }
}

isolated_test! {
    async fn hbone_the_post_quantum_policy_offers_nothing_else() {
        let shop = Shop::open_with(&[("COMPLIANCE_POLICY", "pqc")]).await;
        let proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        assert_eq!(proxy.connections()[0].groups, [NamedGroup::X25519MLKEM768]);
    }
}

isolated_test! {
    async fn hbone_a_peer_with_another_identity_is_refused() {
        let shop = Shop::open().await;
        let wrong = [
            "spiffe://cluster.local/ns/shop/sa/thief",
            "spiffe://cluster.local/ns/other/sa/cart",
            "spiffe://other.example/ns/shop/sa/cart",
        ];
        for identity in wrong {
            let proxy = Server::listen(&shop.cart, 15008, shop.world.server_tls(identity));
            shop.refused(shop.vip()).await;
            assert!(proxy.try_stream().await.is_none(), "{identity} was given a request");
            proxy.stop().await;
        }
    }
}

isolated_test! {
    async fn hbone_a_peer_of_another_root_is_refused() {
        let shop = Shop::open().await;
        let other = Authority::root("somebody else");
        let own = other.of(&shop.cart.identity());
        let tls = mutual_server(&own, &[shop.world.authority.root_der()], &Negotiation::default());
        let proxy = Server::listen(&shop.cart, 15008, tls);
        shop.refused(shop.vip()).await;
        assert!(proxy.try_stream().await.is_none());
    }
}

isolated_test! {
    async fn hbone_names_of_the_service_are_accepted_besides_the_workloads_own() {
        let shop = Shop::open().await;
        let mut service = shop.service.clone();
        // One that is not an identity is skipped.
        service.subject_alt_names = vec!["nonsense".into(), "spiffe://other.example/ns/far/sa/twin".into()];
        shop.world.ads.apply(vec![svc(&service)]).await;
        for identity in ["spiffe://other.example/ns/far/sa/twin", "spiffe://cluster.local/ns/shop/sa/cart"] {
            let proxy = Arc::new(Server::listen(&shop.cart, 15008, shop.world.server_tls(identity)));
            proxy.serve_copies();
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            echoed(&mut app, b"hello").await;
            proxy.stop().await;
            // The proxy has noticed once the application has.
            let _ = rest(&mut app).await;
        }
    }
}

isolated_test! {
    async fn hbone_one_of_several_names_of_the_peer_is_enough() {
        let shop = Shop::open().await;
        let leaf = Leaf { uris: vec!["https://x".into(), shop.cart.identity()], ..Leaf::of("") };
        let own = shop.world.authority.issue(&leaf);
        let tls = mutual_server(&own, &[shop.world.authority.root_der()], &Negotiation::default());
        let proxy = Arc::new(Server::listen(&shop.cart, 15008, tls));
        proxy.serve_copies();
        assert_eq!(soon("an answer", shop.web.ask(shop.vip(), "hello")).await.unwrap(), "hello");
    }
}

isolated_test! {
    async fn hbone_a_peer_that_does_not_speak_http2_fails_the_connection() {
        let shop = Shop::open().await;
        let listener = shop.cart.listen_any(15008);
        tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"SSH-2.0-OpenSSH\r\n").await;
            }
        });
        shop.refused(shop.vip()).await;
        let failed = [("reporter", "source"), ("response_flags", "TLS_FAILURE")];
        shop.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
    }
}
