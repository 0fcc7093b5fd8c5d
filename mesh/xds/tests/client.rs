//! The client against a scripted control plane over real connections.

#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)] // reason: a test binary, helpers included

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as WireResource};
use mesh_xds::client::{
    Config, DeltaClient, Demand, Handler, Observer, Rejection, Resource, RootSource, StreamEnd, TokenSource, run,
    run_on_demand,
};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const A: &str = "type.example/A";
const B: &str = "type.example/B";

/// One stream as the script sees it.
struct Session {
    headers: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Session {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        soon(self.requests.message()).await.expect("a healthy stream").expect("one more request")
    }

    async fn respond(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.expect("the client is there");
    }

    async fn end(self, status: Status) {
        self.responses.send(Err(status)).await.expect("the client is there");
    }
}

/// Hands each stream to the script.
struct Script(Mutex<mpsc::Sender<Session>>);

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Script {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (responses, stream) = mpsc::channel(4);
        let headers = request.metadata().clone();
        let session = Session { headers, requests: request.into_inner(), responses };
        self.0.lock().await.send(session).await.map_err(|_| Status::unavailable("script is over"))?;
        let mut response: Response<Responses> = Response::new(Box::pin(ReceiverStream::new(stream)));
        response.metadata_mut().insert("x-promises", "some=strict".parse().unwrap());
        Ok(response)
    }
}

async fn serve(tls: Option<ServerTlsConfig>) -> (SocketAddr, mpsc::Receiver<Session>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (sessions, incoming) = mpsc::channel(4);
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let router = server.add_service(AggregatedDiscoveryServiceServer::new(Script(Mutex::new(sessions))));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, incoming)
}

#[derive(Clone, Default)]
struct Store(Arc<std::sync::Mutex<BTreeMap<String, Vec<u8>>>>);

impl Handler for Store {
    fn apply(&mut self, _: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let mut live = self.0.lock().unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = resources.into_iter().partition(|resource| resource.value != b"bad");
        live.extend(good.into_iter().map(|resource| (resource.name, resource.value)));
        live.retain(|name, _| !removed.contains(name));
        bad.into_iter().map(|resource| Rejection::new(resource.name, "value: bad, expected good")).collect()
    }
}

/// What the observer is told.
#[derive(Debug, PartialEq)]
enum Event {
    Ready,
    Ended(&'static str),
    Refused(String),
}

struct Events(mpsc::Sender<Event>);

impl Observer for Events {
    fn opened(&mut self, headers: &MetadataMap) {
        assert_eq!(headers.get("x-promises").unwrap(), "some=strict");
    }

    fn refused(&mut self, type_url: &str, rejected: &[Rejection]) {
        let _ = self.0.try_send(Event::Refused(format!("{type_url} {}", rejected[0].name)));
    }

    fn terminated(&mut self, end: &StreamEnd) {
        let _ = self.0.try_send(Event::Ended(end.reason()));
    }

    fn ready(&mut self) {
        let _ = self.0.try_send(Event::Ready);
    }
}

fn config(address: String) -> Config {
    Config {
        address,
        root: RootSource::System,
        alt_hostname: None,
        token: TokenSource::None,
        headers: vec![("clusterid".into(), "c1".into()), ("X-Extra".into(), "yes".into())],
    }
}

struct Client {
    store: Store,
    events: mpsc::Receiver<Event>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(config: Config) -> Client {
    let store = Store::default();
    let (sender, events) = mpsc::channel(64);
    let client = DeltaClient::new(Node { id: "ztunnel~1.1.1.1~a.b~b".into(), ..Default::default() }, &[A, B]);
    let task = tokio::spawn(run(config, client, store.clone(), Events(sender)));
    Client { store, events, task }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within twenty seconds")
}

fn response(type_url: &str, nonce: &str, resources: &[(&str, &str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |(name, version, value): &(&str, &str, &str)| WireResource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: value.as_bytes().to_vec() }),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_whole_life_subscribe_apply_refuse_reconnect_resume() {
    let (addr, mut sessions) = serve(None).await;
    let mut client = start(config(format!("http://{addr}")));
    let mut session = soon(sessions.recv()).await.unwrap();
    assert_eq!(session.headers.get("clusterid").unwrap(), "c1");
    assert_eq!(session.headers.get("x-extra").unwrap(), "yes");
    for type_url in [A, B] {
        let request = session.request().await;
        assert_eq!(request.type_url, type_url);
        assert_eq!(request.node.unwrap().id, "ztunnel~1.1.1.1~a.b~b");
    }
    session.respond(response(A, "n1", &[("N", "ab12", "one"), ("ill", "7", "bad")], &[])).await;
    let refused = session.request().await;
    assert_eq!(refused.response_nonce, "n1");
    assert_eq!(refused.error_detail.unwrap().message, "ill: value: bad, expected good");
    assert_eq!(soon(client.events.recv()).await, Some(Event::Refused(format!("{A} ill"))));
    session.respond(response(B, "n2", &[], &[])).await;
    assert_eq!(session.request().await.error_detail, None);
    session.respond(response(A, "n3", &[("ill", "8", "well")], &[])).await;
    assert_eq!(session.request().await.response_nonce, "n3");
    assert_eq!(soon(client.events.recv()).await, Some(Event::Ready));
    // The server rotates; the client comes back at once with what it has.
    session.end(Status::unavailable("transport is closing")).await;
    assert_eq!(soon(client.events.recv()).await, Some(Event::Ended("Reconnect")));
    let mut session = soon(sessions.recv()).await.unwrap();
    let request = session.request().await;
    let known: BTreeMap<_, _> = request.initial_resource_versions.into_iter().collect();
    assert_eq!(known, BTreeMap::from([("N".into(), "ab12".into()), ("ill".into(), "8".into())]));
    session.request().await;
    session.respond(response(A, "m1", &[], &["N"])).await;
    session.request().await;
    assert_eq!(client.store.0.lock().unwrap().keys().collect::<Vec<_>>(), ["ill"]);
}

#[tokio::test]
async fn the_token_is_read_again_for_each_stream() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let (addr, mut sessions) = serve(None).await;
    let _client = start(Config { token: TokenSource::File(token.clone()), ..config(format!("http://{addr}")) });
    let session = soon(sessions.recv()).await.unwrap();
    assert_eq!(session.headers.get("authorization").unwrap(), "Bearer first");
    std::fs::write(&token, "second").unwrap();
    session.end(Status::cancelled("age")).await;
    let session = soon(sessions.recv()).await.unwrap();
    assert_eq!(session.headers.get("authorization").unwrap(), "Bearer second");
}

struct Tls {
    ca: rcgen::Issuer<'static, rcgen::KeyPair>,
    root_pem: String,
}

impl Tls {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_pem = params.self_signed(&key).unwrap().pem();
        Self { ca: rcgen::Issuer::new(params, key), root_pem }
    }

    fn server(&self, name: &str) -> ServerTlsConfig {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        ServerTlsConfig::new().identity(Identity::from_pem(cert.pem(), key.serialize_pem()))
    }
}

#[tokio::test]
async fn the_server_must_prove_one_of_two_names() {
    let tls = Tls::new();
    let root = RootSource::Inline(tls.root_pem.clone());
    for (proves, alt, accepted) in [
        ("localhost", None, true),
        ("istiod.other.svc", None, false),
        ("istiod.other.svc", Some("istiod.other.svc"), true),
    ] {
        let (addr, mut sessions) = serve(Some(tls.server(proves))).await;
        let address = format!("https://localhost:{}", addr.port());
        let alt_hostname = alt.map(str::to_owned);
        let mut client = start(Config { root: root.clone(), alt_hostname, ..config(address) });
        if accepted {
            soon(sessions.recv()).await.unwrap();
        } else {
            assert_eq!(soon(client.events.recv()).await, Some(Event::Ended("ConnectionError")));
            assert!(sessions.try_recv().is_err());
        }
    }
}

#[tokio::test]
async fn a_root_that_appears_later_is_picked_up() {
    let (tls, dir) = (Tls::new(), tempfile::tempdir().unwrap());
    let path: &Path = &dir.path().join("root.pem");
    let (addr, mut sessions) = serve(Some(tls.server("localhost"))).await;
    let root = RootSource::File(path.to_owned());
    let mut client = start(Config { root, ..config(format!("https://localhost:{}", addr.port())) });
    assert_eq!(soon(client.events.recv()).await, Some(Event::Ended("ConnectionError")));
    std::fs::write(path, Tls::new().root_pem).unwrap();
    assert_eq!(soon(client.events.recv()).await, Some(Event::Ended("ConnectionError")));
    std::fs::write(path, &tls.root_pem).unwrap();
    soon(sessions.recv()).await.unwrap();
}

#[tokio::test]
async fn on_demand_one_question_for_all_and_the_store_first() {
    let (addr, mut sessions) = serve(None).await;
    let store = Store::default();
    let (demand, demands) = Demand::channel();
    let client = DeltaClient::new(Node::default(), &[A, B]).on_demand(A);
    let (sender, _events) = mpsc::channel(64);
    let config = config(format!("http://{addr}"));
    let task = tokio::spawn(run_on_demand(config, client, store.clone(), Events(sender), demands));
    let ask = |name: &'static str| {
        let (demand, store) = (demand.clone(), store.clone());
        tokio::spawn(async move {
            demand.fetch(name, Duration::from_secs(20)).await.unwrap();
            store.0.lock().unwrap().contains_key("pod")
        })
    };
    // Asked before there is a stream, and by two.
    let (first, second) = (ask("n/10.0.0.7"), ask("n/10.0.0.7"));
    let mut session = soon(sessions.recv()).await.unwrap();
    assert_eq!(session.request().await.resource_names_subscribe, ["*"]);
    session.request().await;
    let question = session.request().await;
    assert_eq!((question.type_url.as_str(), question.resource_names_subscribe), (A, vec!["n/10.0.0.7".to_owned()]));
    // The stream breaks before the answer: the name is waited for on the next one.
    session.end(Status::unavailable("transport is closing")).await;
    let mut session = soon(sessions.recv()).await.unwrap();
    let again = session.request().await;
    assert_eq!(again.initial_resource_versions.into_iter().collect::<Vec<_>>(), [("n/10.0.0.7".into(), String::new())]);
    session.request().await;
    let mut answer = response(A, "n1", &[("pod", "1", "x")], &[]);
    answer.resources[0].aliases = vec!["n/10.0.0.7".into()];
    session.respond(answer).await;
    assert!(soon(first).await.unwrap() && soon(second).await.unwrap(), "the store is filled before anybody wakes");
    assert_eq!(session.request().await.response_nonce, "n1");
    // What is not there is an answer, too.
    let absent = ask("n/10.9.9.9");
    assert_eq!(session.request().await.resource_names_subscribe, ["n/10.9.9.9"]);
    session.respond(response(A, "n2", &[], &["n/10.9.9.9"])).await;
    soon(absent).await.unwrap();
    task.abort();
}
