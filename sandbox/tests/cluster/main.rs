//! Kubelet, controllers, Services and DNS under a real kernel, through the API only.
//!
//! Pods use what every Debian has (`sh`, `perl`); names of tests state the rule.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod crash;
mod fixture;
mod lifecycle;
mod volumes;
mod workloads;

use std::collections::BTreeSet;

use fixture::{SERVER, Sandbox};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

/// A Deployment of `SERVER`, and what a pod of it needs to become ready.
pub(crate) fn web(replicas: u32, readiness: Value) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                "name": "web", "image": "local/perl", "command": ["perl", "-e", SERVER],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": readiness}]}}},
    })
}

/// A pod that stays and does nothing.
pub(crate) fn idle(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "app", "image": "local/sleep", "command": ["sleep", "infinity"]}]},
    })
}

pub(crate) fn available(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    status.observed_generation == deployment.metadata.generation
        && status.available_replicas == wanted
        && status.updated_replicas == wanted
        && status.replicas == wanted
}

#[tokio::test]
async fn a_deployment_of_two_answers_through_its_service_in_both_families_and_by_name() {
    let sandbox = Sandbox::up("web").await;
    sandbox.create::<Deployment>(web(2, json!({"httpGet": {"path": "/", "port": "http"}}))).await;
    let service: Service = sandbox
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}))
        .await;
    sandbox.create::<Pod>(idle("caller")).await;
    let deployment: Deployment = sandbox.wait("web", "available", available).await;
    let conditions = deployment.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().all(|condition| condition.status == "True"), "{conditions:?}");
    sandbox.ready("caller").await;

    let pods = sandbox.pods("app=web").await;
    let names: BTreeSet<String> = pods.iter().map(|pod| pod.name_any()).collect();
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
    assert_eq!(nodes.len(), 2, "replicas spread over the nodes");

    let ips = service.spec.unwrap().cluster_ips.unwrap();
    assert_eq!(ips.len(), 2);
    let hosts = [ips[0].as_str(), ips[1].as_str(), "web", "web.default.svc.cluster.local"];
    // From another pod, and from the Service's own pods, which sometimes reach themselves.
    let own = pods[0].name_any();
    for caller in ["caller", own.as_str()] {
        for host in hosts {
            let mut heard = BTreeSet::new();
            sandbox
                .until(&format!("{caller} reaching both pods at {host}"), async || {
                    heard.insert(sandbox.call(caller, host, 80).unwrap());
                    (heard == names).then_some(())
                })
                .await;
        }
    }
}

#[tokio::test]
async fn only_ready_pods_are_endpoints_and_a_service_without_any_refuses() {
    let sandbox = Sandbox::up("ready").await;
    sandbox
        .create::<Deployment>(web(1, json!({"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1})))
        .await;
    sandbox
        .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await;
    sandbox.create::<Pod>(idle("caller")).await;
    sandbox.ready("caller").await;
    let endpoint_ready = |ready: bool| {
        move |slice: &EndpointSlice| {
            let conditions = slice.endpoints.iter().filter_map(|endpoint| endpoint.conditions.as_ref());
            conditions.map(|conditions| conditions.ready).collect::<Vec<_>>() == [Some(ready)]
        }
    };
    sandbox.wait("web-ipv4-0", "listing an endpoint that is not ready", endpoint_ready(false)).await;
    let refused = sandbox.until("the refusal", async || sandbox.call("caller", "web", 80).err()).await;
    assert!(refused.contains("refused"), "refused at once, not timed out: {refused}");

    let pod = sandbox.pods("app=web").await.remove(0).name_any();
    sandbox.exec(&pod, &["touch", "/tmp/ready"]).unwrap();
    sandbox.wait("web-ipv4-0", "listing a ready endpoint", endpoint_ready(true)).await;
    sandbox.until("the answer", async || sandbox.call("caller", "web", 80).ok()).await;

    sandbox.exec(&pod, &["rm", "/tmp/ready"]).unwrap();
    sandbox.wait("web-ipv4-0", "listing an endpoint that is not ready", endpoint_ready(false)).await;
    sandbox.until("the refusal", async || sandbox.call("caller", "web", 80).err()).await;
}

#[tokio::test]
async fn a_headless_service_resolves_to_its_pods_and_unknown_names_fail_at_once() {
    let sandbox = Sandbox::up("headless").await;
    sandbox.create::<Deployment>(web(2, json!({"tcpSocket": {"port": 8080}}))).await;
    sandbox
        .create::<Service>(json!({"metadata": {"name": "all"}, "spec": {"selector": {"app": "web"},
            "clusterIP": "None", "ports": [{"name": "http", "port": 8080}]}}))
        .await;
    sandbox.create::<Pod>(idle("caller")).await;
    sandbox.ready("caller").await;
    sandbox.wait::<Deployment>("web", "available", available).await;
    let mut wanted: Vec<String> =
        sandbox.pods("app=web").await.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
    wanted.sort();
    sandbox
        .until("both addresses", async || {
            let text = sandbox.exec("caller", &["getent", "ahostsv4", "all"]).ok()?;
            let mut found: Vec<String> =
                text.lines().filter(|line| line.contains("STREAM")).filter_map(first_word).collect();
            found.sort();
            (found == wanted).then_some(())
        })
        .await;
    let began = std::time::Instant::now();
    assert!(sandbox.exec("caller", &["getent", "hosts", "nowhere.example.org"]).is_err());
    assert!(began.elapsed().as_secs() < 2, "answered, not timed out");
}

fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}
