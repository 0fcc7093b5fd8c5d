//! Readiness, version and debugging over HTTP.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use mesh_telemetry::ready::Readiness;
use mesh_xds::server::{ConnectionStatus, Hub};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::pages;
use super::sheet::{Sheet, sheet};
use super::turns::{Asker, Turns};
use crate::auth::{Authenticator, Caller, Credentials, TokenReviewer};
use crate::config::mesh::MeshReport;
use crate::simulate;
use crate::source::remote::registry::Clusters;
use crate::translate::Model;

/// What the handlers read.
pub struct DebugState<R> {
    /// Connected proxies.
    pub hub: Arc<Hub>,
    /// Published resources.
    pub model: Arc<RwLock<Model>>,
    /// Judges callers from elsewhere.
    pub authenticator: Arc<Authenticator<R>>,
    /// The other clusters of the mesh; none where there are none.
    pub clusters: Option<Clusters>,
    /// Own namespace: callers of others see little.
    pub namespace: Arc<str>,
    /// Bounds simulations at the same time: each copies the model.
    pub simulations: Arc<Semaphore>,
    /// Bounds pages at the same time.
    pub turns: Turns,
    /// What became of the mesh configuration.
    pub mesh_report: MeshReport,
    /// Settings of the process without effect.
    pub warnings: Vec<String>,
    /// Whether pages that change something are served.
    pub unsafe_admin: bool,
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

/// `/debug/…`: loopback is trusted, others need a token. One of another namespace than the control plane's sees no more
/// than what proxies of its own namespace are sent.
///
/// # Source
/// spec of the xDS server, section 14.
pub fn debug<R: TokenReviewer>(state: Arc<DebugState<R>>) -> Router {
    let mut router = Router::new()
        .route("/debug", get(async || index()))
        .route("/debug/list", get(async || index()))
        .route("/debug/syncz", get(syncz))
        .route("/debug/adsz", get(syncz))
        .route("/debug/connections", get(syncz))
        .route("/debug/ambientz", get(ambientz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/mesh", get(mesh))
        .route("/debug/clusterz", get(clusterz))
        .route("/debug/networkz", get(networkz))
        .route("/debug/authorizationz", get(authorizationz))
        .route("/debug/l7z", get(layer7))
        .route("/debug/push_status", get(push_status))
        .route("/debug/simulate", post(simulate).layer(DefaultBodyLimit::max(SIMULATE_BYTES_MAX)));
    if state.unsafe_admin {
        router = router.route("/debug/force_disconnect", get(force_disconnect).post(force_disconnect));
    }
    router
        .route("/debug/{*unknown}", any(async || (StatusCode::NOT_FOUND, index())))
        .layer(middleware::from_fn_with_state(state.clone(), guard::<R>))
        .with_state(state)
}

/// How much a caller may see.
#[derive(Debug, Clone)]
enum Access {
    /// Everything.
    Everything,
    /// What proxies of this namespace are sent.
    Namespace(Arc<str>),
}

async fn guard<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let (access, asker) = if peer.is_some_and(|ip| ip.is_loopback()) {
        (Access::Everything, Asker::Machine)
    } else {
        let headers: HeaderMap = request.headers().clone();
        let credentials = Credentials { headers: &headers, peer: None, source: peer };
        match state.authenticator.authenticate(credentials).await {
            // Namespaces of other clusters only share their names with ours.
            Ok(Caller { cluster: Some(_), .. }) => {
                return (StatusCode::FORBIDDEN, "only callers of this cluster may ask\n").into_response();
            }
            Ok(caller) if caller.namespace == state.namespace => {
                (Access::Everything, Asker::Own(caller.service_account))
            }
            Ok(caller) if request.uri().path() == CONFIG_DUMP => {
                (Access::Namespace(caller.namespace.clone()), Asker::Namespace(caller.namespace))
            }
            Ok(_) => return (StatusCode::FORBIDDEN, "only the control plane's namespace may ask\n").into_response(),
            Err(error) => {
                tracing::debug!(reason = %error, "debug request refused");
                let message = "ask from this machine, or with a token of the control plane's namespace\n";
                return (StatusCode::UNAUTHORIZED, message).into_response();
            }
        }
    };
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(asker);
    next.run(request).await
}

fn index() -> String {
    PAGES.iter().map(|(path, content)| format!("{path:<40} {content}\n")).collect()
}

/// Writes a page.
type Write = Box<dyn FnOnce(&mut Sheet) -> io::Result<()> + Send>;

/// A page that may be long: it is built on a thread of its own when it is the caller's turn, and sent as it is built.
/// `prepare` tells how, or what is not found.
async fn long<R: TokenReviewer>(
    state: Arc<DebugState<R>>,
    asker: Asker,
    prepare: impl FnOnce(&DebugState<R>) -> Result<Write, String> + Send + 'static,
) -> Response {
    let Some(turn) = state.turns.take(asker).await else {
        let message = "another page is being built for you, or too many for others: try again\n";
        return (StatusCode::TOO_MANY_REQUESTS, message).into_response();
    };
    let (mut sheet, pieces) = sheet();
    let (prepared_tx, prepared) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (write, missing) = match prepare(&state) {
            Ok(write) => (Some(write), None),
            Err(message) => (None, Some(message)),
        };
        // A client that has gone needs neither.
        if prepared_tx.send(missing).is_ok()
            && let Some(write) = write
            && let Err(error) = write(&mut sheet).and_then(|()| sheet.finish())
        {
            tracing::debug!(%error, "page not sent as a whole");
        }
    });
    match prepared.await {
        Ok(None) => ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response(),
        Ok(Some(missing)) => (StatusCode::NOT_FOUND, missing).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be built, see the log\n").into_response(),
    }
}

async fn syncz<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    Extension(asker): Extension<Asker>,
) -> Response {
    long(state, asker, |state| {
        let all = state.hub.connections();
        Ok(Box::new(move |out| pages::connections(out, &all)))
    })
    .await
}

async fn ambientz<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    Extension(asker): Extension<Asker>,
) -> Response {
    long(state, asker, |state| {
        let (addresses, policies): (Vec<_>, Vec<_>) = {
            let model = state.model.read().unwrap_or_else(PoisonError::into_inner);
            (model.addresses().values().cloned().collect(), model.authorizations().values().cloned().collect())
        };
        Ok(Box::new(move |out| pages::ambient(out, &addresses, &policies)))
    })
    .await
}

/// Which proxy is meant: its node id, the number of its stream, or `name.namespace`.
#[derive(Debug, Deserialize)]
struct Proxy {
    #[serde(rename = "proxyID", default)]
    id: String,
}

fn is_meant(status: &ConnectionStatus, id: &str) -> bool {
    status.node == id || status.id.to_string() == id || status.node.split('~').nth(2) == Some(id)
}

async fn config_dump<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    Extension(access): Extension<Access>,
    Extension(asker): Extension<Asker>,
    Query(proxy): Query<Proxy>,
) -> Response {
    long(state, asker, move |state| {
        let visible = |status: &ConnectionStatus| match &access {
            Access::Everything => true,
            Access::Namespace(own) => {
                let name = status.node.split('~').nth(2).unwrap_or_default();
                name.rsplit_once('.').is_some_and(|(_, namespace)| *namespace == **own)
            }
        };
        let found = state.hub.connections().into_iter().find(|one| is_meant(one, &proxy.id) && visible(one));
        // The same for one that may not be seen: nobody learns what there is.
        let Some(status) = found else {
            return Err(format!("no proxy {:?} is connected here; see /debug/syncz for proxyID\n", proxy.id));
        };
        let hub = state.hub.clone();
        Ok(Box::new(move |out| pages::dump(out, &status, &hub)))
    })
    .await
}

async fn force_disconnect<R>(State(state): State<Arc<DebugState<R>>>, Query(proxy): Query<Proxy>) -> Response {
    let meant = state.hub.connections().into_iter().filter(|one| is_meant(one, &proxy.id));
    let count: usize = meant.map(|one| state.hub.disconnect(one.id)).map(usize::from).sum();
    tracing::info!(proxy = proxy.id, count, "streams are ended as asked");
    let status = if count == 0 { StatusCode::NOT_FOUND } else { StatusCode::OK };
    (status, format!("{count} streams of {:?} end\n", proxy.id)).into_response()
}

async fn mesh<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    let settings = state.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().clone();
    Json(pages::mesh(&settings, &state.mesh_report.get(), &state.warnings))
}

async fn clusterz<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    let settings = state.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().clone();
    let own = json!({"id": &*settings.cluster_id, "local": true, "synced": state.hub.is_ready()});
    let others = state.clusters.iter().flat_map(Clusters::view);
    Json(std::iter::once(own).chain(others).collect())
}

async fn networkz<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    Json(pages::networks(state.model.read().unwrap_or_else(PoisonError::into_inner).world()))
}

async fn layer7<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    Extension(asker): Extension<Asker>,
) -> Response {
    long(state, asker, |state| {
        let (computed, resources): (_, Vec<_>) = {
            let model = state.model.read().unwrap_or_else(PoisonError::into_inner);
            (model.layer7().computed(), model.layer7().resources().values().cloned().collect())
        };
        Ok(Box::new(move |out| pages::layer7(out, computed, &resources)))
    })
    .await
}

async fn authorizationz<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    Extension(asker): Extension<Asker>,
) -> Response {
    long(state, asker, |state| {
        let (policies, statuses): (Vec<_>, Vec<_>) = {
            let model = state.model.read().unwrap_or_else(PoisonError::into_inner);
            let statuses = model.statuses().iter().map(|(target, status)| (target.clone(), status.clone()));
            (model.authorizations().values().cloned().collect(), statuses.collect())
        };
        Ok(Box::new(move |out| pages::authorization(out, &policies, &statuses)))
    })
    .await
}

async fn push_status<R>(State(state): State<Arc<DebugState<R>>>) -> Json<Value> {
    Json(pages::push_status(&state.hub, &state.hub.connections()))
}

/// What policies would change; on a thread of its own, because it may look at every pair of workloads.
async fn simulate<R: TokenReviewer>(
    State(state): State<Arc<DebugState<R>>>,
    request: Result<Json<simulate::Request>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return (rejection.status(), rejection.body_text() + "\n").into_response(),
    };
    let Ok(slot) = state.simulations.clone().try_acquire_owned() else {
        return (StatusCode::TOO_MANY_REQUESTS, "another simulation runs, try again\n").into_response();
    };
    let work = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let model = state.model.read().unwrap_or_else(PoisonError::into_inner).clone();
        simulate::simulate(&model, request)
    });
    match work.await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
        Err(error) => {
            tracing::error!(%error, "simulation failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "the simulation failed, see the log\n").into_response()
        }
    }
}

/// Pages and what they show.
const PAGES: [(&str, &str); 14] = [
    ("/debug", "this list"),
    ("/debug/syncz", "connected proxies and how far they are"),
    ("/debug/adsz", "the same"),
    ("/debug/connections", "the same"),
    ("/debug/ambientz", "published workloads, services and policies"),
    ("/debug/config_dump?proxyID=", "what one proxy is sent"),
    ("/debug/mesh", "mesh settings in force, and what of them has no effect"),
    ("/debug/clusterz", "clusters that are read"),
    ("/debug/networkz", "networks and the gateways that lead to them"),
    ("/debug/authorizationz", "policies as published, and their statuses"),
    ("/debug/l7z", "what waypoints and gateways are told, without keys"),
    ("/debug/push_status", "the last publication"),
    ("/debug/force_disconnect?proxyID=", "ends a proxy's stream (UNSAFE_ENABLE_ADMIN_ENDPOINTS)"),
    ("POST /debug/simulate", "what policies would change"),
];
/// The only page that others than the control plane's namespace may see, each its own part.
const CONFIG_DUMP: &str = "/debug/config_dump";
/// A hundred policies and 50,000 connections.
const SIMULATE_BYTES_MAX: usize = 16 << 20;
