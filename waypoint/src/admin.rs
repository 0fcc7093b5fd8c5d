//! The admin port (15000, loopback only): what the proxy knows and does, its log filter, its end.

mod dump;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRef, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mesh_telemetry::log::LogHandle;
use tokio::sync::{Semaphore, mpsc};

use crate::explain::Question;
use crate::limits::DUMPS_AT_ONCE_MAX;
use crate::shared::Shared;

/// What the endpoints need.
#[derive(Clone)]
pub struct Admin {
    /// State, certificates, configuration.
    pub shared: Arc<Shared>,
    /// Log filter.
    pub log: LogHandle,
    /// Asks the process to end; one request is enough.
    pub quit: mpsc::Sender<()>,
}

/// What is asked for, and how many large answers are being made.
#[derive(Clone)]
struct Served {
    admin: Admin,
    dumps: Arc<Semaphore>,
}

impl FromRef<Served> for Admin {
    fn from_ref(served: &Served) -> Self {
        served.admin.clone()
    }
}

/// All endpoints.
pub fn router(admin: Admin) -> Router {
    let served = Served { admin, dumps: Arc::new(Semaphore::new(DUMPS_AT_ONCE_MAX)) };
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/config_dump", get(config_dump))
        .route("/clusters", get(clusters))
        .route("/explain", post(explain))
        .route("/logging", post(logging))
        .route("/quitquitquit", post(quit))
        .with_state(served)
}

async fn config_dump(State(served): State<Served>) -> Response {
    elsewhere(served, dump::dump).await
}

async fn clusters(State(served): State<Served>) -> Response {
    elsewhere(served, dump::clusters).await
}

/// What would happen to the request that the body describes.
async fn explain(State(admin): State<Admin>, Json(question): Json<Question>) -> Response {
    match crate::explain::explain(&admin.shared, &question) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// `?level=<level>` or `?level=<module>:<level>,…` adds to the filter, `?reset` returns to the one of the start.
async fn logging(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Response {
    let bad = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
    if query.contains_key("reset")
        && let Err(error) = admin.log.reset()
    {
        return bad(&error);
    }
    if let Some(level) = query.get("level")
        && let Err(error) = admin.log.set(level)
    {
        return bad(&error);
    }
    format!("current log level is {}\n", admin.log.current()).into_response()
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    // A full channel means that the end is already asked for.
    let _ = admin.quit.try_send(());
    "shutdown now\n"
}

/// Makes a large answer on a thread of its own: the control thread has changes to apply meanwhile.
async fn elsewhere(served: Served, make: fn(&Shared) -> serde_json::Result<Vec<u8>>) -> Response {
    let Served { admin, dumps } = served;
    let Ok(permit) = dumps.acquire_owned().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the process ends\n").into_response();
    };
    let made = tokio::task::spawn_blocking(move || {
        let text = make(&admin.shared);
        drop(permit);
        text
    });
    let error = match made.await {
        Ok(Ok(text)) => return ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

const INDEX: &str = "<!doctype html><title>waypoint</title><h1>waypoint</h1><table>\
<tr><td><a href=\"config_dump\">config_dump</a><td>what the proxy knows\
<tr><td><a href=\"clusters\">clusters</a><td>backends, their endpoints and all their counters\
<tr><td>POST explain<td>what would happen to the request that the body describes\
<tr><td>POST logging?level=LEVEL<td>show or change the log filter\
<tr><td>POST quitquitquit<td>end gracefully</table>\n";
