//! Certificates: how they are asked for, kept, renewed and given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use conformance::ca::{Answer, Asked};
use conformance::grpc::code;
use conformance::isolated_test;
use conformance::peer::{Client, Server};
use conformance::pki::{Authority, Leaf, pem, uris_of};
use conformance::proxy::Proxy;
use conformance::tls::{self, Negotiation, mutual_server};
use conformance::wait::{eventually, never_within, soon};
use conformance::wire::ADDRESS;
use conformance::world::{World, wl, workload};
use tokio::io::AsyncReadExt;

use crate::shop::{Shop, Store, echoed};

/// Signs for as long as the test says, from now on.
fn short_lived(world: &World, life: Duration) {
    let authority = Arc::clone(&world.authority);
    world.ca.behave(move |asked| {
        let now = SystemTime::now();
        let leaf = Leaf { not_before: now, not_after: now + life, ..Leaf::of(&asked.identity()) };
        Answer::Chain(authority.sign(&asked.request.csr, &leaf))
    });
}

isolated_test! {
    async fn ca_row_2_the_request_of_the_shared_mode() {
        let store = Store::open_with(&[("CA_HEADER_x-tenant", "blue")]).await;
        store.client().await;
        let asked = store.world.ca.request(&store.cart.identity(), 0).await;
        assert_eq!(asked.metadata("ImpersonatedIdentity").as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
        assert_eq!(asked.request.metadata.as_ref().unwrap().fields.len(), 1, "no other option");
        assert_eq!(asked.request.validity_duration, 86400);
        assert_eq!(asked.header("authorization"), Some("Bearer token-of-the-node"));
        assert_eq!(asked.header("clusterid"), Some("cluster-1"));
        assert_eq!(asked.header("x-tenant"), Some("blue"));
        assert_eq!(asked.header("te"), Some("trailers"), "a gRPC request");
        let csr = asked.csr();
        assert!(csr.subject_empty);
        assert_eq!(csr.uris, ["spiffe://cluster.local/ns/shop/sa/cart"]);
        assert_eq!((csr.names, csr.extensions), (1, 1), "one name, one extension");
        assert!(csr.critical);
        assert!(csr.p256);
        assert_eq!(csr.signature, "1.2.840.10045.4.3.2", "ECDSA with SHA-256");
    }
}

isolated_test! {
    async fn ca_the_wanted_life_follows_the_environment() {
        let store = Store::open_with(&[("SECRET_TTL", "2h")]).await;
        assert_eq!(store.world.ca.request(&store.cart.identity(), 0).await.request.validity_duration, 7200);
    }
}

isolated_test! {
    async fn ca_row_1_dedicated_mode_asks_for_itself() {
        let world = World::new();
        let pod = world.node.clone();
        world.ads.set(vec![wl(&conformance::wire::workload::Workload {
            service_account: "own".into(),
            ..workload(&pod, 1)
        })]);
        pod.serve_copies(8080);
        let proxy = world.launch(&[
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "istio-system/ztunnel/own"),
            ("INPOD_UDS", ""),
            // Nothing in the namespace would bring answers to a borrowed address back.
            ("ENABLE_ORIG_SRC", "false"),
        ]);
        proxy.ready().await;
        let peer = world.hub.pod("web", "api", "10.1.0.5");
        let own = world.credentials(&peer.identity());
        let client = soon("a tunnel", Client::connect(&peer, pod.at(15008), &own)).await.unwrap();
        assert_eq!(uris_of(&client.chain[0]), ["spiffe://cluster.local/ns/istio-system/sa/own"]);
        let asked = world.ca.request("spiffe://cluster.local/ns/istio-system/sa/own", 0).await;
        let options = asked.request.metadata.clone().unwrap_or_default().fields;
        assert!(options.is_empty(), "no impersonation: {options:?}");
        assert_eq!(client.status(&pod.at(8080).to_string()).await, 200);
    }
}

isolated_test! {
    async fn ca_answers_without_a_root_or_for_somebody_else_are_refused() {
        let world = World::new();
        let authority = Arc::clone(&world.authority);
        let answers: [(&str, Signing); 4] = [
            ("nothing", |_, _| Vec::new()),
            ("leaf alone", |ca, asked| ca.sign(&asked.request.csr, &Leaf::of(&asked.identity()))[..1].to_vec()),
            ("another name", |ca, asked| ca.sign(&asked.request.csr, &Leaf::of("spiffe://cluster.local/ns/x/sa/y"))),
            ("garbage", |_, _| vec!["no".into(), "certificate".into()]),
        ];
        let running = world.start(&[]).await;
        for (number, (what, answer)) in answers.into_iter().enumerate() {
            let signer = Arc::clone(&authority);
            world.ca.behave(move |asked| Answer::Chain(answer(&signer, asked)));
            let pod = world.hub.pod("shop", &format!("pod-{number}"), &format!("10.1.0.{}", 20 + number));
            world.ads.apply(vec![wl(&workload(&pod, 1))]).await;
            running.enrol(&pod).await;
            world.ca.request(&pod.identity(), 0).await;
            let peer = world.credentials("spiffe://cluster.local/ns/web/sa/api");
            let connected = Client::connect(&world.node, pod.at(15008), &peer).await;
            assert!(connected.is_err(), "{what} was used");
            let state = running.proxy.dump_that(what, |dump| state_of(dump, &pod.identity()).contains("Unavailable")).await;
            assert!(state_of(&state, &pod.identity()).contains(": "), "with the reason");
        }
    }
}

/// How an authority answers.
type Signing = fn(&Authority, &Asked) -> Vec<String>;

/// State of an identity's certificate in the dump.
fn state_of(dump: &serde_json::Value, identity: &str) -> String {
    let all = dump["certificates"].as_array().unwrap();
    let own = all.iter().find(|entry| entry["identity"] == identity);
    own.map(|entry| entry["state"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

isolated_test! {
    async fn ca_row_9_every_root_of_the_last_element_is_trusted() {
        let world = World::new();
        let second = Arc::new(Authority::root("second"));
        let intermediate = Arc::new(world.authority.intermediate("intermediate"));
        let (signer, other) = (Arc::clone(&intermediate), second.root_pem());
        world.ca.behave(move |asked| {
            let mut chain = signer.sign(&asked.request.csr, &Leaf::of(&asked.identity()));
            // A root that cannot be read is skipped.
            let broken = pem("CERTIFICATE", &[0x30, 3, 1, 2, 3]);
            let last = format!("{}{broken}{other}", chain.pop().unwrap());
            chain.push(last);
            Answer::Chain(chain)
        });
        let store = Store::open_world(world, &[]).await;
        store.cart.serve_copies(8080);
        for authority in [&second, &store.world.authority] {
            let own = authority.of(&store.peer.identity());
            let client = Client::connect(&store.peer, store.cart.at(15008), &own).await.unwrap();
            assert_eq!(client.status(&store.authority(8080)).await, 200);
        }
    }
}

isolated_test! {
    async fn ca_row_10_renewal_is_half_way_and_connections_keep_their_certificate() {
        let world = World::new();
        short_lived(&world, Duration::from_secs(8));
        let store = Store::open_world(world, &[]).await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        let first = store.world.ca.request(&store.cart.identity(), 0).await;
        let second = store.world.ca.request(&store.cart.identity(), 1).await;
        let pause = second.at - first.at;
        assert!(pause > Duration::from_millis(2500) && pause < Duration::from_millis(6500), "after {pause:?} of 8 s");
        assert_ne!(first.csr().public_key, second.csr().public_key, "a new key for each request");
        echoed(&mut tunnel, b"still here").await;
        eventually("new connections see the new certificate", async || {
            let fresh = store.client().await;
            (fresh.chain[0] != client.chain[0]).then_some(())
        })
        .await;
    }
}

isolated_test! {
    async fn ca_row_11_a_valid_certificate_is_used_while_the_authority_is_away() {
        let world = World::new();
        short_lived(&world, Duration::from_secs(12));
        let store = Store::open_world(world, &[]).await;
        store.cart.serve_copies(8080);
        store.client().await;
        store.world.ca.behave(|_| Answer::Refusal(code::UNAVAILABLE, "down"));
        // Two failures: the second is a retry after a backoff.
        store.world.ca.request_within(&store.cart.identity(), 2, Duration::from_secs(14)).await;
        let client = store.client().await;
        assert_eq!(client.status(&store.authority(8080)).await, 200);
        short_lived(&store.world, Duration::from_secs(3600));
        eventually("the certificate is renewed at last", async || {
            (store.client().await.chain[0] != client.chain[0]).then_some(())
        })
        .await;
    }
}

isolated_test! {
    async fn ca_failures_are_retried_with_growing_pauses_and_waiters_are_told() {
        let world = World::new();
        world.ca.behave(|_| Answer::Refusal(code::UNAUTHENTICATED, "who are you"));
        let store = Store::open_world(world, &[]).await;
        let own = store.world.credentials(&store.peer.identity());
        assert!(Client::connect(&store.peer, store.cart.at(15008), &own).await.is_err());
        let identity = store.cart.identity();
        store.world.ca.request_within(&identity, 2, Duration::from_secs(15)).await;
        let asked = store.world.ca.requests_for(&identity);
        let pauses = [asked[1].at - asked[0].at, asked[2].at - asked[1].at];
        assert!(pauses[0] >= Duration::from_millis(700), "1 s less 20 %: {pauses:?}");
        assert!(pauses[1] >= Duration::from_millis(1400), "doubled: {pauses:?}");
        assert!(pauses[1] <= Duration::from_millis(4500), "{pauses:?}");
    }
}

isolated_test! {
    async fn ca_row_12_many_pods_of_one_identity_are_one_request() {
        let world = World::new();
        let mut pods = Vec::new();
        for n in 0..6 {
            let mut pod = world.hub.pod("shop", "same", &format!("10.1.0.{}", 30 + n));
            pod.uid = format!("uid-{n}");
            let mut known = workload(&pod, 1);
            known.uid = format!("cluster-1//Pod/shop/same-{n}");
            world.ads.set(vec![wl(&known)]);
            pods.push(pod);
        }
        let running = world.start(&[]).await;
        for pod in &pods {
            running.enrol(pod).await;
        }
        let own = world.credentials("spiffe://cluster.local/ns/web/sa/api");
        for pod in &pods {
            let client = Client::connect(&world.node, pod.at(15008), &own).await.unwrap();
            assert_eq!(uris_of(&client.chain[0]), ["spiffe://cluster.local/ns/shop/sa/same"]);
        }
        assert_eq!(world.ca.requests_for("spiffe://cluster.local/ns/shop/sa/same").len(), 1);
    }
}

isolated_test! {
    async fn ca_row_12_no_more_than_eight_requests_are_open_at_once() {
        let world = World::new();
        world.ca.behave(|_| Answer::Silence);
        let pods: Vec<_> = (0..12).map(|n| world.hub.pod("shop", &format!("p{n}"), &format!("10.1.0.{}", 30 + n))).collect();
        world.ads.set(pods.iter().map(|pod| wl(&workload(pod, 1))).collect());
        let _running = world.start(&[]).await;
        eventually("eight requests", async || (world.ca.requests().len() >= 8).then_some(())).await;
        never_within("a ninth request", Duration::from_millis(700), async {
            while world.ca.requests().len() <= 8 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

isolated_test! {
    async fn ca_row_13_a_forgotten_identity_starts_afresh() {
        let store = Store::open().await;
        store.client().await;
        let identity = store.cart.identity();
        assert_eq!(store.world.ca.requests_for(&identity).len(), 1);
        assert_eq!(store.running.session.del(&store.cart.uid).await, "");
        store.world.ads.withdraw(ADDRESS, &["cluster-1//Pod/shop/cart"]).await;
        store.running.proxy.dump_that("the certificate is gone", |dump| state_of(dump, &identity).is_empty()).await;
        store.world.ads.apply(vec![wl(&workload(&store.cart, 1))]).await;
        let again = store.world.ca.request(&identity, 1).await;
        let first = &store.world.ca.requests_for(&identity)[0];
        assert_ne!(first.csr().public_key, again.csr().public_key);
    }
}

isolated_test! {
    async fn ca_certificates_are_fetched_before_they_are_needed_and_only_for_the_own_node() {
        let world = World::new();
        let own = world.hub.pod("shop", "own", "10.1.0.30");
        let plain = world.hub.pod("shop", "plain", "10.1.0.31");
        let far = world.hub.pod("shop", "far", "10.1.0.32");
        let mut elsewhere = workload(&far, 1);
        elsewhere.node = "node-2".into();
        world.ads.set(vec![wl(&elsewhere), wl(&workload(&plain, 0)), wl(&workload(&own, 1))]);
        let _running = world.start(&[]).await;
        world.ca.request(&own.identity(), 0).await;
        assert!(world.ca.requests_for(&far.identity()).is_empty());
        assert!(world.ca.requests_for(&plain.identity()).is_empty());
    }
}

isolated_test! {
    async fn ca_row_14_each_request_carries_the_token_of_the_moment() {
        let world = World::new();
        let _running = world.start(&[]).await;
        std::fs::write(world.dir.path().join("token"), "token-of-tomorrow").unwrap();
        let pod = world.hub.pod("shop", "own", "10.1.0.30");
        world.ads.apply(vec![wl(&workload(&pod, 1))]).await;
        assert_eq!(world.ca.request(&pod.identity(), 0).await.header("authorization"), Some("Bearer token-of-tomorrow"));
    }
}

isolated_test! {
    async fn ca_row_15_a_new_root_of_the_control_plane_is_picked_up() {
        let world = World::new();
        let running = world.start(&[]).await;
        let first = world.hub.pod("shop", "first", "10.1.0.30");
        world.ads.apply(vec![wl(&workload(&first, 1))]).await;
        world.ca.request(&first.identity(), 0).await;
        // The certificate of the server changes first, the file a little later, as a ConfigMap does.
        let successor = Authority::root("next control plane");
        world.control.set_tls(tls::plain_server(&successor.issue(&Leaf::server("localhost"))));
        std::fs::write(world.dir.path().join("root.pem"), successor.root_pem()).unwrap();
        world.control.cut();
        let second = world.hub.pod("shop", "second", "10.1.0.31");
        world.ads.request("the stream is back", |r| r.stream == 1).await;
        world.ads.apply(vec![wl(&workload(&second, 1))]).await;
        world.ca.request_within(&second.identity(), 0, Duration::from_secs(20)).await;
        drop(running);
    }
}

isolated_test! {
    async fn ca_root_rotation_reaches_a_workload_with_its_renewal() {
        let world = World::new();
        let second = Arc::new(Authority::root("second"));
        let rotated = Arc::new(AtomicBool::new(false));
        let (authority, flag, other) = (Arc::clone(&world.authority), Arc::clone(&rotated), second.root_pem());
        world.ca.behave(move |asked| {
            let now = SystemTime::now();
            let leaf = Leaf { not_before: now, not_after: now + Duration::from_secs(6), ..Leaf::of(&asked.identity()) };
            let mut chain = authority.sign(&asked.request.csr, &leaf);
            if flag.load(Ordering::SeqCst) {
                let both = format!("{}{other}", chain.pop().unwrap());
                chain.push(both);
            }
            Answer::Chain(chain)
        });
        let store = Store::open_world(world, &[]).await;
        let stranger = second.of(&store.peer.identity());
        store.client().await;
        assert!(Client::connect(&store.peer, store.cart.at(15008), &stranger).await.is_err());
        rotated.store(true, Ordering::SeqCst);
        eventually("the new root is trusted", async || {
            Client::connect(&store.peer, store.cart.at(15008), &stranger).await.ok()
        })
        .await;
        // And the old one still is.
        store.client().await;
    }
}

/// A world whose proxy watches a revocation list that revokes nobody yet.
fn world_with_revocations() -> World {
    let world = World::new();
    std::fs::create_dir(world.dir.path().join("crl")).unwrap();
    write_list(&world, "");
    world
}

const CRL: (&str, &str) = ("CRL_PATH", "crl/ca-crl.pem");

/// No connection of a proxy with lists is out of their reach. Nothing that a peer can present makes the count go up: a chain
/// that cannot be read ends the handshake, and none is resumed.
async fn all_can_be_found_again(proxy: &Proxy) {
    assert_eq!(proxy.metric("istio_crl_untracked_connections_total", &[]).await, 0.0);
}

/// Replaces the list at once, as a mounted ConfigMap does.
fn write_list(world: &World, text: &str) {
    let dir = world.dir.path().join("crl");
    std::fs::write(dir.join("new"), text).unwrap();
    std::fs::rename(dir.join("new"), dir.join("ca-crl.pem")).unwrap();
}

isolated_test! {
    async fn ca_row_17_a_revoked_callers_tunnel_is_cut() {
        let store = Store::open_world(world_with_revocations(), &[CRL]).await;
        store.cart.serve_copies(8080);
        let revoked = store.world.credentials(&store.peer.identity());
        let client = Client::connect(&store.peer, store.cart.at(15008), &revoked).await.unwrap();
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"before").await;
        let good = store.client().await;
        let mut other = good.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut other, b"good").await;
        write_list(&store.world, &store.world.authority.revocations(&[&revoked.serial]));
        client.frames.wait_end().await;
        assert!(matches!(tunnel.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        store.running.proxy.log_line(&["connection complete", "direction=inbound", "revoked"]).await;
        let failed = [("reporter", "destination"), ("response_flags", "CERT_REVOKED")];
        store.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
        echoed(&mut other, b"still good").await;
        assert!(Client::connect(&store.peer, store.cart.at(15008), &revoked).await.is_err());
        let rejected = [("reporter", "destination")];
        store.running.proxy.metric_is("istio_crl_policy_rejections_total", &rejected, 1.0).await;
        all_can_be_found_again(&store.running.proxy).await;
    }
}

isolated_test! {
    async fn ca_row_17_a_revoked_peers_pooled_tunnel_is_cut_and_not_dialled_again() {
        let shop = Shop::open_world(world_with_revocations(), &[CRL, ("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let own = shop.world.credentials(&shop.cart.identity());
        let tls = mutual_server(&own, &[shop.world.authority.root_der()], &Negotiation::default());
        let proxy = Arc::new(Server::listen(&shop.cart, 15008, tls));
        proxy.serve_copies();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"before").await;
        write_list(&shop.world, &shop.world.authority.revocations(&[&own.serial]));
        proxy.connections()[0].frames.wait_end().await;
        let read = soon("the connection is cut", open.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
        shop.refused(shop.vip()).await;
        let failed = [("reporter", "source"), ("response_flags", "CERT_REVOKED")];
        eventually("the flag is counted", async || {
            (shop.running.proxy.metric("istio_tcp_connections_failed_total", &failed).await >= 1.0).then_some(())
        })
        .await;
        all_can_be_found_again(&shop.running.proxy).await;
    }
}

isolated_test! {
    async fn ca_row_17_a_revoked_intermediate_affects_all_under_it() {
        let world = world_with_revocations();
        let intermediate = world.authority.intermediate("intermediate");
        let store = Store::open_world(world, &[CRL]).await;
        store.cart.serve_copies(8080);
        let own = intermediate.of(&store.peer.identity());
        let client = Client::connect(&store.peer, store.cart.at(15008), &own).await.unwrap();
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"before").await;
        write_list(&store.world, &store.world.authority.revocations(&[&intermediate.serial()]));
        client.frames.wait_end().await;
        assert!(Client::connect(&store.peer, store.cart.at(15008), &own).await.is_err());
    }
}

isolated_test! {
    async fn ca_row_18_an_emptied_list_pardons() {
        let world = world_with_revocations();
        let revoked = world.credentials("spiffe://cluster.local/ns/web/sa/api");
        let list = world.authority.revocations(&[&revoked.serial]);
        write_list(&world, &list);
        let store = Store::open_world(world, &[CRL]).await;
        assert!(Client::connect(&store.peer, store.cart.at(15008), &revoked).await.is_err());
        // What cannot be read leaves the previous list in force.
        write_list(&store.world, "-----BEGIN X509 CRL-----\nnonsense\n-----END X509 CRL-----\n");
        never_within("a revoked peer got in", Duration::from_secs(4), async {
            while Client::connect(&store.peer, store.cart.at(15008), &revoked).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
        write_list(&store.world, "");
        eventually("the peer is accepted again", async || {
            Client::connect(&store.peer, store.cart.at(15008), &revoked).await.ok()
        })
        .await;
    }
}

isolated_test! {
    async fn ca_row_18_a_list_that_appears_late_is_loaded() {
        let world = World::new();
        std::fs::create_dir(world.dir.path().join("crl")).unwrap();
        let store = Store::open_world(world, &[CRL]).await;
        let revoked = store.world.credentials(&store.peer.identity());
        let client = Client::connect(&store.peer, store.cart.at(15008), &revoked).await.unwrap();
        write_list(&store.world, &store.world.authority.revocations(&[&revoked.serial]));
        client.frames.wait_end().await;
    }
}
