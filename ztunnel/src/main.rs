//! The node proxy: reads settings, starts logging and runs. See the library for everything else.

use std::process::ExitCode;

use mesh_core::env::Env;
use mesh_telemetry::log;
use ztunnel::{config::Config, start};

/// As the reference: `proxy` when nothing is said.
const USAGE: &str = "usage: ztunnel [proxy | version | help]\n";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next().as_deref()) {
        // Charts say `proxy ztunnel`, for images that hold several proxies.
        (None, None) | (Some("proxy"), None | Some("ztunnel")) => proxy(),
        (Some("version"), None) => {
            say(&mut std::io::stdout(), &format!("ztunnel {}\n", start::VERSION), ExitCode::SUCCESS)
        }
        (Some("help" | "--help" | "-h"), None) => say(&mut std::io::stdout(), USAGE, ExitCode::SUCCESS),
        _ => say(&mut std::io::stderr(), USAGE, ExitCode::FAILURE),
    }
}

fn proxy() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&mut std::io::stderr(), &format!("ztunnel: {error:#}\n"), ExitCode::FAILURE),
    }
}

fn run() -> anyhow::Result<()> {
    mesh_sys::memory::keep_buffers();
    let config = Config::from_env(&Env::process())?;
    // Before anything else: a library that asks for the process's crypto must get this one.
    let _ = mesh_identity::tls::process_provider(config.key_exchange).install_default();
    let options =
        log::Options { component: "ztunnel", format: config.log_format, default_filter: config.log_filter.clone() };
    let log = log::init(options)?;
    // Control work has one thread of its own: admin stays alive under load, and load under admin.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = log.clone();
    let ended = runtime.block_on(start::run(config, log));
    runtime.shutdown_background();
    handle.flush();
    ended
}

fn say(to: &mut dyn std::io::Write, text: &str, code: ExitCode) -> ExitCode {
    // Nobody to tell when the descriptor is closed.
    let _ = to.write_all(text.as_bytes());
    code
}
