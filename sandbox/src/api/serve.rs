//! Listening: TLS connections, HTTP/1.1 and HTTP/2.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{ApiServer, pki, route, user::PeerCertificate};

/// Connections served at once by one listener; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for the head of an HTTP/1 request.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// Pause after a failed accept, which usually means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams of one HTTP/2 connection; client-go runs all its watches over one.
const STREAMS_MAX: u32 = 1_000;

impl ApiServer {
    /// Serves connections of all listeners until dropped, which ends the connections too.
    ///
    /// # Errors
    ///
    /// When a listener cannot be registered with the runtime.
    pub async fn serve(
        self: Arc<Self>,
        listeners: Vec<std::net::TcpListener>,
        tls: Arc<rustls::ServerConfig>,
    ) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(self.clone(), listener, TlsAcceptor::from(tls.clone())));
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

async fn accept(server: Arc<ApiServer>, listener: TcpListener, tls: TlsAcceptor) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (server, tls) = (server.clone(), tls.clone());
                connections.spawn(async move {
                    connection(server, stream, peer, tls).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting an API connection failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(server: Arc<ApiServer>, stream: TcpStream, peer: SocketAddr, tls: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(pki::peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, certificate) = (server.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(handle(server, request.map(Body::new), certificate).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(Some(HEADER_TIME));
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, %error, "API connection ended");
    }
}

async fn handle(
    server: Arc<ApiServer>,
    mut request: Request<Body>,
    certificate: Option<PeerCertificate>,
) -> axum::response::Response {
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(certificate);
    }
    route::answer(server, request).await
}
