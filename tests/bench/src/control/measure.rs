//! One cluster: start, proxies, changes.

use std::time::Duration;

use anyhow::{Context, Result};
use faults::plane::Options;
use faults::process::{cpu_s, peak_kb, resident_kb};
use faults::{Cluster, Crowd, Plane, Size};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Control, Found};
use crate::case::Metric;

/// Runs one control plane through all of it.
pub(super) async fn run(control: &Control, size: Size) -> Result<Found> {
    let cluster = Cluster::start().await?;
    cluster.populate(size)?;
    // Proxies come all at once here, which is not what is measured; in life they are let in by and by.
    let env = vec![("PILOT_MAX_REQUESTS_PER_SECOND", "1000".to_owned())];
    let options = Options { program: Some(control.program.clone()), env };
    let mut plane = Plane::start(&cluster, "istiod-1", &options)?;
    let ready = plane.await_ready(READY).await?;
    let mut found = vec![
        ("snapshot ready s", ready.as_secs_f64(), Some(Metric::SnapshotS)),
        ("  CPU s until then", cpu_s(plane.pid())?, None),
        ("  RSS MB then", megabytes(resident_kb(plane.pid())?), None),
    ];
    // What starting leaves to be done is not what a change costs.
    tokio::time::sleep(SETTLE).await;
    let alone = changes(&cluster, &plane, size).await?;
    found.extend(with_proxies(control, &cluster, &plane, size).await.with_context(|| plane.last_words())?);
    found.push((CHANGE_ALONE, alone * 1e6, None));
    Ok(found)
}

async fn with_proxies(control: &Control, cluster: &Cluster, plane: &Plane, size: Size) -> Result<Found> {
    let (started, cpu) = (Instant::now(), cpu_s(plane.pid())?);
    let crowd = Crowd::start(&plane.target(cluster).await?, size, control.proxies);
    crowd.synced(SYNCED).await?;
    let mut found = vec![
        ("all proxies synced s", started.elapsed().as_secs_f64(), None),
        ("  CPU s for that", cpu_s(plane.pid())? - cpu, None),
    ];
    // What is given back is given back by then.
    tokio::time::sleep(SETTLE).await;
    found.push(("RSS MB with all proxies", megabytes(resident_kb(plane.pid())?), Some(Metric::ControlMb)));
    found.push(("  peak so far", megabytes(peak_kb(plane.pid())?), None));
    let idle = idle(plane).await?;
    let (before, sent, at) = (cpu_s(plane.pid())?, crowd.sent(), Instant::now());
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = 0;
    while at.elapsed() < control.seconds {
        ticks.tick().await;
        crowd.change(cluster, changes)?;
        changes += 1;
    }
    let landed = crowd.landed(LANDED).await?;
    let used = cpu_s(plane.pid())? - before - idle * at.elapsed().as_secs_f64();
    let (after, count) = (crowd.sent(), changes as f64);
    let (bytes, responses) = (after.bytes - sent.bytes, after.responses - sent.responses);
    let all = sorted(landed.iter().filter_map(|one| one.last()));
    let wildcard = sorted(landed.iter().filter_map(|one| one.wildcard));
    let demand = sorted(landed.iter().filter_map(|one| one.demand));
    found.extend([
        ("change to last proxy p50 ms", percentile(&all, 50), None),
        ("change to last proxy p99 ms", percentile(&all, 99), Some(Metric::LastProxyMs)),
        ("  last wildcard proxy p50 ms", percentile(&wildcard, 50), None),
        ("  last wildcard proxy p99 ms", percentile(&wildcard, 99), None),
        ("  last on-demand proxy p50 ms", percentile(&demand, 50), None),
        ("  last on-demand proxy p99 ms", percentile(&demand, 99), None),
        ("proxies told per change", responses as f64 / count, None),
        ("bytes per change and proxy", bytes as f64 / responses.max(1) as f64, None),
        ("RSS MB after the changes", megabytes(resident_kb(plane.pid())?), Some(Metric::ControlMb)),
        ("CPU % at rest", idle * 100.0, None),
        (CHANGE, used / count * 1e6, None),
    ]);
    Ok(found)
}

/// CPU seconds of one change while nobody is connected: what the change costs before it is sent.
async fn changes(cluster: &Cluster, plane: &Plane, size: Size) -> Result<f64> {
    let idle = idle(plane).await?;
    let (before, at) = (cpu_s(plane.pid())?, Instant::now());
    let mut ticks = tokio::time::interval(PACE_ALONE);
    for number in 0..CHANGES_ALONE {
        ticks.tick().await;
        let (pod, ready) = faults::crowd::changed(size, number);
        cluster.set_ready(size, pod, ready)?;
    }
    // The last ones are worked on a little later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = cpu_s(plane.pid())? - before - idle * at.elapsed().as_secs_f64();
    // All are ready again before proxies come.
    for number in 0..CHANGES_ALONE {
        cluster.set_ready(size, faults::crowd::changed(size, number).0, true)?;
    }
    Ok(used / CHANGES_ALONE as f64)
}

/// CPU seconds a second without changes.
async fn idle(plane: &Plane) -> Result<f64> {
    let (before, at) = (cpu_s(plane.pid())?, Instant::now());
    tokio::time::sleep(REST).await;
    Ok(((cpu_s(plane.pid())? - before) / at.elapsed().as_secs_f64()).max(0.0))
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// In milliseconds; the worse neighbour counts.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

pub(super) const CHANGE_ALONE: &str = "CPU us per change, no proxies";
pub(super) const CHANGE: &str = "CPU us per change, all told";
const READY: Duration = Duration::from_secs(120);
const SYNCED: Duration = Duration::from_secs(240);
const SETTLE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(3);
const LANDED: Duration = Duration::from_secs(30);
/// Ten changes a second.
const PACE: Duration = Duration::from_millis(100);
/// Fifty changes a second.
const PACE_ALONE: Duration = Duration::from_millis(20);
const CHANGES_ALONE: usize = 300;
