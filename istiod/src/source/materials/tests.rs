//! Which ConfigMaps and Secrets are read, and when that is told to be complete.

use std::sync::Mutex;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::translate::fixture;
use crate::world::{MeshSettings, Object};

/// What was asked: path, and whether only metadata was wanted.
type Asked = Arc<Mutex<Vec<(String, bool)>>>;

fn client(asked: Asked) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            let path = request.uri().path().to_owned();
            if request.uri().query().unwrap_or_default().contains("watch=true") {
                std::future::pending::<()>().await;
            }
            let accept = request.headers().get("accept").map(|one| one.to_str().unwrap().to_owned());
            let metadata_only = accept.unwrap_or_default().contains("PartialObjectMetadata");
            asked.lock().unwrap().push((path.clone(), metadata_only));
            let (status, answer): (_, Value) = match path.as_str() {
                "/api/v1/namespaces/web/secrets/cert" => {
                    let metadata = json!({"name": "cert", "namespace": "web", "resourceVersion": "3"});
                    (
                        StatusCode::OK,
                        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"tls.key": "eA=="}}),
                    )
                }
                "/api/v1/namespaces/web/secrets/locked" => (
                    StatusCode::FORBIDDEN,
                    json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "", "code": 403}),
                ),
                list if list.ends_with("/secrets") || list.ends_with("/configmaps") => (
                    StatusCode::OK,
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}),
                ),
                _ => (
                    StatusCode::NOT_FOUND,
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "", "code": 404}),
                ),
            };
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

const GATEWAY: &str = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: params}}
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]
";

/// What is told, and how far the cluster is read.
fn start(asked: &Asked, model: &Arc<RwLock<Model>>) -> (mpsc::Receiver<Change>, watch::Sender<bool>) {
    let (changes, told) = mpsc::channel(64);
    let (progress, receiver) = watch::channel(false);
    let materials = Materials {
        client: client(asked.clone()),
        model: model.clone(),
        changes,
        supervisor: Supervisor::new(),
        progress: receiver,
        namespace: "istio-system".into(),
        revision: "default".into(),
    };
    tokio::spawn(materials.run());
    (told, progress)
}

/// Secrets that were read, and those that are missing, until all are told.
async fn secrets(told: &mut mpsc::Receiver<Change>) -> (Vec<String>, Vec<String>) {
    let (mut read, mut missing) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(60), told.recv()).await.expect("news").unwrap() {
            Change::Upsert(Object::Secret(secret)) => read.push(secret.key.to_string()),
            Change::Delete(Kind::Secret, key) => missing.push(key.to_string()),
            Change::Synced(Kind::Secret) => return (read, missing),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_object_can_have_is_missing_and_nobody_is_asked_for_it() {
    let (asked, model) = (Asked::default(), Arc::new(RwLock::new(fixture::model("", MeshSettings::default()))));
    let (mut told, progress) = start(&asked, &model);
    let gateway = GATEWAY.replace("[{name: cert}]", "[{name: '../configmaps/x?y z'}]");
    fixture::changes(&gateway).into_iter().for_each(|change| model.write().unwrap().apply(change));
    progress.send_replace(true);
    let (_, missing) = secrets(&mut told).await;
    assert_eq!(missing.first().map(String::as_str), Some("web/../configmaps/x?y z"));
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|(path, _)| !path.contains("..")), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_missing_at_first_and_asked_for_again() {
    let (asked, model) = (Asked::default(), Arc::new(RwLock::new(fixture::model("", MeshSettings::default()))));
    let (mut told, progress) = start(&asked, &model);
    let gateway = GATEWAY.replace("[{name: cert}]", "[{name: locked}, {name: cert}]");
    fixture::changes(&gateway).into_iter().for_each(|change| model.write().unwrap().apply(change));
    progress.send_replace(true);
    assert_eq!(secrets(&mut told).await, (vec!["web/cert".to_owned()], vec!["web/locked".to_owned()]));
    let times = || asked.lock().unwrap().iter().filter(|(path, _)| path.ends_with("/secrets/locked")).count();
    let before = times();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(times() > before, "somebody may be given the right to read it");
    while let Ok(change) = told.try_recv() {
        assert!(!matches!(change, Change::Delete(Kind::Secret, _)), "told once: {change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_named_is_read_and_then_it_is_complete() {
    let (asked, model) = (Asked::default(), Arc::new(RwLock::new(fixture::model("", MeshSettings::default()))));
    let (mut told, progress) = start(&asked, &model);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(told.try_recv().is_err(), "the cluster is not read yet");
    fixture::changes(GATEWAY).into_iter().for_each(|change| model.write().unwrap().apply(change));
    progress.send_replace(true);
    let (mut read, mut missing, mut synced) = (Vec::new(), Vec::new(), Vec::new());
    while synced.len() < 2 {
        let change = tokio::time::timeout(Duration::from_secs(60), told.recv()).await.expect("news").unwrap();
        match change {
            Change::Upsert(Object::Secret(secret)) => read.push(secret.key.to_string()),
            Change::Delete(Kind::ConfigMap, key) => missing.push(key.to_string()),
            Change::Synced(kind) => synced.push(kind),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (read.as_slice(), missing.as_slice()),
        (["web/cert".to_owned()].as_slice(), ["web/params".to_owned()].as_slice())
    );
    // Of the others at most the names were asked for.
    let asked = asked.lock().unwrap().clone();
    let whole: Vec<_> =
        asked.iter().filter(|(_, metadata_only)| !metadata_only).map(|(path, _)| path.as_str()).collect();
    assert!(whole.contains(&"/api/v1/namespaces/web/secrets/cert"), "{whole:?}");
    assert!(!whole.iter().any(|path| path.ends_with("/secrets")), "{whole:?}");
    // Nobody names them any more.
    model.write().unwrap().apply(Change::Delete(Kind::Gateway, NamespacedName::new("web", "edge")));
    progress.send_replace(true);
    let mut forgotten = 0;
    while forgotten < 2 {
        match tokio::time::timeout(Duration::from_secs(60), told.recv()).await.expect("news").unwrap() {
            Change::Retain(_, keep) if keep.is_empty() => forgotten += 1,
            // Read again once the watch had listed what there is.
            Change::Upsert(_) | Change::Delete(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_names_much_pushes_nobody_out_who_names_little() {
    let secret =
        |namespace: &str, number: usize| (Kind::Secret, NamespacedName::new(namespace, format!("s{number:02}")));
    let named = |by: &str, namespace: &str, count: usize| {
        let by: Arc<str> = by.into();
        (0..count).map(move |number| (secret(namespace, number), by.clone())).collect::<Vec<_>>()
    };
    let listeners: BTreeMap<_, _> = named("z", "z", 2).into_iter().collect();
    let of_backends: BTreeSet<_> = [named("a", "infra", 50), named("y", "y", 3)].concat().into_iter().collect();
    let read = bounded(listeners.clone(), of_backends.clone(), 10);
    assert_eq!(read.len(), 10);
    let of = |namespace: &str| read.iter().filter(|(_, key)| &*key.namespace == namespace).count();
    assert_eq!((of("z"), of("y"), of("infra")), (2, 3, 5));
    // What listeners have themselves comes first, however much backends need.
    let read = bounded(listeners, of_backends, 2);
    assert_eq!(read, [secret("z", 0), secret("z", 1)].into());
}
