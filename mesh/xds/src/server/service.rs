//! The gRPC shell: one stream a client, pulled by the transport, so that a slow client builds up nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures::stream::{self, BoxStream, StreamExt};
use mesh_wire::discovery::{DeltaDiscoveryRequest, Node};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{AdsCodec, Push};
use super::hub::{Hub, Registration};
use super::session::{Ask, Meaning, Peer, Session};

/// Decides who may open a stream and as which node. Refusals carry the gRPC status to answer with.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What is known of an admitted caller.
    type Caller: Send + Sync + 'static;

    /// Authenticates a new stream from its headers and the extensions that the transport added.
    fn admit(
        &self,
        headers: &http::HeaderMap,
        extensions: &http::Extensions,
    ) -> impl Future<Output = Result<Self::Caller, Status>> + Send;

    /// Checks the node that the caller claims to be.
    ///
    /// # Errors
    /// The status to end the stream with.
    fn check(&self, caller: &Self::Caller, node: &Node) -> Result<(), Status>;
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

impl<G: Gatekeeper> Service<http::Request<Body>> for AdsService<G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { hub, gate } = self.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA_PATH {
                let path = request.uri().path();
                return Ok(Status::unimplemented(format!("{path} is not served, only {DELTA_PATH}")).into_http());
            }
            if !hub.is_ready() {
                return Ok(Status::unavailable("the control plane is still reading the cluster").into_http());
            }
            // Authentication comes before anything of the stream is read.
            let caller = match gate.admit(request.headers(), request.extensions()).await {
                Ok(caller) => caller,
                Err(status) => return Ok(status.into_http()),
            };
            let mut grpc = Grpc::new(AdsCodec).max_decoding_message_size(REQUEST_BYTES_MAX);
            Ok(grpc.streaming(Open { hub, gate, caller: Some(caller) }, request).await)
        })
    }
}

/// Turns an admitted request into its stream of responses.
struct Open<G: Gatekeeper> {
    hub: Arc<Hub>,
    gate: Arc<G>,
    caller: Option<G::Caller>,
}

impl<G: Gatekeeper> StreamingService<DeltaDiscoveryRequest> for Open<G> {
    type Response = Push;
    type ResponseStream = BoxStream<'static, Result<Push, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let Some(caller) = self.caller.take() else {
            return std::future::ready(Err(Status::internal("a stream is opened once")));
        };
        let peer = request.remote_addr().map(|addr| addr.to_string()).unwrap_or_default();
        let registration = self.hub.connect(peer, SystemTime::now());
        // Closed while the caller was being authenticated: nothing would wake this stream any more.
        if self.hub.is_closed() {
            return std::future::ready(Err(Status::unavailable("the control plane is stopping")));
        }
        let stream = AdsStream {
            requests: request.into_inner(),
            gate: self.gate.clone(),
            caller,
            registration,
            session: Session::default(),
            peer: None,
            outgoing: VecDeque::new(),
            held: Vec::new(),
            release_at: None,
            sent: 0,
        };
        let responses = stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(push)) => Some((Ok(push), Some(stream))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        std::future::ready(Ok(Response::new(responses.boxed())))
    }
}

/// One open stream.
struct AdsStream<G: Gatekeeper> {
    requests: Streaming<DeltaDiscoveryRequest>,
    gate: Arc<G>,
    caller: G::Caller,
    registration: Registration,
    session: Session,
    /// Set by the first request.
    peer: Option<Peer>,
    /// Responses to be sent, in order; at most one round of pending changes and one answer.
    outgoing: VecDeque<Push>,
    /// First answers that wait for the client to ask for another type first.
    held: Vec<(usize, Ask)>,
    /// When held answers are sent anyway.
    release_at: Option<Instant>,
    /// Number of responses sent, for nonces.
    sent: u64,
}

/// What woke a stream.
enum Event {
    Request(Box<Option<Result<DeltaDiscoveryRequest, Status>>>),
    Changed,
    Release,
}

impl<G: Gatekeeper> AdsStream<G> {
    /// The next response; none when the client is done.
    async fn next(&mut self) -> Result<Option<Push>, Status> {
        loop {
            if let Some(push) = self.outgoing.pop_front() {
                return Ok(Some(self.stamp(push)));
            }
            let release_at = self.release_at;
            let release = async move {
                match release_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased; // requests come before pushes
                request = self.requests.next() => Event::Request(Box::new(request)),
                () = release => Event::Release,
                () = self.registration.connection.wake.notified() => Event::Changed,
            };
            match event {
                Event::Request(request) => match *request {
                    Some(request) => self.on_request(request?).await?,
                    None => return Ok(None),
                },
                Event::Release => self.release(true).await?,
                Event::Changed => self.on_changed().await?,
            }
        }
    }

    async fn on_request(&mut self, mut request: DeltaDiscoveryRequest) -> Result<(), Status> {
        self.identify(request.node.take())?;
        let hub = self.registration.hub.clone();
        let Some(index) = hub.index(&request.type_url) else {
            tracing::debug!(type_url = request.type_url, "subscription to a type that is not served");
            return Ok(());
        };
        let node = self.peer.as_ref().map(|peer| peer.id.clone()).unwrap_or_default();
        let url = hub.url(index);
        match self.session.on_request(index, request) {
            Meaning::Ask(ask) => {
                self.held.push((index, ask));
                self.release(false).await?;
            }
            Meaning::Nack => {
                let message = self.session.watch(index).and_then(|watch| watch.last_error.clone());
                hub.observer.rejected(url, &node, &message.unwrap_or_default());
            }
            Meaning::Stale => hub.observer.stale(url),
            Meaning::Ack | Meaning::Quiet => {}
        }
        self.registration.connection.set_types(&self.session, |index| hub.url(index));
        Ok(())
    }

    /// Answers what is held, as far as what it refers to was answered before, or regardless when `all`.
    async fn release(&mut self, all: bool) -> Result<(), Status> {
        let hub = self.registration.hub.clone();
        let mut waiting = std::mem::take(&mut self.held);
        let all = all || waiting.len() > HELD_MAX;
        // What others wait for goes first.
        waiting.sort_by_key(|(index, _)| hub.spec(*index).is_some_and(|spec| spec.after.is_some()));
        let permit = self.permit().await?;
        let unknown = Peer::default();
        for (index, ask) in waiting {
            let after = hub.spec(index).and_then(|spec| spec.after).and_then(|url| hub.index(url));
            let answered = |index| self.session.watch(index).is_some_and(|watch| watch.answered);
            if all || after.is_none_or(answered) || answered(index) {
                let Self { registration, session, peer, outgoing, .. } = self;
                let peer = peer.as_ref().unwrap_or(&unknown);
                outgoing.extend(hub.answer(&registration.connection, session, peer, index, ask));
            } else {
                self.held.push((index, ask));
            }
        }
        self.attach(permit);
        self.release_at = match (self.held.is_empty(), self.release_at) {
            (true, _) => None,
            (false, None) => Some(Instant::now() + hub.options().hold),
            (false, at) => at,
        };
        Ok(())
    }

    async fn on_changed(&mut self) -> Result<(), Status> {
        if self.registration.hub.is_closed() {
            return Err(Status::unavailable("the control plane is stopping"));
        }
        if self.registration.connection.is_lagging() {
            let node = self.peer.as_ref().map(|peer| peer.id.clone()).unwrap_or_default();
            self.registration.hub.observer.lagging(&node);
            let message = "the client does not keep up with changes; reconnect to be sent the difference";
            return Err(Status::unavailable(message));
        }
        let permit = self.permit().await?;
        let Self { registration, session, peer, outgoing, .. } = self;
        // A change may come before the first request. It must not fill in who the client is: that would skip the check.
        let unknown = Peer::default();
        let peer = peer.as_ref().unwrap_or(&unknown);
        outgoing.extend(registration.hub.pending(&registration.connection, session, peer));
        self.attach(permit);
        Ok(())
    }

    /// A place among the responses that are built at the same time.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let throttle = self.registration.hub.throttle.clone();
        let closed = |_| Status::unavailable("the control plane is stopping");
        throttle.acquire_owned().await.map_err(closed)
    }

    /// The place is kept until the next response is encoded, which follows at once: only the first response has it, so
    /// that a client that stops reading between two responses holds none.
    fn attach(&mut self, permit: OwnedSemaphorePermit) {
        if let Some(push) = self.outgoing.front_mut() {
            push.permit = Some(permit);
        }
    }

    fn stamp(&mut self, mut push: Push) -> Push {
        self.sent += 1;
        push.nonce = format!("{}-{}-{}", push.version, self.registration.id, self.sent);
        if let Some(watch) = self.session.watch_mut(push.type_index) {
            watch.nonce_sent.clone_from(&push.nonce);
        }
        let hub = &self.registration.hub;
        hub.observer.pushed(push.spec.url);
        self.registration.connection.set_types(&self.session, |index| hub.url(index));
        push
    }

    /// The first request says who the client is; later ones may repeat it.
    fn identify(&mut self, node: Option<Node>) -> Result<(), Status> {
        if self.peer.is_some() {
            return Ok(());
        }
        let node = node.filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("the first request of a stream must name its node"))?;
        self.gate.check(&self.caller, &node)?;
        let node_name =
            node.metadata.as_ref().and_then(|all| all.fields.get("NODE_NAME")).and_then(|value| match &value.kind {
                Some(prost_types::value::Kind::StringValue(name)) if !name.is_empty() => Some(Arc::from(name.as_str())),
                _ => None,
            });
        self.registration.connection.set_node(&node.id);
        self.peer = Some(Peer { id: node.id, node_name });
        Ok(())
    }
}

/// The only method that is served.
const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A reconnecting client names everything it kept: room for some 500,000 resources. Only authenticated callers get here.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Held requests of one stream; more are answered without waiting.
const HELD_MAX: usize = 16;
