//! A controller that says what the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use mesh_wire::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use mesh_wire::{type_url, workload as wire};
use prost::Message as _;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::pod::Pod;

/// Streams as they come in.
pub(crate) struct Controller(mpsc::Receiver<Session>);

/// One stream as the script sees it.
pub(crate) struct Session {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonce: usize,
}

struct Script(Mutex<mpsc::Sender<Session>>);

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Script {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (responses, stream) = mpsc::channel(8);
        let session = Session { requests: request.into_inner(), responses, nonce: 0 };
        self.0.lock().await.send(session).await.map_err(|_| Status::unavailable("script is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Controller {
    /// In the namespace of `host`, without TLS.
    pub(crate) fn listen(host: &Pod, addr: SocketAddr) -> Self {
        let listener = host.listen(addr);
        let (sessions, incoming) = mpsc::channel(4);
        let router = Server::builder().add_service(AggregatedDiscoveryServiceServer::new(Script(Mutex::new(sessions))));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self(incoming)
    }

    pub(crate) async fn stream(&mut self) -> Session {
        soon(self.0.recv()).await.expect("one more stream")
    }
}

impl Session {
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        soon(self.requests.message()).await.expect("a healthy stream").expect("one more request")
    }

    /// Sends a response and yields its receipt; requests that come before it are an error.
    pub(crate) async fn send(
        &mut self,
        type_url: &str,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        self.nonce += 1;
        let nonce = format!("n{}", self.nonce);
        let response = DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            nonce: nonce.clone(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.expect("the client is there");
        let receipt = self.request().await;
        assert_eq!((receipt.type_url.as_str(), receipt.response_nonce), (type_url, nonce));
        DeltaDiscoveryRequest { response_nonce: String::new(), ..receipt }
    }
}

/// A workload or service under its name, with its aliases.
pub(crate) fn address(name: &str, aliases: &[&str], kind: wire::address::Type) -> Resource {
    let value = wire::Address { r#type: Some(kind) }.encode_to_vec();
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        resource: Some(prost_types::Any { type_url: type_url::ADDRESS.to_owned(), value }),
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within twenty seconds")
}
