//! What the chart lets the control plane do is what it does: it reads every kind that it knows, writes the statuses that it
//! manages and what it makes for Gateways, and may write nothing else that matters.

#![allow(clippy::unwrap_used)] // a test may

use std::path::PathBuf;

use istiod::source::resource;
use istiod::translate::conditions::MANAGED;
use istiod::translate::gateway::Kinds;
use istiod::world::Kind;
use serde_json::Value;

/// Rules of every ClusterRole of the chart.
fn rules() -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/charts/istiod/templates/rbac.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("{{-"));
    let plain: String = lines.map(|line| line.replace("{{", "").replace("}}", "") + "\n").collect();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&plain).unwrap();
    let roles = documents.into_iter().filter(|one| one["kind"] == "ClusterRole");
    roles.flat_map(|role| role.get("rules").unwrap().as_array().unwrap().clone()).collect()
}

fn has(rule: &Value, field: &str, wanted: &str) -> bool {
    rule[field].as_array().unwrap().iter().any(|one| one == wanted || one == "*")
}

fn may(rules: &[Value], verb: &str, group: &str, resource: &str) -> bool {
    let fits = |rule: &&Value| has(rule, "apiGroups", group) && has(rule, "resources", resource);
    rules.iter().filter(fits).any(|rule| has(rule, "verbs", verb))
}

#[test]
fn every_kind_can_be_read_and_every_status_written() {
    let rules = rules();
    for kind in Kind::ALL {
        let one = resource(kind);
        for verb in ["get", "list", "watch"] {
            assert!(may(&rules, verb, &one.group, &one.plural), "{verb} {}", kind.name());
        }
    }
    for (kind, ..) in MANAGED {
        let one = resource(*kind);
        let status = format!("{}/status", one.plural);
        assert!(may(&rules, "patch", &one.group, &status), "patch {}.{}", status, one.group);
    }
    for kind in Kinds::ALL {
        let one = kind.resource();
        for verb in ["get", "list", "watch", "create", "patch"] {
            assert!(may(&rules, verb, &one.group, &one.plural), "{verb} {}", kind.name());
        }
    }
    assert!(may(&rules, "create", "gateway.networking.k8s.io", "gatewayclasses"));
    // Entries of workloads that register themselves.
    for verb in ["get", "create", "update", "delete"] {
        assert!(may(&rules, verb, "networking.istio.io", "workloadentries"), "{verb} workloadentries");
    }
}

#[test]
fn nothing_is_written_that_is_not_the_control_planes() {
    let rules = rules();
    for verb in ["create", "update", "patch", "delete"] {
        for resource in ["pods", "secrets", "nodes", "namespaces", "endpoints"] {
            assert!(!may(&rules, verb, "", resource), "{verb} {resource}");
        }
        for resource in ["httproutes", "grpcroutes", "tlsroutes", "tcproutes", "gateways", "referencegrants"] {
            assert!(!may(&rules, verb, "gateway.networking.k8s.io", resource), "{verb} {resource}");
        }
        for resource in ["virtualservices", "destinationrules", "serviceentries"] {
            assert!(!may(&rules, verb, "networking.istio.io", resource), "{verb} {resource}");
        }
        for resource in ["daemonsets", "statefulsets", "replicasets"] {
            assert!(!may(&rules, verb, "apps", resource), "{verb} {resource}");
        }
        for resource in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
            assert!(!may(&rules, verb, "rbac.authorization.k8s.io", resource), "{verb} {resource}");
        }
    }
}
