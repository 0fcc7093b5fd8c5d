//! Streams one after the other, for as long as the process runs.

use std::fmt;
use std::path::PathBuf;

use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use super::channel;
use super::demand::{Ask, Demand, Demands, Waiters};
use super::{DeltaClient, Handler, Reconnect, Rejection, StreamEnd, Subscriptions};

/// How to reach the control plane.
#[derive(Debug, Clone)]
pub struct Config {
    /// `https://host:port`; the server must prove `host`, or [`Config::alt_hostname`]. With
    /// `http://` the connection is not protected: only for tests on one machine.
    pub address: String,
    /// Who vouches for the server.
    pub root: RootSource,
    /// A second name that the server may prove.
    pub alt_hostname: Option<String>,
    /// Who we are to the server.
    pub token: TokenSource,
    /// Headers of every stream, such as `clusterid`.
    pub headers: Vec<(String, String)>,
}

/// Where the certificates come from that vouch for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file; read again for each stream.
    File(PathBuf),
    /// The bundle of the operating system.
    System,
    /// PEM text.
    Inline(String),
}

/// Where the bearer token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file; read again for each stream.
    File(PathBuf),
    /// The token itself.
    Literal(String),
    /// No token is sent.
    None,
}

/// Told what happens on the streams, for metrics and readiness.
pub trait Observer: Send {
    /// A response came.
    fn message(&mut self, type_url: &str, bytes: usize) {
        let _ = (type_url, bytes);
    }
    /// The server accepted a stream and answered these headers.
    fn opened(&mut self, headers: &MetadataMap) {
        let _ = headers;
    }
    /// Part of a response was refused; the rest of it is in force.
    fn refused(&mut self, type_url: &str, rejected: &[Rejection]) {
        let _ = (type_url, rejected);
    }
    /// A stream ended.
    fn terminated(&mut self, end: &StreamEnd) {
        let _ = end;
    }
    /// Every type was accepted once. Called once.
    fn ready(&mut self) {}
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// Keeps a stream open for as long as the future is polled; drop it to stop.
pub async fn run(config: Config, client: DeltaClient, handler: impl Handler, observer: impl Observer) {
    let (_, nobody) = Demand::channel();
    run_on_demand(config, client, handler, observer, nobody).await;
}

/// [`run`], and asks for what `demands` wants of the type on demand.
pub async fn run_on_demand(
    config: Config,
    client: DeltaClient,
    handler: impl Handler,
    observer: impl Observer,
    demands: Demands,
) {
    run_subscribed(config, client, handler, observer, (demands, Subscriptions::new())).await;
}

/// [`run_on_demand`], and follows the names of `subscriptions` of the types that are listed.
pub async fn run_subscribed(
    config: Config,
    client: DeltaClient,
    handler: impl Handler,
    observer: impl Observer,
    (demands, subscriptions): (Demands, Subscriptions),
) {
    let waiters = Waiters::default();
    let mut shell = Shell { config, client, handler, observer, demands, subscriptions, waiters, ready: false };
    let mut reconnect = Reconnect::default();
    loop {
        let end = shell.stream().await;
        shell.observer.terminated(&end);
        let delay = reconnect.after(&end);
        report(&shell.config.address, &end);
        tokio::time::sleep(delay).await;
    }
}

/// What outlives a stream.
struct Shell<H, O> {
    config: Config,
    client: DeltaClient,
    handler: H,
    observer: O,
    demands: Demands,
    subscriptions: Subscriptions,
    waiters: Waiters,
    ready: bool,
}

impl<H: Handler, O: Observer> Shell<H, O> {
    /// One stream from connecting to its end.
    async fn stream(&mut self) -> StreamEnd {
        let (endpoint, headers) = match prepare(&self.config).await {
            Ok(prepared) => prepared,
            Err(error) => return StreamEnd::Local(error),
        };
        let channel = match channel::connect(&endpoint).await {
            Ok(channel) => channel,
            Err(error) => return StreamEnd::Unreachable(error),
        };
        // The first requests tell of all names.
        let _ = self.take_subscriptions();
        let first = self.client.start_stream(self.waiters.names());
        // Each response is answered before the next is read, and questions leave room for that.
        let (requests, outgoing) = mpsc::channel(first.len() + REQUESTS_MAX);
        for request in first {
            // Cannot fail: there is room, and `outgoing` is alive.
            let _ = requests.send(request).await;
        }
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        *request.metadata_mut() = headers;
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut responses = match service.delta_aggregated_resources(request).await {
            Ok(response) => {
                self.observer.opened(response.metadata());
                response.into_inner()
            }
            Err(status) => return StreamEnd::Status(status),
        };
        tracing::info!(address = self.config.address, "stream to the control plane is open");
        self.exchange(&requests, &mut responses).await
    }

    async fn exchange(
        &mut self,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> StreamEnd {
        let mut asked = true;
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        let answer = self.take(response);
                        // A closed stream shows as the end of the responses.
                        let _ = requests.send(answer).await;
                    }
                    Ok(None) => return StreamEnd::Clean,
                    Err(status) => return StreamEnd::Status(status),
                },
                () = changed(requests, &self.subscriptions) => {
                    for request in self.take_subscriptions() {
                        // A closed stream shows as the end of the responses.
                        let _ = requests.send(request).await;
                    }
                }
                ask = next_ask(requests, &mut self.demands), if asked => match ask {
                    Some(ask) => {
                        let first = self.waiters.add(ask);
                        if let Some(request) = first.and_then(|name| self.client.subscribe(name)) {
                            let _ = requests.send(request).await;
                        }
                    }
                    None => asked = false,
                },
            }
        }
    }

    /// What the server has to be told of names that are followed, or no longer.
    fn take_subscriptions(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let changed = self.subscriptions.take().into_iter();
        changed.filter_map(|(type_url, wanted)| self.client.follow(&type_url, wanted.names, &wanted.released)).collect()
    }

    /// Applies a response; yields what to answer.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        observe(&response, &mut self.observer);
        let handled = self.client.handle_response(response, &mut self.handler);
        let type_url = &handled.request.type_url;
        if !handled.rejected.is_empty() {
            log_rejections(type_url, &handled.rejected);
            self.observer.refused(type_url, &handled.rejected);
        }
        // Only now: whoever wakes must see what was applied.
        for name in &handled.answered {
            self.waiters.wake(name);
        }
        if !self.ready && self.client.is_ready() {
            self.ready = true;
            self.observer.ready();
        }
        handled.request
    }
}

fn report(address: &str, end: &StreamEnd) {
    let reason = end.reason();
    match end {
        StreamEnd::Unreachable(error) | StreamEnd::Local(error) => {
            tracing::warn!(address, reason, error, "no stream to the control plane");
        }
        StreamEnd::Status(status) if reason == "Error" => {
            tracing::warn!(address, reason, code = ?status.code(), error = status.message(), "control plane ended the stream");
        }
        StreamEnd::Status(_) | StreamEnd::Clean => {
            tracing::info!(address, reason, "stream to the control plane ended, reconnecting");
        }
    }
}

/// Questions stay in their own queue unless there is room for one and for the answer to a response.
async fn next_ask(requests: &mpsc::Sender<DeltaDiscoveryRequest>, demands: &mut Demands) -> Option<Ask> {
    let room = requests.reserve_many(2).await;
    // A closed stream shows as the end of the responses.
    if room.is_err() {
        return std::future::pending().await;
    }
    drop(room);
    demands.next().await
}

/// Changes of subscriptions wait for room for one request of each of a few types, and for the answer to a response.
async fn changed(requests: &mpsc::Sender<DeltaDiscoveryRequest>, subscriptions: &Subscriptions) {
    let room = requests.reserve_many(REQUESTS_MAX / 2).await;
    // A closed stream shows as the end of the responses.
    if room.is_err() {
        return std::future::pending().await;
    }
    drop(room);
    subscriptions.changed().await;
}

fn observe(response: &DeltaDiscoveryResponse, observer: &mut impl Observer) {
    observer.message(&response.type_url, prost::Message::encoded_len(response));
    tracing::debug!(
        type_url = response.type_url,
        resources = response.resources.len(),
        removed = response.removed_resources.len(),
        "response of the control plane"
    );
}

/// The first few in full, the rest as a number: a broken server must not flood the log.
fn log_rejections(type_url: &str, rejected: &[Rejection]) {
    for Rejection { name, reason } in rejected.iter().take(LOGGED_REJECTIONS_MAX) {
        tracing::warn!(type_url, name, reason, "resource refused, an earlier copy stays in force");
    }
    if rejected.len() > LOGGED_REJECTIONS_MAX {
        tracing::warn!(type_url, more = rejected.len() - LOGGED_REJECTIONS_MAX, "more resources refused");
    }
}

async fn prepare(config: &Config) -> Result<(tonic::transport::Endpoint, MetadataMap), String> {
    let root = if config.address.starts_with("http://") { None } else { Some(config.root.read().await?) };
    let endpoint = channel::endpoint(&config.address, root.as_deref(), config.alt_hostname.as_deref())?;
    let mut headers = MetadataMap::new();
    if let Some(token) = config.token.read().await? {
        let mut bearer = ascii("authorization", &format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        headers.insert("authorization", bearer);
    }
    for (name, value) in &config.headers {
        let key = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|e| format!("header {name:?}: {e}"))?;
        headers.insert(key, ascii(name, value)?);
    }
    Ok((endpoint, headers))
}

fn ascii(name: &str, value: &str) -> Result<MetadataValue<Ascii>, String> {
    value.parse().map_err(|_| format!("header {name:?}: its value is not visible ASCII"))
}

impl RootSource {
    async fn read(&self) -> Result<Vec<u8>, String> {
        let path = match self {
            Self::Inline(pem) => return Ok(pem.as_bytes().to_vec()),
            Self::File(path) => path.clone(),
            Self::System => PathBuf::from(SYSTEM_BUNDLE),
        };
        tokio::fs::read(&path).await.map_err(|e| format!("root file {} cannot be read: {e}", path.display()))
    }
}

impl TokenSource {
    async fn read(&self) -> Result<Option<String>, String> {
        match self {
            Self::None => Ok(None),
            Self::Literal(token) => Ok(Some(token.clone())),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(token) => Ok(Some(token.trim().to_owned())),
                Err(e) => Err(format!("token file {} cannot be read: {e}", path.display())),
            },
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Literal(_) => f.write_str("Literal(<redacted>)"),
            Self::None => f.write_str("None"),
        }
    }
}

/// Requests that wait to be sent, beyond the first ones.
const REQUESTS_MAX: usize = 64;
/// The largest response; a whole large mesh fits.
const MESSAGE_BYTES_MAX: usize = 200 * 1024 * 1024;
/// Refused resources logged one by one per response.
const LOGGED_REJECTIONS_MAX: usize = 20;
/// Debian and its relatives; images of ours are built from it.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
