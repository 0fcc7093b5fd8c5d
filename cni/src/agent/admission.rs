//! New pods: the plugin asks, and the pod starts only when its traffic is captured.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::net::UnixListener;

use super::enrol::{Enroller, SCOPE};
use super::settle::{error_chain, is_node_proxy};
use super::watch::World;
use crate::eligibility::{Eligibility, Labels, is_terminal};
use crate::event::{self, AddEvent};
use crate::metrics::{Metrics, ResponseCode};

/// Answers the plugin's events.
#[derive(Clone)]
pub struct Admission {
    /// What is known about the node.
    pub world: Arc<World>,
    /// Who acts.
    pub enroller: Arc<Enroller>,
    /// The rule.
    pub eligibility: Arc<Eligibility>,
    /// Asked about a pod that the watch has not brought yet.
    pub client: Client,
    /// Counts.
    pub metrics: Metrics,
}

/// Why a pod is not admitted. The text goes into the pod's events.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Admission {
    /// The routes of the event socket.
    pub fn router(self) -> Router {
        Router::new().route(event::PATH, post(answer)).with_state(self)
    }

    async fn admit(&self, body: &[u8]) -> Result<(), Refusal> {
        let event: AddEvent = serde_json::from_slice(body).map_err(|error| bad(format!("event: {error}")))?;
        let ips = event.addresses().map_err(bad)?;
        let name = format!("{}/{}", event.pod_namespace, event.pod_name);
        let pod = self.find(&event).await.ok_or_else(|| failed(format!("pod {name} is not known on this node")))?;
        let labels = self.namespace(&event.pod_namespace).await;
        let labels = labels.ok_or_else(|| failed(format!("namespace of pod {name} is not known")))?;
        if is_terminal(&pod) || is_node_proxy(&pod) || !self.eligibility.captures(&pod, &labels) {
            return Err(failed(format!("pod {name} is not to be captured")));
        }
        let admitted = self.enroller.admit(&pod, &ips, PathBuf::from(&event.netns)).await;
        admitted.map_err(|error| failed(error_chain(&error)))
    }

    /// The watch may be a moment behind the runtime; after that moment the API server is asked.
    async fn find(&self, event: &AddEvent) -> Option<Arc<Pod>> {
        for _ in 0..LOOKUPS {
            if let Some(pod) = self.known(event) {
                return Some(pod);
            }
            tokio::time::sleep(LOOKUP_PAUSE).await;
        }
        let api = Api::<Pod>::namespaced(self.client.clone(), &event.pod_namespace);
        let pod = tokio::time::timeout(API_TIMEOUT, api.get(&event.pod_name)).await.ok()?.ok()?;
        is_meant(&pod, event).then(|| Arc::new(super::watch::slim(pod)))
    }

    fn known(&self, event: &AddEvent) -> Option<Arc<Pod>> {
        let pod = match &event.pod_uid {
            Some(uid) => self.world.pod(uid),
            None => self.world.pod_named(&event.pod_namespace, &event.pod_name),
        };
        pod.filter(|pod| is_meant(pod, event))
    }

    async fn namespace(&self, name: &str) -> Option<Arc<Labels>> {
        if let Some(labels) = self.world.namespace(name) {
            return Some(labels);
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let namespace = tokio::time::timeout(API_TIMEOUT, api.get(name)).await.ok()?.ok()?;
        Some(Arc::new(namespace.metadata.labels.unwrap_or_default()))
    }
}

fn is_meant(pod: &Pod, event: &AddEvent) -> bool {
    pod.name_any() == event.pod_name
        && pod.namespace().as_deref() == Some(&event.pod_namespace)
        && event.pod_uid.as_ref().is_none_or(|uid| pod.uid().as_ref() == Some(uid))
}

async fn answer(State(admission): State<Admission>, body: Body) -> (StatusCode, String) {
    let metrics = admission.metrics.clone();
    // A task of its own: a plugin that gives up must not leave a pod half enrolled.
    let work = tokio::spawn(async move {
        let body =
            to_bytes(body, EVENT_BYTES_MAX).await.map_err(|error| failed(format!("reading the event: {error}")))?;
        if body.is_empty() {
            return Err(bad("empty event"));
        }
        admission.admit(&body).await
    });
    let result = work.await.unwrap_or_else(|error| Err(failed(format!("internal error: {error}"))));
    let (status, text) = match result {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(refusal) => {
            tracing::warn!(target: SCOPE, status = refusal.status.as_u16(), reason = %refusal, "pod not admitted");
            (refusal.status, refusal.message)
        }
    };
    metrics.plugin_requests.get_or_create(&ResponseCode { response_code: status.as_u16() }).inc();
    (status, text)
}

/// A Unix socket that the container runtime may use, whatever user or security context it runs the plugin in.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, message: message.into() }
}

fn failed(message: impl Into<String>) -> Refusal {
    Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
}

/// An event has a few addresses and names.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// How often the watch is given a chance to bring the pod.
const LOOKUPS: u32 = 10;
const LOOKUP_PAUSE: Duration = Duration::from_millis(10);
/// Well below the plugin's own patience.
const API_TIMEOUT: Duration = Duration::from_secs(2);
