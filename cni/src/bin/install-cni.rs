//! The node agent. Everything is in the library.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use cni::config::{Config, LogSettings, overlay};
use mesh_core::drain::{self, DrainMode};
use mesh_core::env::Env;
use mesh_telemetry::log::{self, Format, Options};
use mesh_telemetry::metrics::Registry;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The logger may not exist yet, or not have written its last lines.
            eprintln!("install-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let env = overlay(std::env::args().skip(1), &Env::process()).map_err(|errors| wrong("arguments", &errors))?;
    let LogSettings { json, filter } = LogSettings::new(&env);
    let format = if json { Format::Json } else { Format::Plain };
    let log = log::init(Options { component: "install-cni", format, default_filter: filter })?;
    let config = Config::new(&env).map_err(|errors| wrong("settings", &errors))?;
    tracing::info!(target: "cni-agent", %config, version = env!("CARGO_PKG_VERSION"), "starting");
    for remark in &config.remarks {
        tracing::warn!(target: "cni-agent", "{remark}");
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a second cryptography provider is installed"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let result = runtime.block_on(serve(config));
    // What is still running belongs to pods whose plugin will ask the next agent.
    runtime.shutdown_background();
    log.flush();
    result
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (stop, watch) = drain::channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.start(DrainMode::Graceful);
        // Keeps the signal until the process ends: dropping it would mean "cut everything".
        std::future::pending::<()>().await;
    });
    let kube = kube::Config::incluster().context("reading the service account of this pod")?;
    let client = kube::Client::try_from(kube).context("making a Kubernetes client")?;
    cni::agent::start::run(config, client, Registry::new(), watch).await?;
    Ok(())
}

fn wrong(what: &str, errors: &[String]) -> anyhow::Error {
    anyhow!("{} wrong {what}:\n  {}", errors.len(), errors.join("\n  "))
}

/// The agent waits for the API server and for short-lived tools.
const WORKERS: usize = 2;
