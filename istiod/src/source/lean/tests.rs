use serde_json::json;

use super::*;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "a", "namespace": "ns", "uid": "u", "labels": {"env": "prod", "resources": "many"},
            "annotations": {"volumes": "two"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {
            "nodeName": "n", "hostNetwork": true, "volumes": [{"name": "x"}],
            "containers": [{"name": "c", "env": [{"name": "A"}], "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{}], "ratio": 0.5, "nothing": null},
    })
}

#[test]
fn what_is_not_read_is_left_out_and_all_else_stays() {
    let lean: Lean<OfPod> = serde_json::from_str(&pod().to_string()).unwrap();
    let object = lean.into_object();
    let labels = object.metadata.labels.unwrap();
    assert_eq!((labels["env"].as_str(), labels["resources"].as_str()), ("prod", "many"), "labels may have any name");
    assert_eq!(object.metadata.annotations.unwrap()["volumes"], "two");
    assert_eq!(object.metadata.managed_fields, None);
    assert!(object.metadata.creation_timestamp.is_some());
    let wanted = json!({
        "spec": {
            "nodeName": "n", "hostNetwork": true,
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "ratio": 0.5, "nothing": null},
    });
    assert_eq!(object.data, wanted);
}

#[test]
fn a_whole_object_is_as_a_dynamic_one_is() {
    let lean: Lean<Whole> = serde_json::from_str(&pod().to_string()).unwrap();
    let mut dynamic: DynamicObject = serde_json::from_value(pod()).unwrap();
    dynamic.metadata.managed_fields = None;
    let lean = lean.into_object();
    assert_eq!((lean.metadata, lean.data), (dynamic.metadata, dynamic.data));
}

#[test]
fn an_object_that_is_not_as_it_should_be_is_read_all_the_same() {
    for odd in [
        json!({"metadata": {"name": "a"}, "spec": 7}),
        json!({"metadata": {"name": "a"}, "spec": {"containers": "many"}}),
    ] {
        let lean: Lean<OfPod> = serde_json::from_str(&odd.to_string()).unwrap();
        assert_eq!(lean.into_object().data["spec"], odd["spec"]);
    }
    assert!(serde_json::from_str::<Lean<OfPod>>("[]").is_err());
}
