//! Who shares which tunnel, and when one is dialled.

use std::rc::Rc;
use std::time::Duration;

use mesh_hbone::{DialError, OpenError, Pool, PoolKey, Settings};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use crate::fixture::{PipeDialer, TlsServer, connect_to, echo, local, pipe_key, say, serve};

/// Serves every dialled pipe with `echo`.
fn echo_all(mut far_ends: mpsc::Receiver<tokio::io::DuplexStream>) {
    spawn_local(async move {
        while let Some(io) = far_ends.recv().await {
            spawn_local(serve(io, Rc::new(Notify::new()), Rc::new(echo)));
        }
    });
}

#[tokio::test]
async fn many_connections_at_once_share_as_few_tunnels_as_the_limit_allows() {
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        let barrier = Rc::new(tokio::sync::Barrier::new(250));
        let tasks: Vec<_> = (0..250)
            .map(|n| {
                let (pool, key, barrier) = (pool.clone(), server.key(), barrier.clone());
                spawn_local(async move {
                    let mut opened = pool.open(&key, connect_to("10.1.0.77:8080")).await.unwrap();
                    barrier.wait().await;
                    let text = format!("number {n}");
                    assert_eq!(say(&mut opened.stream, &text).await, text);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((server.connections.get(), pool.dialer().dials.get()), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn ca_row_17_tunnels_to_a_revoked_server_are_cut_with_their_streams_and_not_dialled_again() {
    local(async {
        let server = TlsServer::start(echo).await;
        let pool = server.pool();
        let key = server.key();
        let mut opened = pool.open(&key, connect_to("10.1.0.77:8080")).await.unwrap();
        assert!(opened.server.is_some());
        assert_eq!(pool.cut_revoked(), 0);
        pool.dialer().revoking.set(true);
        assert_eq!(pool.cut_revoked(), 1);
        let ended = tokio::time::timeout(Duration::from_secs(5), opened.stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.expect("the stream was not cut").is_err());
        assert_eq!(pool.connections(), 0);
        let refused = pool.open(&key, connect_to("10.1.0.77:8080")).await.unwrap_err();
        assert!(matches!(refused, OpenError::Dial(DialError::Revoked { .. })), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn connections_with_different_keys_never_share() {
    local(async {
        let (dialer, far_ends) = PipeDialer::new();
        echo_all(far_ends);
        let pool = Pool::new(dialer, Settings::default());
        let base = pipe_key();
        let keys = [
            base.clone(),
            PoolKey { source_ip: "10.1.0.6".parse().unwrap(), ..base.clone() },
            PoolKey { expected: vec![], ..base.clone() },
            PoolKey { source: "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap(), ..base.clone() },
            PoolKey { upstream: "10.1.0.78:15008".parse().unwrap(), ..base },
        ];
        for key in &keys {
            let mut opened = pool.open(key, connect_to("10.1.0.77:8080")).await.unwrap();
            assert_eq!(say(&mut opened.stream, "x").await, "x");
        }
        assert_eq!(pool.dialer().dials.get(), keys.len());
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_allows_fewer_streams_gets_more_tunnels() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        spawn_local(async move {
            while let Some(io) = far_ends.recv().await {
                spawn_local(async move {
                    let mut connection = h2::server::Builder::new()
                        .max_concurrent_streams(2)
                        .handshake::<_, bytes::Bytes>(io)
                        .await
                        .unwrap();
                    let mut open = Vec::new();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        open.push((request, respond.send_response(http::Response::new(()), false).unwrap()));
                    }
                });
            }
        });
        let pool = Pool::new(dialer, Settings::default());
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap());
        }
        assert_eq!(pool.dialer().dials.get(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_failed_dial_is_shared_by_those_who_waited_and_forgotten_at_once() {
    local(async {
        let (dialer, far_ends) = PipeDialer::new();
        echo_all(far_ends);
        dialer.failing.set(1);
        dialer.gate.forget_permits(1000);
        let pool = Pool::new(dialer, Settings::default());
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let pool = pool.clone();
                spawn_local(async move { pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        pool.dialer().gate.add_permits(1);
        for waiter in waiters {
            let error = waiter.await.unwrap().unwrap_err();
            assert!(matches!(error, OpenError::Dial(DialError::TimedOut { .. })), "{error}");
        }
        assert_eq!(pool.dialer().dials.get(), 1);
        pool.dialer().gate.add_permits(1);
        pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        assert_eq!(pool.dialer().dials.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn when_the_one_who_dials_gives_up_a_waiter_dials() {
    local(async {
        let (dialer, far_ends) = PipeDialer::new();
        echo_all(far_ends);
        dialer.gate.forget_permits(1000);
        let pool = Pool::new(dialer, Settings::default());
        let open = |pool: Pool<PipeDialer>| async move { pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await };
        let first = spawn_local(open(pool.clone()));
        tokio::task::yield_now().await;
        let second = spawn_local(open(pool.clone()));
        tokio::task::yield_now().await;
        first.abort();
        pool.dialer().gate.add_permits(1);
        assert!(tokio::time::timeout(Duration::from_secs(5), second).await.unwrap().unwrap().is_ok());
        assert_eq!(pool.dialer().dials.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_broke_while_idle_is_replaced_without_an_error() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        let pool = Pool::new(dialer, Settings::default());
        let first = spawn_local(async move {
            let io = far_ends.recv().await.unwrap();
            let server = spawn_local(serve(io, Rc::new(Notify::new()), Rc::new(echo)));
            (server, far_ends)
        });
        let mut opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        assert_eq!(say(&mut opened.stream, "x").await, "x");
        drop(opened);
        let (server, far_ends) = first.await.unwrap();
        server.abort();
        echo_all(far_ends);
        let mut opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        assert_eq!(say(&mut opened.stream, "y").await, "y");
        assert_eq!(pool.dialer().dials.get(), 2);
    })
    .await;
}
