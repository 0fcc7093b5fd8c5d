//! The end of the process, and its successor.

use std::time::{Duration, Instant};

use conformance::frames::GOAWAY;
use conformance::isolated_test;
use conformance::peer::Client;
use conformance::wait::within;
use conformance::world::{World, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{Store, echoed, rest};

isolated_test! {
    async fn ops_row_20_a_transfer_in_flight_is_finished_before_the_end() {
        let store = Store::open_with(&[("CONNECTION_TERMINATION_DEADLINE", "5s")]).await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"before").await;
        let asked = Instant::now();
        store.running.proxy.signal("TERM");
        client.frames.wait("GOAWAY", |frame| frame.kind == GOAWAY).await;
        within("the listener is closed", Duration::from_millis(500), async {
            while store.peer.connect_marked(store.cart.at(15008)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // Policy updates still come: the control plane is left last.
        let pod = store.world.hub.pod("x", "y", "10.7.0.1");
        store.world.ads.apply(vec![wl(&workload(&pod, 0))]).await;
        while asked.elapsed() < Duration::from_secs(3) {
            echoed(&mut tunnel, b"during").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "");
        assert_eq!(store.running.proxy.exit().await, Some(0));
        assert!(asked.elapsed() < Duration::from_millis(4900), "it need not wait for the deadline");
    }
}

isolated_test! {
    async fn ops_row_20_what_is_left_at_the_deadline_is_cut() {
        let store = Store::open_with(&[("CONNECTION_TERMINATION_DEADLINE", "1s")]).await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"before").await;
        let asked = Instant::now();
        store.running.proxy.signal("TERM");
        let read = within("the cut", Duration::from_secs(3), tunnel.read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(0) | Err(_)));
        assert!(asked.elapsed() >= Duration::from_millis(900), "{:?}", asked.elapsed());
        assert_eq!(store.running.proxy.exit().await, Some(0));
    }
}

isolated_test! {
    async fn ops_readiness_drops_out_first_and_a_second_interrupt_ends_at_once() {
        let store = Store::open_with(&[("CONNECTION_TERMINATION_DEADLINE", "30s")]).await;
        store.cart.serve_copies(8080);
        let client = store.client().await;
        let mut tunnel = client.open(&store.authority(8080)).await.unwrap().tunnel;
        echoed(&mut tunnel, b"before").await;
        store.running.proxy.signal("INT");
        conformance::wait::eventually("not ready", async || {
            match store.running.proxy.readiness().await {
                Some(reply) if reply.status == 200 => None,
                _ => Some(()),
            }
        })
        .await;
        assert!(store.running.proxy.runs());
        store.running.proxy.signal("INT");
        let code = within("the end", Duration::from_secs(2), store.running.proxy.exit()).await;
        assert_ne!(code, Some(0));
    }
}

isolated_test! {
    async fn ops_upgrade_new_connections_go_to_the_successor_and_none_is_refused() {
        let store = Store::open().await;
        store.cart.serve_copies(8080);
        let mut open = store.peer.connect(store.cart.at(8080)).await.unwrap();
        echoed(&mut open, b"1").await;
        let successor = World::new();
        let mut cart = workload(&store.cart, 1);
        cart.canonical_name = "seen-by-successor".into();
        successor.ads.set(vec![wl(&cart)]);
        let authority = store.world.authority.clone();
        successor.ca.behave(move |asked| {
            let leaf = conformance::pki::Leaf::of(&asked.identity());
            conformance::ca::Answer::Chain(authority.sign(&asked.request.csr, &leaf))
        });
        let new = successor.start(&[]).await;
        assert_eq!(new.session.add(&store.cart).await, "");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (caller, to, stopped) = (store.peer.clone(), store.cart.at(8080), stop.clone());
        let load = tokio::spawn(async move {
            let mut served = 0;
            while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
                let answer = caller.ask(to, "x").await;
                assert_eq!(answer.unwrap_or_else(|error| error.to_string()), "x", "after {served}");
                served += 1;
            }
            served
        });
        store.running.proxy.signal("TERM");
        echoed(&mut open, b"2").await;
        drop(open);
        assert_eq!(store.running.proxy.exit().await, Some(0));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(load.await.unwrap() > 0);
        let own = store.world.credentials(&store.peer.identity());
        let client = Client::connect(&store.peer, store.cart.at(15008), &own).await.unwrap();
        let answer = client.open(&store.authority(8080)).await.unwrap();
        assert!(answer.headers["baggage"].to_str().unwrap().contains("seen-by-successor"));
    }
}
