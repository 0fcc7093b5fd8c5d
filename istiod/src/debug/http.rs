//! Readiness, version and debugging over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mesh_telemetry::ready::Readiness;
use mesh_xds::server::Hub;
use serde_json::{Value, json};

use super::view;
use crate::auth::{Authenticator, TokenReviewer};
use crate::translate::Model;

/// What the handlers read.
pub struct DebugState<R> {
    /// Connected proxies.
    pub hub: Arc<Hub>,
    /// Published resources.
    pub model: Arc<RwLock<Model>>,
    /// Judges callers from elsewhere.
    pub authenticator: Arc<Authenticator<R>>,
    /// Own namespace: callers of others are refused.
    pub namespace: Arc<str>,
}

impl<R> std::fmt::Debug for DebugState<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugState").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// `/ready`: 200 as soon as proxies are served.
pub fn ready(readiness: Readiness) -> Router {
    let answer = async move |State(readiness): State<Readiness>| match readiness.pending().as_slice() {
        [] => (StatusCode::OK, "ready\n".to_owned()),
        pending => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", pending.join(", "))),
    };
    Router::new().route("/ready", get(answer)).with_state(readiness)
}

/// `/version`.
pub fn version() -> Router {
    Router::new().route("/version", get(async || concat!(env!("CARGO_PKG_VERSION"), "\n")))
}

/// `/debug/…`: loopback is trusted, others need a token of the control plane's namespace.
pub fn debug<R: TokenReviewer>(state: Arc<DebugState<R>>) -> Router {
    Router::new()
        .route("/debug", get(async || PATHS.join("\n") + "\n"))
        .route("/debug/syncz", get(syncz))
        .route("/debug/connections", get(syncz))
        .route("/debug/ambientz", get(ambientz))
        .route("/debug/mesh", get(mesh))
        .layer(middleware::from_fn_with_state(state.clone(), guard::<R>))
        .with_state(state)
}

async fn guard<R: TokenReviewer>(State(state): State<Arc<DebugState<R>>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    if peer.is_some_and(|ip| ip.is_loopback()) {
        return next.run(request).await;
    }
    let headers: HeaderMap = request.headers().clone();
    match state.authenticator.authenticate(&headers).await {
        Ok(caller) if caller.namespace == state.namespace => next.run(request).await,
        Ok(_) => (StatusCode::FORBIDDEN, "only the control plane's namespace may ask\n").into_response(),
        Err(error) => {
            tracing::debug!(reason = %error, "debug request refused");
            (StatusCode::UNAUTHORIZED, "ask from this machine, or with a token of the control plane's namespace\n")
                .into_response()
        }
    }
}

async fn syncz<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    let connections = state.hub.connections().into_iter().map(|one| {
        let types = one.types.iter().map(|kind| {
            json!({
                "typeUrl": kind.type_url,
                "wildcard": kind.wildcard,
                "names": kind.names,
                "nonceSent": kind.nonce_sent,
                "nonceAcked": kind.nonce_acked,
                "synced": kind.nonce_sent == kind.nonce_acked,
                "lastError": kind.last_error,
            })
        });
        let connected = jiff::Timestamp::try_from(one.connected_at).map(|at| at.to_string()).unwrap_or_default();
        json!({
            "connectionId": one.id,
            "proxy": one.node,
            "address": one.peer,
            "connectedAt": connected,
            "types": types.collect::<Vec<_>>(),
        })
    });
    Json(json!({"connected": connections.collect::<Vec<_>>()}))
}

async fn ambientz<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    let (addresses, policies): (Vec<_>, Vec<_>) = {
        let model = state.model.read().unwrap_or_else(PoisonError::into_inner);
        (model.addresses().values().cloned().collect(), model.authorizations().values().cloned().collect())
    };
    let (services, workloads): (Vec<_>, Vec<_>) = addresses.iter().partition(|one| one.is_group);
    let views =
        |all: Vec<&Arc<mesh_xds::server::Resource>>| all.into_iter().map(|one| view::address(one)).collect::<Vec<_>>();
    let policies: Vec<_> = policies.iter().map(|one| view::authorization(one)).collect();
    Json(json!({"workloads": views(workloads), "services": views(services), "policies": policies}))
}

async fn mesh<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    let settings = state.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().clone();
    Json(json!({
        "clusterId": &*settings.cluster_id,
        "trustDomain": settings.trust_domain.as_str(),
        "rootNamespace": &*settings.root_namespace,
        "promises": {"l7DenyAtL4": if settings.l7_deny_at_l4 { "strict" } else { "reference" }},
        "discoverySelectors": settings.discovery_selectors.len(),
    }))
}

const PATHS: [&str; 4] = ["/debug/syncz", "/debug/connections", "/debug/ambientz", "/debug/mesh"];
