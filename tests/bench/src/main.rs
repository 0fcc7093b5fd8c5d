//! `make bench`: the same requests direct and through the mesh, in alternating rounds of one run. Ratios count;
//! absolute numbers belong to the machine.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;
use tests_support::Lab;

fn main() -> ExitCode {
    match run() {
        Ok(table) => {
            let _ = writeln!(std::io::stdout(), "{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One row of the table.
struct Case {
    name: &'static str,
    args: &'static [&'static str],
}

const CASES: [Case; 4] = [
    Case { name: "HTTP keep-alive, 1 connection", args: &["--workers", "1"] },
    Case { name: "HTTP keep-alive, 32 connections", args: &["--workers", "32"] },
    Case { name: "new connection per request, 1 at a time", args: &["--workers", "1", "--new-connections"] },
    Case { name: "new connection per request, 16 at a time", args: &["--workers", "16", "--new-connections"] },
];

fn run() -> Result<String> {
    let lab = Lab::with_mesh()?;
    for (name, mode) in NAMESPACES {
        let yaml = TOWN.replace("NAMESPACE", name).replace("MODE", mode);
        lab.apply(&yaml)?;
        lab.rolled_out(name, "web")?;
        lab.rolled_out(name, "client")?;
    }
    lab.enrolled("mesh", true)?;
    let mut table =
        format!("{:<42} {:>11} {:>11} {:>6}   p50 / p99 us: direct, mesh\n", "", "direct/s", "mesh/s", "ratio");
    for case in &CASES {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((name, _), round) in NAMESPACES.iter().zip(&mut rounds) {
                round.push(measure(&lab, name, case)?);
            }
        }
        let [direct, mesh] = rounds.map(median);
        let (direct, mesh) = (direct.context("no round")?, mesh.context("no round")?);
        table.push_str(&format!(
            "{:<42} {:>11.0} {:>11.0} {:>6.2}   {} / {}, {} / {}\n",
            case.name,
            direct.per_second,
            mesh.per_second,
            mesh.per_second / direct.per_second,
            direct.p50_us,
            direct.p99_us,
            mesh.p50_us,
            mesh.p99_us,
        ));
    }
    Ok(table)
}

#[derive(Debug, Clone)]
struct Sample {
    per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

fn measure(lab: &Lab, namespace: &str, case: &Case) -> Result<Sample> {
    let mut argv = vec!["load", "closed", "http://web/", "--duration", "3"];
    argv.extend_from_slice(case.args);
    let said = lab.exec(namespace, "deploy/client", &argv)?.ok().with_context(|| case.name)?;
    let summary: Value = serde_json::from_str(&said)?;
    let number = |key: &str| summary.get(key).and_then(Value::as_f64).with_context(|| format!("{key} in {summary}"));
    anyhow::ensure!(
        number("failed")? == 0.0,
        "{} of {} requests failed: {summary}",
        number("failed")?,
        number("requests")?
    );
    Ok(Sample { per_second: number("per_second")?, p50_us: number("p50_us")? as u64, p99_us: number("p99_us")? as u64 })
}

fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    samples.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    samples.get(samples.len() / 2).cloned()
}

const ROUNDS: usize = 3;
const NAMESPACES: [(&str, &str); 2] = [("direct", "none"), ("mesh", "ambient")];
const TOWN: &str = include_str!("town.yaml");
