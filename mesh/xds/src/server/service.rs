//! The gRPC shell: one stream a client, pulled by the transport, so that a slow client builds up nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures::stream::{self, StreamExt};
use http::{Extensions, HeaderMap, HeaderValue, header};
use mesh_wire::discovery::{DeltaDiscoveryRequest, Node};
use tokio::time::Instant;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Status, Streaming};

use super::body::Body;
use super::exchange::Exchange;
use super::hub::Hub;
use super::wire::{Push, RequestDecoder};

/// Decides who may open a stream and as which node. Refusals carry the gRPC status to answer with.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What is known of an admitted caller.
    type Caller: Send + Sync + 'static;

    /// Authenticates a new stream from its headers and the extensions that the transport added.
    fn admit(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Self::Caller, Status>> + Send;

    /// Where a caller is, for debugging; by default what tonic's own transport says.
    fn address(&self, extensions: &Extensions) -> Option<SocketAddr> {
        extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
    }

    /// Whom the caller has proved to be, `<namespace>/<service account>`: what is for that one only is shown to nobody
    /// else ([`super::Resource::audience`]). By default nobody.
    fn principal(&self, _caller: &Self::Caller) -> Option<Arc<str>> {
        None
    }

    /// Metadata that a stream is answered with at once, given that of its request. When it would be different later,
    /// [`Hub::renew`] makes clients that were told something come again.
    fn greeting(&self, _headers: &HeaderMap) -> HeaderMap {
        HeaderMap::new()
    }

    /// Checks the node that the caller claims to be.
    ///
    /// # Errors
    /// The status to end the stream with.
    fn check(&self, caller: &Self::Caller, node: &Node) -> Result<(), Status>;

    /// Who follows the stream of a node that was checked, if anybody does. Nothing is answered before.
    fn attend(
        &self,
        _caller: &Self::Caller,
        _node: &Node,
    ) -> impl Future<Output = Result<Option<Box<dyn Attendant>>, Status>> + Send {
        std::future::ready(Ok(None))
    }
}

/// Follows one stream; dropped when it ends.
pub trait Attendant: Send + Sync {
    /// A request of a type that the hub does not serve. It is not answered. Must not block.
    fn on_request(&mut self, request: &DeltaDiscoveryRequest);
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService` with its incremental method.
#[derive(Debug)]
pub struct AdsService<G> {
    hub: Arc<Hub>,
    gate: Arc<G>,
}

impl<G> Clone for AdsService<G> {
    fn clone(&self) -> Self {
        Self { hub: self.hub.clone(), gate: self.gate.clone() }
    }
}

impl<G: Gatekeeper> AdsService<G> {
    /// Serves a hub to whom the gatekeeper admits.
    #[must_use]
    pub fn new(hub: Arc<Hub>, gate: Arc<G>) -> Self {
        Self { hub, gate }
    }
}

impl<G> NamedService for AdsService<G> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<G: Gatekeeper> Service<http::Request<tonic::body::Body>> for AdsService<G> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let Self { hub, gate } = self.clone();
        Box::pin(async move { Ok(open(hub, gate, request).await.unwrap_or_else(Status::into_http)) })
    }
}

/// Turns a request into its stream of responses.
async fn open<G: Gatekeeper>(
    hub: Arc<Hub>,
    gate: Arc<G>,
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, Status> {
    match request.uri().path() {
        DELTA_PATH => {}
        STATE_OF_THE_WORLD_PATH => return Err(Status::unimplemented(NO_STATE_OF_THE_WORLD)),
        path => return Err(Status::unimplemented(format!("{path} is not served, only {DELTA_PATH}"))),
    }
    if !hub.is_ready() {
        return Err(Status::unavailable("the control plane is still reading the cluster"));
    }
    let (parts, body) = request.into_parts();
    // Authentication comes before anything of the stream is read.
    let caller = gate.admit(&parts.headers, &parts.extensions).await?;
    let greeting = gate.greeting(&parts.headers);
    let peer = gate.address(&parts.extensions).map(|addr| addr.to_string()).unwrap_or_default();
    let registration = hub.connect(peer, !greeting.is_empty(), SystemTime::now());
    // Closed while the caller was being authenticated: nothing would wake this stream any more.
    if hub.is_closed() {
        return Err(Status::unavailable("the control plane is stopping"));
    }
    let requests = Streaming::new_request(RequestDecoder(hub.clone()), body, None, Some(REQUEST_BYTES_MAX));
    let exchange = Exchange::new(registration);
    let stream = AdsStream { requests, gate, caller, exchange, attendant: None, outgoing: VecDeque::new() };
    let pushes = stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Ok(Some(push)) => Some((Ok(push), Some(stream))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    });
    let body = Body { hub, pushes: pushes.boxed(), writing: None, ended: false };
    let mut response = http::Response::new(tonic::body::Body::new(body));
    *response.headers_mut() = greeting;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// One open stream.
struct AdsStream<G: Gatekeeper> {
    requests: Streaming<DeltaDiscoveryRequest>,
    gate: Arc<G>,
    caller: G::Caller,
    exchange: Exchange,
    /// Whoever follows this stream.
    attendant: Option<Box<dyn Attendant>>,
    /// Responses to be sent, in order; at most one round of pending changes and the answers to one request.
    outgoing: VecDeque<Push>,
}

/// What woke a stream.
enum Event {
    Request(Box<Option<Result<DeltaDiscoveryRequest, Status>>>),
    Changed,
    Time,
}

impl<G: Gatekeeper> AdsStream<G> {
    /// The next response; none when the client is done.
    async fn next(&mut self) -> Result<Option<Push>, Status> {
        loop {
            if let Some(mut push) = self.outgoing.pop_front() {
                self.exchange.stamp(&mut push);
                return Ok(Some(push));
            }
            let deadline = self.exchange.deadline();
            let time = async move {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased; // requests come before pushes
                request = self.requests.next() => Event::Request(Box::new(request)),
                () = time => Event::Time,
                () = self.exchange.registration.connection.wake.notified() => Event::Changed,
            };
            let pushes = match event {
                Event::Request(request) => match *request {
                    Some(request) => self.on_request(request?).await?,
                    None => return Ok(None),
                },
                Event::Time => {
                    let _slot = self.slot().await?;
                    self.exchange.on_time(Instant::now())
                }
                Event::Changed => {
                    self.may_go_on()?;
                    let _slot = self.slot().await?;
                    self.exchange.on_changed()
                }
            };
            self.outgoing.extend(pushes);
        }
    }

    async fn on_request(&mut self, mut request: DeltaDiscoveryRequest) -> Result<Vec<Push>, Status> {
        if !self.exchange.is_identified() {
            let node = request.node.take().filter(|node| !node.id.is_empty());
            let missing = || Status::invalid_argument("the first request of a stream must name its node");
            let node = node.ok_or_else(missing)?;
            self.gate.check(&self.caller, &node)?;
            self.attendant = self.gate.attend(&self.caller, &node).await?;
            let principal = self.gate.principal(&self.caller);
            self.exchange.identify(node, principal);
        }
        if let Some(attendant) = &mut self.attendant
            && self.exchange.registration.hub.index(&request.type_url).is_none()
        {
            attendant.on_request(&request);
            return Ok(Vec::new());
        }
        let _slot = self.slot().await?;
        self.exchange.on_request(request, Instant::now())
    }

    fn may_go_on(&self) -> Result<(), Status> {
        let registration = &self.exchange.registration;
        if registration.hub.is_closed() {
            return Err(Status::unavailable("the control plane is stopping"));
        }
        if registration.connection.is_outdated() {
            return Err(Status::unavailable("settings of the mesh have changed, reconnect to be told them"));
        }
        if registration.connection.is_lagging() {
            registration.hub.observer.lagging(self.exchange.node());
            let message = "the client does not keep up with changes; reconnect to be sent the difference";
            return Err(Status::unavailable(message));
        }
        Ok(())
    }

    /// A place among the rounds that are put together at the same time. What a client reads slowly holds none.
    async fn slot(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        let throttle = self.exchange.registration.hub.throttle.clone();
        throttle.acquire_owned().await.map_err(|_| Status::unavailable("the control plane is stopping"))
    }
}

/// The only method that is served.
const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The method of older clients.
const STATE_OF_THE_WORLD_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const NO_STATE_OF_THE_WORLD: &str = "state-of-the-world xDS is not served: this control plane serves proxies of ambient mode, which use \
                                     DeltaAggregatedResources";

/// A reconnecting client names everything it kept: room for some 500,000 resources. Only authenticated callers get here.
const REQUEST_BYTES_MAX: usize = 64 << 20;
