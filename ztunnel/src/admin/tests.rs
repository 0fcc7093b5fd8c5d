//! The admin endpoints over HTTP semantics, without a socket.

mod golden;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::drain::DrainMode;
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
use crate::promises::{Promises, Strict};
use crate::report::Report;
use crate::state::fixture::*;
use crate::workers::Workers;

/// Pods that do nothing but show one connection.
struct Idle;

impl PodStarter for Idle {
    fn start(&self, _: Pod) -> BoxFuture<'static, Result<Box<dyn RunningPod>, String>> {
        async { Ok(Box::new(Self) as Box<dyn RunningPod>) }.boxed()
    }
}

impl RunningPod for Idle {
    fn stop(self: Arc<Self>, _: DrainMode) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn connections(&self) -> Value {
        serde_json::json!({"inbound": [], "outbound": [
            {"src": "10.1.0.5:4000", "originalDst": "172.20.0.9:80", "actualDst": "10.1.0.77:15008", "protocol": "HBONE"},
        ]})
    }
}

/// What was logged, and the subscriber that logs it.
struct Lines {
    dispatch: tracing::Dispatch,
    log: LogHandle,
    sink: Sink,
}

#[derive(Clone, Default)]
struct Sink(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn enter(&self) -> tracing::dispatcher::DefaultGuard {
        tracing::dispatcher::set_default(&self.dispatch)
    }

    fn text(&self) -> String {
        self.log.flush();
        String::from_utf8(self.sink.0.lock().unwrap().clone()).unwrap()
    }
}

/// A router, its log filter, and the receiver of quit requests.
fn fixture(world: &World) -> (Router, LogHandle, mpsc::Receiver<()>) {
    let (router, quit, lines) = fixture_with_lines(world);
    let log = lines.log.clone();
    // The handle works for as long as its subscriber lives, in a process: forever.
    Box::leak(Box::new(lines));
    (router, log, quit)
}

fn fixture_with_lines(world: &World) -> (Router, mpsc::Receiver<()>, Lines) {
    let options = log::Options { component: "test", format: Format::Plain, default_filter: "info".to_owned() };
    let sink = Sink::default();
    let (subscriber, log) = log::build(options, Box::new(sink.clone())).unwrap();
    let lines = Lines { dispatch: tracing::Dispatch::new(subscriber), log: log.clone(), sink };
    let (router, quit) = start(world, log);
    (router, quit, lines)
}

fn start(world: &World, log: LogHandle) -> (Router, mpsc::Receiver<()>) {
    let registry = Registry::new();
    let config = Arc::new(Config::from_env(&[("NODE_NAME", NODE)].into_iter().collect()).unwrap());
    let dns = crate::dns::Dns::from_config(&config, &registry);
    let shared = Arc::new(Shared {
        resolver: Arc::new(crate::dns::Resolver::new(dns.servers.clone())),
        dns,
        config,
        state: world.state.clone(),
        certs: CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock)),
        report: Report::new(&registry, false),
        workers: Workers::start(1).unwrap(),
        readiness: Readiness::new(),
        synced: watch::channel(true).1,
        crl: None,
        promises: Promises::new(Strict { waypoint_required: true, policy_before_traffic: true }),
        demand: None,
    });
    let (quit, asked) = mpsc::channel(1);
    let pods = Pods::new(Arc::new(Idle), &registry);
    let name = |name: &str| name.to_owned();
    let netns = Err("not needed".to_owned());
    let pod = Pod { uid: name("u1"), name: name("web"), namespace: name("shop"), service_account: name("sa"), netns };
    pods.start(&pod).now_or_never().unwrap().unwrap();
    (router(Admin { shared, pods, log, quit }), asked)
}

async fn call(router: &Router, method: Method, uri: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn ops_row_6_only_a_post_ends_the_process() {
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
async fn ops_row_7_the_log_filter_changes_and_returns() {
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
    for bad in ["/logging?level=loud", "/logging?level=", "/logging?what=x", "/logging?level=%zz"] {
        let (status, text) = post(bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("usage:"), "{text}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert_eq!(call(&router, method, "/logging").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn ops_row_7_access_lines_stop_and_the_others_go_on() {
    let (router, _, lines) = fixture_with_lines(&World::new());
    let log_both = || {
        tracing::info!(target: "access", "a connection");
        tracing::info!(target: "other", "something else");
    };
    let _default = lines.enter();
    log_both();
    call(&router, Method::POST, "/logging?level=access:off").await;
    log_both();
    call(&router, Method::POST, "/logging?reset").await;
    log_both();
    let text = lines.text();
    let count = |scope: &str| text.lines().filter(|line| line.split('\t').nth(2) == Some(scope)).count();
    assert_eq!((count("access"), count("other")), (2, 3), "{text}");
}

#[tokio::test]
async fn open_connections_are_shown_by_pod() {
    let (router, _, _) = fixture(&World::new());
    let get = async |uri: &str| call(&router, Method::GET, uri).await;
    for uri in ["/debug/connections", "/debug/connections?pod=shop/web", "/debug/connections?pod=shop%2Fweb"] {
        let (status, text) = get(uri).await;
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, shown), (StatusCode::OK, serde_json::json!({"connections": [], "leftOut": 0})));
    }
    let (status, text) = get("/debug/connections?pod=web").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("pod=<namespace>/<name>"), "{text}");
}

#[tokio::test]
async fn a_profile_is_bounded_and_says_when_it_is_not_built_in() {
    let (router, _, _) = fixture(&World::new());
    let get = async |uri: &str| call(&router, Method::GET, uri).await;
    for bad in ["seconds=0", "seconds=301", "frequency=0", "frequency=1001", "seconds=x"] {
        let (status, text) = get(&format!("/debug/pprof/profile?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(text.contains("expected a number from 1 to"), "{text}");
    }
    for uri in ["/debug/pprof/heap", "/debug/pprof/heap/profiling?activate=true"] {
        assert_eq!(get(uri).await.0, StatusCode::NOT_IMPLEMENTED);
    }
    let (status, text) = get("/debug/pprof/profile?seconds=1").await;
    if cfg!(feature = "pprof") {
        assert_eq!(status, StatusCode::OK);
    } else {
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
        assert!(text.contains("--features pprof"), "{text}");
    }
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
