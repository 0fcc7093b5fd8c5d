//! The HTTP side of `echo`: one port for HTTP/1.1, HTTP/2, gRPC and WebSocket. Answers with what it saw.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::pattern::{CHUNK_BYTES, Digest, Pattern};
use crate::seen::{Memory, Peer, Seen, list};
use crate::tls::ServerTls;
use crate::whoami::WhoAmI;
use crate::wish::{DELAY_MS_MAX, Reset, Wishes};

/// What the handlers share.
#[derive(Debug)]
pub struct Echo {
    /// Who answers.
    pub me: WhoAmI,
    /// What is remembered.
    pub memory: Memory,
}

/// Marks an answer in whose place the connection or stream is reset.
#[derive(Debug, Clone, Copy)]
struct ResetNow;

/// The routes of the HTTP port.
pub fn router(echo: Arc<Echo>) -> Router {
    Router::new()
        .route("/ws", get(web_socket))
        .route("/status/{code}", any(status))
        .route("/delay/{ms}", any(delay))
        .route("/digest", post(digest))
        .route("/echo/recorded/{name}", get(recorded))
        .fallback(any(reflect))
        .with_state(echo)
}

/// Serves one port for the life of the process.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<ServerTls>) -> Result<()> {
    loop {
        let (stream, address) = listener.accept().await.context("accept")?;
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            // Clients that go away, or speak nonsense, are no fault of the server.
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, Peer { address, tls: None }, router).await,
                Some(tls) => {
                    if let Ok((stream, seen)) = tls.accept(stream).await {
                        connection(stream, Peer { address, tls: Some(seen) }, router).await;
                    }
                }
            }
        });
    }
}

async fn connection<Io>(stream: Io, peer: Peer, router: Router)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let answer = router.call(request);
        async move {
            match answer.await {
                Ok(answer) if answer.extensions().get::<ResetNow>().is_some() => {
                    Err(io::Error::other("a reset was wished"))
                }
                Ok(answer) => Ok(answer),
                Err(never) => match never {},
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(true);
    builder.http2().max_concurrent_streams(1000);
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn reflect(State(echo): State<Arc<Echo>>, ConnectInfo(peer): ConnectInfo<Peer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let wishes = Wishes::of(&parts.uri, &parts.headers).at(&echo.me.backend);
    let mut seen = Seen::new(echo.me.clone(), &peer, &parts);
    if let Some(delay) = wishes.delay {
        tokio::time::sleep(delay).await;
    }
    let failed_before = || echo.memory.count(format!("reset {}", wishes.key));
    if wishes.reset == Some(Reset::Before) || (wishes.reset_first > 0 && failed_before() < wishes.reset_first) {
        remember(&echo, &wishes, &seen);
        return reset();
    }
    let kind = parts.headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        remember(&echo, &wishes, &seen);
        return crate::grpc::answer(parts.uri.path(), &wishes, &seen, body);
    }
    if !wishes.early
        && let Err(error) = read(&mut seen, body).await
    {
        return (StatusCode::BAD_REQUEST, format!("reading the request: {error}\n")).into_response();
    }
    remember(&echo, &wishes, &seen);
    let mut response = body_of(&wishes, &seen);
    *response.status_mut() = status_of(&echo, &wishes);
    for (name, value) in wishes.headers {
        response.headers_mut().append(name, value);
    }
    response
}

fn remember(echo: &Echo, wishes: &Wishes, seen: &Seen) {
    if let Some(name) = &wishes.record {
        echo.memory.record(name, seen);
    }
}

fn status_of(echo: &Echo, wishes: &Wishes) -> StatusCode {
    let Some(last) = wishes.statuses.last() else { return wishes.status.unwrap_or(StatusCode::OK) };
    let count = echo.memory.count(format!("{:?} {}", wishes.statuses, wishes.key));
    let index = usize::try_from(count).unwrap_or(usize::MAX);
    *wishes.statuses.get(index).unwrap_or(last)
}

fn reset() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(ResetNow);
    response
}

/// Reads the whole request.
async fn read(seen: &mut Seen, mut body: Body) -> Result<(), axum::Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            let room = BODY_SHOWN_BYTES.saturating_sub(seen.body.len());
            if room > 0 {
                seen.body.push_str(&String::from_utf8_lossy(data.get(..data.len().min(room)).unwrap_or_default()));
            }
            seen.body_bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            seen.trailers = list(trailers);
        }
    }
    Ok(())
}

/// The answer's body as it is wished: whole, in pieces, broken, or with trailers.
fn body_of(wishes: &Wishes, seen: &Seen) -> Response {
    let plain = wishes.chunks <= 1 && wishes.trailers.is_empty() && wishes.reset.is_none();
    let text = || Bytes::from(serde_json::to_vec(seen).unwrap_or_default());
    match wishes.bytes {
        None if plain => axum::Json(seen).into_response(),
        None => pieces(text(), wishes),
        Some(bytes) if bytes <= PIECES_BYTES_MAX => {
            let mut whole = vec![0; usize::try_from(bytes).unwrap_or_default().next_multiple_of(8)];
            Pattern::new(1).fill(&mut whole);
            whole.truncate(usize::try_from(bytes).unwrap_or_default());
            pieces(whole.into(), wishes)
        }
        Some(bytes) => endless(bytes),
    }
}

type Frames = Result<Frame<Bytes>, io::Error>;

fn pieces(whole: Bytes, wishes: &Wishes) -> Response {
    let size = whole.len().div_ceil(wishes.chunks as usize).max(1);
    let mut frames: Vec<Frames> = Vec::new();
    let mut rest = whole;
    while !rest.is_empty() {
        frames.push(Ok(Frame::data(rest.split_to(size.min(rest.len())))));
    }
    if wishes.reset == Some(Reset::Body) {
        frames.truncate(frames.len().div_ceil(2));
        frames.push(Err(io::Error::other("a reset was wished")));
    } else if !wishes.trailers.is_empty() {
        let trailers: HeaderMap = wishes.trailers.iter().cloned().collect();
        frames.push(Ok(Frame::trailers(trailers)));
    }
    // What comes before a break has to be on its way.
    let least = if wishes.reset.is_some() { BREAK_PAUSE } else { Duration::ZERO };
    let pause = wishes.pause.max(least);
    let stream = futures::stream::iter(frames.into_iter().enumerate()).then(move |(index, frame)| async move {
        if index > 0 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        frame
    });
    let mut response = Response::new(Body::new(StreamBody::new(stream)));
    if wishes.bytes.is_none() {
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    }
    if !wishes.trailers.is_empty() {
        let names: Vec<&str> = wishes.trailers.iter().map(|(name, _)| name.as_str()).collect();
        if let Ok(names) = names.join(", ").parse() {
            response.headers_mut().insert(header::TRAILER, names);
        }
    }
    response
}

/// So many bytes of the pattern, made while they are sent.
fn endless(bytes: u64) -> Response {
    let stream = futures::stream::unfold((Pattern::new(1), bytes), |(mut pattern, left)| async move {
        if left == 0 {
            return None;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        pattern.fill(&mut chunk);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        chunk.truncate(take);
        Some((Ok::<_, io::Error>(Bytes::from(chunk)), (pattern, left - take as u64)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    response
}

async fn recorded(State(echo): State<Arc<Echo>>, Path(name): Path<String>) -> Response {
    axum::Json(echo.memory.recorded(&name)).into_response()
}

async fn status(Path(code): Path<u16>) -> Response {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST).into_response()
}

async fn delay(Path(ms): Path<u64>, state: State<Arc<Echo>>, peer: ConnectInfo<Peer>, request: Request) -> Response {
    tokio::time::sleep(Duration::from_millis(ms.min(DELAY_MS_MAX))).await;
    reflect(state, peer, request).await
}

async fn digest(body: Body) -> Response {
    let mut digest = Digest::default();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => digest.update(&chunk),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("reading: {error}\n")).into_response(),
        }
    }
    digest.finish().into_response()
}

async fn web_socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(mirror)
}

async fn mirror(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        // The answer to a close is sent when the next message is asked for.
        if !matches!(message, Message::Close(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// How much of a request's body an answer repeats.
const BODY_SHOWN_BYTES: usize = 1024;
/// Between the last piece and the break of an answer that breaks.
const BREAK_PAUSE: Duration = Duration::from_millis(20);
/// Bodies up to here can be had in pieces, with trailers, or broken.
const PIECES_BYTES_MAX: u64 = 16 << 20;
