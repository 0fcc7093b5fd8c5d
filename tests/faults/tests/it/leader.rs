//! Several replicas: one writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use faults::cluster::{SYSTEM, configs, namespaces, policies};
use faults::plane::Options;
use faults::wait::eventually;
use faults::{Plane, Size, Stage};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xds_row_19_a_killed_leader_is_replaced_within_fifteen_seconds_and_nothing_is_written_twice() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    written(&stage, 0).await?;
    ensure!(stage.holder(LOCK).as_deref() == Some("istiod-1"), "{:?} leads", stage.holder(LOCK));
    let mut second = Plane::ready(&stage.cluster, "istiod-2", &Options::default()).await?;
    let before = revisions(&stage);
    ensure!(!before.is_empty(), "no status was written");

    stage.plane.kill()?;
    let killed = Instant::now();
    // Proxies are served all the while.
    let mut mirror = faults::Mirror::start(faults::ads::Proxy::reader(5), &second.target(&stage.cluster).await?);
    let all = stage.mirror.known().resources;
    mirror.wait("the other replica serves", Duration::from_secs(10), |known| known.resources == all).await?;
    stage.cluster.put(&namespaces(), Size::namespace_object(900))?;
    stage.cluster.put(&policies(), Size::policy_object(900))?;
    written(&stage, 900).await.with_context(|| second.last_words())?;
    println!("the other replica wrote {:?} after the leader was killed", killed.elapsed());
    ensure!(killed.elapsed() < Duration::from_secs(16), "it took {:?}", killed.elapsed());
    ensure!(stage.holder(LOCK).as_deref() == Some("istiod-2"), "{:?} leads", stage.holder(LOCK));

    // The killed one comes back, sees that somebody leads, and writes nothing.
    stage.plane.restart()?;
    stage.plane.await_ready(Duration::from_secs(15)).await?;
    let after = revisions(&stage);
    for (name, revision) in &before {
        ensure!(
            after.get(name) == Some(revision),
            "{name} was written again: {revision:?}, then {:?}",
            after.get(name)
        );
    }
    ensure!(second.runs()?, "the second replica ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_somebody_whose_clock_is_years_ahead_is_taken_over_all_the_same() -> Result<()> {
    let size = Size { pods: PODS };
    let cluster = faults::Cluster::start().await?;
    cluster.populate(size)?;
    let ahead = "2099-01-01T00:00:00.000000Z";
    let lease = json!({
        "metadata": {"name": LOCK, "namespace": SYSTEM, "uid": "lease"},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 5, "acquireTime": ahead, "renewTime": ahead, "leaseTransitions": 1},
    });
    cluster.put(&configs::leases(), lease)?;
    let plane = Plane::ready(&cluster, "istiod-1", &Options::default()).await?;
    let started = Instant::now();
    eventually("the lease is taken over", Duration::from_secs(15), async || {
        let lease = cluster.get(&configs::leases(), Some(SYSTEM), LOCK).context("no lease")?;
        let holder = lease.value().pointer("/spec/holderIdentity").and_then(Value::as_str);
        ensure!(holder == Some(plane.name()), "{holder:?} holds it");
        Ok(())
    })
    .await?;
    println!("taken over after {:?}", started.elapsed());
    ensure!(started.elapsed() > Duration::from_secs(2), "it was taken before it could be seen to be silent");
    Ok(())
}

/// Waits until the policy of a namespace has a status.
async fn written(stage: &Stage, namespace: usize) -> Result<()> {
    eventually("a status is written", Duration::from_secs(20), async || {
        let policy =
            stage.cluster.get(&policies(), Some(&format!("team-{namespace:03}")), "same-team").context("no policy")?;
        ensure!(policy.value().pointer("/status/conditions").is_some(), "no status");
        Ok(())
    })
    .await
}

/// Revision of every policy that has a status: it changes with every write.
fn revisions(stage: &Stage) -> BTreeMap<String, u64> {
    let of = |namespace: usize| {
        let name = format!("team-{namespace:03}");
        let policy = stage.cluster.get(&policies(), Some(&name), "same-team")?;
        policy.value().pointer("/status/conditions").map(|_| (name, policy.revision()))
    };
    (0..stage.size.namespaces()).filter_map(of).collect()
}

const PODS: usize = 500;
const LOCK: &str = "istio-status-leader";
