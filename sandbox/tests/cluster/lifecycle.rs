//! How pods start, fail and end.

use std::fs;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::Sandbox;

fn scripted(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": "local/sh", "command": ["sh", "-c", script]}]}})
}

fn first(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn waiting_for(pod: &Pod) -> Option<&str> {
    first(pod)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

#[tokio::test]
async fn a_crash_loop_backs_off_and_tells_how_the_last_run_ended() {
    let sandbox = Sandbox::up("crash").await;
    sandbox.create::<Pod>(scripted("crash", "exit 3")).await;
    let pod = sandbox
        .wait("crash", "in its third wait", |pod: &Pod| {
            waiting_for(pod) == Some("CrashLoopBackOff") && first(pod).is_some_and(|status| status.restart_count >= 2)
        })
        .await;
    let status = first(&pod).unwrap();
    assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!(pod.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    assert!(sandbox.event("crash", "BackOff").await.contains("Back-off restarting failed container c"));
}

#[tokio::test]
async fn a_dead_container_is_restarted_by_its_liveness_probe() {
    let sandbox = Sandbox::up("live").await;
    let mut pod = scripted("live", "touch /tmp/ok; sleep infinity");
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["test", "-f", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1,
            "initialDelaySeconds": 1});
    sandbox.create::<Pod>(pod).await;
    sandbox.ready("live").await;
    sandbox.exec("live", &["rm", "/tmp/ok"]).unwrap();
    sandbox.wait("live", "restarted", |pod: &Pod| first(pod).is_some_and(|status| status.restart_count == 1)).await;
    assert!(sandbox.event("live", "Killing").await.contains("failed liveness probe"));
}

#[tokio::test]
async fn termination_runs_the_hook_then_asks_then_takes_the_sidecars_last() {
    let sandbox = Sandbox::up("graceful").await;
    let say = |word: &str| format!("trap 'echo {word} >> /log/said; exit 0' TERM; sleep infinity & wait");
    let mount = json!([{"name": "log", "mountPath": "/log"}]);
    let pod = json!({"metadata": {"name": "polite"}, "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 20,
        "initContainers": [
            {"name": "first", "image": "local/sh", "command": ["sh", "-c", "echo init >> /log/said"], "volumeMounts": mount},
            {"name": "side", "image": "local/sh", "restartPolicy": "Always",
                "command": ["sh", "-c", say("sidecar")], "volumeMounts": mount}],
        "containers": [{"name": "c", "image": "local/sh", "command": ["sh", "-c", say("main")], "volumeMounts": mount,
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.3; echo hook >> /log/said"]}}}}],
        "volumes": [{"name": "log", "hostPath": {"path": "/var/log/polite", "type": "DirectoryOrCreate"}}]}});
    sandbox.create::<Pod>(pod).await;
    sandbox.ready("polite").await;
    let began = Instant::now();
    sandbox.api::<Pod>().delete("polite", &DeleteParams::default()).await.unwrap();
    sandbox.wait_gone::<Pod>("polite").await;
    assert!(began.elapsed().as_secs() < 10, "nobody had to be killed");
    let said = fs::read_to_string(sandbox.dir.join("nodes/node-1/var/log/polite/said")).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["init", "hook", "main", "sidecar"]);
}

#[tokio::test]
async fn a_deaf_container_is_killed_when_its_time_is_over_or_cut_short() {
    let sandbox = Sandbox::up("deaf").await;
    let deaf = "trap '' TERM; echo up; while true; do sleep 1; done";
    for name in ["patient", "hurried"] {
        let mut pod = scripted(name, deaf);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(if name == "patient" { 2 } else { 300 });
        sandbox.create::<Pod>(pod).await;
    }
    sandbox.ready("patient").await;
    sandbox.ready("hurried").await;
    let pods = sandbox.api::<Pod>();
    pods.delete("hurried", &DeleteParams::default()).await.unwrap();
    pods.delete("patient", &DeleteParams::default()).await.unwrap();
    sandbox.wait_gone::<Pod>("patient").await;
    assert!(pods.get_opt("hurried").await.unwrap().is_some(), "it has 300 s");
    pods.delete("hurried", &DeleteParams::default().grace_period(0)).await.unwrap();
    sandbox.wait_gone::<Pod>("hurried").await;
}

#[tokio::test]
async fn a_pod_whose_network_is_refused_stays_out_until_it_is_granted() {
    let sandbox = Sandbox::up("refused").await;
    let broken = sandbox.dir.join("nodes/node-1/etc/cni/net.d/05-broken.conflist");
    fs::write(&broken, r#"{"cniVersion":"1.0.0","name":"broken","plugins":[{"type":"nowhere"}]}"#).unwrap();
    let mut pod = scripted("late", "sleep infinity");
    pod["spec"]["nodeName"] = json!("node-1");
    sandbox.create::<Pod>(pod).await;
    let message = sandbox.event("late", "FailedCreatePodSandBox").await;
    assert!(message.contains("nowhere"), "{message}");
    let found = sandbox.api::<Pod>().get("late").await.unwrap();
    assert_eq!(waiting_for(&found), Some("ContainerCreating"));
    assert_eq!(found.status.unwrap().phase.as_deref(), Some("Pending"));
    fs::remove_file(&broken).unwrap();
    sandbox.ready("late").await;
}

#[tokio::test]
async fn a_pod_is_up_within_half_a_second() {
    let sandbox = Sandbox::up("fast").await;
    // The first start of a node also fills caches.
    for name in ["warm", "fast"] {
        let began = Instant::now();
        sandbox.create::<Pod>(scripted(name, "sleep infinity")).await;
        sandbox.ready(name).await;
        let took = began.elapsed();
        assert!(name == "warm" || took.as_millis() < 500, "took {took:?}");
    }
}
