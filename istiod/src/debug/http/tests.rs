//! Who may see which page.

use axum::body::Body;
use mesh_xds::server::{HubOptions, Unobserved};
use tower::ServiceExt;

use super::*;
use crate::auth::{Attempts, AuthError, TrustDomains};
use crate::config::idle::Idle;
use crate::publish::TYPES;
use crate::world::{Change, Object, Pod};

/// Tokens are namespaces.
struct Namespaces;

impl TokenReviewer for Namespaces {
    async fn review(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<k8s_openapi::api::authentication::v1::TokenReviewStatus, AuthError> {
        let status = json!({
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {"username": format!("system:serviceaccount:{token}:sa"), "groups": ["system:serviceaccounts"]},
        });
        Ok(serde_json::from_value(status).unwrap())
    }
}

fn pages(unsafe_admin: bool) -> Router {
    pages_of(unsafe_admin, Model::default(), Turns::default())
}

fn pages_of(unsafe_admin: bool, model: Model, turns: Turns) -> Router {
    let mesh_report = MeshReport::default();
    mesh_report.used(vec![Idle { field: "accessLogFile".into(), reason: "why" }]);
    mesh_report.refused("promises: fast".into());
    debug(Arc::new(DebugState {
        hub: Hub::new(&TYPES, HubOptions::default(), Box::new(Unobserved)),
        model: Arc::new(RwLock::new(model)),
        authenticator: Arc::new(Authenticator {
            reviewer: Namespaces,
            audiences: vec!["istio-ca".into()],
            cluster_id: "c".into(),
            cluster_aliases: Vec::new(),
            trust_domains: TrustDomains::default(),
            attempts: Attempts::default(),
        }),
        namespace: "istio-system".into(),
        clusters: None,
        simulations: Arc::new(Semaphore::new(1)),
        turns,
        mesh_report,
        warnings: vec!["X has no effect".into()],
        unsafe_admin,
    }))
}

async fn answer(router: &Router, from: &str, token: Option<&str>, path: &str) -> Response {
    let mut request = http::Request::get(path).extension(ConnectInfo(SocketAddr::new(from.parse().unwrap(), 1)));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn ask(router: &Router, from: &str, token: Option<&str>, path: &str) -> (StatusCode, String) {
    let response = answer(router, from, token, path).await;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn this_machine_and_the_own_namespace_see_everything_and_others_next_to_nothing() {
    let router = pages(false);
    for (path, _) in PAGES.iter().filter(|(path, _)| path.starts_with('/') && !path.contains('?')) {
        assert_eq!(ask(&router, "127.0.0.1", None, path).await.0, StatusCode::OK, "{path}");
        assert_eq!(ask(&router, "::ffff:127.0.0.1", None, path).await.0, StatusCode::OK, "{path}");
        assert_eq!(ask(&router, "10.0.0.1", Some("istio-system"), path).await.0, StatusCode::OK, "{path}");
        assert_eq!(ask(&router, "10.0.0.1", None, path).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(ask(&router, "10.0.0.1", Some("shop"), path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    let (status, text) = ask(&router, "10.0.0.1", Some("shop"), "/debug/config_dump?proxyID=x").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{text}");
}

#[tokio::test]
async fn what_changes_something_is_not_served_unless_asked_for() {
    let path = "/debug/force_disconnect?proxyID=x";
    assert!(ask(&pages(false), "127.0.0.1", None, path).await.1.contains("/debug/syncz"), "the index");
    assert!(ask(&pages(true), "127.0.0.1", None, path).await.1.contains("0 streams"));
}

#[tokio::test]
async fn the_mesh_page_tells_what_has_no_effect_and_what_was_refused() {
    let (_, text) = ask(&pages(false), "127.0.0.1", None, "/debug/mesh").await;
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(page["withoutEffect"][0]["field"], "accessLogFile");
    assert_eq!(page["refused"], "promises: fast");
    assert_eq!(page["promises"]["waypointRequired"], "strict");
    assert_eq!(page["processWarnings"][0], "X has no effect");
}

/// So many pods.
fn town(pods: usize) -> Model {
    let mut model = Model::default();
    for number in 0..pods {
        let [.., high, low] = number.to_be_bytes();
        model.apply(Change::Upsert(Object::Pod(Pod {
            key: mesh_core::names::NamespacedName::new("ns", format!("pod-{number}")),
            uid: format!("uid-{number}").into(),
            service_account: "default".into(),
            node: "n1".into(),
            labels: Default::default(),
            workload_name: "web".into(),
            ips: Box::new([std::net::IpAddr::from([10, 0, high, low])]),
            ready: true,
            host_network: false,
            redirected: false,
            ports: Box::default(),
            binding: None,
        })));
    }
    model.flush();
    model
}

#[tokio::test]
async fn a_long_page_waits_for_its_reader_and_holds_up_nobody_but_its_caller() {
    let router = pages_of(false, town(4_000), Turns::new(std::time::Duration::from_millis(200)));
    let path = "/debug/ambientz";
    // It begins before it is built: the caller has not taken anything of it.
    let unread = answer(&router, "127.0.0.1", None, path).await;
    assert_eq!(unread.status(), StatusCode::OK);
    assert_eq!(unread.headers()["content-type"], "application/json");
    let (status, text) = ask(&router, "127.0.0.1", None, path).await;
    assert_eq!((status, text.contains("is being built for you")), (StatusCode::TOO_MANY_REQUESTS, true), "{text}");
    assert_eq!(ask(&router, "127.0.0.1", None, "/debug/mesh").await.0, StatusCode::OK, "short pages need no turn");
    let (status, text) = ask(&router, "10.0.0.1", Some("istio-system"), path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.len() > 1 << 20, "{} bytes are no long page", text.len());
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(page["workloads"].as_array().unwrap().len(), 4_000);
    // A reader that goes gives its turn back.
    drop(unread);
    let whole = axum::body::to_bytes(answer(&router, "127.0.0.1", None, path).await.into_body(), 64 << 20).await;
    assert_eq!(serde_json::from_slice::<Value>(&whole.unwrap()).unwrap(), page);
}
