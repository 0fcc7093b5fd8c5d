//! Watches: kube-rs's watcher and reflector, bookmarks, compaction.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{WatchEvent, WatchParams},
    runtime::{WatchStreamExt, reflector, watcher},
};
use serde_json::{Value, json};

use crate::server::{Server, crypto, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn write(server: &Server, name: &str, value: &str) {
    server.create(MAPS, json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value}})).await;
}

#[tokio::test]
async fn the_watcher_sees_what_was_there_and_what_comes() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    for client in [server.client(), listening.client().await] {
        for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
            write(&server, "old", "1").await;
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
            let mut events = watcher(api, config).boxed();
            let mut seen = Vec::new();
            within(async {
                while let Some(event) = events.try_next().await.unwrap() {
                    match event {
                        // Streaming lists begin without one.
                        watcher::Event::Init => {}
                        watcher::Event::InitApply(object) => seen.push(format!("had {}", object.name_any())),
                        watcher::Event::InitDone => {
                            seen.push("done".to_owned());
                            write(&server, "new", "1").await;
                        }
                        watcher::Event::Apply(object) => {
                            seen.push(format!("apply {}", object.name_any()));
                            server.call("DELETE", &format!("{MAPS}/old"), Value::Null).await;
                        }
                        watcher::Event::Delete(object) => {
                            seen.push(format!("delete {}", object.name_any()));
                            break;
                        }
                    }
                }
            })
            .await;
            assert_eq!(seen, ["had old", "done", "apply new", "delete old"]);
            server.call("DELETE", &format!("{MAPS}/new"), Value::Null).await;
        }
    }
}

#[tokio::test]
async fn a_reflector_ends_up_with_the_same_objects() {
    let server = Server::start();
    let api: Api<ConfigMap> = Api::all(server.client());
    let (reader, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer).applied_objects();
    let task = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    within(reader.wait_until_ready()).await.unwrap();
    for round in 0..50 {
        write(&server, &format!("map-{}", round % 10), &round.to_string()).await;
        if round % 10 == 9 && round < 49 {
            server.call("DELETE", MAPS, Value::Null).await;
        }
    }
    let wanted = |reader: &reflector::Store<ConfigMap>| {
        let found: BTreeMap<String, String> =
            reader.state().iter().map(|map| (map.name_any(), map.data.clone().unwrap()["v"].clone())).collect();
        found == (0..10).map(|at| (format!("map-{at}"), (40 + at).to_string())).collect()
    };
    within(async {
        while !wanted(&reader) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    task.abort();
}

async fn watch(server: &Server, query: &str, count: usize) -> Vec<Value> {
    let request = http::Request::get(format!("{MAPS}?watch=1&{query}")).body(Vec::new().into()).unwrap();
    let response = server.client().send(request).await.unwrap();
    let mut body = http_body_util::BodyExt::into_data_stream(response.into_body());
    let mut text = Vec::new();
    within(async {
        while text.iter().filter(|byte| **byte == b'\n').count() < count {
            match body.next().await {
                Some(chunk) => text.extend_from_slice(&chunk.unwrap()),
                None => break,
            }
        }
    })
    .await;
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_watch_continues_behind_a_revision() {
    let server = Server::start();
    write(&server, "a", "1").await;
    let list = server.get(MAPS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    write(&server, "b", "1").await;
    server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"v": "2"}})).await;
    server.call("DELETE", &format!("{MAPS}/b"), Value::Null).await;
    let events = watch(&server, &format!("resourceVersion={revision}"), 3).await;
    assert_eq!(kinds(&events), ["ADDED", "MODIFIED", "DELETED"]);
    let revisions: Vec<u64> = events
        .iter()
        .map(|event| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(revisions.is_sorted() && revisions[0] > revision.parse().unwrap());
}

#[tokio::test]
async fn objects_enter_and_leave_a_selected_watch() {
    let server = Server::start();
    let revision = server.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    write(&server, "a", "1").await;
    for value in ["2", "2b", "1"] {
        server.call("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"v": value}}})).await;
    }
    let events = watch(&server, &format!("resourceVersion={revision}&labelSelector=v%20in%20(2,2b)"), 3).await;
    assert_eq!(kinds(&events), ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(events[2]["object"]["metadata"]["labels"]["v"], "2b", "the last state that matched");
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start();
    write(&server, "a", "1").await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let events = watch(&server, query, 2).await;
    assert_eq!(kinds(&events), ["ADDED", "BOOKMARK"]);
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let (code, answer) = server.call("GET", &format!("{MAPS}?watch=1&sendInitialEvents=true"), Value::Null).await;
    assert_eq!(code, 422, "{answer}");
}

#[tokio::test]
async fn an_ended_watch_says_how_far_it_came() {
    let server = Server::start();
    let events = watch(&server, "allowWatchBookmarks=true&timeoutSeconds=1", 1).await;
    assert_eq!(kinds(&events), ["BOOKMARK"]);
    assert!(watch(&server, "timeoutSeconds=1", 1).await.is_empty());
}

#[tokio::test]
async fn a_compacted_revision_is_gone() {
    let server = Server::with(|config| config.log_capacity_events = 8);
    write(&server, "a", "1").await;
    let revision = server.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for value in 0..20 {
        server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"v": value.to_string()}})).await;
    }
    let (code, answer) = server.call("GET", &format!("{MAPS}?watch=1&resourceVersion={revision}"), Value::Null).await;
    assert_eq!((code, answer["reason"].as_str()), (410, Some("Expired")));
    let (code, _) = server.call("GET", &format!("{MAPS}?watch=1&resourceVersion=999999"), Value::Null).await;
    assert_eq!(code, 410, "a revision of another life");
    let (code, _) = server.call("GET", &format!("{MAPS}?resourceVersion=999999"), Value::Null).await;
    assert_eq!(code, 504, "a revision that is not there yet");
}

#[tokio::test]
async fn a_slow_watcher_is_told_to_list_again() {
    let server = Server::with(|config| config.log_capacity_events = 8);
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    write(&server, "a", "1").await;
    let revision = server.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = api.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
    for value in 0..20 {
        server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"v": value.to_string()}})).await;
    }
    let event = within(events.try_next()).await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Error(status) if status.code == 410), "{event:?}");
}
