//! What is written into the configurations, and when.

use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use mesh_core::identity::TrustDomain;
use mesh_telemetry::metrics::Registry;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::ca::{Authority, self_signed};

fn configuration(namespace: &str, policy: &str, bundle: Option<&str>) -> ValidatingWebhookConfiguration {
    serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istio-validator-istio-system", "resourceVersion": "1", "labels": {"istio.io/rev": "default"}},
        "webhooks": [{
            "name": "rev.validation.istio.io", "failurePolicy": policy, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "istiod", "namespace": namespace, "path": "/validate"}, "caBundle": bundle},
        }],
    }))
    .unwrap()
}

#[test]
fn bundle_and_policy_are_repaired_and_the_rest_is_left() {
    let bundle = ByteString(b"root".to_vec());
    let policy = |one: &Option<ValidatingWebhookConfiguration>| {
        one.as_ref().and_then(|one| one.webhooks.as_ref()?.first()?.failure_policy.clone())
    };
    let fresh = configuration("istio-system", "Ignore", None);
    let patched = repaired(&fresh, "istio-system", &bundle, false);
    assert_eq!(policy(&patched).as_deref(), Some("Ignore"), "not before it is known that we answer");
    let patched = patched.unwrap();
    assert_eq!(patched.webhooks.as_ref().unwrap()[0].client_config.ca_bundle, Some(bundle.clone()));
    assert_eq!(repaired(&patched, "istio-system", &bundle, false), None, "nothing is written twice");
    assert_eq!(policy(&repaired(&patched, "istio-system", &bundle, true)).as_deref(), Some("Fail"));
    let strict = configuration("istio-system", "Fail", Some("cm9vdA=="));
    assert_eq!(repaired(&strict, "istio-system", &bundle, false), None, "never made weaker");
    assert!(repaired(&strict, "istio-system", &ByteString(b"new".to_vec()), false).is_some(), "a new root is written");
    assert_eq!(repaired(&configuration("elsewhere", "Ignore", None), "istio-system", &bundle, true), None, "not ours");
}

#[test]
fn only_a_rejection_of_ours_is_proof() {
    for (message, proof) in [
        ("admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid", true),
        ("admission webhook \"validation.istio.io\" denied the request: x", true),
        ("admission webhook \"other.example.com\" denied the request: no", false),
        ("Gateway.networking.istio.io \"invalid-gateway\" is invalid: spec.servers: Required value", false),
        ("failed calling webhook \"rev.validation.istio.io\": connection refused", false),
    ] {
        assert_eq!(is_our_rejection(message), proof, "{message}");
    }
}

type Answer = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A scripted API server: one configuration, and an admission that starts to work after some probes.
struct Script {
    stored: Mutex<Value>,
    events: Mutex<Vec<mpsc::Sender<Value>>>,
    probes: Mutex<u32>,
    proves_after: u32,
}

impl Script {
    fn write(&self, mut object: Value) -> Value {
        let mut stored = self.stored.lock().unwrap();
        let next = stored["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() + 1;
        object["metadata"]["resourceVersion"] = json!(next.to_string());
        *stored = object.clone();
        for sender in self.events.lock().unwrap().iter() {
            drop(sender.try_send(json!({"type": "MODIFIED", "object": object})));
        }
        object
    }

    fn handle(self: &Arc<Self>, method: &Method, uri: &str, body: &[u8]) -> (u16, Answer) {
        let json = |value: Value| Full::<Bytes>::from(value.to_string()).boxed_unsync();
        let list = |items: Vec<Value>| {
            json(json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
        };
        let validating = uri.contains("/validatingwebhookconfigurations");
        match *method {
            Method::GET if uri.contains("watch=true") => {
                let (sender, receiver) = mpsc::channel::<Value>(16);
                if validating {
                    self.events.lock().unwrap().push(sender);
                } else {
                    // A watch without events stays open.
                    std::mem::forget(sender);
                }
                let lines = tokio_stream::wrappers::ReceiverStream::new(receiver).map(|event| {
                    Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(format!("{event}\n"))))
                });
                (200, StreamBody::new(lines).boxed_unsync())
            }
            Method::GET => (200, list(if validating { vec![self.stored.lock().unwrap().clone()] } else { Vec::new() })),
            Method::PUT => (200, json(self.write(serde_json::from_slice(body).unwrap()))),
            Method::POST => {
                assert!(uri.contains("dryRun=All"), "nothing may be stored: {uri}");
                let object: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(object["metadata"]["labels"]["istio.io/rev"], "default");
                let mut probes = self.probes.lock().unwrap();
                *probes += 1;
                if *probes <= self.proves_after {
                    return (201, json(object));
                }
                let message =
                    "admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid";
                (
                    400,
                    json(
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400, "message": message, "reason": "BadRequest"}),
                    ),
                )
            }
            _ => (405, json(Value::Null)),
        }
    }
}

fn start(
    script: &Arc<Script>,
) -> (watch::Sender<Arc<Authority>>, mesh_core::drain::DrainSignal, tokio::task::JoinHandle<()>) {
    let script = script.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let script = script.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, body) = script.handle(&parts.method, &parts.uri.to_string(), &body);
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let (sender, authority) = watch::channel(authority());
    let registrar = Registrar {
        client: Client::new(service, "istio-system"),
        authority,
        revision: "default".to_owned(),
        namespace: "istio-system".to_owned(),
        metrics: Arc::new(WebhookMetrics::new(&Registry::new())),
    };
    let (signal, drain) = mesh_core::drain::channel();
    (sender, signal, tokio::spawn(registrar.run(drain)))
}

fn authority() -> Arc<Authority> {
    let made = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    Arc::new(Authority::new(&made).unwrap())
}

impl Script {
    fn new(proves_after: u32) -> Arc<Self> {
        let stored = serde_json::to_value(configuration("istio-system", "Ignore", None)).unwrap();
        Arc::new(Self { stored: Mutex::new(stored), events: Mutex::default(), probes: Mutex::default(), proves_after })
    }

    fn hook(&self) -> (String, ByteString) {
        let stored: ValidatingWebhookConfiguration =
            serde_json::from_value(self.stored.lock().unwrap().clone()).unwrap();
        let hook = &stored.webhooks.unwrap()[0];
        (hook.failure_policy.clone().unwrap_or_default(), hook.client_config.ca_bundle.clone().unwrap_or_default())
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(600), async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.stored.lock().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn strictness_waits_for_proof_and_edits_are_undone() {
    let script = Script::new(3);
    let (sender, _signal, _task) = start(&script);
    let root = |sender: &watch::Sender<Arc<Authority>>| ByteString(sender.borrow().roots_pem().as_bytes().to_vec());
    script
        .until("the root is written before anything is proven", |script| {
            script.hook() == ("Ignore".to_owned(), root(&sender))
        })
        .await;
    script.until("strict once proven", |script| script.hook() == ("Fail".to_owned(), root(&sender))).await;
    assert_eq!(*script.probes.lock().unwrap(), 4, "asked until the answer came, and not again");
    let edited = serde_json::to_value(configuration("istio-system", "Ignore", Some("bm9uc2Vuc2U="))).unwrap();
    script.write(edited);
    script.until("an edit is undone", |script| script.hook() == ("Fail".to_owned(), root(&sender))).await;
    sender.send_replace(authority());
    script.until("a new root is written", |script| script.hook() == ("Fail".to_owned(), root(&sender))).await;
}
