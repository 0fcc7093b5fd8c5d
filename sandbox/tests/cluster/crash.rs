//! A sandbox that is killed, and the one that follows in its directory.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::ResourceExt;
use serde_json::json;

use crate::fixture::Sandbox;
use crate::{available, idle, web};

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

#[tokio::test]
async fn objects_of_a_killed_sandbox_are_back_and_their_pods_run_again() {
    let mut sandbox = Sandbox::up("killed").await;
    sandbox.create::<Deployment>(web(1, json!({"httpGet": {"path": "/", "port": "http"}}))).await;
    let service: Service = sandbox
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await;
    sandbox
        .create::<Pod>(json!({"metadata": {"name": "once"}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "c", "image": "local/sh", "command": ["sh", "-c", "exit 0"]}]}}))
        .await;
    sandbox.create::<Pod>(idle("caller")).await;
    sandbox.ready("caller").await;
    sandbox.wait("web", "available", available).await;
    let once = sandbox.wait("once", "finished", |pod: &Pod| phase(pod) == Some("Succeeded")).await;
    let deployment = sandbox.api::<Deployment>().get("web").await.unwrap();
    let before = sandbox.pods("app=web").await.remove(0);
    sandbox.create::<ConfigMap>(json!({"metadata": {"name": "last"}})).await;
    sandbox.kill();

    let said = sandbox.up_again().await;
    assert!(said.contains("are back"), "{said}");
    assert!(sandbox.api::<ConfigMap>().get("last").await.is_ok(), "not even the last write is lost");
    let again = sandbox.api::<Service>().get("web").await.unwrap();
    assert_eq!(again.spec.unwrap().cluster_ip, service.spec.unwrap().cluster_ip);
    assert_eq!(sandbox.api::<Deployment>().get("web").await.unwrap().uid(), deployment.uid());
    sandbox.wait("once", "left alone", |pod: &Pod| phase(pod) == Some("Succeeded") && pod.uid() == once.uid()).await;
    sandbox
        .until("the service answers again", async || {
            sandbox.call("caller", "web", 80).ok().filter(|body| !body.is_empty())
        })
        .await;
    let after = sandbox.pods("app=web").await.remove(0);
    assert_eq!(after.uid(), before.uid(), "the pod is the same, its processes are new");
    sandbox.kill();
    let said = sandbox.command(&["up", "--fresh"]).unwrap();
    assert!(!said.contains("are back"), "{said}");
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared_from_the_command_line() {
    let sandbox = Sandbox::up("faults").await;
    let set =
        sandbox.command(&["fault", "add", "--verb", "list", "--resource", "pods", "--status", "403", "--count", "2"]);
    assert!(set.unwrap().contains("fault 1 is set"));
    let refused = sandbox.api::<Pod>().list(&Default::default()).await.unwrap_err();
    assert!(refused.to_string().contains("fault 1 of the sandbox answers 403"), "{refused}");
    let listed = sandbox.command(&["fault", "list"]).unwrap();
    assert!(listed.contains("1: list of pods: status 403; applied 1 of 2 times"), "{listed}");
    sandbox.command(&["fault", "clear"]).unwrap();
    assert!(sandbox.api::<Pod>().list(&Default::default()).await.is_ok());
    assert!(sandbox.command(&["fault", "drop-watches"]).unwrap().contains("0 watches dropped"));
    assert!(sandbox.command(&["fault", "clear", "7"]).unwrap_err().contains("there is no fault 7"));
}
