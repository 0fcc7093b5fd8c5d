//! The pod protocol: what the proxy says to the node agent, and what it does with the pods it is given.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use conformance::agent::add;
use conformance::isolated_test;
use conformance::net::Pod;
use conformance::wait::eventually;
use conformance::wire::zds::{Add, Payload};
use conformance::world::{World, backing, service, svc, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::echoed;

/// Whether somebody listens on a port of the pod.
async fn listens(pod: &Pod, port: u16) -> bool {
    pod.connect_marked(pod.at(port)).await.is_ok()
}

async fn all_listen(pod: &Pod) -> bool {
    listens(pod, 15001).await && listens(pod, 15006).await && listens(pod, 15008).await
}

async fn none_listens(pod: &Pod) {
    eventually("the pod's ports are closed", async || {
        let open = listens(pod, 15001).await || listens(pod, 15006).await || listens(pod, 15008).await;
        (!open).then_some(())
    })
    .await;
}

/// A world with one pod that serves copies at 8080 and is known to the control plane.
fn world_with_cart() -> (World, Pod) {
    let world = World::new();
    let cart = world.hub.pod("shop", "cart", "10.1.0.77");
    cart.serve_copies(8080);
    world.ads.set(vec![wl(&workload(&cart, 1))]);
    (world, cart)
}

isolated_test! {
    async fn zds_row_1_the_first_packet_is_a_hello_of_version_1() {
        let world = World::new();
        let _proxy = world.launch(&[]);
        let session = world.agent.session().await;
        assert_eq!(session.hello, [8, 1], "field 1, number 1, and nothing else");
        assert_eq!(session.version(), 1);
    }
}

isolated_test! {
    async fn zds_row_1_an_agent_that_comes_late_is_found() {
        let world = World::new();
        let late = world.dir.path().join("late.sock");
        let proxy = world.launch(&[("INPOD_UDS", late.to_str().unwrap())]);
        proxy.unready("workload proxy manager").await;
        let agent = conformance::agent::Agent::listen(&late);
        let session = agent.session().await;
        assert_eq!(session.version(), 1);
        session.snapshot_sent().await;
        proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_2_a_snapshot_with_a_pod_binds_its_ports_and_makes_ready() {
        let (world, cart) = world_with_cart();
        let proxy = world.launch(&[]);
        let session = world.agent.session().await;
        proxy.unready("workload proxy manager").await;
        assert_eq!(session.add(&cart).await, "");
        assert!(all_listen(&cart).await, "the acknowledgement means that the listeners are bound");
        assert_eq!(session.snapshot_sent().await, "");
        proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_2_an_acknowledged_pod_refuses_nothing_although_its_control_plane_is_late() {
        let (world, cart) = world_with_cart();
        world.control.stop().await;
        let _proxy = world.launch(&[]);
        let session = world.agent.session().await;
        assert_eq!(session.add(&cart).await, "");
        conformance::rules::redirect(&cart.netns, false);
        let client = world.hub.pod("out", "client", "10.9.0.9");
        let mut early = client.connect(cart.at(8080)).await.unwrap();
        early.write_all(b"early").await.unwrap();
        world.control.listen();
        let mut back = [0; 5];
        conformance::wait::soon("the early connection is served", early.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"early");
    }
}

isolated_test! {
    async fn zds_row_3_an_empty_snapshot_makes_ready() {
        let world = World::new();
        let proxy = world.launch(&[]);
        let session = world.agent.session().await;
        assert_eq!(session.snapshot_sent().await, "");
        proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_4_a_repeated_add_of_the_same_namespace_disturbs_nothing() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        running.enrol(&cart).await;
        let client = world.hub.pod("out", "client", "10.9.0.9");
        let mut open = client.connect(cart.at(8080)).await.unwrap();
        echoed(&mut open, b"1").await;
        let other_number = cart.netns.try_clone().unwrap();
        running.session.send(add(&cart), &[other_number.as_fd()]).await;
        assert_eq!(running.session.ack().await, "");
        echoed(&mut open, b"2").await;
        assert!(all_listen(&cart).await);
        running.proxy.metric_is("workload_manager_proxies_started_total", &[], 1.0).await;
        running.proxy.metric_is("workload_manager_active_proxy_count", &[], 1.0).await;
    }
}

isolated_test! {
    async fn zds_row_5_a_pod_whose_port_is_taken_is_pending_until_it_is_free() {
        let (world, cart) = world_with_cart();
        let other = world.hub.pod("shop", "other", "10.1.0.78");
        let running = world.start(&[]).await;
        let taken = cart.listen_any(15008);
        let error = running.session.add(&cart).await;
        assert!(!error.is_empty(), "an Ack with an error");
        running.proxy.unready("workload proxy manager").await;
        running.proxy.metric_is("workload_manager_pending_proxy_count", &[], 1.0).await;
        assert_eq!(running.session.add(&other).await, "", "other pods are not affected");
        let freed = Instant::now();
        drop(taken);
        running.proxy.ready().await;
        assert!(freed.elapsed() < Duration::from_secs(8), "retried every 5 s, took {:?}", freed.elapsed());
        assert!(all_listen(&cart).await);
    }
}

isolated_test! {
    async fn zds_row_6_deleting_a_pending_pod_makes_ready() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        let _taken = cart.listen_any(15008);
        assert_ne!(running.session.add(&cart).await, "");
        running.proxy.unready("workload proxy manager").await;
        assert_eq!(running.session.del(&cart.uid).await, "");
        running.proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_7_a_pod_that_a_new_snapshot_omits_is_stopped_when_it_ends() {
        let (world, cart) = world_with_cart();
        let other = world.hub.pod("shop", "other", "10.1.0.78");
        let running = world.start(&[]).await;
        assert_eq!(running.session.add(&cart).await, "");
        assert_eq!(running.session.add(&other).await, "");
        drop(running.session);
        let session = world.agent.session().await;
        assert_eq!(session.add(&cart).await, "");
        assert!(all_listen(&other).await, "nothing is stopped before the snapshot ends");
        assert_eq!(session.snapshot_sent().await, "");
        none_listens(&other).await;
        assert!(all_listen(&cart).await);
        running.proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_8_a_kept_pod_is_untouched() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        running.enrol(&cart).await;
        let client = world.hub.pod("out", "client", "10.9.0.9");
        let mut open = client.connect(cart.at(8080)).await.unwrap();
        echoed(&mut open, b"1").await;
        drop(running.session);
        let session = world.agent.session().await;
        assert_eq!(session.keep(&cart.uid).await, "");
        assert_eq!(session.snapshot_sent().await, "");
        running.proxy.ready().await;
        echoed(&mut open, b"2").await;
        assert!(all_listen(&cart).await);
    }
}

isolated_test! {
    async fn zds_row_9_deleting_the_unknown_is_fine() {
        let world = World::new();
        let running = world.start(&[]).await;
        assert_eq!(running.session.del("nobody").await, "");
        assert_eq!(running.session.del("nobody").await, "");
    }
}

isolated_test! {
    async fn zds_row_10_a_second_end_of_the_snapshot_ends_the_process() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        assert_eq!(running.session.add(&cart).await, "");
        assert_ne!(running.session.snapshot_sent().await, "");
        let code = running.proxy.exit().await;
        assert!(code.is_some_and(|code| code != 0), "exit code {code:?}");
    }
}

isolated_test! {
    async fn zds_row_10_keep_after_the_snapshot_ends_the_process() {
        let world = World::new();
        let running = world.start(&[]).await;
        assert_ne!(running.session.keep("somebody").await, "");
        let code = running.proxy.exit().await;
        assert!(code.is_some_and(|code| code != 0), "exit code {code:?}");
    }
}

isolated_test! {
    async fn zds_row_10_add_without_workload_info_ends_the_process() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        let bare = Payload::Add(Add { uid: "bare".into(), info: None });
        running.session.send(bare, &[cart.netns.as_fd()]).await;
        assert_ne!(running.session.ack().await, "");
        let code = running.proxy.exit().await;
        assert!(code.is_some_and(|code| code != 0), "exit code {code:?}");
    }
}

isolated_test! {
    async fn zds_row_11_add_without_a_descriptor_costs_the_connection() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        running.session.send(add(&cart), &[]).await;
        assert_ne!(running.session.ack().await, "");
        assert!(running.session.ends().await);
        let session = world.agent.session().await;
        assert_eq!(session.add(&cart).await, "");
    }
}

isolated_test! {
    async fn zds_row_11_a_descriptor_on_another_message_costs_the_connection() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        let del = Payload::Del(conformance::wire::zds::Del { uid: "x".into() });
        running.session.send(del, &[cart.netns.as_fd()]).await;
        assert_ne!(running.session.ack().await, "");
        assert!(running.session.ends().await);
        world.agent.session().await;
    }
}

isolated_test! {
    async fn zds_row_12_two_descriptors_are_both_closed() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        let mut session = running.session;
        for _ in 0..3 {
            session.send(add(&cart), &[cart.netns.as_fd(), cart.netns.as_fd()]).await;
            assert_ne!(session.ack().await, "");
            assert!(session.ends().await);
            session = world.agent.session().await;
        }
        eventually("no descriptor is left over", async || (running.proxy.descriptors_of(&cart.netns) == 0).then_some(())).await;
        assert!(!listens(&cart, 15008).await);
    }
}

isolated_test! {
    async fn zds_row_13_garbage_costs_the_connection() {
        let world = World::new();
        let running = world.start(&[]).await;
        running.session.send_raw(&[0xff; 40], &[]).await;
        assert_ne!(running.session.ack().await, "");
        assert!(running.session.ends().await);
        let session = world.agent.session().await;
        assert_eq!(session.snapshot_sent().await, "");
        running.proxy.ready().await;
    }
}

isolated_test! {
    async fn zds_row_13_a_packet_longer_than_the_buffer_costs_the_connection() {
        let world = World::new();
        let running = world.start(&[]).await;
        running.session.send_raw(&[0x0a; 2000], &[]).await;
        assert_ne!(running.session.ack().await, "");
        assert!(running.session.ends().await);
        world.agent.session().await;
    }
}

isolated_test! {
    async fn zds_row_14_traffic_goes_on_without_an_agent() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        running.enrol(&cart).await;
        let client = world.hub.pod("out", "client", "10.9.0.9");
        let mut open = client.connect(cart.at(8080)).await.unwrap();
        echoed(&mut open, b"1").await;
        drop(running.session);
        running.proxy.unready("workload proxy manager").await;
        echoed(&mut open, b"2").await;
        let mut new = client.connect(cart.at(8080)).await.unwrap();
        echoed(&mut new, b"3").await;
    }
}

isolated_test! {
    async fn zds_row_15_deleting_a_pod_cuts_its_connections() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        running.enrol(&cart).await;
        let client = world.hub.pod("out", "client", "10.9.0.9");
        let mut open = client.connect(cart.at(8080)).await.unwrap();
        echoed(&mut open, b"1").await;
        assert_eq!(running.session.del(&cart.uid).await, "");
        let read = conformance::wait::within("the cut", Duration::from_secs(2), open.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
        none_listens(&cart).await;
        running.proxy.metric_is("workload_manager_proxies_stopped_total", &[], 1.0).await;
    }
}

isolated_test! {
    async fn zds_a_pod_that_moves_to_another_namespace_is_served_there() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        assert_eq!(running.session.add(&cart).await, "");
        let mut moved = world.hub.pod("shop", "cart", "10.1.0.79");
        moved.uid.clone_from(&cart.uid);
        assert_eq!(running.session.add(&moved).await, "");
        assert!(all_listen(&moved).await);
        none_listens(&cart).await;
    }
}

isolated_test! {
    async fn zds_row_16_two_proxies_serve_one_pod_and_both_are_told_to_stop() {
        let (world, cart) = world_with_cart();
        let old = world.start(&[]).await;
        old.enrol(&cart).await;
        // The new version of the proxy runs in a namespace of its own, as a pod of the node would.
        let second = World::new();
        second.ads.set(vec![wl(&workload(&cart, 1))]);
        second.ca.behave({
            let authority = world.authority.clone();
            move |asked| {
                let leaf = conformance::pki::Leaf::of(&asked.identity());
                conformance::ca::Answer::Chain(authority.sign(&asked.request.csr, &leaf))
            }
        });
        let new = second.start(&[]).await;
        assert_eq!(new.session.add(&cart).await, "", "the ports are shared");
        // The older one is stopped and never acknowledges; the newer one does its part alone.
        old.proxy.signal("STOP");
        assert_eq!(new.session.del(&cart.uid).await, "");
        old.proxy.signal("CONT");
        assert_eq!(old.session.del(&cart.uid).await, "");
        none_listens(&cart).await;
        assert!(old.proxy.runs() && new.proxy.runs());
    }
}

isolated_test! {
    async fn zds_row_17_a_quiet_agent_hears_nothing() {
        let (world, cart) = world_with_cart();
        let running = world.start(&[]).await;
        assert_eq!(running.session.add(&cart).await, "");
        // Longer than any timer of the protocol.
        running.session.stays_quiet(Duration::from_secs(12)).await;
    }
}

isolated_test! {
    async fn zds_the_data_sockets_of_a_pod_carry_the_packet_mark() {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let cart_service = service("shop", "cart", &["172.20.0.9"], &[(80, 8080)]);
        world.ads.set(vec![
            wl(&workload(&web, 1)),
            svc(&cart_service),
            wl(&backing(workload(&cart, 0), &cart_service, &[(80, 8080)])),
        ]);
        cart.serve_copies(8080);
        let running = world.start(&[]).await;
        running.enrol(&web).await;
        // Counts what leaves the pod for the application: with the mark, and without.
        let counters = "table ip watch {\ncounter marked { }\ncounter bare { }\nchain out {
            type filter hook postrouting priority 0;
            tcp dport 8080 meta mark & 0xfff == 0x539 counter name marked
            tcp dport 8080 meta mark & 0xfff != 0x539 counter name bare\n}\n}\n";
        web.netns.run(|| mesh_sys::nft::apply(counters)).unwrap().unwrap();
        let mut open = web.connect(SocketAddr::new("172.20.0.9".parse().unwrap(), 80)).await.unwrap();
        echoed(&mut open, b"1").await;
        let text = web.netns.run(|| mesh_sys::nft::list_table("ip", "watch")).unwrap().unwrap().unwrap();
        let packets = |name: &str| {
            let (_, rest) = text.split_once(&format!("counter {name} {{")).unwrap();
            rest.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert!(packets("marked") > 0, "{text}");
        assert_eq!(packets("bare"), 0, "{text}");
    }
}
