//! Log lines of the plugin, written again as lines of the agent: the plugin's own output is hard to find on a node.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Map, Value};

use crate::event;

/// The route of the log socket.
pub fn router() -> Router {
    Router::new().route(event::LOG_PATH, post(take))
}

async fn take(body: Body) -> (StatusCode, &'static str) {
    let Ok(body) = to_bytes(body, LOG_BYTES_MAX).await else { return (StatusCode::PAYLOAD_TOO_LARGE, "too long\n") };
    let Ok(lines) = serde_json::from_slice::<Vec<String>>(&body) else {
        return (StatusCode::BAD_REQUEST, "expected a JSON list of strings\n");
    };
    for line in lines {
        emit(&line);
    }
    (StatusCode::OK, "")
}

fn emit(line: &str) {
    let mut fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let mut take = |name: &str| fields.remove(name).and_then(|value| value.as_str().map(str::to_owned));
    let (level, at) = (take("level").unwrap_or_default(), take("time").unwrap_or_default());
    let text = take("msg").unwrap_or_else(|| line.to_owned());
    let fields = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
    match level.as_str() {
        "debug" => tracing::debug!(target: SCOPE, at, fields, "{text}"),
        "warn" => tracing::warn!(target: SCOPE, at, fields, "{text}"),
        "error" | "fatal" => tracing::error!(target: SCOPE, at, fields, "{text}"),
        _ => tracing::info!(target: SCOPE, at, fields, "{text}"),
    }
}

/// Log scope.
const SCOPE: &str = "cni-plugin";
/// One run of the plugin writes a few lines.
const LOG_BYTES_MAX: usize = 256 * 1024;
