//! Requests and the statuses they get.

use http_body_util::BodyExt;
use mesh_telemetry::metrics::Registry;
use serde_json::{Value, json};

use super::*;

fn webhook(registry: &Registry) -> Webhook {
    Webhook::new(Box::new(Context::default), Arc::new(WebhookMetrics::new(registry)))
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Full::from(body.into())).unwrap()
}

async fn ask(webhook: &Webhook, request: Request<Full<Bytes>>) -> (u16, String) {
    let response = webhook.answer(request, &Meter::default()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_that_are_no_reviews_get_a_status_that_says_so() {
    let registry = Registry::new();
    let webhook = webhook(&registry);
    let get = |path: &str| Request::get(path).body(Full::<Bytes>::default()).unwrap();
    let plain = Request::post("/validate").body(Full::<Bytes>::default()).unwrap();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let other = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#;
    let empty = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#;
    for (request, status, part) in [
        (get("/ready"), 200, "ready"),
        (get("/validate"), 405, "expected POST"),
        (get("/inject"), 404, "/validate"),
        (post("/validated", "{}"), 404, ""),
        (plain, 400, "application/json"),
        (post("/validate", "{"), 400, "AdmissionReview"),
        (post("/validate", deep), 400, "nested deeper than"),
        (post("/validate", vec![b' '; body::REVIEW_BYTES_MAX + 1]), 413, "larger than"),
        (post("/validate", other), 400, "expected admission.k8s.io/v1"),
        (post("/validate/cluster/c1", empty), 400, "no request"),
    ] {
        let uri = request.uri().clone();
        let (found, text) = ask(&webhook, request).await;
        assert!(found == status && text.contains(part), "{uri}: {found} {text}");
    }
    let metrics = registry.encode();
    assert!(metrics.contains("galley_validation_http_error{status=\"413\"} 1"), "{metrics}");
    assert!(metrics.contains("galley_validation_http_error{status=\"400\"} 5"), "{metrics}");
}

#[tokio::test]
async fn a_review_is_answered_with_its_uid() {
    let registry = Registry::new();
    let webhook = webhook(&registry);
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "u1", "operation": "CREATE", "userInfo": {}, "namespace": "shop", "name": "x",
            "kind": {"group": "security.istio.io", "version": "v1", "kind": "PeerAuthentication"},
            "resource": {"group": "security.istio.io", "version": "v1", "resource": "peerauthentications"},
            "object": {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "x"}, "spec": {"mtls": {"mode": "STRICT"}}},
            "oldObject": null, "dryRun": false, "options": null,
        },
    });
    let (status, text) = ask(&webhook, post("/validate", review.to_string())).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["response"]["uid"], &answer["response"]["allowed"]), (200, &json!("u1"), &json!(true)));
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    struct Never;
    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let registry = Registry::new();
    let request = Request::post("/validate").header("content-type", "application/json").body(Never).unwrap();
    let started = tokio::time::Instant::now();
    let response = webhook(&registry).answer(request, &Meter::default()).await;
    assert_eq!((response.status().as_u16(), started.elapsed()), (408, REVIEW));
}
