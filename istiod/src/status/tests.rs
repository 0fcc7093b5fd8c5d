//! The writer against an API server in memory: what is applied, by whom, how often, and what is taken away.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::world::{Change, Kind};

/// Objects by path, and what was asked.
#[derive(Default)]
struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Method, path and field manager of every write.
    writes: Mutex<Vec<(String, Value)>>,
    events: Mutex<Vec<Value>>,
    /// Writes of statuses that still fail.
    failing: Mutex<u32>,
}

impl Api {
    fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    fn conditions(&self, path: &str) -> Vec<Value> {
        let objects = self.objects.lock().unwrap();
        let conditions = objects.get(path).and_then(|object| object.pointer("/status/conditions")?.as_array().cloned());
        conditions.unwrap_or_default()
    }

    fn writes(&self) -> usize {
        self.writes.lock().unwrap().len()
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.starts_with("/apis/events.k8s.io") {
            self.events.lock().unwrap().push(body.clone());
            return (StatusCode::CREATED, body);
        }
        match (method, path.strip_suffix("/status")) {
            (&Method::PATCH, Some(path)) => self.apply(path, query, body),
            (&Method::GET, _) if !path.contains("/namespaces/") => self.list(path),
            (&Method::GET, _) => {
                let object = self.objects.lock().unwrap().get(path).cloned();
                object.map_or_else(not_found, |object| (StatusCode::OK, object))
            }
            other => panic!("{other:?} {path}"),
        }
    }

    fn list(&self, path: &str) -> (StatusCode, Value) {
        let objects = self.objects.lock().unwrap();
        let plural = path.rsplit('/').next().unwrap_or_default();
        let items: Vec<_> = objects
            .iter()
            .filter(|(key, _)| key.contains(&format!("/{plural}/")))
            .map(|(_, one)| one.clone())
            .collect();
        (StatusCode::OK, json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}))
    }

    /// Server-side apply, as far as conditions of one field manager go.
    fn apply(&self, path: &str, query: &str, body: Value) -> (StatusCode, Value) {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            let status = json!({"kind": "Status", "status": "Failure", "message": "busy", "reason": "TooManyRequests", "code": 429});
            return (StatusCode::TOO_MANY_REQUESTS, status);
        }
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let manager =
            pairs.into_iter().find(|(name, _)| *name == "fieldManager").map(|(_, value)| value.to_owned()).unwrap();
        self.writes.lock().unwrap().push((manager.clone(), body.clone()));
        let mut objects = self.objects.lock().unwrap();
        let Some(object) = objects.get_mut(path) else { return not_found() };
        if body.get("kind").is_none() {
            return merge(object, &body);
        }
        let applied = body.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let keys: serde_json::Map<_, _> =
            applied.iter().map(|one| (format!("k:{}", json!({"type": one["type"]})), json!({}))).collect();
        let fields = json!({"f:status": {"f:conditions": keys}});
        let managed = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let (own, mut others): (Vec<_>, Vec<_>) =
            managed.into_iter().partition(|entry| entry["manager"] == manager.as_str());
        let owned =
            |kind: &Value| own.iter().any(|entry| entry["fieldsV1"].to_string().contains(kind.as_str().unwrap()));
        let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|one| !owned(&one["type"]) && !applied.iter().any(|new| new["type"] == one["type"]));
        conditions.extend(applied);
        others.push(json!({"manager": manager, "operation": "Apply", "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": fields}));
        object["status"]["conditions"] = conditions.into();
        object["metadata"]["managedFields"] = others.into();
        (StatusCode::OK, object.clone())
    }
}

/// A merge patch of a status, over the object that was read.
fn merge(object: &mut Value, patch: &Value) -> (StatusCode, Value) {
    if object["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"] {
        let status =
            json!({"kind": "Status", "status": "Failure", "message": "changed", "reason": "Conflict", "code": 409});
        return (StatusCode::CONFLICT, status);
    }
    for (name, value) in patch["status"].as_object().unwrap() {
        object["status"][name] = value.clone();
    }
    (StatusCode::OK, object.clone())
}

fn not_found() -> (StatusCode, Value) {
    (
        StatusCode::NOT_FOUND,
        json!({"kind": "Status", "status": "Failure", "message": "gone", "reason": "NotFound", "code": 404}),
    )
}

fn client(api: Arc<Api>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, answer) =
                api.answer(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &body);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// A writer that may lead, and the model behind it.
struct Bench {
    api: Arc<Api>,
    model: Arc<RwLock<Model>>,
    feed: Arc<Feed>,
    leading: watch::Sender<bool>,
    _drain: mesh_core::drain::DrainSignal,
}

fn start(api: Arc<Api>) -> Bench {
    let model: Arc<RwLock<Model>> = Arc::default();
    let feed: Arc<Feed> = Arc::default();
    let (leading, receiver) = watch::channel(false);
    let (signal, drain) = mesh_core::drain::channel();
    let writer = StatusWriter {
        client: client(api.clone()),
        model: model.clone(),
        feed: feed.clone(),
        leading: receiver,
        name: "istiod-1".into(),
    };
    tokio::spawn(writer.run(drain));
    Bench { api, model, feed, leading, _drain: signal }
}

impl Bench {
    /// Tells the model, as the publisher does.
    fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        let mut model = self.model.write().unwrap();
        changes.into_iter().for_each(|change| model.apply(change));
        let delta = model.flush();
        self.feed.add(delta.statuses.into_iter().map(|(target, _)| target));
    }

    /// The API server and the model know of the object.
    fn create(&self, kind: Kind, path: &str, object: Value) {
        self.api.put(path, object.clone());
        let object = serde_json::from_value(object).unwrap();
        self.tell([convert::change(kind, object, "default")]);
    }

    async fn until(&self, what: &str, holds: impl Fn(&Api) -> bool) {
        for _ in 0..2000 {
            if holds(&self.api) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what} did not happen; conditions are {:?}", self.api.objects.lock().unwrap());
    }

    /// Time for whatever should not happen.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
}

const POLICY: &str = "/apis/security.istio.io/v1/namespaces/ns/authorizationpolicies/p";
const SERVICE: &str = "/api/v1/namespaces/ns/services/web";

fn policy(action: &str, generation: i64) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": generation},
        "spec": {"action": action, "rules": [{}]},
    })
}

fn service(waypoint: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"istio.io/use-waypoint": waypoint}},
        "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {}},
    })
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_once_and_by_the_leader_only() {
    let bench = start(Arc::default());
    bench.create(Kind::Authorization, POLICY, policy("ALLOW", 3));
    bench.feed.complete();
    bench.settle().await;
    assert_eq!(bench.api.writes(), 0, "we do not lead");
    bench.leading.send_replace(true);
    bench.until("the status", |api| !api.conditions(POLICY).is_empty()).await;
    let [condition] = &*bench.api.conditions(POLICY) else { panic!("one condition") };
    assert_eq!((&condition["type"], &condition["status"]), (&json!("ZtunnelAccepted"), &json!("True")));
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("Accepted"), &json!(3)));
    assert_eq!(bench.api.writes.lock().unwrap()[0].0, "istio-ambient-ztunnel-policy");
    // The same again, and leadership lost and gained: nothing to write.
    bench.feed.add([StatusTarget {
        kind: Kind::Authorization,
        key: mesh_core::names::NamespacedName::new("ns", "p"),
        manager: crate::translate::conditions::ZTUNNEL_MANAGER,
    }]);
    bench.settle().await;
    bench.leading.send_replace(false);
    bench.settle().await;
    bench.leading.send_replace(true);
    bench.settle().await;
    assert_eq!(bench.api.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_away_before_everything_is_known() {
    let api: Arc<Api> = Arc::default();
    let mut stale = service("none");
    stale["status"]["conditions"] = json!([{"type": "istio.io/WaypointBound", "status": "True", "reason": "WaypointAccepted", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let fields = json!({"f:status": {"f:conditions": {"k:{\"type\":\"istio.io/WaypointBound\"}": {}}}});
    stale["metadata"]["managedFields"] = json!([{"manager": "istio-ambient-service", "operation": "Apply", "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    api.put(SERVICE, stale.clone());
    let bench = start(api);
    bench.leading.send_replace(true);
    bench.settle().await;
    assert_eq!(bench.api.writes(), 0, "the cluster is not read yet");
    bench.tell([convert::change(Kind::Service, serde_json::from_value(stale).unwrap(), "default")]);
    bench.feed.complete();
    // Another leader wrote it, and nobody wants it any more.
    bench.until("the removal", |api| api.conditions(SERVICE).is_empty()).await;
    bench.settle().await;
    assert_eq!(bench.api.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waypoint_label_comes_and_goes() {
    let bench = start(Arc::default());
    bench.feed.complete();
    bench.leading.send_replace(true);
    bench.create(Kind::Service, SERVICE, service("ghost"));
    let is = |api: &Api, reason: &str| api.conditions(SERVICE).iter().any(|one| one["reason"] == reason);
    bench.until("the refusal", |api| is(api, "WaypointIsNotReady")).await;
    bench.until("the event", |api| !api.events.lock().unwrap().is_empty()).await;
    let event = bench.api.events.lock().unwrap()[0].clone();
    assert_eq!((&event["reason"], &event["type"]), (&json!("WaypointIsNotReady"), &json!("Warning")));
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&json!("Service"), &json!("web")));
    assert!(event["note"].as_str().unwrap().contains("ns/ghost"));
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "ghost", "namespace": "ns"},
        "spec": {"gatewayClassName": "istio-waypoint"}, "status": {"addresses": [{"value": "10.0.0.1"}]},
    });
    bench.tell([convert::change(Kind::Gateway, serde_json::from_value(gateway).unwrap(), "default")]);
    bench.until("the binding", |api| is(api, "WaypointAccepted")).await;
    let mut live = bench.api.objects.lock().unwrap().get(SERVICE).cloned().unwrap();
    live["metadata"]["labels"] = json!({"istio.io/use-waypoint": "none"});
    bench.create(Kind::Service, SERVICE, live);
    bench.until("the removal", |api| api.conditions(SERVICE).is_empty()).await;
    assert_eq!(bench.api.events.lock().unwrap().len(), 1, "what is accepted is no event");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_tried_five_times() {
    let bench = start(Arc::default());
    bench.feed.complete();
    bench.leading.send_replace(true);
    *bench.api.failing.lock().unwrap() = 4;
    bench.create(Kind::Authorization, POLICY, policy("ALLOW", 1));
    bench.until("the fifth attempt", |api| api.conditions(POLICY).len() == 1).await;
    *bench.api.failing.lock().unwrap() = 6;
    bench.create(Kind::Authorization, POLICY, policy("AUDIT", 2));
    bench.settle().await;
    assert_eq!(*bench.api.failing.lock().unwrap(), 1, "five attempts, then it waits for the next change");
    *bench.api.failing.lock().unwrap() = 0;
    bench.create(Kind::Authorization, POLICY, policy("CUSTOM", 3));
    let refused = |api: &Api| api.conditions(POLICY).iter().any(|one| one["message"].to_string().contains("CUSTOM"));
    bench.until("the next change", refused).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_no_failure_and_stops_nobody() {
    let bench = start(Arc::default());
    bench.feed.complete();
    bench.leading.send_replace(true);
    // Known to the model, gone from the API server.
    let gone = serde_json::from_value(service("ghost")).unwrap();
    bench.tell([convert::change(Kind::Service, gone, "default")]);
    bench.create(Kind::Authorization, POLICY, policy("ALLOW", 1));
    bench.until("the other status", |api| !api.conditions(POLICY).is_empty()).await;
    assert_eq!(bench.api.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_field_manager_writes_its_own_conditions() {
    let bench = start(Arc::default());
    bench.feed.complete();
    bench.leading.send_replace(true);
    bench.create(Kind::Authorization, POLICY, policy("ALLOW", 1));
    bench.until("the status", |api| !api.conditions(POLICY).is_empty()).await;
    let mut attached = bench.api.objects.lock().unwrap().get(POLICY).cloned().unwrap();
    attached["metadata"]["generation"] = json!(2);
    attached["spec"]["targetRefs"] = json!([{"group": "", "kind": "Service", "name": "web"}]);
    bench.create(Kind::Authorization, POLICY, attached);
    let only = |api: &Api| {
        let conditions = api.conditions(POLICY);
        conditions.len() == 1
            && conditions[0]["type"] == "WaypointAccepted"
            && conditions[0]["reason"] == "TargetNotFound"
    };
    bench.until("the other condition alone", only).await;
}

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes/r";

#[tokio::test(start_paused = true)]
async fn a_route_keeps_what_other_controllers_say_of_it() {
    let bench = start(Arc::default());
    bench.feed.complete();
    bench.leading.send_replace(true);
    let edge = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "ns"},
        "spec": {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    });
    bench.tell([convert::change(Kind::Gateway, serde_json::from_value(edge).unwrap(), "default")]);
    let theirs = json!({"parentRef": {"name": "other"}, "controllerName": "example.com/c", "conditions": []});
    let stale =
        json!({"parentRef": {"name": "gone"}, "controllerName": "istio.io/gateway-controller", "conditions": []});
    let route = |parents: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "ns", "uid": "u", "generation": 5, "resourceVersion": "7"},
            "spec": {"parentRefs": [{"name": "other"}, {"name": "edge"}], "rules": [{"backendRefs": [{"name": "x", "port": 80}]}]},
            "status": {"parents": parents},
        })
    };
    bench.create(Kind::HttpRoute, ROUTE, route(json!([stale, theirs])));
    let parents = |api: &Api| {
        let objects = api.objects.lock().unwrap();
        let parents = objects.get(ROUTE).and_then(|object| object.pointer("/status/parents")?.as_array().cloned());
        parents.unwrap_or_default()
    };
    bench.until("our entry", |api| parents(api).len() == 2 && parents(api)[1]["parentRef"]["name"] == "edge").await;
    let found = parents(&bench.api);
    assert_eq!(found[0], theirs, "as it was, and the stale one is gone");
    let condition = |name: &str| {
        let all = found[1]["conditions"].as_array().unwrap();
        let one = all.iter().find(|one| one["type"] == name).unwrap();
        (one["status"].clone(), one["reason"].clone(), one["observedGeneration"].clone())
    };
    assert_eq!(condition("Accepted"), (json!("True"), json!("Accepted"), json!(5)));
    assert_eq!(condition("ResolvedRefs"), (json!("False"), json!("BackendNotFound"), json!(5)));
    bench
        .until("the event", |api| api.events.lock().unwrap().iter().any(|one| one["reason"] == "BackendNotFound"))
        .await;
    // Every hour everything is looked at: there is nothing to write.
    let writes = bench.api.writes();
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(bench.api.writes(), writes);
    // The route goes elsewhere: our entry goes, theirs stays.
    let mut moved = bench.api.objects.lock().unwrap().get(ROUTE).cloned().unwrap();
    moved["spec"]["parentRefs"] = json!([{"name": "other"}]);
    bench.create(Kind::HttpRoute, ROUTE, moved);
    bench.until("our entry is gone", |api| parents(api) == [theirs.clone()]).await;
}

/// As [`policy`], of another revision, with what that one says of it.
fn judged_elsewhere() -> Value {
    let mut theirs = policy("ALLOW", 1);
    theirs["metadata"]["labels"] = json!({"istio.io/rev": "canary"});
    theirs["status"]["conditions"] = json!([{"type": "ZtunnelAccepted", "status": "True", "reason": "Accepted", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let fields = json!({"f:status": {"f:conditions": {"k:{\"type\":\"ZtunnelAccepted\"}": {}}}});
    theirs["metadata"]["managedFields"] = json!([{"manager": "istio-ambient-ztunnel-policy", "operation": "Apply", "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    theirs
}

#[tokio::test(start_paused = true)]
async fn what_another_revision_says_of_its_objects_stays() {
    let bench = start(Arc::default());
    bench.create(Kind::Authorization, POLICY, judged_elsewhere());
    bench.feed.complete();
    bench.leading.send_replace(true);
    bench.settle().await;
    assert_eq!((bench.api.writes(), bench.api.conditions(POLICY).len()), (0, 1), "by the look at everything");
    // Ours for a while, then theirs again.
    bench.create(Kind::Authorization, POLICY, policy("ALLOW", 2));
    let ours = |api: &Api| api.conditions(POLICY).iter().any(|one| one["observedGeneration"] == 2);
    bench.until("our status", ours).await;
    let mut back = judged_elsewhere();
    back["status"] = bench.api.objects.lock().unwrap()[POLICY]["status"].clone();
    let writes = bench.api.writes();
    bench.create(Kind::Authorization, POLICY, back);
    bench.settle().await;
    assert_eq!((bench.api.writes(), bench.api.conditions(POLICY).len()), (writes, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_in_a_namespace_that_is_not_looked_at_stays() {
    let bench = start(Arc::default());
    let namespace = |labels: Value| {
        let one = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": labels}});
        convert::change(Kind::Namespace, serde_json::from_value(one).unwrap(), "default")
    };
    let selector = serde_json::from_value(json!({"matchLabels": {"mesh": "ours"}})).unwrap();
    let settings =
        crate::world::MeshSettings { discovery_selectors: vec![selector], ..crate::world::MeshSettings::default() };
    bench.tell([Change::Settings(Arc::new(settings)), namespace(json!({"mesh": "theirs"}))]);
    let mut theirs = judged_elsewhere();
    theirs["metadata"]["labels"] = json!({});
    bench.create(Kind::Authorization, POLICY, theirs);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "ns", "uid": "u", "generation": 5, "resourceVersion": "7"},
        "spec": {"parentRefs": [{"name": "edge"}]},
        "status": {"parents": [{"parentRef": {"name": "edge"}, "controllerName": "istio.io/gateway-controller", "conditions": []}]},
    });
    bench.create(Kind::HttpRoute, ROUTE, route);
    bench.feed.complete();
    bench.leading.send_replace(true);
    bench.settle().await;
    assert_eq!(bench.api.writes(), 0, "by the look at everything");
    bench.tell([namespace(json!({"mesh": "ours"}))]);
    let ours = |api: &Api| api.conditions(POLICY).iter().any(|one| one["observedGeneration"] == 1);
    bench.until("our status", ours).await;
    let writes = bench.api.writes();
    bench.tell([namespace(json!({"mesh": "theirs"}))]);
    bench.settle().await;
    assert_eq!((bench.api.writes(), bench.api.conditions(POLICY).len()), (writes, 1), "when it is hidden");
}
