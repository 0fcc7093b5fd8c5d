//! Tunnels that are no longer wanted, and peers that are no longer there. On paused time.

use std::rc::Rc;
use std::time::Duration;

use mesh_hbone::{Pool, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::fixture::{PipeDialer, connect_to, echo, local, pipe_key, say, serve};

#[tokio::test(start_paused = true)]
async fn an_unused_tunnel_is_closed_after_five_minutes_and_not_before() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        let pool = Pool::new(dialer, Settings::default());
        let server = spawn_local(async move {
            let io = far_ends.recv().await.unwrap();
            serve(io, Rc::new(Notify::new()), Rc::new(echo)).await;
        });
        let mut opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(say(&mut opened.stream, "in use").await, "in use");
        drop(opened);
        tokio::time::sleep(Duration::from_secs(299)).await;
        assert_eq!(pool.connections(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(pool.connections(), 0);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_fails_the_streams_of_its_tunnel() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        let pool = Pool::new(dialer, Settings::default());
        // A peer that accepts one stream and then answers nothing, pings included.
        let peer = spawn_local(async move {
            let io = far_ends.recv().await.unwrap();
            let mut connection = h2::server::handshake(io).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(http::Response::new(()), false).unwrap();
            // Flushes the response.
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.accept()).await;
            std::future::pending::<()>().await;
            drop((request, send, connection));
        });
        let mut opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        let started = tokio::time::Instant::now();
        let error = opened.stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let waited = started.elapsed();
        assert!((29..=31).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(opened.stream.write_all(b"x").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        tokio::task::yield_now().await;
        assert_eq!(pool.connections(), 0);
        peer.abort();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_pool_ends_its_tunnels() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        let pool = Pool::new(dialer, Settings::default());
        let server = spawn_local(async move {
            let io = far_ends.recv().await.unwrap();
            serve(io, Rc::new(Notify::new()), Rc::new(echo)).await;
        });
        let mut opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        drop(pool);
        assert!(opened.stream.read(&mut [0; 1]).await.is_err());
        tokio::time::timeout(Duration::from_secs(1), server).await.unwrap().unwrap();
    })
    .await;
}
