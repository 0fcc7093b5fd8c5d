//! The HTTP side of `echo`: one port for HTTP/1.1, HTTP/2, gRPC and WebSocket. Answers with what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Serialize;

use crate::pattern::Digest;
use crate::whoami::WhoAmI;

/// The routes of the HTTP port. Serve with connect info.
pub fn router(me: WhoAmI) -> Router {
    Router::new()
        .route("/ws", get(web_socket))
        .route("/status/{code}", any(status))
        .route("/delay/{ms}", any(delay))
        .route("/digest", post(digest))
        .fallback(any(reflect))
        .with_state(me)
}

/// One answer: what the server saw of the request, and who it is.
#[derive(Debug, Serialize)]
struct Seen {
    #[serde(flatten)]
    me: WhoAmI,
    source: String,
    protocol: String,
    method: String,
    path: String,
    host: String,
    headers: BTreeMap<String, String>,
}

async fn reflect(State(me): State<WhoAmI>, ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    let seen = see(me, peer, &request);
    if request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    {
        return grpc(&seen);
    }
    axum::Json(seen).into_response()
}

fn see(me: WhoAmI, peer: SocketAddr, request: &Request) -> Seen {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    Seen {
        me,
        source: SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
        protocol: format!("{:?}", request.version()),
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        host: host.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default(),
        headers: headers(request.headers()),
    }
}

fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// A unary gRPC answer whose message has one string field (number 1) with the JSON text.
fn grpc(seen: &Seen) -> Response {
    let text = serde_json::to_vec(seen).unwrap_or_default();
    let mut message = vec![0x0a];
    let mut length = text.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(&text);
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(framed))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn status(Path(code): Path<u16>) -> Response {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST).into_response()
}

async fn delay(Path(ms): Path<u64>, state: State<WhoAmI>, peer: ConnectInfo<SocketAddr>, request: Request) -> Response {
    tokio::time::sleep(Duration::from_millis(ms.min(DELAY_MS_MAX))).await;
    reflect(state, peer, request).await
}

async fn digest(body: Bytes) -> String {
    let mut digest = Digest::default();
    digest.update(&body);
    digest.finish()
}

async fn web_socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(mirror)
}

async fn mirror(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Longest wait a caller may ask for.
const DELAY_MS_MAX: u64 = 60_000;
