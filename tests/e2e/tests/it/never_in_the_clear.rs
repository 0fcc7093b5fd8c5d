//! Not one plaintext byte between enrolled pods, whatever dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::town::{SOON, Town, now_us};

const TOKEN: &[u8] = b"token-of-the-town";

#[test]
fn not_one_plaintext_byte_while_components_are_killed_under_load() -> Result<()> {
    let town = Town::found()?;
    let captures = [town.lab.capture("node-1")?, town.lab.capture("node-2")?];
    town.start_load()?;
    let began = now_us();
    let mut ips = town.enrolled_ips()?;

    for node in ["node-1", "node-2"] {
        let pod = town.lab.ztunnel(node)?;
        town.lab.kill(&pod)?;
        town.restarted(&pod, 1)?;
        recovers(&town, &format!("the node proxy of {node}"))?;
    }
    for node in ["node-1", "node-2"] {
        let pod = town.lab.agent(node)?;
        town.lab.kill(&pod)?;
        town.restarted(&pod, 1)?;
        recovers(&town, &format!("the node agent of {node}"))?;
    }
    let istiod = town.pod("istio-system", "app=istiod")?;
    town.lab.kill(&istiod)?;
    town.restarted(&istiod, 1)?;
    recovers(&town, "istiod")?;

    // Pods come and go.
    for _ in 0..2 {
        let pod = town.pod("town", "app=web")?;
        town.lab.kubectl(&["delete", "pod", "-n", "town", &pod, "--wait=false"])?;
        town.lab.rolled_out("town", "web")?;
        ips.extend(town.enrolled_ips()?);
    }
    recovers(&town, "pods that were replaced")?;

    let summary = town.end_load()?;
    let requests = summary.get("requests").and_then(Value::as_u64).context("no count")?;
    let failed = summary.get("failed").and_then(Value::as_u64).context("no count")?;
    ensure!(requests > failed, "not one request went through: {summary}");
    for capture in captures {
        let packets = town.lab.captured(capture)?;
        let between = packets.between(&ips).since(began);
        ensure!(between.bytes_with(15008) > 0, "the capture missed the tunnels");
        let plain = between.payload_outside(15008);
        ensure!(plain.is_empty(), "{} plaintext segments, first: {:?}", plain.len(), plain.first());
        ensure!(!packets.since(began).contains(TOKEN), "the token of the requests was readable on the link");
    }
    Ok(())
}

/// Traffic goes again within 5 s.
fn recovers(town: &Town, what: &str) -> Result<()> {
    let began = Instant::now();
    eventually(&format!("traffic recovers after {what}"), Duration::from_secs(5), || town.get("http://web/"))?;
    ensure!(began.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[test]
fn a_pod_born_without_a_node_proxy_waits_for_it() -> Result<()> {
    let town = Town::found()?;
    // Keep the node proxy away: its nodes are none for a while.
    let away = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"nowhere"}}}}}"#;
    town.lab.kubectl(&["patch", "daemonset", "ztunnel", "-n", "istio-system", "-p", away])?;
    eventually("no node proxy is left", SOON, || {
        let pods = town.lab.pods("istio-system", "app=ztunnel")?;
        ensure!(pods.is_empty(), "{pods:?}");
        Ok(())
    })?;
    town.lab.apply(NEWCOMER)?;
    // The runtime has tried and been refused, with a reason; the pod has not started.
    eventually("the refusal is an event on the pod", SOON, || {
        let field = "--field-selector=involvedObject.name=newcomer";
        let events = town.lab.kubectl(&["get", "events", "-n", "town", field, "-o", "jsonpath={.items[*].message}"])?;
        ensure!(events.contains("istio-cni"), "events: {events}");
        Ok(())
    })?;
    let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
    ensure!(town.lab.field("town", "pod/newcomer", ready)? != "True", "the pod is ready without a node proxy");
    let back = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":null}}}}}"#;
    town.lab.kubectl(&["patch", "daemonset", "ztunnel", "-n", "istio-system", "-p", back])?;
    town.lab.kubectl(&["wait", "-n", "town", "pod/newcomer", "--for=condition=Ready", "--timeout=30s"])?;
    eventually("and it has a network", SOON, || town.get_from("town", "newcomer", "http://web/"))?;
    Ok(())
}

const NEWCOMER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: newcomer, namespace: town, labels: {app: newcomer}}
spec:
  serviceAccountName: client
  nodeSelector: {kubernetes.io/hostname: node-1}
  containers: [{name: c, image: meltemi/load, command: ["sleep", "infinity"]}]
"#;
