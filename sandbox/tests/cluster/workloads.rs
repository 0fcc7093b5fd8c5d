//! DaemonSets, Jobs, rollouts and the scheduler.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::Sandbox;
use crate::{available, idle, web};

fn complete(set: &DaemonSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.observed_generation == set.metadata.generation
        && status.desired_number_scheduled == 2
        && status.updated_number_scheduled == Some(2)
        && status.number_available == Some(2)
}

#[tokio::test]
async fn a_daemon_set_runs_on_every_node_and_is_replaced_node_by_node() {
    let sandbox = Sandbox::up("daemons").await;
    let mut pod = idle("agent")["spec"].clone();
    pod["hostNetwork"] = json!(true);
    sandbox
        .create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod}}}))
        .await;
    sandbox.wait("agent", "on both nodes", complete).await;
    let pods = sandbox.pods("app=agent").await;
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone().unwrap()).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["node-1", "node-2"]);
    let host_ips: Vec<_> = pods.iter().map(|pod| pod.status.clone().unwrap()).collect();
    assert!(host_ips.iter().all(|status| status.pod_ip == status.host_ip), "host network");

    let before: BTreeSet<_> = pods.iter().map(|pod| pod.uid()).collect();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    sandbox.api::<DaemonSet>().patch("agent", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    sandbox.wait("agent", "replaced", |set: &DaemonSet| set.metadata.generation == Some(2) && complete(set)).await;
    sandbox
        .until("only new pods", async || {
            let after: BTreeSet<_> = sandbox.pods("app=agent").await.iter().map(|pod| pod.uid()).collect();
            (after.len() == 2 && after.is_disjoint(&before)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_rollout_keeps_its_pods_available_and_a_deleted_pod_is_replaced() {
    let sandbox = Sandbox::up("rollout").await;
    let mut deployment = web(2, json!({"tcpSocket": {"port": "http"}}));
    deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    sandbox.create::<Deployment>(deployment).await;
    sandbox.wait("web", "available", available).await;

    let victim = sandbox.pods("app=web").await.remove(0).name_any();
    sandbox.api::<Pod>().delete(&victim, &DeleteParams::default()).await.unwrap();
    sandbox.wait_gone::<Pod>(&victim).await;
    sandbox.wait("web", "available again", available).await;

    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    let api = sandbox.api::<Deployment>();
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let mut fewest = i32::MAX;
    sandbox
        .until("the rollout", async || {
            let now = api.get("web").await.unwrap();
            fewest = fewest.min(now.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0));
            let observed = now.status.as_ref().and_then(|status| status.observed_generation);
            (observed >= patched.metadata.generation && available(&now)).then_some(())
        })
        .await;
    assert_eq!(fewest, 2, "never fewer than wanted");
    let sets = sandbox.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|set| {
            (set.annotations()["deployment.kubernetes.io/revision"].clone(), set.spec.as_ref().unwrap().replicas)
        })
        .collect();
    revisions.sort();
    assert_eq!(revisions, [("1".to_owned(), Some(0)), ("2".to_owned(), Some(2))]);
}

#[tokio::test]
async fn a_job_runs_to_completion_and_its_log_stays() {
    let sandbox = Sandbox::up("job").await;
    sandbox
        .create::<Job>(json!({"metadata": {"name": "sum"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "local/sh", "command": ["sh", "-c", "echo $((2+3))"]}]}}}}))
        .await;
    sandbox
        .wait("sum", "complete", |job: &Job| {
            let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
        })
        .await;
    let pod = sandbox.pods("job-name=sum").await.remove(0).name_any();
    assert_eq!(sandbox.command(&["logs", &pod]).unwrap().trim(), "5");
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_runs_once_a_node_fits() {
    let sandbox = Sandbox::up("fit").await;
    let mut pod = idle("picky");
    pod["spec"]["nodeSelector"] = json!({"disk": "fast"});
    sandbox.create::<Pod>(pod).await;
    let refused = sandbox
        .wait("picky", "refused", |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
        })
        .await;
    let message = refused.status.unwrap().conditions.unwrap()[0].message.clone().unwrap();
    assert!(message.starts_with("0/2 nodes are available: 2 node(s) didn't match"), "{message}");
    let client = sandbox.api::<Pod>().into_client();
    let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(client);
    let label = json!({"metadata": {"labels": {"disk": "fast"}}});
    nodes.patch("node-2", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    assert_eq!(sandbox.ready("picky").await.spec.unwrap().node_name.as_deref(), Some("node-2"));
}
