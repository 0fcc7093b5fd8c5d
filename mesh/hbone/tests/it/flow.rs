//! Bytes through a tunnel, over TLS.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::{Baggage, OpenError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

use crate::fixture::{TlsServer, connect_to, echo, echo_or_deny, local, say};

#[tokio::test]
async fn hbone_row_8_sequential_connections_share_one_tunnel() {
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        for _ in 0..3 {
            let mut opened = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
            assert_eq!(say(&mut opened.stream, "hello").await, "hello");
            opened.stream.shutdown().await.unwrap();
            assert_eq!(opened.stream.read(&mut [0; 8]).await.unwrap(), 0);
        }
        assert_eq!((server.connections.get(), pool.dialer().dials.get()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn hbone_row_9_a_client_that_has_finished_still_gets_the_whole_answer() {
    local(async {
        let server = TlsServer::start(|request| async {
            let mut stream = request.accept(None).unwrap();
            let mut question = String::new();
            stream.read_to_string(&mut question).await.unwrap();
            stream.write_all(format!("answer to {question}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        let pool = server.pool();
        let mut opened = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        opened.stream.write_all(b"question").await.unwrap();
        opened.stream.shutdown().await.unwrap();
        let mut answer = String::new();
        opened.stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer to question");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_has_finished_still_gets_the_whole_request() {
    local(async {
        let (done, received) = tokio::sync::oneshot::channel();
        let done = std::cell::RefCell::new(Some(done));
        let server = TlsServer::start(move |request| {
            let done = done.borrow_mut().take().unwrap();
            async move {
                let mut stream = request.accept(None).unwrap();
                stream.write_all(b"banner").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                done.send(text).unwrap();
            }
        })
        .await;
        let pool = server.pool();
        let mut opened = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        let mut banner = String::new();
        opened.stream.read_to_string(&mut banner).await.unwrap();
        assert_eq!(banner, "banner");
        opened.stream.write_all(b"late request").await.unwrap();
        opened.stream.shutdown().await.unwrap();
        assert_eq!(received.await.unwrap(), "late request");
    })
    .await;
}

#[tokio::test]
async fn hbone_row_15_a_refused_connection_leaves_the_others_alone() {
    local(async {
        let server = TlsServer::start(echo_or_deny).await;
        let pool = server.pool();
        let mut other = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        let refused = pool.open(&server.key(), connect_to("10.1.0.77:401")).await.unwrap_err();
        assert_eq!(refused.to_string(), "peer answered 401 Unauthorized to CONNECT 10.1.0.77:401");
        assert!(matches!(refused, OpenError::Refused { status: StatusCode::UNAUTHORIZED, .. }));
        assert_eq!(say(&mut other.stream, "still here").await, "still here");
        assert_eq!(server.connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_answer_comes_only_when_the_server_has_accepted() {
    local(async {
        let gate = std::rc::Rc::new(tokio::sync::Notify::new());
        let opened_gate = gate.clone();
        let server = TlsServer::start(move |request| {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                let baggage = Baggage { namespace: Some("shop".into()), ..Baggage::default() };
                let _stream = request.accept(baggage.encode()).unwrap();
                std::future::pending::<()>().await;
            }
        })
        .await;
        let pool = server.pool();
        let key = server.key();
        let mut opening = Box::pin(pool.open(&key, connect_to("10.1.0.77:8080")));
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut opening).await.is_err());
        opened_gate.notify_one();
        let opened = opening.await.unwrap();
        assert_eq!(Baggage::decode(&opened.headers).unwrap().namespace.as_deref(), Some("shop"));
    })
    .await;
}

#[tokio::test]
async fn hbone_row_10_goaway_lets_the_open_connection_finish_and_new_ones_dial_anew() {
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        let mut first = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        assert_eq!(say(&mut first.stream, "before").await, "before");
        server.go_away.notify_one();
        // The client learns of it with the next bytes it reads.
        while pool.connections() > 0 && server.connections.get() == 1 {
            let mut next = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
            assert_eq!(say(&mut next.stream, "new").await, "new");
        }
        assert_eq!(server.connections.get(), 2);
        assert_eq!(say(&mut first.stream, "after").await, "after");
    })
    .await;
}

#[tokio::test]
async fn sixty_four_mebibytes_each_way_arrive_unchanged() {
    const TOTAL: usize = 64 << 20;
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        let opened = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        let (mut read, mut write) = tokio::io::split(opened.stream);
        let sender = spawn_local(async move {
            let mut hash = DefaultHasher::new();
            let mut block = vec![0_u8; 256 << 10];
            let mut seed = 1_u32;
            for _ in 0..TOTAL / block.len() {
                for byte in &mut block {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = (seed >> 24) as u8;
                }
                hash.write(&block);
                write.write_all(&block).await.unwrap();
            }
            write.shutdown().await.unwrap();
            hash.finish()
        });
        let mut hash = DefaultHasher::new();
        let mut received = 0;
        let mut block = vec![0_u8; 256 << 10];
        loop {
            // Whole blocks, because the hash depends on how the bytes are cut.
            let mut filled = 0;
            while filled < block.len() {
                match read.read(&mut block[filled..]).await.unwrap() {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                break;
            }
            hash.write(&block[..filled]);
            received += filled;
        }
        assert_eq!(received, TOTAL);
        assert_eq!(hash.finish(), sender.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_stall_its_neighbours() {
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        let mut stuck = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        // More than a stream window comes back and stays unread.
        let block = vec![1_u8; 1 << 20];
        for _ in 0..6 {
            let write = tokio::time::timeout(Duration::from_millis(500), stuck.stream.write_all(&block)).await;
            if write.is_err() {
                break;
            }
        }
        let mut other = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        for _ in 0..20 {
            assert_eq!(say(&mut other.stream, "through").await, "through");
        }
        assert_eq!(server.connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn many_tiny_writes_that_are_held_and_not_passed_on_do_not_end_the_tunnel() {
    local(async {
        let server = TlsServer::start(|request| async {
            if request.authority().is_some_and(|authority| authority.ends_with(":1")) {
                let mut stuck = request.accept(None).unwrap();
                let mut held = Vec::new();
                let hold = std::future::poll_fn(|cx| {
                    while let std::task::Poll::Ready(bytes) = stuck.poll_hoard(cx) {
                        held.extend_from_slice(&bytes);
                    }
                    std::task::Poll::<()>::Pending
                });
                hold.await;
            } else {
                echo(request).await;
            }
        })
        .await;
        let pool = server.pool();
        let mut stuck = pool.open(&server.key(), connect_to("10.1.0.77:1")).await.unwrap();
        let mut other = pool.open(&server.key(), connect_to("10.1.0.77:8080")).await.unwrap();
        for _ in 0..60 {
            for _ in 0..1000 {
                // Far more than the library would keep.
                stuck.stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(say(&mut other.stream, "through").await, "through");
        }
        assert_eq!(server.connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_with_another_identity_is_named_in_the_error() {
    local(async {
        let server = TlsServer::start(echo).await;
        let mut key = server.key();
        key.expected = vec!["spiffe://cluster.local/ns/shop/sa/db".parse().unwrap()];
        let error = server.pool().open(&key, connect_to("10.1.0.77:8080")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "TLS with {} failed: server certificate is for spiffe://cluster.local/ns/shop/sa/cart, \
                 wanted spiffe://cluster.local/ns/shop/sa/db",
                server.addr
            )
        );
    })
    .await;
}
