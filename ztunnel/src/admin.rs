//! The admin port (15000, loopback only): what the proxy knows and does, its log filter, its end.

mod dump;
mod logging;
mod profile;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use mesh_telemetry::log::LogHandle;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::explain;
use crate::node::Pods;
use crate::promises::{Name, Strict};
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
        .route("/debug/connections", get(connections))
        .route("/debug/pprof/profile", get(profile::profile))
        .route("/debug/pprof/heap", get(profile::heap))
        .route("/debug/pprof/heap/profiling", get(profile::heap))
        .route("/explain", get(explain_connection))
        .route("/logging", post(logging::logging))
        .route("/quitquitquit", post(quit))
        .with_state(admin)
}

async fn config_dump(State(admin): State<Admin>) -> Response {
    elsewhere(move || dump::dump(&admin)).await
}

/// `?pod=<namespace>/<name>`, or all.
async fn connections(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Response {
    let pod = match query.get("pod").map(|pod| pod.split_once('/')) {
        None => None,
        Some(Some((namespace, name))) => Some((namespace.to_owned(), name.to_owned())),
        Some(None) => return (StatusCode::BAD_REQUEST, CONNECTIONS_USAGE).into_response(),
    };
    elsewhere(move || {
        let pod = pod.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        admin.shared.report.connections(pod)
    })
    .await
}

async fn explain_connection(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Response {
    let (Some(src), Some(dst)) = (query.get("src"), query.get("dst")) else {
        return (StatusCode::BAD_REQUEST, EXPLAIN_USAGE).into_response();
    };
    let snapshot = admin.shared.state.snapshot();
    let promises = &admin.shared.promises;
    let strict = Strict {
        waypoint_required: promises.strict(Name::WaypointRequired),
        policy_before_traffic: promises.strict(Name::PolicyBeforeTraffic),
    };
    match explain::explain(&snapshot, strict, &admin.shared.config.cluster_domain, src, dst) {
        Ok(answer) => pretty(StatusCode::OK, &answer),
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    // A full channel means that the end is already asked for.
    let _ = admin.quit.try_send(());
    "shutdown now\n"
}

/// Makes a large answer on a thread of its own: the control thread has policy changes to apply meanwhile.
async fn elsewhere(make: impl FnOnce() -> Value + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(move || pretty(StatusCode::OK, &make())).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn pretty(status: StatusCode, value: &Value) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

const INDEX: &str = "<!doctype html><title>ztunnel</title><h1>ztunnel</h1><table>\
<tr><td><a href=\"config_dump\">config_dump</a><td>what the proxy knows\
<tr><td><a href=\"debug/connections\">debug/connections?pod=NAMESPACE/POD</a><td>open connections, their ends and bytes\
<tr><td>explain?src=NAMESPACE/POD&amp;dst=HOST:PORT<td>where a connection goes and what policies say\
<tr><td>POST logging?level=LEVEL<td>show or change the log filter\
<tr><td><a href=\"debug/pprof/profile\">debug/pprof/profile?seconds=10&amp;frequency=100</a>\
<td>where CPU time goes, if built in\
<tr><td>POST quitquitquit<td>end gracefully</table>\n";
const CONNECTIONS_USAGE: &str = "usage: /debug/connections or /debug/connections?pod=<namespace>/<name>\n";
const EXPLAIN_USAGE: &str =
    "usage: /explain?src=<namespace>/<pod> or <ip>&dst=<host or ip>:<port>; src=tunnel:... for a waypoint\n";

#[cfg(test)]
mod tests;
