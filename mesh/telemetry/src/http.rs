//! A small HTTP server for admin, statistics and readiness ports.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take to send its request head: admin ports serve people and scrapers, not
/// slow links.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections served at once per listener; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// How long running requests may go on after the drain started.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, so that running out of descriptors does not spin.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves `router` until `drain` completes, then closes the listener, lets running requests finish
/// for at most [`DRAIN_TIMEOUT`] and returns.
///
/// Handlers see the client's address as [`ConnectInfo`].
///
/// `drain` is any future: usually the one that waits for the process's drain signal.
pub async fn serve<D>(listener: TcpListener, router: Router, drain: D)
where
    D: Future + Send,
{
    // No guessing of the version: a client that says nothing at all would have no deadline.
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut drain = std::pin::pin!(drain);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = &mut drain => break,
        };
        let Ok((stream, peer, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo(peer))));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    // What does not finish in time is cut when the runtime ends.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await.inspect_err(|error| {
        tracing::warn!(%error, "accepting an admin connection failed");
    })?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start() -> (SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let router = Router::new().route("/hello", get(|| async { "hello\n" }));
        (addr, stop, tokio::spawn(serve(listener, router, stopped)))
    }

    #[tokio::test]
    async fn answers_until_drained() {
        let (addr, stop, server) = start().await;
        let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello\n"), "{text}");
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_head_is_cut() {
        let (addr, _stop, _server) = start().await;
        for head in ["GET /hello HTTP/1.1\r\n", ""] {
            let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let limit = HEADER_READ_TIMEOUT + Duration::from_secs(5);
            tokio::time::timeout(limit, client.read_to_end(&mut rest)).await.unwrap().unwrap();
        }
    }
}
