//! `make hostile`: every kind of hostile peer for a while, and what a well-behaved pod of the same node notices.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hostile::isolate::isolated;
use hostile::trial::Trial;

/// Attacks a real node proxy in every way known here.
#[derive(Debug, Parser)]
struct Args {
    /// Length of each attack.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Only attacks whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let again: Vec<String> = std::env::args().skip(1).collect();
    match isolated(&again, || run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut trial = Trial::begin().await?;
        let mut bad = 0;
        for flood in hostile::floods::all().into_iter().filter(|flood| flood.name.contains(&args.only)) {
            let row =
                trial.attack_again(flood, Duration::from_secs_f64(args.seconds), TRIES).await.context(flood.name)?;
            bad += usize::from(!row.faults.is_empty());
            let _ = writeln!(std::io::stdout(), "{row}");
        }
        ensure!(bad == 0, "{bad} kinds of hostile peers cost others too much");
        Ok(())
    })
}

/// Attacks of one kind, if the first has faults.
const TRIES: usize = 3;
