//! The data plane goes on without its controller, and is told only what changed when it returns.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::town::{SOON, Town};

#[test]
fn api_row_20_without_gateway_api_the_control_plane_starts_and_layer_4_works() -> Result<()> {
    let town = Town::found()?;
    let defined = town.lab.kubectl(&["get", "crds", "-o", "name"])?;
    ensure!(defined.contains("security.istio.io"), "{defined}");
    ensure!(!defined.contains("gateway.networking.k8s.io"), "this cluster is to have no Gateway API: {defined}");
    town.get("http://web/")?;
    town.lab.apply("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: town}\nspec: {}\n")?;
    eventually("policies are enforced", SOON, || town.refused("http://web/"))?;
    let log = town.lab.kubectl(&["logs", "-n", "istio-system", "deploy/istiod", "--tail=400"])?;
    let complaints = log.lines().filter(|line| line.contains("gateway") && line.contains("error")).count();
    ensure!(complaints == 0, "errors about what is not there: {log}");
    Ok(())
}

#[test]
fn traffic_goes_on_without_istiod_and_a_reconnect_brings_only_what_changed() -> Result<()> {
    let town = Town::found()?;
    town.start_load()?;
    let proxy = town.lab.ztunnel("node-1")?;
    let before = address_bytes(&town, &proxy)?;
    ensure!(before > 0, "the proxy has not counted what it was sent");
    town.lab.kubectl(&["scale", "-n", "istio-system", "deploy/istiod", "--replicas=0"])?;
    eventually("istiod is gone", SOON, || {
        let pods = town.lab.pods("istio-system", "app=istiod")?;
        ensure!(pods.is_empty(), "{pods:?}");
        Ok(())
    })?;
    // New connections between known workloads, and the load's, go on.
    for _ in 0..5 {
        town.get("http://web/")?;
    }
    town.lab.kubectl(&["scale", "-n", "istio-system", "deploy/istiod", "--replicas=1"])?;
    town.lab.rolled_out("istio-system", "istiod")?;
    // A change that only a connected proxy can learn.
    town.lab.apply("apiVersion: v1\nkind: Service\nmetadata: {name: fresh, namespace: town}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n")?;
    eventually("the reconnected proxy knows the new service", SOON, || {
        let args = ["ztunnel-config", "services", "--node", "node-1", "--service-namespace", "town", "-o", "json"];
        let said = town.lab.meltemi(&args)?.ok()?;
        ensure!(said.contains("fresh.town.svc"), "not known yet");
        Ok(())
    })?;
    let after = address_bytes(&town, &proxy)?;
    ensure!(
        after - before < before,
        "the reconnect brought {} bytes, all there is to know was {before}",
        after - before
    );
    let summary = town.end_load()?;
    ensure!(summary.get("failed").and_then(Value::as_u64) == Some(0), "requests failed: {summary}");
    Ok(())
}

/// Bytes of workload and service resources that a proxy was sent since it started.
fn address_bytes(town: &Town, proxy: &str) -> Result<u64> {
    let text = town.lab.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/namespaces/istio-system/pods/{proxy}:15020/proxy/metrics"),
    ]);
    let text = match text {
        Ok(text) => text,
        // The API server may not proxy: ask from inside the pod's own network.
        Err(_) => town.lab.exec("istio-system", proxy, &["load", "get", "http://127.0.0.1:15020/metrics"])?.ok()?,
    };
    let wanted =
        |line: &&str| line.starts_with("istio_xds_message_bytes_total") && line.contains("istio.workload.Address");
    let line = text.lines().find(wanted).with_context(|| format!("no such metric in {text}"))?;
    let value = line.rsplit(' ').next().context("no value")?;
    Ok(value.parse::<f64>().context("value")? as u64)
}
