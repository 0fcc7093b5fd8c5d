//! Faults on demand, as clients over TLS meet them.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use sandbox::api::faults::{Action, Ending, Fault, Filter};
use serde_json::{Value, json};

use crate::server::{Server, crypto, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn maps(verbs: &[&str]) -> Filter {
    Filter {
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        resources: vec!["configmaps".to_owned()],
        ..Filter::default()
    }
}

fn fault(verbs: &[&str], count: u64, action: Action) -> Fault {
    Fault { filter: maps(verbs), probability: 1.0, count: Some(count), action }
}

async fn send(client: &Client, method: &str, path: &str, body: Value) -> http::Response<Vec<u8>> {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response = client.send(request.body(bytes.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    http::Response::from_parts(parts, bytes.to_vec())
}

/// A client that does not try again by itself.
async fn plain(listening: &crate::server::Listening) -> Client {
    let file = kube::config::Kubeconfig::read_from(&listening.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn statuses_are_answered_as_often_as_asked_and_the_sandbox_itself_is_spared() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = plain(&listening).await;
    for code in [409, 410, 500] {
        let action = Action::Status { code, retry_after_seconds: None };
        server.api.faults().add(fault(&["create"], 1, action)).unwrap();
        let object = json!({"metadata": {"name": format!("a{code}")}});
        let (inside, _) = server.call("POST", MAPS, json!({"metadata": {"name": format!("b{code}")}})).await;
        assert_eq!(inside, 201, "the sandbox's own parts are spared");
        let first = send(&client, "POST", MAPS, object.clone()).await;
        assert_eq!(first.status().as_u16(), code);
        assert_eq!(send(&client, "POST", MAPS, object).await.status().as_u16(), 201, "the fault is used up");
    }
    let action = Action::Status { code: 429, retry_after_seconds: Some(1) };
    let id = server.api.faults().add(Fault { count: None, ..fault(&["get"], 1, action) }).unwrap();
    let started = Instant::now();
    server.api.faults().clear(Some(id));
    let found = send(&client, "GET", &format!("{MAPS}/a409"), Value::Null).await;
    assert_eq!(found.status().as_u16(), 200);
    assert!(started.elapsed() < Duration::from_secs(1), "a cleared fault is over at once");
}

#[tokio::test]
async fn rules_can_be_set_listed_and_cleared_over_http() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = plain(&listening).await;
    let rules = json!({"rules": [
        {"verbs": ["list"], "resources": ["configmaps"], "count": 1, "action": {"status": {"code": 410}}},
        {"resources": ["secrets"], "action": {"delay": {"ms": 1}}},
    ]});
    let answer = send(&client, "POST", "/sandbox/faults", rules).await;
    assert_eq!(serde_json::from_slice::<Value>(answer.body()).unwrap(), json!({"ids": [1, 2]}));
    assert_eq!(send(&client, "GET", MAPS, Value::Null).await.status().as_u16(), 410);
    let listed = send(&client, "GET", "/sandbox/faults", Value::Null).await;
    let listed: Value = serde_json::from_slice(listed.body()).unwrap();
    assert_eq!(listed["rules"][0]["applied"], 1, "{listed}");
    let cleared = send(&client, "DELETE", "/sandbox/faults", Value::Null).await;
    assert_eq!(serde_json::from_slice::<Value>(cleared.body()).unwrap(), json!({"cleared": 2}));
    let wrong =
        send(&client, "POST", "/sandbox/faults", json!({"rules": [{"action": {"status": {"code": 200}}}]})).await;
    assert_eq!(wrong.status().as_u16(), 400);
    assert!(String::from_utf8_lossy(wrong.body()).contains("400 to 599"));
}

#[tokio::test]
async fn requests_wait() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = plain(&listening).await;
    server.api.faults().add(fault(&["list"], 1, Action::Delay { ms: 300 })).unwrap();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let started = Instant::now();
    within(api.list(&ListParams::default())).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn open_watches_are_dropped_and_the_watcher_comes_back() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = plain(&listening).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for ending in [Ending::Close, Ending::Gone, Ending::Reset] {
        let name = format!("{ending:?}").to_lowercase();
        let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
        within(async { while !matches!(events.try_next().await.unwrap(), Some(watcher::Event::InitDone)) {} }).await;
        let dropping = async {
            while server.api.faults().drop_watches(&maps(&[]), ending) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            server.create(MAPS, json!({"metadata": {"name": name}})).await;
        };
        let watching = async {
            loop {
                match events.next().await {
                    Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)))
                        if object.metadata.name.as_deref() == Some(&name) =>
                    {
                        return;
                    }
                    Some(_) => {}
                    None => panic!("the watcher gave up"),
                }
            }
        };
        within(async { tokio::join!(dropping, watching) }).await;
    }
}

#[tokio::test]
async fn a_rule_cuts_watches_after_a_time() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = plain(&listening).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    server.api.faults().add(fault(&["watch"], 1, Action::DropWatch { after_ms: 50, ending: Ending::Gone })).unwrap();
    let mut events = within(api.watch(&WatchParams::default(), "1")).await.unwrap().boxed();
    let event = within(events.try_next()).await.unwrap().unwrap();
    match event {
        WatchEvent::Error(status) => assert_eq!(status.code, 410),
        other => panic!("{other:?}"),
    }
    assert!(within(events.try_next()).await.unwrap().is_none());
    assert_eq!(server.api.faults().open_watches(), 0, "a watch that ended is forgotten");
}
