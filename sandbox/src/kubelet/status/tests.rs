#![allow(clippy::indexing_slicing, reason = "a test that indexes out of range fails")]

use serde_json::{Value, json};

use super::super::record::PodRecord;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(spec: Value, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap()
}

fn ended(code: i32) -> Stage {
    Stage::Ended(Ended {
        exit_code: code,
        reason: "Error".into(),
        started_at: Some(at(0)),
        finished_at: at(1),
        container_id: Some("abc".into()),
    })
}

fn running() -> Stage {
    Stage::Running { since: at(0) }
}

fn waiting() -> Stage {
    Stage::Waiting { reason: "CrashLoopBackOff".into(), message: None }
}

fn simple(policy: &str, init: usize) -> Pod {
    let containers = |count: usize, prefix: &str| -> Vec<Value> {
        (0..count).map(|n| json!({"name": format!("{prefix}{n}"), "image": "i"})).collect()
    };
    pod(
        json!({"restartPolicy": policy, "containers": containers(2, "c"), "initContainers": containers(init, "i")}),
        json!({}),
    )
}

#[test]
fn the_phase_follows_containers_and_policy() {
    let table = [
        ("Always", running(), running(), "Running"),
        ("Always", running(), ended(1), "Running"),
        ("Always", ended(0), ended(1), "Running"),
        ("Never", ended(0), ended(1), "Failed"),
        ("Never", ended(0), ended(0), "Succeeded"),
        ("OnFailure", ended(0), ended(0), "Succeeded"),
        ("OnFailure", ended(0), ended(1), "Running"),
        ("Never", ended(0), running(), "Running"),
        ("Always", waiting(), ended(0), "Pending"),
    ];
    for (policy, first, second, expected) in table {
        let pod = simple(policy, 0);
        let record = PodRecord::new(&pod, vec![], at(0));
        record.container("c0", |one| one.stage = first.clone());
        record.container("c1", |one| one.stage = second.clone());
        let status = pod_status(&pod, &record.state(), at(5));
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy} {first:?} {second:?}");
    }
}

#[test]
fn init_containers_hold_the_pod_pending_or_fail_it() {
    for (policy, stage, expected) in
        [("Always", running(), "Pending"), ("Always", ended(1), "Pending"), ("Never", ended(1), "Failed")]
    {
        let pod = simple(policy, 1);
        let record = PodRecord::new(&pod, vec![], at(0));
        record.container("i0", |one| one.stage = stage);
        let status = pod_status(&pod, &record.state(), at(5));
        assert_eq!(status.phase.as_deref(), Some(expected));
        let initialized = status.conditions.unwrap().into_iter().find(|one| one.type_ == "Initialized").unwrap();
        assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [i0]"));
    }
}

fn ready_of(status: &PodStatus) -> &PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|one| one.type_ == "Ready").unwrap()
}

#[test]
fn ready_needs_all_containers_and_gates_and_keeps_its_time() {
    let pod_with = |status: Value| {
        pod(json!({"containers": [{"name": "c0"}], "readinessGates": [{"conditionType": "x/gate"}]}), status)
    };
    let closed = pod_with(json!({}));
    let record = PodRecord::new(&closed, vec!["172.30.0.11".parse().unwrap()], at(0));
    record.container("c0", |one| {
        one.stage = running();
        one.container_id = Some("abc".into());
        one.started = true;
    });
    let status = pod_status(&closed, &record.state(), at(5));
    assert_eq!(ready_of(&status).reason.as_deref(), Some("ContainersNotReady"));
    record.container("c0", |one| one.ready = true);
    let status = pod_status(&closed, &record.state(), at(6));
    assert_eq!(ready_of(&status).reason.as_deref(), Some("ReadinessGatesNotReady"));

    let open = pod_with(json!({"conditions": [{"type": "x/gate", "status": "True"}]}));
    let status = pod_status(&open, &record.state(), at(7));
    assert_eq!(ready_of(&status).status, "True");
    let kept = pod_with(serde_json::to_value(&status).unwrap());
    let later = pod_status(&kept, &record.state(), at(60));
    assert_eq!(later, status, "nothing changed, so nothing is written");
    let container = &later.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.container_id.as_deref(), Some("sandbox://abc"));
    assert_eq!(later.host_ip.as_deref(), Some("172.30.0.11"));
}
