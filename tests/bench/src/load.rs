//! The client of one case: says `begin` when what follows counts, and the result as JSON when it is over.

mod bulk;
mod http;
mod http2;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::args::{LoadPlan, Shape};

/// What the client found out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Bytes, requests or connections, in the time that counts.
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// Of requests or connections.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) failed: u64,
}

/// Plays the client.
pub(crate) fn run(plan: &LoadPlan) -> Result<()> {
    let outcome = match plan.shape {
        Shape::Up | Shape::Down => bulk::run(plan)?,
        Shape::Keepalive | Shape::Connect | Shape::Hold => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(http::run(plan))?
        }
        Shape::Http2 => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(http2::run(plan, (plan.server.ip(), plan.port).into()))?
        }
    };
    say(&serde_json::to_string(&outcome)?)
}

fn begin() -> Result<()> {
    say(BEGIN)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("telling the bench")
}

/// The line after which everything counts.
pub(crate) const BEGIN: &str = "begin";
/// Traffic before that.
const WARM_UP: Duration = Duration::from_millis(500);
