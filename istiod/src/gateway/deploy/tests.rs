//! The deployer against an API server in memory: what is applied, by whom, over what, and how often.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::translate::fixture;
use crate::world::MeshSettings;

/// Objects by path, and what was written.
#[derive(Default)]
struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Method, path and field manager.
    writes: Mutex<Vec<(Method, String, String)>>,
    version: Mutex<u64>,
    /// Writes that still fail.
    failing: Mutex<u32>,
}

impl Api {
    fn put(&self, path: &str, mut object: Value) {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap().iter().map(|(_, path, _)| path.clone()).collect()
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
        if *method == Method::GET {
            if query.contains("watch=true") || !path.contains("/namespaces/") {
                return (
                    StatusCode::OK,
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}),
                );
            }
            return self.get(path).map_or_else(|| refused(404, "NotFound"), |object| (StatusCode::OK, object));
        }
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=")).unwrap_or_default();
        self.writes.lock().unwrap().push((method.clone(), path.to_owned(), manager.to_owned()));
        if std::mem::replace(&mut *self.failing.lock().unwrap(), 0) > 0 {
            return refused(429, "TooManyRequests");
        }
        if *method == Method::DELETE {
            self.objects.lock().unwrap().remove(path);
            return (StatusCode::OK, json!({"kind": "Status", "status": "Success"}));
        }
        let applied: Value = serde_json::from_slice(body).unwrap();
        let target = path.strip_suffix("/status").unwrap_or(path);
        let live = self.get(target);
        let wanted = applied["metadata"]["resourceVersion"].clone();
        if !wanted.is_null() && live.as_ref().map(|live| &live["metadata"]["resourceVersion"]) != Some(&wanted) {
            return refused(409, "Conflict");
        }
        let mut object = live.clone().unwrap_or_else(|| applied.clone());
        if path.ends_with("/status") {
            object["metadata"]["annotations"]["gateway.istio.io/controller-version"] =
                applied["metadata"]["annotations"]["gateway.istio.io/controller-version"].clone();
        } else {
            object = applied;
            object["metadata"]["resourceVersion"] = wanted;
        }
        if live.as_ref() != Some(&object) {
            self.put(target, object);
        }
        (StatusCode::OK, self.get(target).unwrap())
    }
}

fn refused(code: u16, reason: &str) -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code});
    (StatusCode::from_u16(code).unwrap(), status)
}

fn client(api: Arc<Api>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let query = parts.uri.query().unwrap_or_default();
            // Watches tell nothing here.
            if query.contains("watch=true") {
                std::future::pending::<()>().await;
            }
            let (status, answer) = api.answer(&parts.method, parts.uri.path(), query, &body);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// A deployer that leads, and the model behind it.
struct Bench {
    api: Arc<Api>,
    model: Arc<RwLock<Model>>,
    publications: watch::Sender<()>,
    _leading: watch::Sender<bool>,
    _drain: mesh_core::drain::DrainSignal,
}

const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/web/gateways/wp";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/web/deployments/wp";
const SERVICE: &str = "/api/v1/namespaces/web/services/wp";
const ACCOUNT: &str = "/api/v1/namespaces/web/serviceaccounts/wp";
const BUDGET: &str = "/apis/policy/v1/namespaces/web/poddisruptionbudgets/wp";

fn gateway(annotations: &Value, class: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "wp", "namespace": "web", "uid": "u1", "annotations": annotations},
        "spec": {"gatewayClassName": class, "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    })
}

impl Bench {
    fn start() -> Self {
        let api: Arc<Api> = Arc::default();
        let model = Arc::new(RwLock::new(fixture::model("", MeshSettings::default())));
        let (publications, receiver) = watch::channel(());
        let (leading, leads) = watch::channel(true);
        let (signal, drain) = mesh_core::drain::channel();
        let deployer =
            Deployer { client: client(api.clone()), model: model.clone(), publications: receiver, leading: leads };
        tokio::spawn(deployer.run(drain));
        Self { api, model, publications, _leading: leading, _drain: signal }
    }

    /// The API server and the model know of the Gateway.
    fn create(&self, gateway: Value) {
        self.api.put(GATEWAY, gateway.clone());
        self.tell(&gateway.to_string());
    }

    fn tell(&self, document: &str) {
        let mut model = self.model.write().unwrap();
        fixture::changes(document).into_iter().for_each(|change| model.apply(change));
        model.flush();
        drop(model);
        self.publications.send_replace(());
    }

    async fn until(&self, what: &str, holds: impl Fn(&Api) -> bool) {
        for _ in 0..2000 {
            if holds(&self.api) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what} did not happen; writes are {:?}", self.api.writes());
    }

    /// Time for whatever should not happen.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_deployed_once_under_its_controllers_name() {
    let bench = Bench::start();
    bench.create(gateway(&json!({}), "istio-waypoint"));
    bench.until("the service", |api| api.get(SERVICE).is_some()).await;
    bench.settle().await;
    assert_eq!(bench.api.writes(), [&format!("{GATEWAY}/status"), ACCOUNT, DEPLOYMENT, SERVICE]);
    let managers: Vec<_> = bench.api.writes.lock().unwrap().iter().map(|(_, _, manager)| manager.clone()).collect();
    assert!(managers.iter().all(|manager| manager == "istio.io%2Fmesh-controller"), "{managers:?}");
    assert_eq!(bench.api.get(GATEWAY).unwrap()["metadata"]["annotations"]["gateway.istio.io/controller-version"], "5");
    // Nothing that matters has changed.
    bench.tell(&gateway(&json!({"gateway.istio.io/controller-version": "5"}), "istio-waypoint").to_string());
    bench.settle().await;
    assert_eq!(bench.api.writes().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn gateway_row_6_an_unmanaged_service_is_not_touched() {
    let bench = Bench::start();
    let own = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wp", "namespace": "web"}, "spec": {"ports": []}});
    bench.api.put(SERVICE, own);
    let before = bench.api.get(SERVICE);
    bench.create(gateway(&json!({}), "istio-waypoint"));
    bench.until("the deployment", |api| api.get(DEPLOYMENT).is_some()).await;
    bench.settle().await;
    assert!(bench.api.get(ACCOUNT).is_some());
    assert_eq!(bench.api.get(SERVICE), before);
    assert!(!bench.api.writes().contains(&SERVICE.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn gateway_row_7_what_a_newer_control_plane_deploys_is_left_alone() {
    let bench = Bench::start();
    for version in ["9", "x"] {
        bench.create(gateway(&json!({"gateway.istio.io/controller-version": version}), "istio-waypoint"));
        bench.settle().await;
        assert_eq!(bench.api.writes(), Vec::<String>::new(), "{version}");
    }
    bench.create(gateway(&json!({"gateway.istio.io/controller-version": "4", "a": "b"}), "istio-waypoint"));
    bench.until("the take-over", |api| api.get(SERVICE).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn gateway_row_9_nothing_is_applied_with_parameters_that_cannot_be_used() {
    let bench = Bench::start();
    let mut one = gateway(&json!({}), "istio-waypoint");
    one["spec"]["infrastructure"] = json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "params"}});
    bench.create(one);
    bench.tell("{kind: ConfigMap, metadata: {name: params, namespace: web}, data: {foo: bar}}");
    bench.settle().await;
    assert_eq!(bench.api.writes(), Vec::<String>::new());
    let budget = "{kind: ConfigMap, metadata: {name: params, namespace: web}, data: {podDisruptionBudget: 'spec: {minAvailable: 1}'}}";
    bench.tell(budget);
    bench.until("the budget", |api| api.get(BUDGET).is_some()).await;
    // Nobody asks for it any more.
    let mut managed = bench.api.get(BUDGET).unwrap();
    managed["metadata"]["uid"] = "u7".into();
    bench.api.put(BUDGET, managed);
    bench
        .tell("{kind: ConfigMap, metadata: {name: params, namespace: web}, data: {deployment: 'spec: {replicas: 2}'}}");
    bench.until("its removal", |api| api.get(BUDGET).is_none()).await;
    assert_eq!(bench.api.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_tried_again_and_others_are_not_waited_for() {
    let bench = Bench::start();
    *bench.api.failing.lock().unwrap() = 1;
    bench.create(gateway(&json!({}), "istio-waypoint"));
    bench.until("the second attempt", |api| api.get(SERVICE).is_some()).await;
    bench.create(gateway(&json!({"changed": "yes"}), "other"));
    bench.settle().await;
    assert!(bench.api.get(DEPLOYMENT).is_some(), "what exists is left to its owner");
}

#[tokio::test(start_paused = true)]
async fn what_was_made_for_another_gateway_is_left_to_it() {
    let bench = Bench::start();
    let of_another = |kind: &str, uid: &str| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {
            "name": "wp", "namespace": "web", "labels": {"gateway.istio.io/managed": "istio.io-mesh-controller"},
            "ownerReferences": [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "x", "uid": uid}],
        }})
    };
    for (path, kind) in [(ACCOUNT, "ServiceAccount"), (DEPLOYMENT, "Deployment")] {
        bench.api.put(path, of_another(kind, "u0"));
    }
    let before = (bench.api.get(ACCOUNT), bench.api.get(DEPLOYMENT));
    bench.create(gateway(&json!({}), "istio-waypoint"));
    bench.settle().await;
    assert_eq!((bench.api.get(ACCOUNT), bench.api.get(DEPLOYMENT)), before);
    // Its own, and what nobody owns, is applied.
    bench.api.put(ACCOUNT, of_another("ServiceAccount", "u1"));
    bench.api.put(
        DEPLOYMENT,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {
            "name": "wp", "namespace": "web", "labels": {"gateway.istio.io/managed": "istio.io-mesh-controller"},
        }}),
    );
    bench.create(gateway(&json!({"changed": "yes"}), "istio-waypoint"));
    bench.tell("{kind: ConfigMap, metadata: {name: d, namespace: istio-system, labels: {gateway.istio.io/defaults-for-class: istio-waypoint}}, data: {deployment: 'spec: {replicas: 2}'}}");
    bench.until("the deployment", |api| api.get(DEPLOYMENT).unwrap()["spec"]["replicas"] == 2).await;
    assert_eq!(bench.api.get(DEPLOYMENT).unwrap()["metadata"]["ownerReferences"][0]["uid"], "u1");
}
