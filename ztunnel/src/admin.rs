//! The admin port (15000, loopback only): what the proxy knows, its log filter, its end.

mod dump;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use mesh_telemetry::log::LogHandle;
use tokio::sync::mpsc;

use crate::explain;
use crate::node::Pods;
use crate::shared::Shared;

/// What the endpoints need.
#[derive(Clone)]
pub struct Admin {
    /// State, certificates, configuration.
    pub shared: Arc<Shared>,
    /// Pods of the node.
    pub pods: Pods,
    /// Log filter.
    pub log: LogHandle,
    /// Asks the process to end; one request is enough.
    pub quit: mpsc::Sender<()>,
}

/// All endpoints.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/config_dump", get(config_dump))
        .route("/explain", get(explain_connection))
        .route("/logging", post(logging))
        .route("/quitquitquit", post(quit))
        .with_state(admin)
}

async fn config_dump(State(admin): State<Admin>) -> Response {
    pretty(StatusCode::OK, &dump::dump(&admin))
}

async fn explain_connection(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Response {
    let (Some(src), Some(dst)) = (query.get("src"), query.get("dst")) else {
        return (StatusCode::BAD_REQUEST, EXPLAIN_USAGE).into_response();
    };
    let snapshot = admin.shared.state.snapshot();
    match explain::explain(&snapshot, &admin.shared.config.cluster_domain, src, dst) {
        Ok(answer) => pretty(StatusCode::OK, &answer),
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

/// `?level=<level>` or `?level=<module>:<level>,…` adds to the filter, `?reset` returns to the one
/// of the start; both may be combined; none of them only shows it.
async fn logging(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let usage = |problem: String| (StatusCode::BAD_REQUEST, format!("{problem}\n{LOGGING_USAGE}")).into_response();
    let mut level = None;
    for part in query.as_deref().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').unwrap_or((part, "")) {
            ("reset", _) => {
                if let Err(error) = admin.log.reset() {
                    return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
                }
            }
            ("level", directives) => level = Some(unescape(directives)),
            (other, _) => return usage(format!("unknown parameter {other:?}")),
        }
    }
    if let Some(directives) = level
        && let Err(error) = admin.log.set(&directives)
    {
        return usage(error.to_string());
    }
    let current = admin.log.current();
    tracing::info!(filter = current, "log filter");
    format!("current log level is {current}\n").into_response()
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    // A full channel means that the end is already asked for.
    let _ = admin.quit.try_send(());
    "shutdown now\n"
}

fn pretty(status: StatusCode, value: &serde_json::Value) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The few escapes that clients use in a filter: `%3D`, `%3A` and `%2C`.
fn unescape(text: &str) -> String {
    [("%3D", "="), ("%3d", "="), ("%3A", ":"), ("%3a", ":"), ("%2C", ","), ("%2c", ",")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

const INDEX: &str = "<!doctype html><title>ztunnel</title><h1>ztunnel</h1><table>\
<tr><td><a href=\"config_dump\">config_dump</a><td>what the proxy knows\
<tr><td>explain?src=NAMESPACE/POD&amp;dst=HOST:PORT<td>where a connection goes and what policies say\
<tr><td>POST logging?level=LEVEL<td>show or change the log filter\
<tr><td>POST quitquitquit<td>end gracefully</table>\n";
const EXPLAIN_USAGE: &str = "usage: /explain?src=<namespace>/<pod> or <ip>&dst=<host or ip>:<port>\n";
const LOGGING_USAGE: &str = "usage: POST /logging                                    show the current filter\n\
       POST /logging?level=<level>                      change the global level\n\
       POST /logging?level=<module>:<level>,<module>:<level>\n\
       POST /logging?reset                              return to the filter of the start\n\
levels: error, warn, info, debug, trace, off\n";

#[cfg(test)]
mod tests;
