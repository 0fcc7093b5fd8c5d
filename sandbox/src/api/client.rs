//! The in-process client: kube-rs over a function call.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, response::Response};
use http::{Request, header};
use hyper::{body::Incoming, client::conn::http1 as client, server::conn::http1 as server, service::service_fn};
use hyper_util::rt::TokioIo;
use tower::service_fn as tower_service;

use super::{ApiServer, route, user::InProcess};

/// Bytes in flight in each direction of an in-process stream such as `exec`.
const PIPE_BYTES: usize = 64 * 1024;

impl ApiServer {
    /// A client that calls this server without sockets or TLS, as a member of `system:masters`.
    /// It keeps the server alive.
    pub fn client(self: &Arc<Self>) -> kube::Client {
        let server = self.clone();
        let service = tower_service(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { call(server, request.map(Body::new)).await }
        });
        kube::Client::new(service, "default")
    }
}

async fn call(server: Arc<ApiServer>, mut request: Request<Body>) -> Result<Response, hyper::Error> {
    if !request.headers().contains_key(header::UPGRADE) {
        request.extensions_mut().insert(InProcess);
        return Ok(route::answer(server, request).await);
    }
    upgraded(server, request).await
}

/// A protocol switch needs a connection underneath: a pipe with HTTP/1.1 on both ends.
async fn upgraded(api: Arc<ApiServer>, mut request: Request<Body>) -> Result<Response, hyper::Error> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let api = api.clone();
        request.extensions_mut().insert(InProcess);
        async move { Ok::<_, Infallible>(route::answer(api, request.map(Body::new)).await) }
    });
    tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection.with_upgrades());
    // Over a connection only the path is sent, and HTTP/1.1 wants a host.
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request.headers_mut().entry(header::HOST).or_insert(http::HeaderValue::from_static("localhost"));
    Ok(sender.send_request(request).await?.map(Body::new))
}
