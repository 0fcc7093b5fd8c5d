//! A client that makes requests of any shape and says what came back: statuses, backends, latencies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use clap::Args;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::grpc::{framed, unframed};
use crate::seen::list;
use crate::tls::{ClientTls, ClientWishes, ServerSeen};

/// What to request, how, and how often.
#[derive(Debug, Clone, Args)]
pub struct Call {
    /// http:// or https:// URL. `grpc://host:port/service/method` makes a gRPC call.
    pub url: Uri,
    /// Method.
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: Method,
    /// `name: value`, any number.
    #[arg(short = 'H', long = "header", value_parser = parse_header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Host to ask for, in place of the URL's.
    #[arg(long)]
    pub host: Option<String>,
    /// Where to connect, `address:port`, in place of the URL's.
    #[arg(long)]
    pub connect: Option<String>,
    /// Body of the request.
    #[arg(short = 'd', long, default_value = "")]
    pub data: String,
    /// A body of so many bytes in place of --data.
    #[arg(long)]
    pub body_bytes: Option<usize>,
    /// How many requests.
    #[arg(short = 'n', long, default_value_t = 1)]
    pub count: u64,
    /// How many at a time, each on a connection of its own.
    #[arg(short = 'c', long, default_value_t = 1)]
    pub concurrency: u64,
    /// HTTP/2: with prior knowledge, or inside TLS by ALPN.
    #[arg(long)]
    pub http2: bool,
    /// A new connection for each request.
    #[arg(long)]
    pub new_connections: bool,
    /// Seconds after which a request counts as failed.
    #[arg(long, default_value_t = 10.0)]
    pub timeout: f64,
    /// File with the authorities to trust. Absent: every certificate is taken.
    #[arg(long)]
    pub cacert: Option<PathBuf>,
    /// File with a certificate chain to present, with --key.
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// File with its key.
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Server name to ask for, in place of the host.
    #[arg(long)]
    pub sni: Option<String>,
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("expected `name: value`")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// How all the requests went.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Requests that were made.
    pub requests: u64,
    /// How often each status came; gRPC statuses are `grpc 0` and so on.
    pub statuses: BTreeMap<String, u64>,
    /// How often each backend answered, by its name, else its pod's.
    pub backends: BTreeMap<String, u64>,
    /// How often each pod answered.
    pub pods: BTreeMap<String, u64>,
    /// How often requests failed without an answer, and why.
    pub errors: BTreeMap<String, u64>,
    /// Milliseconds from the first byte sent to the last received.
    pub p50_ms: f64,
    /// As above.
    pub p99_ms: f64,
    /// As above.
    pub max_ms: f64,
    /// The last answer.
    pub last: Option<Answer>,
}

/// One answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Protocol.
    pub protocol: String,
    /// Headers in order; of several of one name all.
    pub headers: Vec<(String, String)>,
    /// Trailers in order.
    pub trailers: Vec<(String, String)>,
    /// The body if it is JSON: what the server saw.
    pub json: Option<Value>,
    /// The beginning of the body if it is not.
    pub text: Option<String>,
    /// Messages of a gRPC answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Length of the body.
    pub body_bytes: u64,
    /// Milliseconds until the headers were there.
    pub headers_ms: f64,
    /// Why the body ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// TLS of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerSeen>,
}

struct Sample {
    took: Duration,
    result: Result<Answer>,
}

impl Call {
    /// Makes all the requests.
    ///
    /// # Errors
    /// When the settings cannot be used. Requests that fail are part of the outcome.
    pub async fn run(self) -> Result<Outcome> {
        ensure!(self.concurrency > 0, "--concurrency must be more than 0");
        let plan = Arc::new(Plan::new(self)?);
        let next = Arc::new(AtomicU64::new(0));
        let workers = (0..plan.call.concurrency.min(plan.call.count)).map(|_| {
            let (plan, next) = (Arc::clone(&plan), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut kept, mut samples) = (None, Vec::new());
                while next.fetch_add(1, Ordering::Relaxed) < plan.call.count {
                    let started = Instant::now();
                    let result = plan.request(&mut kept).await;
                    samples.push(Sample { took: started.elapsed(), result });
                }
                samples
            })
        });
        let samples = futures::future::try_join_all(workers.collect::<Vec<_>>()).await?;
        Ok(summarise(samples.into_iter().flatten()))
    }
}

fn summarise(samples: impl Iterator<Item = Sample>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut took = Vec::new();
    for sample in samples {
        outcome.requests += 1;
        took.push(sample.took.as_secs_f64() * 1e3);
        let answer = match sample.result {
            Ok(answer) => answer,
            Err(error) => {
                *outcome.errors.entry(format!("{error:#}")).or_default() += 1;
                continue;
            }
        };
        let field = |list: &[(String, String)]| {
            list.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| format!("grpc {value}"))
        };
        let grpc = field(&answer.trailers).or_else(|| field(&answer.headers));
        *outcome.statuses.entry(grpc.unwrap_or_else(|| answer.status.to_string())).or_default() += 1;
        if let Some(why) = &answer.broken {
            *outcome.errors.entry(format!("body: {why}")).or_default() += 1;
        }
        let seen = answer.json.clone().or_else(|| serde_json::from_str(answer.messages.first()?).ok());
        let text = |name: &str| {
            let value = seen.as_ref()?.get(name)?.as_str()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        if let Some(pod) = text("pod") {
            *outcome.backends.entry(text("backend").unwrap_or_else(|| pod.clone())).or_default() += 1;
            *outcome.pods.entry(pod).or_default() += 1;
        }
        outcome.last = Some(answer);
    }
    took.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(index).copied().unwrap_or_default()
    };
    (outcome.p50_ms, outcome.p99_ms, outcome.max_ms) = (at(50), at(99), at(100));
    outcome
}

/// How each request is made.
struct Plan {
    call: Call,
    grpc: bool,
    tls: Option<ClientTls>,
    target: String,
    authority: String,
    timeout: Duration,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

type Kept = Option<(Connection, Option<ServerSeen>)>;

impl Plan {
    fn new(mut call: Call) -> Result<Self> {
        let scheme = call.url.scheme_str().unwrap_or("http").to_owned();
        let grpc = scheme == "grpc";
        call.http2 |= grpc;
        if grpc {
            call.method = Method::POST;
        }
        let tls = match scheme.as_str() {
            "http" | "grpc" => None,
            "https" => {
                let protocol: &[u8] = if call.http2 { b"h2" } else { b"http/1.1" };
                let identity = call.cert.clone().zip(call.key.clone());
                let wishes = ClientWishes { roots: call.cacert.clone(), identity, alpn: vec![protocol.to_vec()] };
                Some(ClientTls::new(&wishes)?)
            }
            other => bail!("scheme {other:?}: expected http, https or grpc"),
        };
        let host = call.url.host().context("the URL names no host")?;
        let port = call.url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let target = call.connect.clone().unwrap_or_else(|| format!("{host}:{port}"));
        let authority = call.url.authority().map(ToString::to_string).unwrap_or_default();
        let authority = call.host.clone().unwrap_or(authority);
        let timeout = Duration::try_from_secs_f64(call.timeout).context("--timeout")?;
        Ok(Self { grpc, tls, target, authority, timeout, call })
    }

    async fn request(&self, kept: &mut Kept) -> Result<Answer> {
        tokio::time::timeout(self.timeout, self.request_now(kept)).await.context("timed out")?
    }

    async fn request_now(&self, kept: &mut Kept) -> Result<Answer> {
        let (connection, tls) = match kept.take() {
            Some((Connection::One(one), tls)) if !self.call.new_connections && !one.is_closed() => {
                (Connection::One(one), tls)
            }
            Some((Connection::Two(two), tls)) if !self.call.new_connections && !two.is_closed() => {
                (Connection::Two(two), tls)
            }
            _ => self.connect().await?,
        };
        let started = Instant::now();
        let (connection, answer) = match connection {
            Connection::One(mut one) => {
                let answer = one.send_request(self.build(false)?).await.context("request")?;
                (Connection::One(one), answer)
            }
            Connection::Two(mut two) => {
                let answer = two.send_request(self.build(true)?).await.context("request")?;
                (Connection::Two(two), answer)
            }
        };
        let headers_ms = started.elapsed().as_secs_f64() * 1e3;
        let (parts, body) = answer.into_parts();
        let answer = self.read(parts, body, headers_ms, tls.clone()).await;
        let again = match connection {
            Connection::One(mut one) => one.ready().await.is_ok().then_some(Connection::One(one)),
            Connection::Two(two) => Some(Connection::Two(two)),
        };
        *kept = again.filter(|_| answer.broken.is_none()).map(|connection| (connection, tls));
        Ok(answer)
    }

    fn build(&self, two: bool) -> Result<Request<Full<Bytes>>> {
        let call = &self.call;
        let path = call.url.path_and_query().map_or("/", |path| path.as_str());
        let body = match call.body_bytes {
            Some(bytes) => Bytes::from(vec![b'x'; bytes]),
            None => Bytes::from(call.data.clone()),
        };
        let mut builder = Request::builder().method(&call.method);
        if two {
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(self.authority.as_str()).path_and_query(path);
            builder = builder.uri(uri.build()?).version(Version::HTTP_2);
        } else {
            builder = builder.uri(path).header(header::HOST, &self.authority);
        }
        if self.grpc {
            builder = builder.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        }
        for (name, value) in &call.headers {
            builder = builder.header(name, value);
        }
        let body = if self.grpc { framed(&body) } else { body };
        Ok(builder.body(Full::new(body))?)
    }

    async fn connect(&self) -> Result<(Connection, Option<ServerSeen>)> {
        let stream = TcpStream::connect(self.target.as_str()).await.context("connect")?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok((self.handshake(stream).await?, None));
        };
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = self.call.sni.as_deref().unwrap_or(host);
        let (stream, seen) = tls.connect(stream, name).await?;
        Ok((self.handshake(stream).await?, Some(seen)))
    }

    async fn handshake<Io>(&self, stream: Io) -> Result<Connection>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if self.call.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.context("HTTP/2 handshake")?;
            tokio::spawn(connection);
            Ok(Connection::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await.context("handshake")?;
            tokio::spawn(connection);
            Ok(Connection::One(sender))
        }
    }

    async fn read(
        &self,
        parts: response::Parts,
        mut body: Incoming,
        headers_ms: f64,
        tls: Option<ServerSeen>,
    ) -> Answer {
        let mut answer = Answer {
            status: parts.status.as_u16(),
            protocol: format!("{:?}", parts.version),
            headers: list(&parts.headers),
            trailers: Vec::new(),
            json: None,
            text: None,
            messages: Vec::new(),
            body_bytes: 0,
            headers_ms,
            broken: None,
            tls,
        };
        let mut shown = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Some(data) = frame.data_ref() {
                        answer.body_bytes += data.len() as u64;
                        let room = SHOWN_BYTES_MAX.saturating_sub(shown.len());
                        shown.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        answer.trailers = list(trailers);
                    }
                }
                Err(error) => {
                    answer.broken = Some(format!("{:#}", anyhow::Error::from(error)));
                    break;
                }
            }
        }
        if self.grpc {
            while let Some(message) = unframed(&mut shown) {
                answer.messages.push(String::from_utf8_lossy(&message).into_owned());
            }
        } else {
            answer.json = serde_json::from_slice(&shown).ok();
            if answer.json.is_none() {
                answer.text = Some(String::from_utf8_lossy(&shown).chars().take(TEXT_CHARS_MAX).collect());
            }
        }
        answer
    }
}

/// Bytes of an answer that are looked into.
const SHOWN_BYTES_MAX: usize = 1 << 20;
/// Characters of an answer that are shown where it is not JSON.
const TEXT_CHARS_MAX: usize = 2000;
