//! Streams one after the other, for as long as the process runs.

use std::fmt;
use std::path::PathBuf;

use mesh_wire::discovery::DeltaDiscoveryResponse;
use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use super::channel;
use super::{DeltaClient, Handler, Reconnect, Rejection, StreamEnd};

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
pub async fn run(config: Config, mut client: DeltaClient, mut handler: impl Handler, mut observer: impl Observer) {
    let mut reconnect = Reconnect::default();
    let mut ready = false;
    loop {
        let end = stream(&config, &mut client, &mut handler, &mut observer, &mut ready).await;
        observer.terminated(&end);
        let delay = reconnect.after(&end);
        report(&config.address, &end);
        tokio::time::sleep(delay).await;
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

/// One stream from connecting to its end.
async fn stream(
    config: &Config,
    client: &mut DeltaClient,
    handler: &mut impl Handler,
    observer: &mut impl Observer,
    ready: &mut bool,
) -> StreamEnd {
    let (endpoint, headers) = match prepare(config).await {
        Ok(prepared) => prepared,
        Err(error) => return StreamEnd::Local(error),
    };
    let channel = match channel::connect(&endpoint).await {
        Ok(channel) => channel,
        Err(error) => return StreamEnd::Unreachable(error),
    };
    let first = client.start_stream();
    // Each response is answered before the next is read, so that more than this never waits.
    let (requests, outgoing) = mpsc::channel(first.len() + 1);
    for request in first {
        // Cannot fail: there is room, and `outgoing` is alive.
        let _ = requests.send(request).await;
    }
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    *request.metadata_mut() = headers;
    let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut responses = match service.delta_aggregated_resources(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return StreamEnd::Status(status),
    };
    tracing::info!(address = config.address, "stream to the control plane is open");
    loop {
        let response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return StreamEnd::Clean,
            Err(status) => return StreamEnd::Status(status),
        };
        observe(&response, observer);
        let handled = client.handle_response(response, handler);
        log_rejections(&handled.request.type_url, &handled.rejected);
        if !*ready && client.is_ready() {
            *ready = true;
            observer.ready();
        }
        // A closed stream shows as the end of the responses.
        let _ = requests.send(handled.request).await;
    }
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

/// The largest response; a whole large mesh fits.
const MESSAGE_BYTES_MAX: usize = 200 * 1024 * 1024;
/// Refused resources logged one by one per response.
const LOGGED_REJECTIONS_MAX: usize = 20;
/// Debian and its relatives; images of ours are built from it.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
