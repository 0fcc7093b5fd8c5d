//! The sandbox: quick to come, and gone without a trace.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests_support::{Lab, eventually};

#[test]
fn up_within_three_seconds_a_pod_within_half_a_second_and_down_without_a_trace() -> Result<()> {
    let began = Instant::now();
    let lab = Lab::up()?;
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(3), "up took {took:?}");
    lab.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\nspec: {containers: [{name: c, image: meltemi/sleep}]}\n")?;
    lab.kubectl(&["wait", "pod/p", "--for=condition=Ready", "--timeout=10s"])?;
    let began = Instant::now();
    lab.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: q, namespace: default}\nspec: {containers: [{name: c, image: meltemi/sleep}]}\n")?;
    let applied = began.elapsed();
    lab.kubectl(&["wait", "pod/q", "--for=condition=Ready", "--timeout=10s"])?;
    let took = began.elapsed();
    // The two kubectl processes take about as long as the first alone, twice.
    let limit = POD_START + applied * 2;
    ensure!(took < limit, "a pod took {took:?}, of which kubectl {applied:?} at least twice");
    let dir = lab.dir().to_owned();
    ensure!(!processes_of(&dir)?.is_empty(), "no process names the folder, so the check below would prove nothing");
    lab.sandbox(&["down"])?.ok()?;
    eventually("no process is left", Duration::from_secs(5), || no_trace(&dir))?;
    Ok(())
}

#[test]
fn a_killed_sandbox_leaves_nothing_and_starts_again() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let lab = Lab::up_in(temp.path())?;
    lab.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\nspec: {containers: [{name: c, image: meltemi/sleep}]}\n")?;
    lab.kubectl(&["wait", "pod/p", "--for=condition=Ready", "--timeout=10s"])?;
    for pid in processes_of(temp.path())? {
        // Only the daemon names the folder on its command line; its pods die with it.
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    }
    eventually("no process is left", Duration::from_secs(5), || no_trace(temp.path()))?;
    drop(lab);
    let lab = Lab::up_in(temp.path()).context("up after a crash")?;
    lab.kubectl(&["get", "nodes"])?;
    Ok(())
}

#[test]
fn a_load_balancer_is_reached_under_addresses_of_both_families_and_gives_them_back() -> Result<()> {
    let lab = Lab::up()?;
    lab.apply(include_str!("../../manifests/market.yaml"))?;
    for (namespace, name) in [("market", "shop-v1"), ("outside", "stranger")] {
        lab.rolled_out(namespace, name)?;
    }
    let service = |type_: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: edge, namespace: market}}\n\
             spec:\n  type: {type_}\n  ipFamilyPolicy: PreferDualStack\n  selector: {{app: shop}}\n  \
             ports: [{{name: http, port: 80, targetPort: http}}]\n"
        )
    };
    lab.apply(&service("LoadBalancer"))?;
    let addresses = || lab.field("market", "service/edge", ".status.loadBalancer.ingress[*].ip");
    let found = eventually("both families have an address", Duration::from_secs(5), || {
        let found = addresses()?;
        ensure!(found.split_whitespace().count() == 2, "{found:?}");
        Ok(found)
    })?;
    for ip in found.split_whitespace() {
        let url = if ip.contains(':') { format!("http://[{ip}]/") } else { format!("http://{ip}/") };
        eventually(&url, Duration::from_secs(5), || {
            lab.exec("outside", "deploy/stranger", &["load", "get", &url])?.ok()
        })?;
    }
    lab.apply(&service("ClusterIP"))?;
    eventually("the addresses are gone", Duration::from_secs(5), || {
        let found = addresses()?;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
}

/// A pod is ready this long after it was created.
const POD_START: Duration = Duration::from_millis(500);

/// Processes whose command line names the folder, but for the commands of the test itself.
fn processes_of(dir: &Path) -> Result<Vec<u32>> {
    let dir = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let names = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&dir);
        if pid != std::process::id() && (names(&line) || names(&environment)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn no_trace(dir: &Path) -> Result<()> {
    let processes = processes_of(dir)?;
    ensure!(processes.is_empty(), "processes {processes:?}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&dir.display().to_string()), "a mount is left");
    Ok(())
}
