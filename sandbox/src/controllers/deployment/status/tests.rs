#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use serde_json::json;

use super::*;

fn deployment(status: serde_json::Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "demo", "generation": 2},
        "spec": {"replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 60},
        "status": status,
    }))
    .unwrap()
}

fn set(name: &str, present: i32, available: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"replicas": present, "selector": {}},
        "status": {"replicas": present, "readyReplicas": available, "availableReplicas": available},
    }))
    .unwrap()
}

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn summary(report: &Report) -> Vec<(String, String, String)> {
    report
        .status
        .conditions
        .iter()
        .flatten()
        .map(|condition| {
            (condition.type_.clone(), condition.status.clone(), condition.reason.clone().unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_finished_rollout_is_available_and_has_progressed() {
    let new = set("web-1", 2, 2);
    let report = status(&deployment(json!({})), Some(&new), &[], at("2026-01-01T00:00:00Z"));
    assert_eq!(report.status.observed_generation, Some(2));
    assert_eq!(report.status.unavailable_replicas, Some(0));
    assert_eq!(
        summary(&report),
        [
            ("Available".into(), "True".into(), "MinimumReplicasAvailable".into()),
            ("Progressing".into(), "True".into(), "NewReplicaSetAvailable".into()),
        ]
    );
    assert!(report.deadline_in.is_none());
}

#[test]
fn a_rollout_without_progress_times_out_and_keeps_its_transition_times() {
    let new = set("web-1", 1, 0);
    let first = status(&deployment(json!({})), Some(&new), &[], at("2026-01-01T00:00:00Z"));
    assert_eq!(summary(&first)[0].1, "False");
    assert_eq!(first.deadline_in, Some(Duration::from_secs(61)));

    let written = serde_json::to_value(&first.status).unwrap();
    let later = status(&deployment(written.clone()), Some(&new), &[], at("2026-01-01T00:00:30Z"));
    assert_eq!(serde_json::to_value(&later.status).unwrap(), written, "nothing changed");
    assert_eq!(later.deadline_in, Some(Duration::from_secs(31)));

    let late = status(&deployment(written), Some(&new), &[], at("2026-01-01T00:01:00Z"));
    assert_eq!(summary(&late)[1].2, "ProgressDeadlineExceeded");
}

#[test]
fn old_pods_count_until_they_are_gone() {
    let new = set("web-2", 2, 2);
    let old = [Arc::new(set("web-1", 1, 1))];
    let report = status(&deployment(json!({})), Some(&new), &old, at("2026-01-01T00:00:00Z"));
    assert_eq!(report.status.replicas, Some(3));
    assert_eq!(report.status.updated_replicas, Some(2));
    assert_eq!(summary(&report)[1].2, "ReplicaSetUpdated");
}
