//! Ways to run the proxy: parts switched off, one workload only, itself in the mesh.

use std::net::{IpAddr, SocketAddr};

use conformance::isolated_test;
use conformance::peer::Client;
use conformance::pki::uris_of;
use conformance::wait::soon;
use conformance::wire::workload::Workload;
use conformance::world::{World, backing, service, svc, wl, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{Shop, Store, VIP, echoed};

/// Asks the proxy's SOCKS port in a pod to connect; the reply code and the stream.
async fn socks(pod: &conformance::net::Pod, target: &[u8]) -> (u8, tokio::net::TcpStream) {
    let mut stream = pod.connect(([127, 0, 0, 1], 15080).into()).await.unwrap();
    soon("the SOCKS dialogue ends", async {
        stream.write_all(&[5, 1, 0]).await.unwrap();
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await.unwrap();
        assert_eq!(chosen, [5, 0], "no authentication");
        stream.write_all(&[&[5, 1, 0], target].concat()).await.unwrap();
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!((reply[0], &reply[2..]), (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]), "bound to 0.0.0.0:0");
        (reply[1], stream)
    })
    .await
}

isolated_test! {
    async fn hbone_socks_is_as_good_as_capture_when_it_is_on() {
        let shop = Shop::open_with(&[("UNSTABLE_ENABLE_SOCKS5", "true")]).await;
        let proxy = shop.cart_proxy();
        let IpAddr::V4(vip) = VIP.parse().unwrap() else { unreachable!() };
        let (reply, mut app) = socks(&shop.web, &[&[1][..], &vip.octets(), &80_u16.to_be_bytes()].concat()).await;
        assert_eq!(reply, 0);
        let stream = proxy.stream().await;
        assert_eq!(stream.authority, "10.1.0.77:8080");
        let mut tunnel = stream.accept();
        app.write_all(b"x").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
        let six: SocketAddr = SocketAddr::new("fd99::9".parse().unwrap(), 80);
        let IpAddr::V6(ip) = six.ip() else { unreachable!() };
        let (reply, _app) = socks(&shop.web, &[&[4][..], &ip.octets(), &80_u16.to_be_bytes()].concat()).await;
        assert_eq!(reply, 0);
        assert_eq!(proxy.stream().await.authority, format!("[{}]:8080", shop.cart.v6));
        assert!(shop.web.connect_marked(shop.web.at(15080)).await.is_err(), "on loopback alone");
        // Versions, methods and commands that it does not speak end the connection.
        for odd in [&[4_u8, 1, 0, 80, 1, 2, 3, 4, 0][..], &[5, 1, 2], &[5, 1, 0, 5, 2, 0, 1, 1, 2, 3, 4, 0, 80]] {
            let mut stream = shop.web.connect(([127, 0, 0, 1], 15080).into()).await.unwrap();
            stream.write_all(odd).await.unwrap();
            let mut answer = Vec::new();
            let _ = soon("the dialogue ends", stream.read_to_end(&mut answer)).await;
            assert!(answer.len() <= 12 && !answer.ends_with(&[5, 0]), "{odd:?}: {answer:?}");
        }
    }
}

isolated_test! {
    async fn hbone_the_socks_port_is_closed_and_open_to_tunnels_when_it_is_off() {
        let store = Store::open().await;
        assert!(store.cart.connect(([127, 0, 0, 1], 15080).into()).await.is_err());
        store.cart.serve_copies(15080);
        assert_eq!(store.client().await.status(&store.authority(15080)).await, 200, "a port like any other");
    }
}

isolated_test! {
    async fn hbone_row_14_the_socks_port_is_the_proxys_own_when_it_is_on() {
        let store = Store::open_with(&[("UNSTABLE_ENABLE_SOCKS5", "true")]).await;
        assert_eq!(store.client().await.status(&store.authority(15080)).await, 503);
    }
}

isolated_test! {
    async fn hbone_the_proxy_itself_is_reached_over_a_tunnel() {
        let world = World::new();
        let own = Workload { service_account: "ztunnel".into(), name: "ztunnel-abc".into(), ..workload(&world.node, 1) };
        world.ads.set(vec![wl(&own)]);
        let _running = world.start(&[]).await;
        let peer = world.hub.pod("monitoring", "prometheus", "10.8.0.1");
        let credentials = world.credentials(&peer.identity());
        let client = soon("a tunnel", Client::connect(&peer, world.node.at(15008), &credentials)).await.unwrap();
        assert_eq!(uris_of(&client.chain[0]), ["spiffe://cluster.local/ns/istio-system/sa/ztunnel"]);
        let mut tunnel = client.open("10.0.0.4:15020").await.unwrap().tunnel;
        tunnel.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let page = crate::shop::rest(&mut tunnel).await.unwrap();
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("istio_build"), "{page}");
        assert_eq!(client.status("10.0.0.99:15020").await, 400);
        assert_eq!(client.status("10.0.0.4:15008").await, 503);
    }
}

isolated_test! {
    async fn hbone_without_an_identity_of_its_own_the_proxy_has_no_tunnel_port() {
        let world = World::new();
        let _running = world.start(&[("SERVICE_ACCOUNT", "")]).await;
        let peer = world.hub.pod("monitoring", "prometheus", "10.8.0.1");
        assert!(peer.connect(world.node.at(15008)).await.is_err());
    }
}

isolated_test! {
    async fn hbone_without_ipv6_the_listeners_are_ipv4() {
        let store = Store::open_with(&[("IPV6_ENABLED", "false")]).await;
        store.cart.serve_copies(8080);
        assert!(store.peer.connect(SocketAddr::new(store.cart.v6, 15008)).await.is_err());
        assert_eq!(store.client().await.status(&store.authority(8080)).await, 200);
    }
}

isolated_test! {
    async fn ops_dedicated_mode_serves_its_own_namespace_without_an_agent() {
        let world = World::new();
        let pod = world.node.clone();
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let cart_service = service("shop", "cart", &[VIP], &[(80, 8080)]);
        let endpoint = Workload { node: "node-2".into(), ..workload(&cart, 1) };
        world.ads.set(vec![
            wl(&workload(&pod, 1)),
            svc(&cart_service),
            wl(&backing(endpoint, &cart_service, &[(80, 8080)])),
        ]);
        let tunnels = std::sync::Arc::new(conformance::peer::Server::listen(
            &cart,
            15008,
            world.server_tls(&cart.identity()),
        ));
        tunnels.serve_copies();
        let proxy = world.launch(&[
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "istio-system/ztunnel/ztunnel"),
            ("PACKET_MARK", "1337"),
            ("INPOD_UDS", ""),
        ]);
        proxy.ready().await;
        conformance::rules::redirect(&pod.netns, false);
        let mut app = pod.connect(SocketAddr::new(VIP.parse().unwrap(), 80)).await.unwrap();
        echoed(&mut app, b"dedicated").await;
        assert_eq!(uris_of(&tunnels.connections()[0].chain[0]), ["spiffe://cluster.local/ns/istio-system/sa/ztunnel"]);
    }
}

isolated_test! {
    async fn ops_proxying_can_be_switched_off() {
        let world = World::new();
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart_service = service("shop", "cart", &[VIP], &[(80, 8080)]);
        world.ads.set(vec![wl(&workload(&web, 1)), svc(&cart_service)]);
        let running = world.start(&[("ENABLE_PROXY", "false"), ("ISTIO_META_DNS_CAPTURE", "true")]).await;
        assert_eq!(running.session.add(&web).await, "");
        for port in [15001, 15006, 15008] {
            assert!(web.connect_marked(web.at(port)).await.is_err(), "{port}");
        }
        let server = SocketAddr::new([127, 0, 0, 1].into(), 15053);
        let answer = conformance::dns::ask(&web, server, &conformance::dns::query(1, "cart", conformance::dns::A)).await;
        assert_eq!(answer.addresses().len(), 1, "names are still answered");
        assert!(world.ca.requests_for(&web.identity()).is_empty(), "no certificate is needed");
    }
}

isolated_test! {
    async fn ops_the_mesh_configuration_is_used_below_the_environment() {
        let world = World::new();
        std::fs::create_dir_all(world.dir.path().join("etc/istio/config")).unwrap();
        let file = "defaultConfig:\n  discoveryAddress: localhost:15012\n  statsPort: 15920\n  proxyAdminPort: 15900\n  concurrency: 1\n  proxyMetadata:\n    FROM_FILE: \"yes\"\n";
        std::fs::write(world.dir.path().join("etc/istio/config/mesh"), file).unwrap();
        let running = world
            .start(&[("XDS_ADDRESS", ""), ("CA_ADDRESS", ""), ("ZTUNNEL_WORKER_THREADS", ""), ("PROXY_CONFIG", "statsPort: 15921\n")])
            .await;
        let dump = running.proxy.http(15900, "GET", "/config_dump").await.expect("the admin port of the file");
        let dump: serde_json::Value = serde_json::from_str(&dump.body).unwrap();
        assert_eq!(dump["config"]["xdsAddress"], "https://localhost:15012");
        assert!(running.proxy.http(15921, "GET", "/metrics").await.is_some(), "the environment's document wins");
        let first = world.ads.first(0, conformance::wire::ADDRESS).await;
        let metadata = first.node.unwrap().metadata.unwrap().fields;
        assert!(metadata.contains_key("FROM_FILE"), "{metadata:?}");
    }
}
