//! A delta-ADS client that costs little: it reads large responses only as far as it must to accept them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::Request;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use rustls_pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

pub use mesh_wire::type_url::{ADDRESS, AUTHORIZATION};

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The control plane's secure port.
    pub addr: SocketAddr,
    /// Trusts the control plane.
    pub tls: Arc<rustls::ClientConfig>,
    /// Of the node proxies' account.
    pub token: Arc<str>,
}

/// How a client answers responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// It accepts them.
    #[default]
    Accepts,
    /// It never answers.
    Silent,
    /// It refuses all of them.
    Refuses,
}

/// Who a client is and how it behaves.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Distinguishes it; its address and the name of its pod follow from this.
    pub number: usize,
    /// Name of its node.
    pub node: String,
    /// Names to subscribe to; everything if there are none.
    pub names: Vec<String>,
    /// How it answers.
    pub manner: Manner,
    /// Larger responses are not decoded.
    pub decode_bytes_max: usize,
}

/// One response.
#[derive(Debug)]
pub struct Told {
    /// Type of its resources.
    pub type_url: String,
    /// Its size.
    pub bytes: usize,
    /// Itself, unless it was too large.
    pub message: Option<DeltaDiscoveryResponse>,
}

/// An open stream.
pub struct Stream {
    out: SendStream<Bytes>,
    body: RecvStream,
    buffer: BytesMut,
    manner: Manner,
    decode_bytes_max: usize,
    connection: AbortHandle,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("manner", &self.manner).finish_non_exhaustive()
    }
}

impl Proxy {
    /// One that subscribes to everything and keeps what it gets in full.
    #[must_use]
    pub fn reader(number: usize) -> Self {
        let node = format!("node-{number:04}");
        Self { number, node, names: Vec::new(), manner: Manner::Accepts, decode_bytes_max: usize::MAX }
    }

    /// Connects, and subscribes to policies and addresses.
    ///
    /// # Errors
    /// There is no connection, or the stream is refused.
    pub async fn connect(&self, target: &Target) -> Result<Stream> {
        let socket = TcpSocket::new_v4()?;
        // Each node has an address of its own.
        let [_, high, low, _] = u32::try_from(self.number)?.saturating_add(1).to_be_bytes().map(|byte| byte.max(1));
        let last = u8::try_from(self.number % 250)? + 1;
        socket.bind((Ipv4Addr::new(127, high, low, last), 0).into())?;
        let tcp = socket.connect(target.addr).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("istiod.istio-system.svc")?;
        let tls = TlsConnector::from(target.tls.clone()).connect(name, tcp).await?;
        let mut http = h2::client::Builder::new();
        http.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (send, connection) = http.handshake::<_, Bytes>(tls).await?;
        let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let request = Request::post(format!("https://istiod.istio-system.svc{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", target.token))
            .body(())?;
        let (response, mut out) = send.ready().await?.send_request(request, false)?;
        send_message(&mut out, &self.first(AUTHORIZATION, Vec::new()))?;
        send_message(&mut out, &self.first(ADDRESS, self.names.clone()))?;
        let response = match response.await {
            Ok(response) => response,
            Err(error) => {
                connection.abort();
                return Err(error.into());
            }
        };
        if let Some(status) = response.headers().get("grpc-status") {
            connection.abort();
            let message =
                response.headers().get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
            bail!("refused with status {status:?}: {message}");
        }
        let (manner, decode_bytes_max) = (self.manner, self.decode_bytes_max);
        Ok(Stream { out, body: response.into_body(), buffer: BytesMut::new(), manner, decode_bytes_max, connection })
    }

    fn first(&self, type_url: &str, names: Vec<String>) -> DeltaDiscoveryRequest {
        let text =
            |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
        let fields = [("NODE_NAME", self.node.as_str()), ("NAMESPACE", "istio-system"), ("CLUSTER_ID", "Kubernetes")];
        let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
        let metadata = prost_types::Struct { fields: fields.into() };
        let id = format!("ztunnel~10.0.0.1~ztunnel-{}.istio-system~istio-system.svc.cluster.local", self.number);
        DeltaDiscoveryRequest {
            node: Some(Node { id, metadata: Some(metadata), ..Node::default() }),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        }
    }
}

impl Stream {
    /// The next response, answered in the client's manner; none when the server has ended the stream.
    ///
    /// # Errors
    /// The connection breaks, or the server says something that is no response.
    pub async fn next(&mut self) -> Result<Option<Told>> {
        let Some((bytes, head)) = self.message().await? else { return Ok(None) };
        let message = (head.len() == bytes).then(|| DeltaDiscoveryResponse::decode(head.clone())).transpose()?;
        let (type_url, nonce) = match &message {
            Some(message) => (message.type_url.clone(), message.nonce.clone()),
            None => type_and_nonce(head)?,
        };
        let error_detail = match self.manner {
            Manner::Silent => return Ok(Some(Told { type_url, bytes, message })),
            Manner::Accepts => None,
            Manner::Refuses => Some(Status { code: 3, message: "refused on purpose".to_owned(), ..Status::default() }),
        };
        let answer = DeltaDiscoveryRequest {
            type_url: type_url.clone(),
            response_nonce: nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        send_message(&mut self.out, &answer)?;
        Ok(Some(Told { type_url, bytes, message }))
    }

    /// Length of the next message and all of it, or its beginning when it is too long.
    async fn message(&mut self) -> Result<Option<(usize, Bytes)>> {
        while self.buffer.len() < FRAME_BYTES {
            if !self.read().await? {
                return Ok(None);
            }
        }
        ensure!(self.buffer.get_u8() == 0, "nobody offered to take compressed messages");
        let bytes = usize::try_from(self.buffer.get_u32())?;
        let wanted = if bytes > self.decode_bytes_max { bytes.min(HEAD_BYTES) } else { bytes };
        while self.buffer.len() < wanted {
            ensure!(self.read().await?, "the stream ends within a message");
        }
        let head = self.buffer.split_to(wanted).freeze();
        let mut rest = bytes - wanted;
        while rest > 0 {
            if self.buffer.is_empty() {
                ensure!(self.read().await?, "the stream ends within a message");
            }
            let some = rest.min(self.buffer.len());
            self.buffer.advance(some);
            rest -= some;
        }
        Ok(Some((bytes, head)))
    }

    /// Reads some bytes; false at the end.
    async fn read(&mut self) -> Result<bool> {
        let Some(chunk) = self.body.data().await else { return Ok(false) };
        let chunk = chunk?;
        self.body.flow_control().release_capacity(chunk.len())?;
        self.buffer.extend_from_slice(&chunk);
        Ok(true)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Type and nonce stand before the resources.
fn type_and_nonce(mut head: Bytes) -> Result<(String, String)> {
    let (mut type_url, mut nonce) = (String::new(), String::new());
    while head.has_remaining() && (type_url.is_empty() || nonce.is_empty()) {
        let (field, wire) = decode_key(&mut head)?;
        ensure!(wire == WireType::LengthDelimited, "field {field} of a response is of another kind");
        let length = usize::try_from(decode_varint(&mut head)?)?;
        ensure!(length <= head.len(), "type and nonce do not stand at the beginning of the response");
        let value = head.split_to(length);
        match field {
            4 => type_url = String::from_utf8(value.to_vec())?,
            5 => nonce = String::from_utf8(value.to_vec())?,
            _ => {}
        }
    }
    ensure!(!nonce.is_empty(), "a response without a nonce");
    Ok((type_url, nonce))
}

fn send_message(out: &mut SendStream<Bytes>, message: &impl Message) -> Result<()> {
    let mut frame = BytesMut::with_capacity(FRAME_BYTES + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut frame).context("a message fits its own buffer")?;
    out.send_data(frame.freeze(), false).context("sending")
}

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Flag and length before each message.
const FRAME_BYTES: usize = 5;
/// Version, type and nonce fit into this.
const HEAD_BYTES: usize = 1 << 10;
/// What the server may send ahead.
const WINDOW_BYTES: u32 = 1 << 20;
