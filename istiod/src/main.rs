//! `istiod discovery`: the control plane.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use istiod::config::{Cli, Command, Config};
use mesh_core::env::Env;
use mesh_telemetry::log::{self, Format};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    mesh_sys::memory::return_buffers();
    let Command::Discovery(flags) = Cli::parse().command;
    let outcome = start(&flags);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logging may not be up yet.
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "istiod: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &istiod::config::DiscoveryFlags) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let config = Config::new(flags, &Env::process(), cpus)?;
    let format = if config.log_json { Format::Json } else { Format::Plain };
    let log = log::init(log::Options { component: "istiod", format, default_filter: config.log_filter.clone() })?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    // Before anything uses TLS: there is one provider in the process.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        istiod::run::run(config, stop).await
    });
    // Everything worth waiting for was drained; a look-up that hangs in a thread is not.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "ending because of an error");
    }
    log.flush();
    outcome
}
