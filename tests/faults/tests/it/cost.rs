//! What a change costs does not depend on how large the cluster is: counted, not timed.

use std::time::Duration;

use anyhow::{Result, ensure};
use faults::crowd::Crowd;
use faults::plane::Options;
use faults::process::resident_kb;
use faults::{Cluster, Plane, Size};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_pod_recomputes_and_sends_as_much_in_a_cluster_ten_times_the_size() -> Result<()> {
    let small = changes(Size { pods: 200 }).await?;
    let large = changes(Size { pods: 2_000 }).await?;
    println!("200 pods: {small:?}\n2,000 pods: {large:?}");
    for one in [&small, &large] {
        // The pod and its slice, and now and then one that follows from the start.
        ensure!(one.recomputed < 2.5, "{} resources were recomputed for each change", one.recomputed);
        ensure!(one.bytes < 1_500.0, "{} bytes for each change and proxy", one.bytes);
    }
    println!("slowest change {:?}, then {:?}", small.slowest, large.slowest);
    ensure!(large.recomputed <= small.recomputed * 2.0, "recomputing grows with the cluster");
    ensure!(large.bytes <= small.bytes * 2.0, "what is sent grows with the cluster");
    ensure!(
        large.resident_mb < small.resident_mb + 60,
        "memory: {} MB, then {} MB",
        small.resident_mb,
        large.resident_mb
    );
    Ok(())
}

/// For one change.
#[derive(Debug)]
struct Cost {
    /// Resources that were computed anew.
    recomputed: f64,
    /// Bytes sent to each proxy that was told.
    bytes: f64,
    /// Memory of the control plane at the end.
    resident_mb: u64,
    /// The slowest change.
    slowest: Duration,
}

async fn changes(size: Size) -> Result<Cost> {
    let cluster = Cluster::start().await?;
    cluster.populate(size)?;
    let env = vec![("PILOT_MAX_REQUESTS_PER_SECOND", "100".to_owned())];
    let plane = Plane::ready(&cluster, "istiod-1", &Options { program: None, env }).await?;
    let crowd = Crowd::start(&plane.target(&cluster).await?, size, PROXIES);
    crowd.synced(PATIENCE).await?;
    let (sent, recomputed) = (crowd.sent(), plane.metric(RECOMPUTED, "").await?);
    let mut slowest = Duration::ZERO;
    for number in 0..CHANGES {
        crowd.change(&cluster, number)?;
        let landed = crowd.landed(PATIENCE).await?;
        slowest = slowest.max(landed.iter().filter_map(|one| one.last()).max().unwrap_or_default());
    }
    let (after, more) = (crowd.sent(), plane.metric(RECOMPUTED, "").await? - recomputed);
    ensure!(more > 0.0, "{RECOMPUTED} does not count");
    Ok(Cost {
        recomputed: more / CHANGES as f64,
        bytes: (after.bytes - sent.bytes) as f64 / (after.responses - sent.responses).max(1) as f64,
        resident_mb: resident_kb(plane.pid())? / 1024,
        slowest,
    })
}

const PROXIES: usize = 50;
const CHANGES: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);
/// Resources that were computed anew since the start.
const RECOMPUTED: &str = "pilot_resources_recomputed";
