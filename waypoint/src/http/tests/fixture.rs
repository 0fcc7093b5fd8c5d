//! A worker with one chain, servers behind it, and clients in front of it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::drain::{self, DrainSignal, DrainWatch};
use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, SystemClock};
use mesh_policy::l7::Policies;
use mesh_route::{Limits, Table};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::l7;
use mesh_xds::client::{Demand, Subscriptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Config, Start};
use crate::connection::{ConnectionContext, Destination, PeerInfo};
use crate::endpoints::{Endpoint, EndpointSet, Place, ServiceKey, ServiceView, Store, Transport};
use crate::http::serve;
use crate::overload::Overload;
use crate::own::Own;
use crate::report::{Logged, Report, Reporter, Service};
use crate::shared::Shared;
use crate::snapshot::{Backend, Chain, ChainHandle, Entry, PortEntry, Protocol, Proxy, Role, Settings, Snapshots};
use crate::upstream::UpstreamShared;
use crate::worker::Worker;

/// Runs a test on one thread, as a worker does; fails when it hangs.
pub(crate) fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs");
    });
}

/// What the proxy is made of.
pub(crate) struct Setup {
    pub(crate) protocol: Protocol,
    pub(crate) settings: Settings,
    pub(crate) forward_client_identity: bool,
    pub(crate) http: Option<l7::HttpTable>,
    pub(crate) backends: Vec<(l7::Backend, Vec<SocketAddr>)>,
    pub(crate) policies: Vec<l7::Authorization>,
}

/// A proxy.
pub(crate) struct Fixture {
    worker: Rc<Worker>,
    upstream: Arc<UpstreamShared>,
    pub(crate) chain: ChainHandle,
    pub(crate) drain: Option<DrainSignal>,
    watch: DrainWatch,
}

impl Setup {
    pub(crate) fn to(addresses: &[SocketAddr]) -> Self {
        Self {
            protocol: Protocol::Http,
            settings: Settings::default(),
            forward_client_identity: false,
            http: None,
            backends: vec![(l7::Backend::default(), addresses.to_vec())],
            policies: Vec::new(),
        }
    }

    pub(crate) fn rule(mut self, rule: l7::HttpRule) -> Self {
        let entry = l7::HttpEntry { r#match: None, rule: 0 };
        let host = l7::VirtualHost { hostnames: vec!["*".into()], entries: vec![entry] };
        self.http = Some(l7::HttpTable { hosts: vec![host], rules: vec![rule] });
        self
    }

    pub(crate) fn start(self) -> Fixture {
        let shared = shared();
        let upstream = shared.upstream.clone();
        let worker = Worker::new(0, shared);
        let (signal, watch) = drain::channel();
        let chain = ChainHandle::new(self.chain(&upstream));
        Fixture { worker, upstream, chain, drain: Some(signal), watch }
    }

    fn chain(self, upstream: &Arc<UpstreamShared>) -> Arc<Chain> {
        let backends: Vec<Backend> =
            self.backends.iter().enumerate().map(|(n, (config, to))| backend(upstream, n, config, to)).collect();
        let service = Arc::new(Service::new("shop", "cart.shop.svc.cluster.local"));
        let limits = Limits { backends: backends.len(), ..Limits::default() };
        let port = PortEntry { service, port: 80, addresses: Box::default(), by_hostname: false };
        let trusted = ["cluster.local".to_owned()];
        Arc::new(Chain {
            name: "shop/wp/shop/cart:80".into(),
            entry: Entry::Port(Arc::new(port)),
            protocol: self.protocol,
            backends: backends.into(),
            default_backend: Some(0),
            http: self.http.map(|http| Arc::new(Table::compile(&http, &limits).unwrap())),
            tls_rules: Arc::default(),
            tcp_rules: Arc::default(),
            policies: Arc::new(Policies::compile(&self.policies, &trusted).unwrap()),
            refuse_all: None,
            proxy: Arc::new(Proxy {
                namespace: "shop".into(),
                name: "wp".into(),
                role: Role::Waypoint,
                settings: self.settings,
                forward_client_identity: self.forward_client_identity,
                serves_workloads: false,
                authorizations: Arc::default(),
                refuse_all: None,
            }),
        })
    }
}

impl Fixture {
    /// A connection of the client `shop/web`.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(64 << 10);
        tokio::task::spawn_local(serve(server, self.context()));
        client
    }

    /// What such a connection knows.
    pub(crate) fn context(&self) -> ConnectionContext {
        ConnectionContext {
            worker: self.worker.clone(),
            chain: self.chain.clone(),
            peer: Rc::new(PeerInfo {
                source_identity: Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()),
                source_address: "10.0.0.9:4711".parse().unwrap(),
                destination: Destination::Address("10.1.1.5:80".parse().unwrap()),
                local_identity: Some("spiffe://cluster.local/ns/shop/sa/wp".parse().unwrap()),
                via_hbone: true,
                tls: None,
                sni: None,
                source: Arc::default(),
            }),
            protocol: Protocol::Http,
            drain: self.watch.clone(),
        }
    }

    /// What the process is told of its memory.
    pub(crate) fn overload(&self) -> &Overload {
        &self.worker.shared.overload
    }

    /// Replaces the configuration.
    pub(crate) fn replace(&self, setup: Setup) {
        self.chain.publish_for_test(setup.chain(&self.upstream));
    }

    /// Writes bytes and reads all that comes back until the connection ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.write_all(bytes).await.unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        h1_client(self.connect()).await.send_request(request).await.unwrap()
    }

    /// Status of an ordinary request to a path.
    pub(crate) async fn get(&self, path: &str) -> Response<Incoming> {
        self.send(get(path)).await
    }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").body(Full::default()).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

type H1<B> = hyper::client::conn::http1::SendRequest<B>;
type H2<B> = hyper::client::conn::http2::SendRequest<B>;

pub(crate) async fn h1_client<B>(io: DuplexStream) -> H1<B>
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::task::spawn_local(driver);
    sender
}

pub(crate) async fn h2_client<B>(io: DuplexStream) -> H2<B>
where
    B: http_body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tasks = crate::http::h2::LocalTasks;
    let (sender, driver) = hyper::client::conn::http2::handshake(tasks, TokioIo::new(io)).await.unwrap();
    tokio::task::spawn_local(driver);
    sender
}

/// What a server has seen of a request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) version: http::Version,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A server that answers as it is told.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Rc<RefCell<Vec<Seen>>>,
}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

impl Server {
    /// Answers request number n, from 1, of either version of HTTP.
    pub(crate) async fn start(answer: impl Fn(usize, &Seen) -> Answer + 'static) -> Self {
        Self::start_slow(move |number, seen| std::future::ready(answer(number, seen))).await
    }

    pub(crate) async fn start_slow<F: Future<Output = Answer> + 'static>(
        answer: impl Fn(usize, &Seen) -> F + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Rc::default() };
        let (seen, answer) = (server.seen.clone(), Rc::new(answer));
        tokio::task::spawn_local(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |request| respond(request, seen.clone(), answer.clone()));
                    let mut builder = hyper_util::server::conn::auto::Builder::new(crate::http::h2::LocalTasks);
                    builder.http1().max_headers(200);
                    let _ = builder.serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        server
    }

    /// Says 200 to everything.
    pub(crate) async fn ok() -> Self {
        Self::start(|_, _| answer(StatusCode::OK, "ok")).await
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.borrow().last().cloned().expect("a request came through")
    }
}

async fn respond<F: Future<Output = Answer>>(
    request: Request<Incoming>,
    seen: Rc<RefCell<Vec<Seen>>>,
    answer: Rc<impl Fn(usize, &Seen) -> F>,
) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let target = parts.uri.to_string();
    let one = Seen { version: parts.version, target, headers: parts.headers, body };
    seen.borrow_mut().push(one.clone());
    let number = seen.borrow().len();
    Ok(answer(number, &one).await)
}

pub(crate) fn answer(status: StatusCode, body: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(body.as_bytes())).boxed();
    Response::builder().status(status).body(body).unwrap()
}

/// A server of bytes: what it does with each connection is up to the test.
pub(crate) async fn raw_server<F: Future<Output = ()> + 'static>(
    handle: impl Fn(TcpStream) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(handle(io));
        }
    });
    address
}

/// Reads until the end of a header section.
pub(crate) async fn read_head(io: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A rule that forwards to the first backend.
pub(crate) fn forward() -> l7::HttpRule {
    let only = l7::WeightedBackend {
        weight: 1,
        target: Some(l7::weighted_backend::Target::Backend(0)),
        ..l7::WeightedBackend::default()
    };
    let forward = l7::Forward { backends: vec![only] };
    l7::HttpRule { action: Some(l7::http_rule::Action::Forward(forward)), ..l7::HttpRule::default() }
}

pub(crate) fn millis(millis: u32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::from(millis / 1000), nanos: (millis % 1000 * 1_000_000) as i32 })
}

fn backend(upstream: &Arc<UpstreamShared>, number: usize, config: &l7::Backend, to: &[SocketAddr]) -> Backend {
    let mut config = config.clone();
    config.namespace = "shop".into();
    config.hostname = format!("cart-{number}.shop.svc.cluster.local");
    config.port = 80;
    let key = ServiceKey {
        namespace: "shop".into(),
        hostname: config.hostname.as_str().into(),
        port: 80,
        via_waypoint: false,
    };
    let view = ServiceView::new(key);
    let list = to.iter().map(|address| endpoint(*address)).collect();
    view.publish(EndpointSet { exists: true, list, ..EndpointSet::default() });
    let service = Arc::new(Service::new("shop", &config.hostname));
    let view = Arc::new(view);
    Backend {
        cluster: upstream.cluster(&config, view.clone()).unwrap(),
        view,
        service,
        config: Arc::new(config),
        guard: None,
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        id: address.to_string().into(),
        address,
        hostname: None,
        transport: Transport::Plain,
        weight: 1,
        healthy: true,
        locality: Arc::default(),
        network: "".into(),
        cluster: "".into(),
        node: "".into(),
        labels: Arc::default(),
        identity: None,
        end: Arc::default(),
    }
}

pub(crate) fn shared() -> Arc<Shared> {
    let pod = [
        ("MELTEMI_GATEWAY", "shop/wp"),
        ("POD_NAME", "wp-1"),
        ("POD_NAMESPACE", "shop"),
        ("INSTANCE_IP", "10.1.0.7"),
        ("SERVICE_ACCOUNT", "wp"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("XDS_ADDRESS", "istiod.istio-system.svc:15012"),
    ];
    let config = Config::from_env(Start::Waypoint, &pod.into_iter().collect()).unwrap();
    let certs = CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock));
    let own = Own::new(config.identity(), certs);
    let store = Arc::new(Store::new(Place::default()));
    let (demand, _) = Demand::channel();
    Arc::new(Shared {
        report: Report::new(&Registry::new(), Reporter::Waypoint, own.identity().clone(), Logged::Nothing),
        upstream: UpstreamShared::new(own.clone(), store.clone(), None),
        overload: Overload::new(config.memory_limit),
        tunnel_turns: Shared::tunnel_turns(config.workers),
        listener_turns: Shared::listener_turns(config.workers),
        config: Arc::new(config),
        own,
        snapshots: Snapshots::new(),
        endpoints: store,
        crl: None,
        readiness: Readiness::new(),
        demand,
        subscriptions: Subscriptions::new(),
    })
}
