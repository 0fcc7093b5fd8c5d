//! Samples in alternating rounds; medians count.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::proxies::Stage;
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
    /// CPU seconds of the proxy for each request.
    proxy: Option<f64>,
}

pub(super) fn run(args: &Args, requests: Requests) -> Result<Found> {
    let stage = Stage::set(args, requests.routes)?;
    // Both have what they needed to start.
    std::thread::sleep(SETTLING);
    let idle: Vec<_> =
        stage.variants().iter().map(|(_, pid)| pid.map(resident_kb).transpose()).collect::<Result<_>>()?;
    let ways = stage.variants();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); ways.len()];
    for _ in 0..args.rounds.max(1) {
        for ((port, pid), samples) in ways.iter().zip(&mut samples) {
            samples.push(sample(&stage, args, requests, *port, *pid)?);
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
    Ok(vec![
        ("requests/s", values(&|sample| Some(rate(&sample.outcome))), None),
        ("p50 us", values(&|sample| Some(sample.outcome.p50_us)), None),
        ("p99 us", values(&|sample| Some(sample.outcome.p99_us)), Some(Metric::L7Latency)),
        ("proxy's CPU us/request", values(&|sample| Some(sample.proxy? * 1e6)), None),
        ("requests/proxy core-second", values(&|sample| Some(1.0 / sample.proxy?)), Some(Metric::L7Rate)),
        ("RSS kB at rest", memory, Some(Metric::L7IdleKb)),
    ])
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.units as f64 / outcome.seconds
}

fn sample(stage: &Stage, args: &Args, requests: Requests, port: u16, proxy: Option<u32>) -> Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    let shape = match requests.shape {
        Shape::Http2 => "http2",
        Shape::Connect => "connect",
        _ => "keepalive",
    };
    let (connections, seconds) = (requests.connections.to_string(), args.seconds.to_string());
    command
        .args(["load", "--shape", shape, "--server", "127.0.0.1:0", "--port", &port.to_string()])
        .args(["--connections", &connections, "--seconds", &seconds])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let started = stage.netns.run(|| command.spawn())?.context("starting the client")?;
    let mut client = Running(started);
    let mut lines = BufReader::new(client.0.stdout.take().context("output of the client")?).lines();
    let first = lines.next().context("the client ended early")??;
    ensure!(first == BEGIN, "the client says {first:?}");
    let pids: Vec<u32> = proxy.into_iter().chain([stage.server_pid()]).collect();
    let before = Reading::take(&pids)?;
    let line = lines.next().context("the client ended early")??;
    let used = Reading::take(&pids)?.since(&before);
    let outcome: Outcome = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(outcome.failed == 0, "port {port}: {} of {} requests failed", outcome.failed, outcome.units);
    ensure!(outcome.units > 0, "port {port}: nothing got through");
    let proxy = proxy.and(used.processes.first()).map(|cpu| cpu / outcome.units as f64);
    Ok(Sample { outcome, proxy })
}

/// The sample in the middle by its rate; CPU is a median of its own.
fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    let mut cpu: Vec<f64> = samples.iter().filter_map(|sample| sample.proxy).collect();
    cpu.sort_by(f64::total_cmp);
    let cpu = cpu.get(cpu.len() / 2).copied();
    samples.sort_by(|a, b| rate(&a.outcome).total_cmp(&rate(&b.outcome)));
    samples.get(samples.len() / 2).cloned().map(|sample| Sample { proxy: cpu, ..sample })
}

/// Our proxy gives memory back within two looks at how much it has to do.
const SETTLING: Duration = Duration::from_secs(15);
