//! The layer-7 proxy: reads settings, starts logging and runs. See the library for everything else.

use std::process::ExitCode;

use mesh_core::env::Env;
use mesh_telemetry::log;
use waypoint::config::{Config, Start};
use waypoint::start;

const USAGE: &str =
    "usage: waypoint [proxy [waypoint | router] [options of other proxies, ignored] | version | help]\n";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["proxy"] => proxy(Start::Waypoint),
        // What follows is written for other proxies by the same charts.
        ["proxy", "waypoint", ..] => proxy(Start::Waypoint),
        ["proxy", "router", ..] => proxy(Start::Router),
        ["version"] => say(&mut std::io::stdout(), &format!("waypoint {}\n", start::VERSION), ExitCode::SUCCESS),
        ["help" | "--help" | "-h"] => say(&mut std::io::stdout(), USAGE, ExitCode::SUCCESS),
        _ => say(&mut std::io::stderr(), USAGE, ExitCode::FAILURE),
    }
}

fn proxy(as_what: Start) -> ExitCode {
    match run(as_what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&mut std::io::stderr(), &format!("waypoint: {error:#}\n"), ExitCode::FAILURE),
    }
}

fn run(as_what: Start) -> anyhow::Result<()> {
    mesh_sys::memory::keep_buffers();
    let config = Config::from_env(as_what, &Env::process())?;
    // Before anything else: a library that asks for the process's crypto must get this one.
    let _ = mesh_identity::tls::process_provider(config.key_exchange).install_default();
    let options =
        log::Options { component: "waypoint", format: config.log_format, default_filter: config.log_filter.clone() };
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
