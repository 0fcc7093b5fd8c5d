//! One sample of traffic, and the median of several.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};

use crate::args::{Args, Shape};
use crate::case::Traffic;
use crate::cpu::Reading;
use crate::load::{BEGIN, Outcome};
use crate::proxy::Programs;
use crate::town::{Running, Town, Variant, server_addr};

/// What one round of one variant brought, per unit: a gigabyte, a request or a connection.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Gbit/s, requests/s or connections/s.
    pub(crate) rate: f64,
    pub(crate) outcome: Outcome,
    /// CPU of everything that took part, seconds per unit: client, server and proxies.
    pub(crate) parties: f64,
    /// CPU of all that ran on the machine, seconds per unit.
    pub(crate) machine: f64,
    /// CPU of the client-side and the server-side proxy, seconds per unit.
    pub(crate) proxies: Option<(f64, f64)>,
    /// Somebody else used the machine, or its owner took time away.
    pub(crate) noisy: bool,
}

/// The median sample of each variant, by rate; CPU numbers are medians of their own.
pub(crate) fn rounds(towns: &[Town], traffic: Traffic, args: &Args) -> Result<Vec<(Variant, Sample)>> {
    let programs = Programs::find(args)?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); towns.len()];
    for _ in 0..args.rounds.max(1) {
        for (town, samples) in towns.iter().zip(&mut samples) {
            samples.push(measure(town, &programs, traffic, args.seconds)?);
        }
    }
    towns.iter().zip(samples).map(|(town, samples)| Ok((town.variant, median(samples).context("no round")?))).collect()
}

/// A running client and what it says.
pub(crate) struct Client {
    pub(crate) running: Running,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Client {
    /// Starts it; returns when what follows counts.
    pub(crate) fn start(town: &Town, programs: &Programs, traffic: Traffic, seconds: u64) -> Result<Self> {
        let shape = match traffic.shape {
            Shape::Up => "up",
            Shape::Down => "down",
            Shape::Keepalive => "keepalive",
            Shape::Connect => "connect",
            Shape::Hold => "hold",
            Shape::Http2 => "http2",
        };
        let (connections, seconds, server) =
            (traffic.connections.to_string(), seconds.to_string(), server_addr().to_string());
        let args =
            ["load", "--shape", shape, "--server", &server, "--connections", &connections, "--seconds", &seconds];
        let mut running = town.client(programs, &args)?;
        let output = running.0.stdout.take().context("output of the client")?;
        let mut lines = BufReader::new(output).lines();
        let first = lines.next().context("the client ended early")??;
        ensure!(first == BEGIN, "the client says {first:?}");
        Ok(Self { running, lines })
    }

    /// Waits for the result.
    pub(crate) fn outcome(&mut self) -> Result<Outcome> {
        let line = self.lines.next().context("the client ended early")??;
        serde_json::from_str(&line).with_context(|| line)
    }
}

fn measure(town: &Town, programs: &Programs, traffic: Traffic, seconds: u64) -> Result<Sample> {
    let mut client = Client::start(town, programs, traffic, seconds)?;
    let mut pids = vec![client.running.pid()];
    pids.extend(town.pids());
    let before = Reading::take(&pids)?;
    let started = std::time::Instant::now();
    let outcome = client.outcome()?;
    let used = Reading::take(&pids)?.since(&before);
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(outcome.failed == 0, "{} of {}: {} failures", town.variant, outcome.units, outcome.failed);
    ensure!(outcome.units > 0, "{}: nothing got through", town.variant);
    let bulk = matches!(traffic.shape, Shape::Up | Shape::Down);
    let units = outcome.units as f64 / if bulk { 1e9 } else { 1.0 };
    let rate = units / outcome.seconds * if bulk { 8.0 } else { 1.0 };
    let parties: f64 = used.processes.iter().sum();
    let proxies = match used.processes.as_slice() {
        [_, _, source, destination] => Some((source / units, destination / units)),
        _ => None,
    };
    let cores = std::thread::available_parallelism()?.get() as f64;
    let noise = (used.machine - parties).max(0.0) / (elapsed * cores);
    let noisy = noise > NOISE_MAX || used.stolen / (elapsed * cores) > STOLEN_MAX;
    Ok(Sample { rate, outcome, parties: parties / units, machine: used.machine / units, proxies, noisy })
}

fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    let quiet: Vec<_> = samples.iter().filter(|sample| !sample.noisy).cloned().collect();
    if !quiet.is_empty() {
        samples = quiet;
    }
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let (parties, machine) = (
        middle(samples.iter().map(|sample| sample.parties).collect()),
        middle(samples.iter().map(|sample| sample.machine).collect()),
    );
    let side = |pick: fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = samples.iter().filter_map(|sample| sample.proxies.as_ref().map(pick)).collect();
        (!values.is_empty()).then(|| middle(values))
    };
    let proxies = side(|both| both.0).zip(side(|both| both.1));
    samples.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    samples.get(samples.len() / 2).cloned().map(|sample| Sample { parties, machine, proxies, ..sample })
}

/// Share of the machine that others may use before a sample is thrown away, if there is a better one.
const NOISE_MAX: f64 = 0.06;
const STOLEN_MAX: f64 = 0.02;
