//! Tunnels are shared, bounded, left and released.

use std::time::Duration;

use conformance::frames::{PING, SETTINGS, WINDOW_UPDATE};
use conformance::isolated_test;
use conformance::peer::Server;
use conformance::wait::{soon, within};
use mesh_sys::socket::spoof_source;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shop::{Shop, echoed, rest};

isolated_test! {
    async fn hbone_row_8_connections_of_one_pod_to_one_endpoint_share_a_tunnel() {
        // Workers share nothing, tunnels neither.
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        for _ in 0..5 {
            assert_eq!(shop.web.ask(shop.vip(), "hello").await.unwrap(), "hello");
        }
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"one").await;
        let mut other = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut other, b"two").await;
        assert_eq!(proxy.connections().len(), 1);
    }
}

isolated_test! {
    async fn hbone_row_8_many_at_once_wait_for_one_dial() {
        let shop = Shop::open().await;
        let proxy = shop.cart_copies();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (web, vip) = (shop.web.clone(), shop.vip());
            all.spawn(async move { web.ask(vip, "at once").await.unwrap() });
        }
        while let Some(answer) = all.join_next().await {
            assert_eq!(answer.unwrap(), "at once");
        }
        // One worker accepts, or each worker has a pool of its own.
        assert!(proxy.connections().len() <= 2, "{} tunnels", proxy.connections().len());
    }
}

isolated_test! {
    async fn hbone_a_tunnel_is_never_shared_between_source_addresses() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        shop.web.add_address("10.1.0.6/8");
        let mut first = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut first, b"1").await;
        let socket = shop.web.netns.run(|| mesh_sys::socket::TcpConnectOptions::default().socket(shop.vip()));
        let socket = socket.unwrap().unwrap();
        spoof_source(&socket, "10.1.0.6".parse().unwrap()).unwrap();
        let mut second = tokio::net::TcpSocket::from_std_stream(socket.into()).connect(shop.vip()).await.unwrap();
        echoed(&mut second, b"2").await;
        assert_eq!(proxy.connections().len(), 2);
    }
}

isolated_test! {
    async fn hbone_a_tunnel_takes_no_more_streams_than_the_setting_says() {
        let settings = [("POOL_MAX_STREAMS_PER_CONNECTION", "2"), ("ZTUNNEL_WORKER_THREADS", "1")];
        let shop = Shop::open_with(&settings).await;
        let proxy = shop.cart_copies();
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut app = shop.web.connect(shop.vip()).await.unwrap();
            echoed(&mut app, b"x").await;
            open.push(app);
        }
        assert_eq!(proxy.connections().len(), 3);
    }
}

isolated_test! {
    async fn hbone_a_tunnel_takes_no_more_streams_than_the_peer_allows() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let tls = shop.world.server_tls(&shop.cart.identity());
        let proxy = std::sync::Arc::new(Server::listen_with(&shop.cart, 15008, tls, Some(1)));
        proxy.serve_copies();
        let mut first = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut first, b"x").await;
        let mut second = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut second, b"y").await;
        let mut third = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut third, b"z").await;
        assert_eq!(proxy.connections().len(), 3);
    }
}

isolated_test! {
    async fn hbone_row_10_goaway_lets_the_open_connection_finish_and_new_ones_dial_anew() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_proxy();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        open.write_all(b"before").await.unwrap();
        let mut six = [0; 6];
        tunnel.read_exact(&mut six).await.unwrap();
        proxy.goaway(0);
        // The pong after GOAWAY tells that the proxy has read it.
        let frames = proxy.connections()[0].frames.clone();
        frames.wait("an answer to the ping of the GOAWAY", |frame| frame.kind == PING && frame.flags & 1 == 1).await;
        let mut new = shop.web.connect(shop.vip()).await.unwrap();
        let stream = proxy.stream().await;
        assert_eq!(stream.connection, 1, "a new TLS connection");
        let mut new_tunnel = stream.accept();
        echo_back(&mut new, &mut new_tunnel).await;
        open.write_all(b"after").await.unwrap();
        open.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "after");
        tunnel.write_all(b"done").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut open).await.unwrap(), "done");
    }
}

isolated_test! {
    async fn hbone_a_broken_tunnel_is_replaced() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"x").await;
        proxy.cut(0);
        let _ = rest(&mut open).await;
        assert_eq!(soon("an answer", shop.web.ask(shop.vip(), "again")).await.unwrap(), "again");
        assert_eq!(proxy.connections().len(), 2);
    }
}

isolated_test! {
    async fn hbone_an_unused_tunnel_is_released() {
        let shop = Shop::open_with(&[("POOL_UNUSED_RELEASE_TIMEOUT", "1s")]).await;
        let proxy = shop.cart_copies();
        assert_eq!(shop.web.ask(shop.vip(), "hello").await.unwrap(), "hello");
        proxy.connections()[0].frames.wait_end().await;
    }
}

isolated_test! {
    async fn hbone_an_unused_tunnel_with_an_open_stream_stays() {
        let settings = [("POOL_UNUSED_RELEASE_TIMEOUT", "1s"), ("ZTUNNEL_WORKER_THREADS", "1")];
        let shop = Shop::open_with(&settings).await;
        let _proxy = shop.cart_copies();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"x").await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        echoed(&mut open, b"y").await;
    }
}

isolated_test! {
    async fn hbone_a_failed_dial_fails_all_who_wait_and_none_hangs() {
        let shop = Shop::open().await;
        // Nobody listens at 15008.
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (web, vip) = (shop.web.clone(), shop.vip());
            all.spawn(async move { web.ask(vip, "at once").await.unwrap_or_default() });
        }
        let done = within("all are told", Duration::from_secs(15), all.join_all()).await;
        assert!(done.iter().all(String::is_empty));
        // And no failure is remembered.
        let _proxy = shop.cart_copies();
        assert_eq!(shop.web.ask(shop.vip(), "now").await.unwrap(), "now");
    }
}

isolated_test! {
    async fn hbone_the_clients_settings_are_those_of_the_table() {
        let shop = Shop::open().await;
        let proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        let frames = proxy.connections()[0].frames.clone();
        let settings = frames.settings().await;
        for expected in [(2, 0), (4, 4 << 20), (5, 1 << 20), (6, 16 << 10)] {
            assert!(settings.contains(&expected), "{expected:?} is not among {settings:?}");
        }
        assert_eq!(frames.all()[0].kind, SETTINGS);
        let window = frames.wait("the connection window", |f| f.kind == WINDOW_UPDATE && f.stream == 0).await;
        assert_eq!(window.number(0), (16 << 20) - 65_535);
    }
}

isolated_test! {
    async fn hbone_windows_and_frame_size_follow_the_environment() {
        let shop = Shop::open_with(&[
            ("HTTP2_STREAM_WINDOW_SIZE", "262144"),
            ("HTTP2_CONNECTION_WINDOW_SIZE", "1048576"),
            ("HTTP2_FRAME_SIZE", "65536"),
        ])
        .await;
        let proxy = shop.cart_copies();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut app, b"x").await;
        let frames = proxy.connections()[0].frames.clone();
        let settings = frames.settings().await;
        assert!(settings.contains(&(4, 262_144)) && settings.contains(&(5, 65_536)), "{settings:?}");
        let window = frames.wait("the connection window", |f| f.kind == WINDOW_UPDATE && f.stream == 0).await;
        assert_eq!(window.number(0), 1_048_576 - 65_535);
    }
}

isolated_test! {
    async fn hbone_one_unread_stream_does_not_stall_the_others() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_proxy();
        let stuck = shop.web.connect(shop.vip()).await.unwrap();
        let mut flood = proxy.stream().await.accept();
        // The application does not read: its window fills up.
        let chunk = vec![0; 64 << 10];
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), flood.write(&chunk)).await {
            sent += written.unwrap();
            assert!(sent < 256 << 20, "no end of buffering");
        }
        let mut other = shop.web.connect(shop.vip()).await.unwrap();
        let stream = proxy.stream().await;
        assert_eq!(stream.connection, 0, "on the same connection");
        echo_back(&mut other, &mut stream.accept()).await;
        drop(stuck);
    }
}

isolated_test! {
    async fn hbone_an_idle_tunnel_is_probed_after_ten_seconds_and_a_dead_one_given_up() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"x").await;
        let frames = proxy.connections()[0].frames.clone();
        within("a ping", Duration::from_secs(13), async {
            while !frames.all().iter().any(|f| f.kind == PING && f.flags & 1 == 0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        // From now on nothing arrives any more, in either direction, and nobody says so.
        let silence = "table ip silence { chain in { type filter hook prerouting priority -400; drop\n}\n}\n";
        shop.cart.netns.run(|| mesh_sys::nft::apply(silence)).unwrap().unwrap();
        let read = within("the tunnel is given up", Duration::from_secs(35), open.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
    }
}

isolated_test! {
    async fn hbone_removing_a_pod_ends_its_tunnels() {
        let shop = Shop::open().await;
        let proxy = shop.cart_copies();
        assert_eq!(shop.web.ask(shop.vip(), "hello").await.unwrap(), "hello");
        assert_eq!(shop.running.session.del(&shop.web.uid).await, "");
        proxy.connections()[0].frames.wait_end().await;
    }
}

/// A byte there and one back.
async fn echo_back(app: &mut tokio::net::TcpStream, tunnel: &mut conformance::tunnel::Tunnel) {
    soon("a byte there and back", async {
        app.write_all(b"?").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'?');
        tunnel.write_all(b"!").await.unwrap();
        assert_eq!(app.read_u8().await.unwrap(), b'!');
    })
    .await;
}

isolated_test! {
    async fn hbone_a_tunnel_is_not_used_once_other_identities_are_expected() {
        let shop = Shop::open_with(&[("ZTUNNEL_WORKER_THREADS", "1")]).await;
        let proxy = shop.cart_copies();
        assert_eq!(shop.web.ask(shop.vip(), "one").await.unwrap(), "one");
        let mut service = shop.service.clone();
        service.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/twin".into()];
        shop.world.ads.apply(vec![conformance::world::svc(&service)]).await;
        assert_eq!(shop.web.ask(shop.vip(), "two").await.unwrap(), "two");
        assert_eq!(proxy.connections().len(), 2);
    }
}

isolated_test! {
    async fn hbone_trailers_of_the_peer_are_an_end_like_any_other() {
        let shop = Shop::open().await;
        let proxy = shop.cart_proxy();
        let mut app = shop.web.connect(shop.vip()).await.unwrap();
        let mut tunnel = proxy.stream().await.accept();
        tunnel.write_all(b"all").await.unwrap();
        tunnel.end_with_trailers();
        assert_eq!(rest(&mut app).await.unwrap(), "all");
    }
}

isolated_test! {
    async fn ops_row_20_outbound_connections_go_on_until_the_deadline() {
        let shop = Shop::open_with(&[("CONNECTION_TERMINATION_DEADLINE", "2s")]).await;
        let _proxy = shop.cart_copies();
        let mut open = shop.web.connect(shop.vip()).await.unwrap();
        echoed(&mut open, b"before").await;
        let asked = std::time::Instant::now();
        shop.running.proxy.signal("TERM");
        while asked.elapsed() < Duration::from_millis(1500) {
            echoed(&mut open, b"during").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let read = within("the cut", Duration::from_secs(3), open.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
        assert_eq!(shop.running.proxy.exit().await, Some(0));
    }
}
