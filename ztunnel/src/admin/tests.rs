//! The admin endpoints over HTTP semantics, without a socket.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, SystemClock};
use mesh_telemetry::log::{self, Format};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::config::Config;
use crate::node::{Pod, PodStarter, RunningPod};
use crate::report::Report;
use crate::state::fixture::*;
use crate::workers::Workers;

struct NoPods;

impl PodStarter for NoPods {
    fn start(&self, _: Pod) -> BoxFuture<'static, Result<Box<dyn RunningPod>, String>> {
        async { Err("no pods here".to_owned()) }.boxed()
    }
}

/// A router, its state, and the receiver of quit requests.
fn fixture(world: &World) -> (Router, LogHandle, mpsc::Receiver<()>) {
    let options = log::Options { component: "test", format: Format::Plain, default_filter: "info".to_owned() };
    let (subscriber, log) = log::build(options, Box::new(std::io::sink())).unwrap();
    // The handle works for as long as its subscriber lives, in a process: forever.
    Box::leak(Box::new(subscriber));
    let registry = Registry::new();
    let shared = Arc::new(Shared {
        config: Arc::new(Config::from_env(&[("NODE_NAME", NODE)].into_iter().collect()).unwrap()),
        state: world.state.clone(),
        certs: CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock)),
        report: Report::new(&registry, false),
        workers: Workers::start(1).unwrap(),
        readiness: Readiness::new(),
        synced: watch::channel(true).1,
    });
    let (quit, asked) = mpsc::channel(1);
    let pods = Pods::new(Arc::new(NoPods), &registry);
    (router(Admin { shared, pods, log: log.clone(), quit }), log, asked)
}

async fn call(router: &Router, method: Method, uri: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn row_6_only_a_post_ends_the_process() {
    let (router, _, mut asked) = fixture(&World::new());
    assert_eq!(call(&router, Method::GET, "/quitquitquit").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert!(asked.try_recv().is_err());
    for _ in 0..2 {
        let answer = call(&router, Method::POST, "/quitquitquit").await;
        assert_eq!(answer, (StatusCode::OK, "shutdown now\n".to_owned()));
    }
    assert!(asked.try_recv().is_ok());
}

#[tokio::test]
async fn row_7_the_log_filter_changes_and_returns() {
    let (router, log, _) = fixture(&World::new());
    let post = async |uri: &str| call(&router, Method::POST, uri).await;
    assert_eq!(post("/logging").await, (StatusCode::OK, "current log level is info\n".to_owned()));
    let (status, text) = post("/logging?level=access:off").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "current log level is info,access=off\n"));
    post("/logging?level=debug").await;
    post("/logging?level=a%3Atrace%2Cb=warn").await;
    assert_eq!(log.current(), "info,access=off,debug,a=trace,b=warn");
    assert_eq!(post("/logging?reset&level=error").await.1, "current log level is info,error\n");
    assert_eq!(post("/logging?reset").await.1, "current log level is info\n");
    for bad in ["/logging?level=loud", "/logging?level=", "/logging?what=x"] {
        let (status, text) = post(bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("usage:"), "{text}");
    }
    assert_eq!(call(&router, Method::GET, "/logging").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_dump_has_every_key_of_the_reference() {
    let world = World::new().with([address(pod("a/w", "10.0.0.1"))]);
    let (router, _, _) = fixture(&world);
    let (status, text) = call(&router, Method::GET, "/config_dump").await;
    assert_eq!(status, StatusCode::OK);
    let dump: Value = serde_json::from_str(&text).unwrap();
    let keys = [
        "workloads",
        "services",
        "policies",
        "stagedServices",
        "staticConfig",
        "version",
        "config",
        "certificates",
        "workloadState",
    ];
    for key in keys {
        assert!(dump.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(dump.pointer("/workloads/0/uid").unwrap(), "Kubernetes//Pod/a/w");
    assert_eq!(dump.pointer("/config/localNode").unwrap(), NODE);
}

#[tokio::test]
async fn certificates_are_shown_with_their_chain() {
    let identity: mesh_core::Identity = "spiffe://cluster.local/ns/a/sa/w".parse().unwrap();
    let certs = CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock));
    certs.fetch(&identity).await.unwrap();
    let shown = dump::certificate(&identity.to_string(), &certs.list().remove(0).1);
    assert_eq!(shown.pointer("/state").unwrap(), "Available");
    let serial = shown.pointer("/certChain/0/serialNumber").unwrap().as_str().unwrap();
    assert!(serial.chars().all(|c| c.is_ascii_digit()), "{serial}");
    let from = shown.pointer("/certChain/0/validFrom").unwrap().as_str().unwrap();
    assert!(from.ends_with('Z') && from.contains('T'), "{from}");
    assert!(shown.pointer("/rootCerts/0/pem").is_some());
}

#[tokio::test]
async fn explain_answers_or_says_how_to_ask() {
    let world = World::new().with([address(pod("a/w", "10.0.0.1"))]);
    let (router, _, _) = fixture(&world);
    let get = async |uri: &str| call(&router, Method::GET, uri).await;
    assert_eq!(get("/explain?src=a/w&dst=192.0.2.1:80").await.0, StatusCode::OK);
    assert_eq!(get("/explain?src=a%2Fw&dst=192.0.2.1:80").await.0, StatusCode::OK);
    assert_eq!(get("/explain").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get("/explain?src=a/x&dst=192.0.2.1:80").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("/").await.0, StatusCode::OK);
}
