//! Objects that cannot be read.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use faults::Stage;
use faults::cluster::{namespaces, pods, policies, services};
use faults::objects::PodId;
use faults::plane::Options;
use faults::process::resident_kb;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_objects_that_cannot_be_read_cost_the_good_ones_nothing() -> Result<()> {
    let mut stage = Stage::set(200, &Options::default()).await?;
    let good = stage.mirror.known().resources;
    let before_kb = resident_kb(stage.plane.pid())?;
    stage.cluster.put(&namespaces(), json!({"metadata": {"name": "chaos", "uid": "chaos"}}))?;
    let started = Instant::now();
    for number in 0..FLOOD {
        let metadata = json!({"name": format!("bad-{number}"), "namespace": "chaos", "uid": format!("bad-{number}"), "generation": 1});
        match number % 10 {
            0 => {
                stage.cluster.put(&policies(), json!({"metadata": metadata, "spec": {"action": 7, "rules": "all"}}))?
            }
            1..5 => stage.cluster.put(&services(), json!({"metadata": metadata, "spec": {"ports": "many"}}))?,
            _ => stage
                .cluster
                .put(&pods(), json!({"metadata": metadata, "spec": {"containers": {"a": []}}, "status": 7}))?,
        };
    }
    let took = stage.hear_of(PodId(3), false, RECOVERY).await?;
    println!("a good change was told {took:?} after the flood, {:?} after its beginning", started.elapsed());
    let (known, changed) = (stage.mirror.known().resources, stage.size.uid(PodId(3)));
    let lost =
        good.iter().filter(|((_, name), _)| *name != changed).find(|(key, version)| known.get(*key) != Some(*version));
    ensure!(lost.is_none(), "changed or gone because of the flood: {lost:?}");
    let grown_mb = resident_kb(stage.plane.pid())?.saturating_sub(before_kb) / 1024;
    println!("memory grew by {grown_mb} MB");
    ensure!(grown_mb < GROWTH_MB_MAX, "memory grew by {grown_mb} MB");
    Ok(())
}

const FLOOD: usize = 10_000;
const RECOVERY: Duration = Duration::from_secs(15);
const GROWTH_MB_MAX: u64 = 200;
