//! Samples in alternating rounds; medians count.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::proxies::Way;
use super::{Found, Requests};
use crate::args::{Args, Shape};
use crate::case::Metric;
use crate::cpu::{Reading, resident_kb};
use crate::load::{BEGIN, Outcome};
use crate::town::Running;

/// One sample of one way.
#[derive(Debug, Clone)]
struct Sample {
    outcome: Outcome,
    /// CPU seconds of each proxy for each request.
    proxies: Vec<f64>,
}

impl Sample {
    /// CPU seconds of all proxies for each request.
    fn proxied(&self) -> Option<f64> {
        (!self.proxies.is_empty()).then(|| self.proxies.iter().sum())
    }
}

/// Asks on all ways: direct, through ours, through the peer if there is one.
pub(super) fn run(args: &Args, requests: Requests, ways: &[Way<'_>]) -> Result<Found> {
    // All have what they needed to start.
    std::thread::sleep(SETTLING);
    let idle: Vec<_> = ways.iter().map(|way| layer7(way).map(resident_kb).transpose()).collect::<Result<_>>()?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); ways.len()];
    for _ in 0..args.rounds.max(1) {
        for (way, samples) in ways.iter().zip(&mut samples) {
            samples.push(sample(way, args, requests).with_context(|| way.server.to_string())?);
        }
    }
    let all: Vec<_> = samples.into_iter().map(median).collect();
    let values = |pick: &dyn Fn(&Sample) -> Option<f64>| {
        let mut three = [None; 3];
        for (value, sample) in three.iter_mut().zip(&all) {
            *value = sample.as_ref().and_then(pick);
        }
        three
    };
    let mut memory = [None; 3];
    for (value, idle) in memory.iter_mut().zip(idle) {
        *value = idle;
    }
    let mut found = vec![
        ("requests/s".to_owned(), values(&|sample| Some(rate(&sample.outcome))), None),
        ("p50 us".to_owned(), values(&|sample| Some(sample.outcome.p50_us)), None),
        ("p99 us".to_owned(), values(&|sample| Some(sample.outcome.p99_us)), Some(Metric::L7Latency)),
        ("proxies' CPU us/request".to_owned(), values(&|sample| Some(sample.proxied()? * 1e6)), None),
    ];
    let several = ways.iter().map(|way| way.proxies.as_slice()).find(|proxies| proxies.len() > 1);
    let parts = several.unwrap_or_default();
    for (index, (name, _)) in parts.iter().enumerate() {
        let each = values(&|sample| Some(sample.proxies.get(index)? * 1e6));
        found.push((format!("  {name}"), each, None));
    }
    let rate = values(&|sample| Some(1.0 / sample.proxied()?));
    found.push(("requests/proxy core-second".to_owned(), rate, Some(Metric::L7Rate)));
    let whose = if parts.is_empty() { "" } else { ", waypoint" };
    found.push((format!("RSS kB at rest{whose}"), memory, Some(Metric::L7IdleKb)));
    Ok(found)
}

/// The proxy of layer 7: the one in the middle.
fn layer7(way: &Way<'_>) -> Option<u32> {
    way.proxies.get(way.proxies.len() / 2).map(|(_, pid)| *pid)
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.units as f64 / outcome.seconds
}

fn sample(way: &Way<'_>, args: &Args, requests: Requests) -> Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    let shape = match requests.shape {
        Shape::Http2 => "http2",
        Shape::Connect => "connect",
        _ => "keepalive",
    };
    let (connections, seconds) = (requests.connections.to_string(), args.seconds.to_string());
    command
        .args(["load", "--shape", shape, "--server", &way.server.to_string()])
        .args(["--port", &way.server.port().to_string()])
        .args(["--connections", &connections, "--seconds", &seconds])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let started = way.netns.run(|| command.spawn())?.context("starting the client")?;
    let mut client = Running(started);
    let mut lines = BufReader::new(client.0.stdout.take().context("output of the client")?).lines();
    let first = lines.next().context("the client ended early")??;
    ensure!(first == BEGIN, "the client says {first:?}");
    let pids: Vec<u32> = way.proxies.iter().map(|(_, pid)| *pid).chain([way.server_pid]).collect();
    let before = Reading::take(&pids)?;
    let line = lines.next().context("the client ended early")??;
    let used = Reading::take(&pids)?.since(&before);
    let outcome: Outcome = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(outcome.failed == 0, "{} of {} requests failed", outcome.failed, outcome.units);
    ensure!(outcome.units > 0, "nothing got through");
    let cpu = used.processes.iter().zip(&way.proxies);
    let proxies = cpu.map(|(cpu, _)| cpu / outcome.units as f64).collect();
    Ok(Sample { outcome, proxies })
}

/// The sample in the middle by its rate; CPU is a median of its own.
fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    let count = samples.iter().map(|sample| sample.proxies.len()).min().unwrap_or_default();
    let of_proxy = |index: usize| {
        let mut cpu: Vec<f64> = samples.iter().filter_map(|sample| sample.proxies.get(index).copied()).collect();
        cpu.sort_by(f64::total_cmp);
        cpu.get(cpu.len() / 2).copied()
    };
    let proxies = (0..count).filter_map(of_proxy).collect();
    samples.sort_by(|a, b| rate(&a.outcome).total_cmp(&rate(&b.outcome)));
    samples.get(samples.len() / 2).cloned().map(|sample| Sample { proxies, ..sample })
}

/// Our proxy gives memory back within two looks at how much it has to do.
const SETTLING: Duration = Duration::from_secs(15);
