//! Admission webhooks over TLS: who is asked, and what the answers do.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::server::{Server, crypto};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook that answers as it is told and remembers what it was asked.
struct Webhook {
    serving: JoinHandle<()>,
    port: u16,
    ca: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        crypto();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["hook.default.svc".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, seen, answer) = (tls.clone(), seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let (seen, answer) = (seen.clone(), answer.clone());
                        async move {
                            let query = request.uri().to_string();
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let mut review: Value = serde_json::from_slice(&bytes).unwrap();
                            let mut response = answer(&review["request"]);
                            response["uid"] = review["request"]["uid"].clone();
                            review["uri"] = json!(query);
                            seen.lock().unwrap().push(review);
                            let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
                            Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(body.to_string()))))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { serving, port, ca: ca.pem(), asked }
    }

    fn client(&self) -> Value {
        json!({"url": format!("https://localhost:{}/check", self.port), "caBundle": STANDARD.encode(&self.ca)})
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn hook(name: &str, client: Value, more: Value) -> Value {
    let mut hook = json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": client,
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (field, value) in more.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

async fn configure(server: &Server, kind: &str, name: &str, hooks: Vec<Value>) {
    let object = json!({"metadata": {"name": name}, "webhooks": hooks});
    server.create(&format!("{HOOKS}/{kind}webhookconfigurations"), object).await;
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn a_validating_webhook_refuses_and_warns() {
    let server = Server::start();
    let webhook = Webhook::start(|request| {
        if request["name"] == "bad" {
            json!({"allowed": false, "status": {"message": "bad is not a good name", "code": 400}})
        } else {
            json!({"allowed": true, "warnings": ["think again"]})
        }
    })
    .await;
    configure(&server, "validating", "v", vec![hook("check.example.com", webhook.client(), json!({}))]).await;
    let (code, answer) = server.call("POST", MAPS, map("bad")).await;
    assert_eq!(code, 400);
    assert_eq!(answer["message"], "admission webhook \"check.example.com\" denied the request: bad is not a good name");
    assert_eq!(server.call("GET", &format!("{MAPS}/bad"), Value::Null).await.0, 404);
    let asked = webhook.asked().remove(0);
    assert_eq!(asked["uri"], "/check?timeout=10s");
    let request = &asked["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["namespace"], &request["dryRun"]), (&json!("default"), &json!(false)));
    assert_eq!(request["object"]["data"]["a"], "1");
    assert_eq!(request["oldObject"], Value::Null);
    assert!(request["userInfo"]["username"].is_string());

    server.create(MAPS, map("good")).await;
    server.call("PATCH", &format!("{MAPS}/good"), json!({"data": {"a": "2"}})).await;
    let update = webhook.asked().pop().unwrap()["request"].clone();
    assert_eq!((&update["operation"], &update["oldObject"]["data"]["a"]), (&json!("UPDATE"), &json!("1")));
    let sent = http::Request::post(MAPS).header("content-type", "application/json");
    let response =
        server.client().send(sent.body(map("third").to_string().into_bytes().into()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["warning"], "299 - \"think again\"");
    server.call("DELETE", &format!("{MAPS}/good"), Value::Null).await;
    assert_eq!(webhook.asked().len(), 1, "deletions are not among the rules");
}

#[tokio::test]
async fn mutating_webhooks_change_objects_in_order_and_before_validation() {
    let server = Server::start();
    let adds = |name: &'static str| {
        move |request: &Value| {
            let seen = request["object"]["metadata"]["labels"]["order"].as_str().unwrap_or_default().to_owned();
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"order": format!("{seen}{name}")}}]);
            json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
        }
    };
    let (first, second) = (Webhook::start(adds("a")).await, Webhook::start(adds("b")).await);
    let watching = Webhook::start(|_| json!({"allowed": true})).await;
    // Configurations are asked by name, their webhooks in order.
    configure(&server, "mutating", "z", vec![hook("second.example.com", second.client(), json!({}))]).await;
    configure(&server, "mutating", "a", vec![hook("first.example.com", first.client(), json!({}))]).await;
    configure(&server, "validating", "v", vec![hook("check.example.com", watching.client(), json!({}))]).await;
    let stored = server.create(MAPS, map("m")).await;
    assert_eq!(stored["metadata"]["labels"]["order"], "ab");
    let seen = watching.asked().remove(0);
    assert_eq!(seen["request"]["object"]["metadata"]["labels"]["order"], "ab");
    let applied = server
        .call_with(
            "PATCH",
            &format!("{MAPS}/applied?fieldManager=t"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}}),
            &[("content-type", "application/apply-patch+yaml")],
        )
        .await;
    assert_eq!(applied.1["metadata"]["labels"]["order"], "ab", "{applied:?}");
}

#[tokio::test]
async fn selectors_and_dry_run() {
    let server = Server::start();
    let webhook = Webhook::start(|_| json!({"allowed": false})).await;
    let more = json!({
        "namespaceSelector": {"matchLabels": {"checked": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
    });
    configure(&server, "validating", "v", vec![hook("check.example.com", webhook.client(), more)]).await;
    server.create("/api/v1/namespaces", json!({"metadata": {"name": "demo", "labels": {"checked": "yes"}}})).await;
    server.create(MAPS, map("elsewhere")).await;
    let demo = "/api/v1/namespaces/demo/configmaps";
    let mut skipped = map("skipped");
    skipped["metadata"]["labels"] = json!({"skip": "1"});
    server.create(demo, skipped).await;
    assert!(webhook.asked().is_empty());
    let (code, answer) = server.call("POST", &format!("{demo}?dryRun=All"), map("m")).await;
    assert_eq!((code, answer["message"].as_str().unwrap().ends_with("without explanation")), (400, true));
    assert_eq!(webhook.asked()[0]["request"]["dryRun"], true);
}

#[tokio::test]
async fn a_service_is_resolved_and_failures_follow_the_policy() {
    let server = Server::start();
    let webhook = Webhook::start(|_| json!({"allowed": false, "status": {"message": "reached"}})).await;
    let client = json!({"service": {"name": "hook", "namespace": "default", "path": "/check"}, "caBundle": STANDARD.encode(&webhook.ca)});
    let fails = hook("fail.example.com", client.clone(), json!({"failurePolicy": "Fail", "timeoutSeconds": 2}));
    configure(&server, "validating", "v", vec![fails]).await;
    let (code, answer) = server.call("POST", MAPS, map("m")).await;
    assert_eq!(code, 500);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("failed calling webhook \"fail.example.com\"") && message.contains("\"hook\" not found"),
        "{message}"
    );

    server
        .create("/api/v1/namespaces/default/services", json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 9443}]}}))
        .await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}], "ports": [{"name": "https", "port": webhook.port}],
    });
    server.create(slices, slice).await;
    let (_, answer) = server.call("POST", MAPS, map("m")).await;
    assert!(answer["message"].as_str().unwrap().ends_with("denied the request: reached"), "{answer}");

    let path = format!("{HOOKS}/validatingwebhookconfigurations/v");
    let strange = Webhook::start(|_| json!({"allowed": true})).await;
    let untrusted =
        json!({"service": {"name": "hook", "namespace": "default"}, "caBundle": STANDARD.encode(&strange.ca)});
    let hooks = json!({"webhooks": [hook("fail.example.com", untrusted, json!({"failurePolicy": "Ignore"}))]});
    // Configurations can always be repaired: no webhook is asked about them.
    assert_eq!(server.call("PATCH", &path, hooks).await.0, 200);
    server.create(MAPS, map("m")).await;
    assert!(webhook.asked().len() == 1, "the one from before");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_waited_for_as_long_as_configured() {
    let server = Server::start();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = json!({"url": format!("https://localhost:{}/", silent.local_addr().unwrap().port()),
        "caBundle": STANDARD.encode(&Webhook::start(|_| json!({})).await.ca)});
    configure(&server, "validating", "v", vec![hook("slow.example.com", client, json!({"timeoutSeconds": 1}))]).await;
    let started = std::time::Instant::now();
    let (code, answer) = server.call("POST", MAPS, map("m")).await;
    assert_eq!(code, 500);
    assert!(answer["message"].as_str().unwrap().contains("deadline exceeded"), "{answer}");
    assert!(started.elapsed() >= std::time::Duration::from_secs(1));
    let (code, answer) = server.call("POST", &format!("{HOOKS}/mutatingwebhookconfigurations"), json!({
        "metadata": {"name": "m"},
        "webhooks": [hook("again.example.com", json!({"url": "https://a/"}), json!({"reinvocationPolicy": "IfNeeded"}))],
    })).await;
    assert_eq!(
        (code, answer["details"]["causes"][0]["field"].as_str()),
        (422, Some("webhooks[0].reinvocationPolicy")),
        "{answer}"
    );
}
