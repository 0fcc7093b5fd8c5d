//! What is done about an entry as it was read.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::DynamicObject;
use mesh_core::names::NamespacedName;

use super::*;
use crate::registration::step::{Step, Want};
use crate::registration::upkeep::{Need, need};
use crate::world::Registered;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn wanted() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {
            "name": "e", "namespace": "a", "labels": {"app": "shop"},
            "annotations": {"istio.io/autoRegistrationGroup": "vms"},
            "ownerReferences": [
                {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "name": "vms", "uid": "g", "controller": true},
            ],
        },
        "spec": {"address": "10.0.0.7"},
    })
}

fn live(controller: &str, connected: Option<i64>, disconnected: Option<i64>) -> DynamicObject {
    let mut object = wanted();
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["resourceVersion"] = json!("5");
    object["status"] = json!({"conditions": []});
    let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.insert("istio.io/workloadController".into(), controller.into());
    for (name, second) in [("istio.io/connectedAt", connected), ("istio.io/disconnectedAt", disconnected)] {
        if let Some(second) = second {
            annotations.insert(name.into(), at(second).to_string().into());
        }
    }
    serde_json::from_value(object).unwrap()
}

fn taken(want: &Want<'_>, live: Option<&DynamicObject>) -> String {
    match want.step(&NamespacedName::new("a", "e"), live, "me") {
        Step::Nothing => "nothing".into(),
        Step::NotOurs => "not ours".into(),
        Step::Delete => "delete".into(),
        Step::Refuse(refusal) => refusal.to_string(),
        Step::Write { object, create, .. } => {
            let one = Registered::read(object.metadata.annotations.as_ref()).unwrap();
            let second = |time: Option<Timestamp>| {
                time.map_or_else(|| "-".into(), |one| one.as_duration().as_secs_f64().to_string())
            };
            let verb = if create { "create" } else { "replace" };
            format!("{verb} {} {} {}", one.controller, second(one.connected), second(one.disconnected))
        }
    }
}

#[test]
fn whom_a_workload_came_to_last_has_its_entry() {
    let object = wanted();
    let came = |second, fresh| Want::Connected { object: &object, since: at(second), fresh };
    assert_eq!(taken(&came(10, true), None), "create me 10 -");
    assert_eq!(taken(&came(10, false), Some(&live("me", Some(10), None))), "nothing");
    assert_eq!(taken(&came(10, false), Some(&live("me", None, Some(9)))), "replace me 10 -");
    assert_eq!(taken(&came(10, true), Some(&live("other", Some(5), None))), "replace me 10 -");
    // The other one's clock is ahead of ours: who comes later still comes later.
    assert_eq!(taken(&came(10, true), Some(&live("other", Some(20), None))), "replace me 20.001 -");
    // It went on to the other one: ours is the older connection, which ends soon.
    assert_eq!(taken(&came(10, false), Some(&live("other", Some(20), None))), "not ours");
    // It left that one, but is still here.
    assert_eq!(taken(&came(10, false), Some(&live("other", None, Some(30)))), "replace me 10 -");
}

#[test]
fn what_somebody_wrote_is_never_touched() {
    let object = wanted();
    let came = Want::Connected { object: &object, since: at(10), fresh: true };
    let mut by_hand = live("me", None, None);
    by_hand.metadata.annotations = None;
    let refusal = taken(&came, Some(&by_hand));
    assert!(refusal.contains("a/e exists and was not made for this workload"), "{refusal}");
    assert_eq!(taken(&Want::Left { at: at(11), from: "me" }, Some(&by_hand)), "not ours");
    assert_eq!(taken(&Want::Gone { at_once: true }, Some(&by_hand)), "not ours");
    let mut other = live("me", Some(1), None);
    other.metadata.annotations.as_mut().unwrap().insert("istio.io/autoRegistrationGroup".into(), "others".into());
    assert!(taken(&came, Some(&other)).contains("exists"), "it is of another group");
}

#[test]
fn an_edited_group_is_written_over_and_status_and_owner_stay() {
    let mut object = wanted();
    object["metadata"]["labels"] = json!({"app": "market"});
    let want = Want::Connected { object: &object, since: at(10), fresh: false };
    let live = live("me", Some(10), None);
    let Step::Write { object, create: false, .. } = want.step(&NamespacedName::new("a", "e"), Some(&live), "me") else {
        panic!("not written")
    };
    assert_eq!(object.metadata.labels.as_ref().unwrap()["app"], "market");
    assert_eq!(object.metadata.resource_version.as_deref(), Some("5"), "of what was read");
    assert_eq!(object.data["status"], json!({"conditions": []}));
}

#[test]
fn what_makes_no_entry_is_refused_with_the_reason_and_no_labels_are_no_change() {
    let mut object = wanted();
    object["metadata"]["labels"] = json!({"app": 7});
    for live in [None, Some(live("me", Some(10), None))] {
        let want = Want::Connected { object: &object, since: at(10), fresh: true };
        let refusal = taken(&want, live.as_ref());
        assert!(refusal.contains("expected a string"), "{refusal}");
    }
    object["metadata"]["labels"] = json!({});
    let mut bare = live("me", Some(10), None);
    bare.metadata.labels = None;
    assert_eq!(taken(&Want::Connected { object: &object, since: at(10), fresh: false }, Some(&bare)), "nothing");
}

#[test]
fn who_left_is_marked_and_goes_unless_another_replica_has_it() {
    let left = Want::Left { at: at(11), from: "me" };
    assert_eq!(taken(&left, Some(&live("me", Some(10), None))), "replace me - 11");
    assert_eq!(taken(&left, Some(&live("me", None, Some(9)))), "nothing");
    assert_eq!(taken(&left, Some(&live("other", Some(12), None))), "not ours");
    assert_eq!(taken(&left, None), "not ours");
    // Of a replica that is gone, with the time that it told.
    let left = Want::Left { at: at(50), from: "other" };
    assert_eq!(taken(&left, Some(&live("other", Some(12), None))), "replace me - 50");
    assert_eq!(taken(&left, Some(&live("other", None, Some(13)))), "replace me - 13");
    let gone = Want::Gone { at_once: false };
    assert_eq!(taken(&gone, Some(&live("me", None, Some(11)))), "delete");
    assert_eq!(taken(&gone, Some(&live("me", Some(12), None))), "not ours", "it has come back");
    assert_eq!(taken(&gone, Some(&live("other", None, Some(13)))), "not ours");
    assert_eq!(taken(&Want::Gone { at_once: true }, Some(&live("me", Some(12), None))), "delete", "its group is gone");
}

#[test]
fn only_the_leader_looks_after_what_others_left_over() {
    let of = |controller: &str, connected: Option<i64>, disconnected: Option<i64>| Registered {
        group: "vms".into(),
        controller: controller.into(),
        connected: connected.map(at),
        disconnected: disconnected.map(at),
    };
    let judged = |one: &Registered, leads| need(one, "me", leads, (Duration::from_secs(10), None), at(1000));
    assert_eq!(judged(&of("me", Some(1), None), false), Need::Adoption, "of an earlier process of ours");
    assert_eq!(judged(&of("other", Some(1), None), false), Need::Nothing);
    assert_eq!(judged(&of("other", Some(1), None), true), Need::Question("other".into()));
    assert_eq!(judged(&of("other", None, Some(995)), true), Need::Nothing, "it is the other's to delete");
    assert_eq!(judged(&of("other", None, Some(900)), true), Need::Adoption);
    let aged = |connected| {
        let limits = (Duration::from_secs(10), Some(Duration::from_secs(60)));
        need(&of("other", Some(connected), None), "me", true, limits, at(1000))
    };
    assert_eq!((aged(950), aged(500)), (Need::Question("other".into()), Need::Adoption));
}
