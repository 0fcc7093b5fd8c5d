//! `meltemi-sandbox`: the command line, and the processes that a sandbox is made of.
//!
//! One executable plays every part: the command line, the first process and the daemon of a
//! sandbox, the helper that becomes a container, and the CNI plugin.

use std::process::ExitCode;

use clap::Parser;
use sandbox::{bridge, command, daemon, runtime};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [program, ..] if program.rsplit('/').next() == Some(bridge::PLUGIN_NAME) => {
            return ExitCode::from(bridge::main());
        }
        [_, runtime::enter::HELPER_ARGUMENT] => return ExitCode::from(runtime::enter::main()),
        [_, daemon::init::INIT_ARGUMENT, options] => return ExitCode::from(daemon::init::main(options)),
        [_, daemon::DAEMON_ARGUMENT, options] => {
            install_crypto();
            return ExitCode::from(daemon::main(options));
        }
        _ => {}
    }
    install_crypto();
    match command::run(command::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            use std::io::Write as _;
            // Standard error may be closed; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The one crypto provider of the process.
fn install_crypto() {
    // Fails only when one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
