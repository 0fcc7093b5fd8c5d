//! A scripted client on loopback against the real transport. Rows are those of the must-pass table of the xDS server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as ErrorDetail};
use mesh_wire::type_url::{ADDRESS, AUTHORIZATION, WORKLOAD};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Status, Streaming};

use super::*;

mod attendance;
mod audience;
mod clients;
mod names;
mod order;

struct OpenGate;

impl Gatekeeper for OpenGate {
    /// Whom it has proved to be.
    type Caller = Option<Arc<str>>;

    async fn admit(
        &self,
        headers: &http::HeaderMap,
        _extensions: &http::Extensions,
    ) -> Result<Option<Arc<str>>, Status> {
        match headers.get("authorization").is_some_and(|value| value == "Bearer bad") {
            true => Err(Status::unauthenticated("who are you")),
            false => Ok(headers.get("x-principal").map(|value| value.to_str().unwrap().into())),
        }
    }

    fn greeting(&self, headers: &http::HeaderMap) -> http::HeaderMap {
        headers
            .get("x-told")
            .map(|value| (http::HeaderName::from_static("x-greeting"), value.clone()))
            .into_iter()
            .collect()
    }

    fn principal(&self, caller: &Option<Arc<str>>) -> Option<Arc<str>> {
        caller.clone()
    }

    fn check(&self, _: &Option<Arc<str>>, node: &Node) -> Result<(), Status> {
        if node.id.starts_with("evil") { Err(Status::permission_denied("not your node")) } else { Ok(()) }
    }
}

const TYPES: [TypeSpec; 3] = [
    TypeSpec { url: AUTHORIZATION, backing: Backing::Own, after: None },
    TypeSpec { url: ADDRESS, backing: Backing::Own, after: Some(AUTHORIZATION) },
    TypeSpec {
        url: WORKLOAD,
        backing: Backing::View { of: ADDRESS, project: |one| (!one.is_group).then(|| one.body.slice(1..)) },
        after: Some(AUTHORIZATION),
    },
];

struct Mesh {
    hub: Arc<Hub>,
    channel: Channel,
    endpoint: tonic::transport::Endpoint,
}

impl Mesh {
    async fn start() -> Self {
        Self::observed(Box::new(Unobserved)).await
    }

    async fn observed(observer: Box<dyn Observer>) -> Self {
        let options = HubOptions { hold: Duration::from_millis(20), ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, observer);
        hub.publish("v0".into(), &[]);
        hub.set_ready(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let service = AdsService::new(hub.clone(), Arc::new(OpenGate));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = Channel::from_shared(format!("http://{addr}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { hub, channel, endpoint }
    }

    async fn open(&self) -> Client {
        self.open_on(self.channel.clone(), None).await
    }

    /// On a connection of its own.
    async fn open_apart(&self) -> Client {
        self.open_on(self.endpoint.connect().await.unwrap(), None).await
    }

    /// As one that is told something when it comes.
    async fn open_greeted(&self) -> Client {
        self.open_on(self.channel.clone(), Some("hello")).await
    }

    /// As one that has proved to be this principal.
    async fn open_as(&self, principal: &'static str) -> Client {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let (requests, stream) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        request.metadata_mut().insert("x-principal", principal.parse().unwrap());
        let responses = client.delta_aggregated_resources(request).await.unwrap().into_inner();
        Client { requests, responses, node: Some(node("waypoint~1.1.1.1~w.a~a.svc", "n1")) }
    }

    async fn open_on(&self, channel: Channel, told: Option<&'static str>) -> Client {
        let (requests, stream) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        if let Some(told) = told {
            request.metadata_mut().insert("x-told", told.parse().unwrap());
        }
        let response = client.delta_aggregated_resources(request).await.unwrap();
        assert_eq!(response.metadata().get("x-greeting").map(|one| one.to_str().unwrap()), told);
        let responses = response.into_inner();
        Client { requests, responses, node: Some(node("ztunnel~1.1.1.1~z.istio-system~istio-system.svc", "n1")) }
    }

    fn set(&self, resources: &[Resource]) {
        let changes: Vec<_> = resources.iter().map(|one| change(one, true)).collect();
        self.hub.publish("v1".into(), &changes);
    }

    fn unset(&self, resources: &[Resource]) {
        let changes: Vec<_> = resources.iter().map(|one| change(one, false)).collect();
        self.hub.publish("v2".into(), &changes);
    }
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    node: Option<Node>,
}

impl Client {
    async fn send(&mut self, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { node: self.node.take(), ..request };
        self.requests.send(request).await.unwrap();
    }

    async fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: names,
            ..Default::default()
        })
        .await;
    }

    /// Asks for nothing yet, on demand.
    async fn on_demand(&mut self, type_url: &str) {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: vec!["*".into()],
            resource_names_unsubscribe: vec!["*".into()],
            ..Default::default()
        })
        .await;
    }

    async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        })
        .await;
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = tokio::time::timeout(Duration::from_secs(5), self.responses.message()).await;
        response.expect("an answer in time").unwrap().expect("an open stream")
    }

    async fn failure(&mut self) -> Code {
        let response = tokio::time::timeout(Duration::from_secs(5), self.responses.message()).await;
        response.expect("an end in time").unwrap_err().code()
    }

    /// Nothing but the answer to a question that is asked now comes: an on-demand type as an echo.
    async fn quiet(&mut self) {
        let silence = tokio::time::timeout(Duration::from_millis(150), self.responses.message()).await;
        assert!(silence.is_err(), "unexpected message {silence:?}");
    }
}

fn node(id: &str, name: &str) -> Node {
    let name = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(name.into())) };
    let metadata = prost_types::Struct { fields: [("NODE_NAME".to_owned(), name)].into() };
    Node { id: id.into(), metadata: Some(metadata), ..Default::default() }
}

fn workload(name: &str, content: &str, service: Option<&str>) -> Resource {
    let body = Bytes::from(format!("W{content}"));
    Resource {
        name: name.into(),
        aliases: [format!("net/{name}").into()].into(),
        version: content_version(&body),
        body,
        groups: service.into_iter().map(Arc::from).collect(),
        is_group: false,
        node: Some("n9".into()),
        referenced: false,
        audience: None,
    }
}

fn service(name: &str) -> Resource {
    let body = Bytes::from(format!("S{name}"));
    Resource { is_group: true, node: None, version: content_version(&body), body, ..workload(name, "", None) }
}

fn policy(name: &str) -> Resource {
    Resource { version: "".into(), aliases: Box::default(), node: None, ..workload(name, name, None) }
}

fn change(resource: &Resource, present: bool) -> Change {
    let type_url = if resource.version.is_empty() { AUTHORIZATION } else { ADDRESS };
    Change { type_url, name: resource.name.clone(), resource: present.then(|| Arc::new(resource.clone())) }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|one| one.name.as_str()).collect()
}

#[tokio::test]
async fn xds_row_1_an_empty_mesh_still_answers_and_xds_row_2_an_ack_is_not_answered() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    let response = client.next().await;
    assert!(response.resources.is_empty() && response.removed_resources.is_empty());
    assert!(!response.nonce.is_empty());
    client.ack(&response).await;
    client.quiet().await;
}

#[tokio::test]
async fn xds_row_3_one_change_is_one_resource() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("a", "1", None), workload("b", "1", None)]);
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(names(&client.next().await), ["a", "b"]);
    mesh.set(&[workload("b", "2", None)]);
    let response = client.next().await;
    assert_eq!(names(&response), ["b"]);
    let first = &response.resources[0];
    assert_eq!(first.aliases, ["net/b"]);
    assert_eq!(first.version, *content_version(b"W2"));
    assert_eq!(first.resource.as_ref().unwrap().value, b"W2");
    mesh.unset(&[workload("a", "1", None)]);
    let response = client.next().await;
    assert_eq!((names(&response), response.removed_resources.clone()), (vec![], vec!["a".to_owned()]));
}

#[tokio::test]
async fn xds_row_5_a_reconnecting_client_is_sent_what_differs() {
    let mesh = Mesh::start().await;
    mesh.set(&["a", "b", "c", "d"].map(|name| workload(name, "1", None)));
    let mut client = mesh.open().await;
    let mut versions: HashMap<_, _> =
        ["a", "b", "c", "d", "e"].map(|name| (name.to_owned(), content_version(b"W1").to_string())).into();
    versions.insert("c".into(), "older".into());
    client
        .send(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            initial_resource_versions: versions,
            ..Default::default()
        })
        .await;
    let response = client.next().await;
    assert_eq!((names(&response), response.removed_resources.clone()), (vec!["c"], vec!["e".to_owned()]));
}

#[tokio::test]
async fn policies_are_sent_again_after_a_reconnect() {
    let mesh = Mesh::start().await;
    mesh.set(&[policy("ns/p")]);
    let mut client = mesh.open().await;
    let versions = HashMap::from([("ns/p".to_owned(), String::new()), ("ns/q".to_owned(), String::new())]);
    client
        .send(DeltaDiscoveryRequest {
            type_url: AUTHORIZATION.into(),
            initial_resource_versions: versions,
            ..Default::default()
        })
        .await;
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(names(&client.next().await), ["ns/p"]);
    assert_eq!(client.next().await.type_url, ADDRESS);
    // The workloads that the client knew may have named it.
    assert_eq!(client.next().await.removed_resources, ["ns/q"]);
}

#[tokio::test]
async fn xds_row_6_a_stale_nonce_is_ignored_and_xds_row_7_a_nack_is_not_answered() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    let first = client.next().await;
    mesh.set(&[workload("a", "1", None)]);
    let second = client.next().await;
    let names = vec!["a".to_owned()];
    client
        .send(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            response_nonce: first.nonce,
            resource_names_subscribe: names,
            ..Default::default()
        })
        .await;
    client
        .send(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            response_nonce: second.nonce,
            error_detail: Some(ErrorDetail {
                message: format!("a: bad{}", "ü".repeat(1 << 20)), ..Default::default()
            }),
            ..Default::default()
        })
        .await;
    client.quiet().await;
    let status = mesh.hub.connections();
    let kept = status[0].types[0].last_error.as_deref().unwrap();
    assert!(kept.starts_with("a: badü") && kept.len() <= 16 << 10, "{} bytes", kept.len());
    mesh.set(&[workload("a", "2", None)]);
    assert_eq!(self::names(&client.next().await), ["a"]);
}

#[tokio::test]
async fn xds_row_8_an_unknown_key_is_told_and_xds_row_9_a_service_brings_its_workloads() {
    let mesh = Mesh::start().await;
    let members = ["w1", "w2", "w3"].map(|name| workload(name, "1", Some("ns/svc")));
    mesh.set(&members);
    mesh.set(&[service("ns/svc"), workload("other", "1", None)]);
    let mut client = mesh.open().await;
    client.on_demand(ADDRESS).await;
    assert!(client.next().await.resources.is_empty());
    client.subscribe(ADDRESS, &["net/10.0.0.7"]).await;
    let response = client.next().await;
    assert_eq!((names(&response), response.removed_resources.clone()), (vec![], vec!["net/10.0.0.7".to_owned()]));
    client.subscribe(ADDRESS, &["ns/svc"]).await;
    assert_eq!(names(&client.next().await), ["w1", "w2", "w3", "ns/svc"]);
    mesh.set(&[workload("other", "2", None)]);
    mesh.set(&[workload("w2", "2", Some("ns/svc"))]);
    assert_eq!(names(&client.next().await), ["w2"]);
    mesh.unset(&[workload("w2", "2", Some("ns/svc")), workload("other", "2", None)]);
    assert_eq!(client.next().await.removed_resources, ["w2"]);
}

#[tokio::test]
async fn a_policy_goes_before_the_workloads_and_leaves_after_them() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("w", "1", None), policy("ns/p")]);
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    client.subscribe(AUTHORIZATION, &[]).await;
    assert_eq!(client.next().await.type_url, AUTHORIZATION);
    assert_eq!(client.next().await.type_url, ADDRESS);
    mesh.set(&[workload("w", "2", None), policy("ns/q")]);
    assert_eq!(names(&client.next().await), ["ns/q"]);
    assert_eq!(names(&client.next().await), ["w"]);
    mesh.unset(&[workload("w", "2", None), policy("ns/q")]);
    assert_eq!(client.next().await.removed_resources, ["w"]);
    assert_eq!(client.next().await.removed_resources, ["ns/q"]);
}

#[tokio::test]
async fn a_policy_that_narrows_goes_after_the_workloads_that_begin_to_name_it() {
    let narrow = |name: &str| Resource { referenced: true, ..policy(name) };
    let mesh = Mesh::start().await;
    mesh.set(&[workload("w", "1", None), policy("ns/p"), policy("ns/same")]);
    let mut client = mesh.open().await;
    client.subscribe(AUTHORIZATION, &[]).await;
    client.subscribe(ADDRESS, &[]).await;
    client.next().await;
    client.next().await;
    // A new one goes first as ever, and so does one that is wide before and after.
    mesh.set(&[narrow("ns/p"), narrow("ns/new"), policy("ns/same"), workload("w", "2", None)]);
    assert_eq!(names(&client.next().await), ["ns/new", "ns/same"]);
    assert_eq!(names(&client.next().await), ["w"]);
    assert_eq!(names(&client.next().await), ["ns/p"]);
    // Back again: it has its effect by itself before the workloads cease to name it.
    mesh.set(&[policy("ns/p"), workload("w", "3", None)]);
    assert_eq!(names(&client.next().await), ["ns/p"]);
    assert_eq!(names(&client.next().await), ["w"]);
}

#[tokio::test]
async fn a_policy_that_narrows_in_several_steps_still_goes_after_the_workloads() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("w", "1", None), policy("ns/p")]);
    let mut client = mesh.open().await;
    client.subscribe(AUTHORIZATION, &[]).await;
    client.subscribe(ADDRESS, &[]).await;
    client.next().await;
    client.next().await;
    // The runtime has one thread: the stream sees nothing in between.
    mesh.unset(&[policy("ns/p"), workload("gone", "1", None)]);
    mesh.set(&[Resource { referenced: true, ..policy("ns/p") }, workload("w", "2", None)]);
    let response = client.next().await;
    assert_eq!((names(&response), response.removed_resources.clone()), (vec!["w"], vec!["gone".to_owned()]));
    assert_eq!(names(&client.next().await), ["ns/p"]);
}

#[tokio::test]
async fn older_clients_get_workloads_only() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("w", "1", Some("ns/s")), service("ns/s")]);
    let mut client = mesh.open().await;
    client.subscribe(WORKLOAD, &[]).await;
    let response = client.next().await;
    assert_eq!(names(&response), ["w"]);
    assert_eq!(response.resources[0].resource.as_ref().unwrap().value, b"1");
}

#[tokio::test]
async fn changes_while_a_client_is_busy_merge_into_one_push() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    let first = client.next().await;
    client.ack(&first).await;
    let burst: Vec<_> = (0..50).map(|number| change(&workload(&format!("w{number:02}"), "1", None), true)).collect();
    mesh.hub.publish("v1".into(), &burst);
    assert_eq!(client.next().await.resources.len(), 50);
    client.quiet().await;
}

#[tokio::test]
async fn xds_row_20_nothing_is_sent_before_the_cluster_is_read() {
    let mesh = Mesh::start().await;
    mesh.hub.set_ready(false);
    let (_requests, stream) = mpsc::channel::<DeltaDiscoveryRequest>(1);
    let mut client = AggregatedDiscoveryServiceClient::new(mesh.channel.clone());
    let refused = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_needs_a_node_that_the_caller_may_be() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.node = None;
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(client.failure().await, Code::InvalidArgument);
    let mut client = mesh.open().await;
    client.node = Some(node("evil", "n1"));
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(client.failure().await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_change_before_the_first_request_does_not_skip_the_check_of_the_node() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    mesh.set(&[workload("a", "1", None)]);
    // The stream wakes and finds that nothing is subscribed.
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.node = Some(node("evil", "n1"));
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(client.failure().await, Code::PermissionDenied);
}

#[tokio::test]
async fn closing_ends_open_streams() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    client.next().await;
    mesh.hub.close();
    assert_eq!(client.failure().await, Code::Unavailable);
}

#[tokio::test]
async fn a_closed_stream_is_forgotten() {
    let mesh = Mesh::start().await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    client.next().await;
    assert_eq!(mesh.hub.connections().len(), 1);
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), async {
        while !mesh.hub.connections().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the connection is forgotten");
}
