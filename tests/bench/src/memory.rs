//! Memory of the proxies, and how often they wake up when nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::{Args, Shape};
use crate::case::{Memory, Metric, Traffic};
use crate::cpu::{resident_kb, sleeps};
use crate::proxy::{Programs, Proxies};
use crate::town::{Town, Variant};
use crate::traffic::Client;

/// A metric of the client-side and of the server-side proxy.
pub(crate) type Found = Vec<(Metric, [f64; 2])>;

/// Measures in a fresh town.
pub(crate) fn measure(variant: Variant, programs: &Programs, memory: Memory, args: &Args) -> Result<Found> {
    match memory {
        Memory::Connections(count) => connections(&Town::build(variant, programs)?, programs, count),
        Memory::Workloads(count) => workloads(variant, programs, count),
        Memory::AfterBulk(streams) => after_bulk(&Town::build(variant, programs)?, programs, streams, args),
    }
}

fn connections(town: &Town, programs: &Programs, count: usize) -> Result<Found> {
    std::thread::sleep(SETTLE);
    let idle = resident(town)?;
    let holding = Client::start(town, programs, Traffic { shape: Shape::Hold, connections: count }, 0)?;
    std::thread::sleep(SETTLE);
    let held = resident(town)?;
    drop(holding);
    let each = [0, 1].map(|side| per(&held, &idle, side, count));
    Ok(vec![(Metric::IdleKb, idle), (Metric::ConnectionKb, each)])
}

fn workloads(variant: Variant, programs: &Programs, count: usize) -> Result<Found> {
    let mut found = [[0.0; 2]; 2];
    for (resident_kb, more) in found.iter_mut().zip([0, count]) {
        let town = Town::with_workloads(variant, programs, more)?;
        std::thread::sleep(SETTLE);
        *resident_kb = resident(&town)?;
    }
    let [few, many] = found;
    Ok(vec![(Metric::WorkloadKb, [0, 1].map(|side| per(&many, &few, side, count)))])
}

fn after_bulk(town: &Town, programs: &Programs, streams: usize, args: &Args) -> Result<Found> {
    for shape in [Shape::Up, Shape::Down] {
        Client::start(town, programs, Traffic { shape, connections: streams }, args.seconds.max(3))?.outcome()?;
    }
    std::thread::sleep(Duration::from_secs(args.rest));
    let rested = resident(town)?;
    let (before, started) = (wakeups(town)?, Instant::now());
    std::thread::sleep(WATCH);
    let (after, elapsed) = (wakeups(town)?, started.elapsed().as_secs_f64());
    let each_second = [0, 1].map(|side| per(&after, &before, side, 1) / elapsed);
    Ok(vec![(Metric::RestedKb, rested), (Metric::Wakeups, each_second)])
}

fn resident(town: &Town) -> Result<[f64; 2]> {
    of_both(town, resident_kb)
}

fn wakeups(town: &Town) -> Result<[f64; 2]> {
    of_both(town, sleeps)
}

fn of_both(town: &Town, read: fn(u32) -> Result<f64>) -> Result<[f64; 2]> {
    let [source, destination] = town.proxies.as_ref().map(Proxies::pids).unwrap_or_default();
    Ok([read(source)?, read(destination)?])
}

fn per(after: &[f64; 2], before: &[f64; 2], side: usize, count: usize) -> f64 {
    let at = |both: &[f64; 2]| both.get(side).copied().unwrap_or_default();
    (at(after) - at(before)) / count as f64
}

/// A proxy may need this long to notice that it has nothing to do, and to tidy up.
const SETTLE: Duration = Duration::from_secs(25);
/// How long wake-ups are counted.
const WATCH: Duration = Duration::from_secs(20);
