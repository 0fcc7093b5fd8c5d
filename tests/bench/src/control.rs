//! The control plane: a synthetic cluster behind a real API server, the real program, a thousand delta-ADS clients.

mod measure;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::Size;

use crate::args::Args;
use crate::case::Metric;

/// What one cluster brought: names of metrics, values, and which bar each is judged by.
pub(crate) type Found = Vec<(&'static str, f64, Option<Metric>)>;

/// Measures clusters of growing size; the first one is what the others are compared with.
pub(crate) struct Control {
    program: PathBuf,
    proxies: usize,
    seconds: Duration,
    /// CPU of a change in the first cluster, microseconds: alone, and with proxies.
    base: Option<[f64; 2]>,
}

impl Control {
    /// Looks for the program.
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let ourselves = std::env::current_exe().context("where this program is")?;
        let program = args.istiod.clone().unwrap_or_else(|| ourselves.with_file_name("istiod"));
        ensure!(program.is_file(), "{} is no program: build it, or name another one", program.display());
        faults::process::raise_file_limit()?;
        let seconds = Duration::from_secs(args.seconds.max(1) * CHANGE_SECONDS_FACTOR);
        Ok(Self { program, proxies: args.proxies, seconds, base: None })
    }

    /// Measures one size.
    pub(crate) fn measure(&mut self, pods: usize) -> Result<Found> {
        let runtime = tokio::runtime::Runtime::new()?;
        let mut found = runtime.block_on(measure::run(self, Size { pods }))?;
        let value = |name: &str| found.iter().find(|row| row.0 == name).map(|row| row.1);
        if let (Some(alone), Some(with)) = (value(measure::CHANGE_ALONE), value(measure::CHANGE)) {
            let [base_alone, base_with] = *self.base.get_or_insert([alone, with]);
            found.push(("  ratio to the first, alone", alone / base_alone, Some(Metric::ChangeRatio)));
            found.push(("  ratio to the first", with / base_with, Some(Metric::ChangeRatio)));
        }
        Ok(found)
    }
}

/// Changes go on for this many times the seconds of a sample.
const CHANGE_SECONDS_FACTOR: u64 = 8;
