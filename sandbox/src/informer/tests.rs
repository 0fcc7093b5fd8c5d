#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use std::sync::Mutex;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

fn config_map(namespace: &str, name: &str, version: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

#[test]
fn own_writes_show_at_once_but_never_bring_back_what_is_gone() {
    let informer = Informer::<ConfigMap>::new();
    informer.observe(config_map("a", "x", "5"));
    assert!(informer.get("a", "x").is_some());

    informer.apply(config_map("a", "x", "5"));
    informer.delete(&config_map("a", "x", "7"));
    informer.observe(config_map("a", "x", "5"));
    assert!(informer.get("a", "x").is_none());

    informer.observe_deleting("a", "x");
    assert!(informer.get("a", "x").is_none());
}

#[test]
fn a_handler_sees_both_sides_and_a_relist_reports_what_vanished() {
    let informer = Informer::<ConfigMap>::new();
    informer.apply(config_map("a", "x", "1"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    informer.on_change(move |change| {
        let version = |side: &Option<Arc<ConfigMap>>| side.as_ref().and_then(|object| object.resource_version());
        log.lock().unwrap().push((version(&change.old), version(&change.new)));
    });
    informer.apply(config_map("a", "x", "2"));
    let relisted = [Arc::new(config_map("a", "y", "3"))];
    informer.replace(relisted.iter().map(|object| (key_of(object.as_ref()), Arc::clone(object))).collect());
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(
        *seen.lock().unwrap(),
        [(None, text("1")), (text("1"), text("2")), (None, text("3")), (text("2"), None),]
    );
}

#[test]
fn a_namespace_lists_its_own_objects_only() {
    let informer = Informer::<ConfigMap>::new();
    for (namespace, name) in [("a", "x"), ("ab", "y"), ("a", "z"), ("b", "x")] {
        informer.apply(config_map(namespace, name, "1"));
    }
    let names: Vec<_> = informer.in_namespace("a").iter().map(|object| object.name_any()).collect();
    assert_eq!(names, ["x", "z"]);
}

#[tokio::test(start_paused = true)]
async fn synced_waits_for_the_first_list_even_when_it_is_empty() {
    let informer = Informer::<ConfigMap>::new();
    informer.apply(config_map("a", "x", "1"));
    let early = tokio::time::timeout(std::time::Duration::from_secs(1), informer.synced()).await;
    assert!(early.is_err());
    informer.replace(BTreeMap::new());
    informer.synced().await;
}
