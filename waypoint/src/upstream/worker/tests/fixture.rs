//! Servers on loopback and requests to them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_wire::l7;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::endpoints::Endpoint;
use crate::upstream::host::testing::{backend, endpoint, shared, view};
use crate::upstream::worker::*;

/// What an endpoint saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: RefCell<u32>,
    /// By connection.
    pub(super) requests: RefCell<Vec<u32>>,
    pub(super) hosts: RefCell<Vec<String>>,
}

/// Runs a test as a worker runs.
pub(super) async fn worker<F: Future>(test: F) -> F::Output {
    let test = tokio::time::timeout(Duration::from_secs(20), Box::pin(test));
    LocalSet::new().run_until(test).await.expect("the test hangs")
}

pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers with the body of the request, over HTTP/1.1.
pub(super) async fn echo() -> (SocketAddr, Rc<Seen>) {
    let (listener, address) = listen().await;
    let seen = Rc::new(Seen::default());
    let shown = seen.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let number = shown.connections.replace_with(|count| *count + 1);
            let shown = shown.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                shown.requests.borrow_mut().push(number);
                let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
                shown.hosts.borrow_mut().push(host.unwrap_or_default());
                async move { Ok::<_, Infallible>(Response::new(request.into_body())) }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            tokio::task::spawn_local(serving);
        }
    });
    (address, seen)
}

/// Answers every request after `notify` lets it, over HTTP/2.
pub(super) async fn two(streams_max: u32, gate: Arc<tokio::sync::Semaphore>) -> (SocketAddr, Rc<Seen>) {
    let (listener, address) = listen().await;
    let seen = Rc::new(Seen::default());
    let shown = seen.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let number = shown.connections.replace_with(|count| *count + 1);
            let (shown, gate) = (shown.clone(), gate.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                shown.requests.borrow_mut().push(number);
                let gate = gate.clone();
                async move {
                    let _permit = gate.acquire().await.unwrap();
                    let body = request.into_body().collect().await.unwrap();
                    let trailers = body.trailers().cloned();
                    let bytes = body.to_bytes();
                    let body = Full::new(bytes).with_trailers(async move { trailers.map(Ok) });
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
            builder.max_concurrent_streams(streams_max);
            tokio::task::spawn_local(builder.serve_connection(TokioIo::new(tcp), service));
        }
    });
    (address, seen)
}

#[derive(Clone)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves each connection by hand, in order.
pub(super) async fn by_hand<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream, u32) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(tcp, number));
        }
    });
    address
}

pub(super) fn at(address: SocketAddr) -> Endpoint {
    endpoint(&address.to_string())
}

pub(super) struct Upstream {
    pub(super) upstreams: WorkerUpstreams,
    pub(super) cluster: Arc<Cluster>,
}

/// A pool of these endpoints.
pub(super) fn upstream(list: Vec<Endpoint>, edit: impl FnOnce(&mut l7::Backend)) -> Upstream {
    upstream_of(shared(), list, edit)
}

pub(super) fn upstream_of(
    shared: Arc<UpstreamShared>,
    list: Vec<Endpoint>,
    edit: impl FnOnce(&mut l7::Backend),
) -> Upstream {
    let mut wanted = backend(l7::TrafficPolicy::default());
    edit(&mut wanted);
    let cluster = shared.cluster(&wanted, view(list)).unwrap();
    Upstream { upstreams: WorkerUpstreams::of(shared), cluster }
}

pub(super) fn pool(edit: impl FnOnce(&mut l7::ConnectionPool)) -> impl FnOnce(&mut l7::Backend) {
    move |backend| {
        let mut pool = l7::ConnectionPool::default();
        edit(&mut pool);
        backend.policy.as_mut().unwrap().connection_pool = Some(pool);
    }
}

pub(super) fn http2(backend: &mut l7::Backend) {
    backend.http = l7::backend::Http::Http2.into();
}

pub(super) fn post(body: &'static str) -> Request<RequestBody> {
    let request = Request::post("http://shop.example/cart?id=1");
    request.body(if body.is_empty() { RequestBody::Empty } else { RequestBody::Full(Bytes::from(body)) }).unwrap()
}

impl Upstream {
    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<Reply, Failure> {
        self.upstreams.request(&self.cluster, request, &PickContext::default()).await
    }

    /// The whole response body.
    pub(super) async fn exchange(&self, body: &'static str) -> Result<Bytes, Failure> {
        let reply = self.send(post(body)).await?;
        assert_eq!(reply.response.status(), 200);
        Ok(reply.response.into_body().collect().await.unwrap().to_bytes())
    }

    pub(super) fn gauge(&self, name: &str) -> u64 {
        self.cluster.gauges().into_iter().find(|(key, _)| *key == name).unwrap().1
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.cluster.stats().list().into_iter().find(|(key, _)| *key == name).unwrap().1
    }

    /// As time would do it.
    pub(super) fn sweep(&self) {
        self.upstreams.inner.sweep();
    }
}

/// Lets others get on until `done`.
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
