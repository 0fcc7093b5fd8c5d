//! What a reset of the stream looks like to the one who reads or writes it.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use h2::Reason;
use mesh_hbone::{H2Stream, Pool, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::fixture::{PipeDialer, connect_to, local, pipe_key, serve};

/// A stream whose peer resets it with `reason` right after its 200. The pool keeps the tunnel alive.
async fn reset_with(reason: Reason) -> (H2Stream, Pool<PipeDialer>) {
    let (dialer, mut far_ends) = PipeDialer::new();
    spawn_local(async move {
        let io = far_ends.recv().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let mut keep = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            spawn_local(async move {
                // Lets the response be written as a frame of its own.
                tokio::time::sleep(Duration::from_millis(1)).await;
                send.send_reset(reason);
                std::future::pending::<()>().await;
            });
            keep.push((request, respond));
        }
    });
    let pool = Pool::new(dialer, Settings::default());
    let opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
    (opened.stream, pool)
}

#[tokio::test(start_paused = true)]
async fn resets_map_to_end_of_data_or_errors() {
    use ErrorKind::{BrokenPipe, ConnectionReset};
    let table = [
        (Reason::NO_ERROR, None, BrokenPipe),
        (Reason::CANCEL, None, BrokenPipe),
        (Reason::STREAM_CLOSED, Some(ConnectionReset), BrokenPipe),
        (Reason::INTERNAL_ERROR, Some(ConnectionReset), ConnectionReset),
        (Reason::REFUSED_STREAM, Some(ConnectionReset), ConnectionReset),
    ];
    for (reason, reading, writing) in table {
        local(async move {
            let (mut stream, _pool) = reset_with(reason).await;
            match (stream.read(&mut [0; 8]).await, reading) {
                (Ok(0), None) => {}
                (Err(error), Some(kind)) if error.kind() == kind => {}
                (other, _) => panic!("{reason:?}: reading gave {other:?}"),
            }
            let error = stream.write_all(b"x").await.unwrap_err();
            assert_eq!(error.kind(), writing, "{reason:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn finishing_after_the_peer_has_had_enough_is_no_error() {
    local(async {
        let (mut stream, _pool) = reset_with(Reason::NO_ERROR).await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        stream.shutdown().await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_learns_of_the_reset() {
    local(async {
        let (mut stream, _pool) = reset_with(Reason::CANCEL).await;
        let error = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_half_way_ends_the_peer_s_reading_and_writing() {
    local(async {
        let (dialer, mut far_ends) = PipeDialer::new();
        let (done, outcome) = tokio::sync::oneshot::channel();
        let done = std::cell::RefCell::new(Some(done));
        spawn_local(async move {
            let io = far_ends.recv().await.unwrap();
            let handler = move |request: mesh_hbone::ConnectRequest| {
                let done = done.borrow_mut().take().unwrap();
                async move {
                    let mut stream = request.accept(None).unwrap();
                    let read = stream.read(&mut [0; 8]).await.unwrap();
                    let write = stream.write_all(b"x").await.unwrap_err().kind();
                    done.send((read, write)).unwrap();
                }
            };
            serve(io, Rc::new(Notify::new()), Rc::new(handler)).await;
        });
        let pool = Pool::new(dialer, Settings::default());
        let opened = pool.open(&pipe_key(), connect_to("10.1.0.77:8080")).await.unwrap();
        drop(opened);
        assert_eq!(outcome.await.unwrap(), (0, ErrorKind::BrokenPipe));
    })
    .await;
}
