//! An API server that keeps WorkloadEntries and Pods, and tells the model of entries like a watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

use super::tell;
use crate::translate::Model;
use crate::world::{Change, Kind};

pub(super) struct Server {
    pub(super) model: Arc<RwLock<Model>>,
    entries: Mutex<BTreeMap<String, Value>>,
    pods: Mutex<Vec<String>>,
    versions: AtomicU64,
    /// Method and, of a status, `/status`, of every write that was taken.
    pub(super) writes: Mutex<Vec<String>>,
    /// Writes that are still answered with 409.
    pub(super) conflicts: AtomicU32,
    /// What everything is answered with, unless 0.
    pub(super) broken: AtomicU32,
    /// What writes are answered with, unless 0.
    pub(super) refusing: AtomicU32,
}

impl Server {
    pub(super) fn new(model: Arc<RwLock<Model>>) -> Arc<Self> {
        Arc::new(Self {
            model,
            entries: Mutex::default(),
            pods: Mutex::default(),
            versions: AtomicU64::new(1),
            writes: Mutex::default(),
            conflicts: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            refusing: AtomicU32::new(0),
        })
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = server.answer(&method, &path, body);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    pub(super) fn entry(&self, name: &str) -> Option<Value> {
        self.entries.lock().unwrap().get(name).cloned()
    }

    /// An annotation of an entry, or nothing.
    pub(super) fn annotation(&self, name: &str, annotation: &str) -> Option<String> {
        Some(self.entry(name)?["metadata"]["annotations"].get(annotation)?.as_str()?.to_owned())
    }

    pub(super) fn put(&self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.keep(&name, object);
    }

    pub(super) fn remove(&self, name: &str) {
        if self.entries.lock().unwrap().remove(name).is_some() {
            let mut model = self.model.write().unwrap();
            model.apply(Change::Delete(Kind::WorkloadEntry, NamespacedName::new("a", name)));
            model.flush();
        }
    }

    pub(super) fn run_pod(&self, name: &str) {
        self.pods.lock().unwrap().push(name.to_owned());
    }

    fn keep(&self, name: &str, mut object: Value) -> Value {
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.entries.lock().unwrap().insert(name.to_owned(), object.clone());
        tell(&self.model, Kind::WorkloadEntry, &object);
        object
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let broken = self.broken.load(Ordering::Relaxed);
        if broken != 0 {
            return failure(broken.try_into().unwrap());
        }
        if let Some(pod) = path.strip_prefix("/api/v1/namespaces/istio-system/pods/") {
            let runs = self.pods.lock().unwrap().iter().any(|one| one == pod);
            let object =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "status": {"phase": "Running"}});
            return if runs { (StatusCode::OK, object) } else { failure(404) };
        }
        let path = path.strip_prefix("/apis/networking.istio.io/v1/namespaces/a/workloadentries").unwrap();
        let (name, status) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let live = self.entry(name);
        if method == Method::GET {
            return live.map_or_else(|| failure(404), |live| (StatusCode::OK, live));
        }
        let refusing = self.refusing.load(Ordering::Relaxed);
        if refusing != 0 {
            return failure(refusing.try_into().unwrap());
        }
        if self.conflicts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return failure(409);
        }
        let written = self.write(method, name, status, live, body);
        if written.0.is_success() {
            self.writes.lock().unwrap().push(format!("{method}{}", if status.is_empty() { "" } else { "/status" }));
        }
        written
    }

    fn write(
        &self,
        method: &Method,
        name: &str,
        status: &str,
        live: Option<Value>,
        body: Value,
    ) -> (StatusCode, Value) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match (method, status, live) {
            (&Method::POST, "", _) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.entry(&name).is_some() {
                    return failure(409);
                }
                let mut object = body;
                object["metadata"]["uid"] = json!(format!("uid-{}", self.versions.load(Ordering::Relaxed)));
                (StatusCode::CREATED, self.keep(&name, object))
            }
            (_, _, None) => failure(404),
            (&Method::PUT, "", Some(live)) if version(&live) == version(&body) => {
                let mut object = body;
                object["status"] = live["status"].clone();
                (StatusCode::OK, self.keep(name, object))
            }
            (&Method::PATCH, "status", Some(mut live)) => {
                live["status"] = body["status"].clone();
                (StatusCode::OK, self.keep(name, live))
            }
            (&Method::DELETE, "", Some(live)) if body["preconditions"]["resourceVersion"] == version(&live) => {
                self.remove(name);
                (StatusCode::OK, live)
            }
            (&Method::PUT | &Method::DELETE, _, _) => failure(409),
            other => panic!("{other:?} {name}"),
        }
    }
}

fn failure(code: u16) -> (StatusCode, Value) {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    let message = format!("failed with {code}");
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), status)
}
