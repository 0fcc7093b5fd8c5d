//! Who may register, and what their entries say.

use super::*;
use crate::registration::{Claim, Refusal, entry};
use mesh_wire::discovery::Locality;
use tonic::{Code, Status};

fn claim(metadata: Value) -> Result<Option<Claim>, Refusal> {
    Claim::of(&node(metadata), "a")
}

fn judged(objects: &[(Kind, Value)], metadata: Value, caller: Option<&Caller>) -> Result<(), Refusal> {
    let model = model(objects);
    let claim = claim(metadata)?.expect("it wants to be registered");
    claim.judge(caller, model.read().unwrap().world()).map(drop)
}

#[test]
fn who_names_no_group_is_none_of_our_business() {
    assert_eq!(claim(json!({})), Ok(None));
    assert_eq!(claim(json!({"AUTO_REGISTER_GROUP": "", "INSTANCE_IPS": "x"})), Ok(None));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_name_of_the_field() {
    for (metadata, part) in [
        (json!({"AUTO_REGISTER_GROUP": 7}), "AUTO_REGISTER_GROUP \"7\": expected a text"),
        (json!({"AUTO_REGISTER_GROUP": "../x"}), "AUTO_REGISTER_GROUP"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "nowhere"}), "INSTANCE_IPS \"nowhere\""),
        (json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "127.0.0.1"}), "INSTANCE_IPS"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "::"}), "INSTANCE_IPS"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "fe80::1"}), "INSTANCE_IPS"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "NETWORK": "N 1"}), "NETWORK"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "LABELS": "app=x"}), "LABELS \"app=x\": expected an object"),
        (json!({"AUTO_REGISTER_GROUP": "vms", "LABELS": ["app"]}), "LABELS \"a list\""),
        (json!({"AUTO_REGISTER_GROUP": "vms", "LABELS": {"app": 7}}), "LABELS \"app\""),
    ] {
        let refusal = claim(metadata.clone()).unwrap_err();
        assert!(refusal.to_string().contains(part), "{metadata}: {refusal}");
        assert_eq!(Status::from(refusal).code(), Code::InvalidArgument);
    }
    let many: serde_json::Map<_, _> = (0..65).map(|number| (format!("l{number}"), json!("x"))).collect();
    assert!(claim(json!({"AUTO_REGISTER_GROUP": "vms", "LABELS": many})).is_err());
}

#[test]
fn without_addresses_the_one_of_the_id_counts() {
    let told = claim(json!({"AUTO_REGISTER_GROUP": "vms"})).unwrap().unwrap();
    assert_eq!(told.address.to_string(), "10.0.0.7");
    let node = Node { id: "sidecar~~vm1.a~x".into(), ..node(json!({"AUTO_REGISTER_GROUP": "vms"})) };
    let refusal = Claim::of(&node, "a").unwrap_err();
    assert!(refusal.to_string().starts_with("INSTANCE_IPS"), "{refusal}");
}

#[test]
fn only_the_service_account_of_the_group_may_register() {
    let objects = [(Kind::WorkloadGroup, group())];
    let vms = || json!({"AUTO_REGISTER_GROUP": "vms"});
    let code = |outcome: Result<(), Refusal>| {
        let status = Status::from(outcome.unwrap_err());
        (status.code(), status.message().to_owned())
    };
    assert_eq!(judged(&objects, vms(), Some(&caller("a", "vm"))), Ok(()));
    let (denied, text) = code(judged(&objects, vms(), Some(&caller("a", "other"))));
    assert_eq!(denied, Code::PermissionDenied);
    assert!(text.contains("SERVICE_ACCOUNT \"other\"") && text.contains("\"vm\""), "{text}");
    let (denied, text) = code(judged(&objects, vms(), Some(&caller("b", "vm"))));
    assert_eq!(denied, Code::PermissionDenied);
    assert!(text.contains("NAMESPACE \"a\"") && !text.contains("account"), "{text}");
    let (missing, text) = code(judged(&[], vms(), Some(&caller("a", "vm"))));
    assert_eq!((missing, text.as_str()), (Code::NotFound, "AUTO_REGISTER_GROUP: there is no WorkloadGroup a/vms"));
    assert_eq!(code(judged(&objects, vms(), None)).0, Code::PermissionDenied, "nobody knows who that is");
    let foreign = Caller { cluster: Some("other".into()), ..caller("a", "vm") };
    assert_eq!(code(judged(&objects, vms(), Some(&foreign))).0, Code::PermissionDenied);
}

#[test]
fn a_network_other_than_that_of_the_group_is_refused() {
    let mut group = group();
    group["spec"]["template"]["network"] = json!("n1");
    let objects = [(Kind::WorkloadGroup, group)];
    let of = |network: &str| json!({"AUTO_REGISTER_GROUP": "vms", "NETWORK": network});
    let vm = caller("a", "vm");
    assert_eq!(judged(&objects, of("n1"), Some(&vm)), Ok(()));
    assert_eq!(judged(&objects, of(""), Some(&vm)), Ok(()));
    assert!(judged(&objects, of("n2"), Some(&vm)).unwrap_err().to_string().contains("NETWORK \"n2\""));
}

#[test]
fn an_address_of_somebody_else_is_taken() {
    let vm = |name: &str, network: &str, annotations: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": "b", "annotations": annotations},
            "spec": {"address": "10.0.0.7", "network": network},
        })
    };
    let taken = |objects: &[(Kind, Value)]| {
        let model = model(objects);
        let claim = claim(json!({"AUTO_REGISTER_GROUP": "vms"})).unwrap().unwrap();
        claim.is_elsewhere(&entry::name(&claim), "", model.read().unwrap().world())
    };
    assert!(!taken(&[]));
    assert!(taken(&[(Kind::WorkloadEntry, vm("x", "", json!({})))]));
    assert!(!taken(&[(Kind::WorkloadEntry, vm("x", "n2", json!({})))]), "another network");
    let left = json!({"istio.io/autoRegistrationGroup": "g", "istio.io/disconnectedAt": "2026-01-01T00:00:00Z"});
    assert!(!taken(&[(Kind::WorkloadEntry, vm("x", "", left))]), "that machine is gone");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "b", "uid": "u"},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}]},
    });
    assert!(taken(&[(Kind::Pod, pod)]));
}

#[test]
fn an_address_is_free_again_when_the_last_one_who_has_it_is_gone() {
    let pod = |name: &str, ip: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "b", "uid": name},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        })
    };
    let entry = |address: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "x", "namespace": "b"}, "spec": {"address": address},
        })
    };
    let model = model(&[]);
    let claim = claim(json!({"AUTO_REGISTER_GROUP": "vms"})).unwrap().unwrap();
    let taken = || claim.is_elsewhere(&entry::name(&claim), "", model.read().unwrap().world());
    let forget = |kind: Kind, name: &str| {
        let key = mesh_core::names::NamespacedName::new("b", name);
        model.write().unwrap().apply(crate::world::Change::Delete(kind, key));
    };
    // Pods of the network of a node share its address.
    for (name, ip) in [("p", "10.0.0.7"), ("q", "10.0.0.7"), ("p", "10.0.0.7")] {
        tell(&model, Kind::Pod, &pod(name, ip));
    }
    tell(&model, Kind::Pod, &pod("p", "10.0.0.8"));
    assert!(taken(), "q has it");
    forget(Kind::Pod, "q");
    assert!(!taken(), "p has another one by now");
    for (address, expected) in [("10.0.0.7", true), ("db.example.com", false), ("10.0.0.7", true)] {
        tell(&model, Kind::WorkloadEntry, &entry(address));
        assert_eq!(taken(), expected, "{address}");
    }
    forget(Kind::WorkloadEntry, "x");
    assert!(!taken());
}

#[test]
fn names_are_those_of_the_reference_and_always_valid() {
    let name = |metadata: Value| entry::name(&claim(metadata).unwrap().unwrap()).name.to_string();
    assert_eq!(name(json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "10.1.2.3"})), "vms-10.1.2.3");
    let told = json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "fd00::A:1, 10.1.2.3", "NETWORK": "n1"});
    assert_eq!(name(told), "vms-fd00--a-1-n1");
    assert_eq!(name(json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "fd00::"})), "vms-fd00--0");
    assert_eq!(name(json!({"AUTO_REGISTER_GROUP": "vms", "INSTANCE_IPS": "::ffff:10.1.2.3"})), "vms-10.1.2.3");
    let long = "g".repeat(250);
    let of = |ip: &str| name(json!({"AUTO_REGISTER_GROUP": long, "INSTANCE_IPS": ip}));
    assert!(of("10.1.2.3").len() <= 253 && of("10.1.2.3") != of("10.1.2.4"), "{}", of("10.1.2.3"));
}

#[test]
fn an_entry_follows_its_group_and_a_workload_adds_only_labels_of_its_own() {
    let mut group = group();
    group["spec"]["probe"] = json!({"httpGet": {"port": 8080}});
    let model = model(&[(Kind::WorkloadGroup, group)]);
    let labels = json!({"app": "evil", "zone": "3", "istio.io/use-waypoint": "none"});
    let claim = claim(json!({"AUTO_REGISTER_GROUP": "vms", "NETWORK": "n1", "LABELS": labels})).unwrap().unwrap();
    let model = model.read().unwrap();
    let group = model.world().workload_group(&claim.group).unwrap();
    let made = entry::object(&claim, group);
    let labels = json!({"app": "shop", "version": "v1", "zone": "3"});
    let expected = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {
            "name": "vms-10.0.0.7-n1", "namespace": "a", "labels": labels,
            "annotations": {
                "team": "blue", "istio.io/autoRegistrationGroup": "vms",
                "proxy.istio.io/health-checks-enabled": "true",
            },
            "ownerReferences": [{
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "name": "vms", "uid": "group-uid",
                "controller": true,
            }],
        },
        "spec": {
            "address": "10.0.0.7", "ports": {"http": 8080}, "labels": labels, "network": "n1", "locality": "r/z",
            "weight": 7, "serviceAccount": "vm",
        },
    });
    assert_eq!(made, expected);
}

#[test]
fn a_workload_stands_where_its_group_says_or_else_where_it_says() {
    let told = |locality: [&str; 3]| {
        let [region, zone, sub_zone] = locality.map(str::to_owned);
        let locality = Some(Locality { region, zone, sub_zone });
        Claim::of(&Node { locality, ..node(json!({"AUTO_REGISTER_GROUP": "vms"})) }, "a").map(Option::unwrap)
    };
    let written = |locality: [&str; 3], template: Option<&str>| {
        let mut group = group();
        group["spec"]["template"]["locality"] = json!(template);
        let model = model(&[(Kind::WorkloadGroup, group)]);
        let (model, claim) = (model.read().unwrap(), told(locality).unwrap());
        let made = entry::object(&claim, model.world().workload_group(&claim.group).unwrap());
        made["spec"]["locality"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(written(["eu", "eu-1", "rack2"], None), "eu/eu-1/rack2");
    assert_eq!(written(["eu", "eu-1", ""], Some("")), "eu/eu-1");
    assert_eq!(written(["eu", "", "rack2"], None), "eu", "nobody knows the zone of that rack");
    assert_eq!(written(["", "eu-1", ""], None), "");
    assert_eq!(written(["eu", "eu-1", ""], Some("us/us-1")), "us/us-1", "what the group says holds");
    for wrong in ["eu/x", "e\nu", &"x".repeat(64)] {
        let refusal = told([wrong, "", ""]).unwrap_err();
        assert!(refusal.to_string().starts_with("locality"), "{refusal}");
    }
}

#[test]
fn a_watched_workload_is_unhealthy_until_its_agent_says_otherwise() {
    use mesh_wire::workload::WorkloadStatus;
    let told = |annotations: Value, conditions: Value| {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "x", "namespace": "a", "annotations": annotations},
            "spec": {"address": "10.0.0.7"}, "status": {"conditions": conditions},
        });
        let model = model(&[(Kind::WorkloadEntry, object)]);
        let model = model.read().unwrap();
        let entry = model.world().workload_entries().next().unwrap();
        crate::translate::workload_entry::workload(model.world(), entry).status == i32::from(WorkloadStatus::Healthy)
    };
    let watched = || json!({"proxy.istio.io/health-checks-enabled": "true"});
    let said = |status: &str| json!([{"type": "Other", "status": "True"}, {"type": "Healthy", "status": status}]);
    assert!(told(json!({}), json!([])) && told(json!({}), said("False")), "nobody watches");
    assert!(!told(watched(), json!([])), "nothing was said yet");
    assert!(!told(watched(), said("False")));
    assert!(told(watched(), said("True")));
}
