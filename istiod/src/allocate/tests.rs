//! The writer against a scripted API server that keeps ServiceEntries.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use http::{Method, Request, Response};
use kube::client::Body;
use mesh_core::drain;

use super::*;

/// Keeps one ServiceEntry, answers GET and PATCH as an API server does, and tells the model like a watch.
struct Server {
    model: Arc<RwLock<Model>>,
    told: watch::Sender<()>,
    object: Mutex<Value>,
    patches: Mutex<Vec<Value>>,
    /// Requests to be refused with 409 before any is served.
    conflicts: AtomicUsize,
}

impl Server {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await.unwrap();
        if method == Method::PATCH {
            let patch: Value = serde_json::from_slice(&body).unwrap();
            self.patches.lock().unwrap().push(patch.clone());
            if self.conflicts.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let status =
                    json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": ""});
                return Ok(Response::builder().status(409).body(status.to_string().into_bytes().into()).unwrap());
            }
            let addresses = match patch.get(1) {
                Some(replace) => replace["value"].clone(),
                None => patch["status"]["addresses"].clone(),
            };
            self.object.lock().unwrap()["status"]["addresses"] = addresses;
            self.tell();
        }
        let object = self.object.lock().unwrap().to_string();
        Ok(Response::new(object.into_bytes().into()))
    }

    /// The object as the model reads it.
    fn tell(&self) {
        let object = serde_json::from_value(self.object.lock().unwrap().clone()).unwrap();
        let mut model = self.model.write().unwrap();
        model.apply(convert::change(Kind::ServiceEntry, object, "default"));
        model.flush();
        drop(model);
        self.told.send_replace(());
    }
}

struct Stage {
    server: Arc<Server>,
    publications: watch::Receiver<()>,
    leading: watch::Sender<bool>,
    signal: drain::DrainSignal,
}

fn stage(status: Value, conflicts: usize) -> Stage {
    let (told, publications) = watch::channel(());
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "e", "namespace": "a", "uid": "u", "generation": 1, "resourceVersion": "5"},
        "spec": {"hosts": ["x.io"], "resolution": "DNS"}, "status": status,
    });
    let server = Arc::new(Server {
        model: Arc::default(),
        told,
        object: Mutex::new(object),
        patches: Mutex::default(),
        conflicts: AtomicUsize::new(conflicts),
    });
    let (leading, leads) = watch::channel(false);
    let (signal, drain) = drain::channel();
    let answering = server.clone();
    let client = Client::new(tower::service_fn(move |request| answering.clone().answer(request)), "default");
    let allocator = Allocator {
        client,
        model: server.model.clone(),
        publications: publications.clone(),
        leading: leads,
        pools: Pools::default(),
    };
    tokio::spawn(allocator.run(drain));
    Stage { server, publications, leading, signal }
}

impl Stage {
    /// Addresses that the model knows, once there are some.
    async fn allocated(&mut self) -> Vec<String> {
        loop {
            {
                let model = self.server.model.read().unwrap();
                let known = model.world().entry(&NamespacedName::new("a", "e")).map(|one| one.auto_addresses.clone());
                let known = known.unwrap_or_default();
                if !known.is_empty() {
                    return known.iter().map(|(host, ip)| format!("{host}={ip}")).collect();
                }
            }
            self.publications.changed().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_writes_addresses_into_an_object_without_status() {
    let mut stage = stage(Value::Null, 0);
    stage.server.tell();
    stage.leading.send_replace(true);
    assert_eq!(stage.allocated().await, ["x.io=240.240.0.1", "x.io=2001:2::1"]);
    let addresses = json!([{"host": "x.io", "value": "240.240.0.1"}, {"host": "x.io", "value": "2001:2::1"}]);
    let expected = json!({"metadata": {"resourceVersion": "5"}, "status": {"addresses": addresses}});
    assert_eq!(*stage.server.patches.lock().unwrap(), [expected]);
    drop(stage.signal);
}

#[tokio::test(start_paused = true)]
async fn a_write_tests_what_was_there_and_is_tried_again_after_a_conflict() {
    let had = json!({"conditions": [{"type": "x"}], "addresses": []});
    let mut stage = stage(had, 1);
    stage.server.tell();
    stage.leading.send_replace(true);
    assert_eq!(stage.allocated().await.len(), 2);
    let patches = stage.server.patches.lock().unwrap().clone();
    assert_eq!(patches.len(), 2, "{patches:?}");
    assert_eq!(patches[1][0], json!({"op": "test", "path": "/status/addresses", "value": []}));
    assert_eq!(patches[1][1]["op"], "replace");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_everything_is_known_nor_without_the_lead() {
    let mut stage = stage(Value::Null, 0);
    stage.leading.send_replace(true);
    // Time passes only when nobody has anything to do.
    tokio::time::advance(Duration::from_secs(7200)).await;
    assert!(stage.server.patches.lock().unwrap().is_empty());
    stage.leading.send_replace(false);
    stage.server.tell();
    tokio::time::advance(Duration::from_secs(7200)).await;
    assert!(stage.server.patches.lock().unwrap().is_empty());
    stage.leading.send_replace(true);
    assert_eq!(stage.allocated().await.len(), 2);
}
