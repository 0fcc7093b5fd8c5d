//! Against an API server that holds one object.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use mesh_core::identity::TrustDomain;
use serde_json::Value;

use super::*;
use crate::ca::{Authority, self_signed};

/// An API server with one version of the kind, and at most one object of it.
fn server(version: &'static str, stored: &Arc<Mutex<Option<Value>>>) -> Client {
    let stored = stored.clone();
    let serve = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let stored = stored.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = request.into_body().collect_bytes().await.unwrap();
            let missing = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "not found", "reason": "NotFound", "code": 404,
            });
            let (code, answer) = if path == format!("/apis/{GROUP}/{version}") {
                let kind = json!({"name": PLURAL, "singularName": "", "namespaced": false,
                    "kind": "ClusterTrustBundle", "verbs": ["get"]});
                let list = json!({"kind": "APIResourceList", "apiVersion": "v1",
                    "groupVersion": format!("{GROUP}/{version}"), "resources": [kind]});
                (200, list)
            } else if path.starts_with(&format!("/apis/{GROUP}/{version}/{PLURAL}")) {
                let mut stored = stored.lock().unwrap();
                if method != http::Method::GET {
                    *stored = Some(serde_json::from_slice(&body).unwrap());
                }
                stored.clone().map_or((404, missing), |object| (200, object))
            } else {
                (404, missing)
            };
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(serve, "default")
}

#[tokio::test]
async fn the_newest_version_that_is_there_is_used_and_edits_are_undone() {
    let stored = Arc::new(Mutex::new(None));
    let client = server("v1beta1", &stored);
    let kind = find(&client).await.unwrap().expect("the kind is there");
    assert_eq!(kind.api_version, "certificates.k8s.io/v1beta1");
    let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    let authority = Authority::new(&material).unwrap();
    let roots = authority.roots_pem().to_owned();
    let (_sender, authority) = watch::channel(Arc::new(authority));
    let (leader, leading) = watch::channel(false);
    let mut bundle = TrustBundle { client, kind, authority, leading };
    bundle.reconcile().await.unwrap();
    assert_eq!(*stored.lock().unwrap(), None, "only the leader writes");
    leader.send_replace(true);
    bundle.reconcile().await.unwrap();
    let read = |key: &str| stored.lock().unwrap().as_ref().unwrap().pointer(key).unwrap().as_str().unwrap().to_owned();
    assert_eq!((read("/spec/signerName").as_str(), read("/spec/trustBundle")), (SIGNER, roots.clone()));
    stored.lock().unwrap().as_mut().unwrap()["spec"]["trustBundle"] = "edited".into();
    bundle.reconcile().await.unwrap();
    assert_eq!(read("/spec/trustBundle"), roots);
}

#[tokio::test]
async fn a_cluster_without_the_kind_has_none() {
    let client = server("v2", &Arc::default());
    assert!(find(&client).await.unwrap().is_none());
}
