//! Connections that an enrolled pod opens.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Enrolled, Mesh, log_line};

isolated_test! {
    async fn hbone_row_1_and_19_a_service_is_reached_through_a_tunnel_and_sees_the_caller() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let answer = mesh.web.ask(mesh.vip, "hello").await.unwrap();
        assert_eq!(answer, format!("{} said hello", mesh.web.v4));
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=inbound", &web, "connection complete"]).await;
        assert!(line.contains("src.identity=spiffe://cluster.local/ns/shop/sa/web"), "{line}");
        assert!(line.contains("dst.identity=spiffe://cluster.local/ns/shop/sa/cart"), "{line}");
        assert!(line.contains("dst.service=cart.shop.svc.cluster.local"), "{line}");
        assert!(line.contains(&format!("dst.hbone_addr={}", mesh.app())), "{line}");
        assert!(line.contains(&format!("bytes_sent={} bytes_recv=5", answer.len())), "{line}");
        let line = log_line(&["direction=outbound", &web, "connection complete"]).await;
        assert!(line.contains(&format!("dst.addr={}:15008", mesh.cart.v4)), "{line}");
        assert!(line.contains(&format!("bytes_sent=5 bytes_recv={}", answer.len())), "{line}");
    }
}

isolated_test! {
    async fn ipv6_works_like_ipv4() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let answer = mesh.web.ask(mesh.vip6, "six").await.unwrap();
        assert_eq!(answer, format!("{} said six", mesh.web.v6));
        let direct = SocketAddr::new(mesh.cart.v6, APP_PORT);
        assert_eq!(mesh.web.ask(direct, "direct").await.unwrap(), format!("{} said direct", mesh.web.v6));
    }
}

isolated_test! {
    async fn hbone_row_2_an_endpoint_outside_the_mesh_is_reached_in_plaintext() {
        let mesh = Mesh::start(Enrolled { web: true, cart: false }).await;
        mesh.cart.serve_echo(APP_PORT);
        let answer = mesh.web.ask(mesh.vip, "plain").await.unwrap();
        assert_eq!(answer, format!("{} said plain", mesh.web.v4));
        let line = log_line(&["direction=outbound", &mesh.web.v4.to_string(), "connection complete"]).await;
        assert!(!line.contains("identity"), "{line}");
    }
}

isolated_test! {
    async fn hbone_row_3_an_unknown_address_is_passed_through() {
        let mesh = Mesh::start(Enrolled { web: true, cart: false }).await;
        // An address that no resource names, behind the same cable.
        let unknown: SocketAddr = SocketAddr::new(std::net::Ipv4Addr::new(203, 0, 113, 4).into(), 443);
        mesh.cart.netns.run(|| {
            let args = ["addr", "add", "203.0.113.4/32", "dev", "eth0"];
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        }).unwrap();
        mesh.cart.serve_echo(443);
        assert_eq!(mesh.web.ask(unknown, "out").await.unwrap(), format!("{} said out", mesh.web.v4));
    }
}

isolated_test! {
    async fn a_server_that_speaks_first_is_heard() {
        let mesh = Mesh::start(BOTH).await;
        let listener = mesh.cart.listen(SocketAddr::new(mesh.cart.v4, APP_PORT));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 ready").await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
        });
        let mut stream = mesh.web.connect(mesh.vip).await.unwrap();
        let mut banner = [0; 9];
        stream.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 ready");
    }
}

isolated_test! {
    async fn a_server_that_finishes_first_still_hears_the_client() {
        let mesh = Mesh::start(BOTH).await;
        let listener = mesh.cart.listen(SocketAddr::new(mesh.cart.v4, APP_PORT));
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            rest
        });
        let mut stream = mesh.web.connect(mesh.vip).await.unwrap();
        let mut bye = String::new();
        stream.read_to_string(&mut bye).await.unwrap();
        assert_eq!(bye, "bye");
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(heard.await.unwrap(), "last words");
    }
}

isolated_test! {
    async fn a_pod_reaches_its_own_service_and_its_own_address() {
        let mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        let answer = mesh.cart.ask(mesh.vip, "me").await.unwrap();
        assert!(answer.ends_with("said me"), "{answer}");
        assert_eq!(mesh.cart.ask(mesh.app(), "direct").await.unwrap(), format!("{} said direct", mesh.cart.v4));
    }
}

isolated_test! {
    async fn dialling_the_proxy_itself_is_refused() {
        let mesh = Mesh::start(BOTH).await;
        for port in [15001, 15006] {
            let loopback: SocketAddr = ([127, 0, 0, 1], port).into();
            let mut stream = mesh.web.connect(loopback).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
            // From the other pod it is redirected to the plaintext port, which refuses it.
            let outside = SocketAddr::new(mesh.cart.v4, port);
            assert!(mesh.web.ask(outside, "x").await.unwrap_or_default().is_empty());
        }
    }
}

isolated_test! {
    async fn five_hundred_connections_at_once() {
        let mesh = std::sync::Arc::new(Mesh::start(BOTH).await);
        mesh.cart.serve_echo(APP_PORT);
        let tasks: Vec<_> = (0..500)
            .map(|n| {
                let mesh = mesh.clone();
                tokio::spawn(async move { mesh.web.ask(mesh.vip, &format!("number {n}")).await })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap(), format!("{} said number {n}", mesh.web.v4));
        }
    }
}

isolated_test! {
    async fn sixty_four_mebibytes_each_way() {
        const TOTAL: usize = 64 << 20;
        let mesh = Mesh::start(BOTH).await;
        let listener = mesh.cart.listen(SocketAddr::new(mesh.cart.v4, APP_PORT));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.into_split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let (mut read, mut write) = mesh.web.connect(mesh.vip).await.unwrap().into_split();
        let byte = |position: usize| (position.wrapping_mul(2_654_435_761) >> 13) as u8;
        tokio::spawn(async move {
            let mut block = vec![0; 1 << 18];
            for start in (0..TOTAL).step_by(block.len()) {
                for (offset, slot) in block.iter_mut().enumerate() {
                    *slot = byte(start + offset);
                }
                write.write_all(&block).await.unwrap();
            }
        });
        let mut block = vec![0; 1 << 18];
        let mut received = 0;
        loop {
            let count = read.read(&mut block).await.unwrap();
            if count == 0 {
                break;
            }
            assert!(block[..count].iter().enumerate().all(|(offset, got)| *got == byte(received + offset)));
            received += count;
        }
        assert_eq!(received, TOTAL);
    }
}

isolated_test! {
    async fn hbone_row_16_a_closed_port_ends_the_connection_and_is_reported_on_both_sides() {
        let mesh = Mesh::start(BOTH).await;
        assert_eq!(mesh.web.ask(mesh.vip, "anyone?").await.unwrap_or_default(), "");
        let web = mesh.web.v4.to_string();
        log_line(&["direction=outbound", &web, "peer answered 503"]).await;
        log_line(&["direction=inbound", &web, "refused"]).await;
    }
}
