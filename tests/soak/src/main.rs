//! `make soak`: two node proxies under load for a long time.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use hostile::isolate::isolated;
use soak::plan::Plan;

/// Two node proxies under load, while everything around them changes.
#[derive(Debug, Parser)]
struct Args {
    /// Length of the load.
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let again: Vec<String> = std::env::args().skip(1).collect();
    match isolated(&again, || run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    soak::run::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let summary = runtime.block_on(soak::run::run(Plan::of_minutes(args.minutes)))?;
    writeln!(std::io::stdout(), "{summary}")?;
    ensure!(summary.faults().is_empty(), "the run is not good");
    Ok(())
}
