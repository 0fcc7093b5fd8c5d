//! The program `meltemi`: reads the command line, runs the command, reports its error.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use cli::args::Args;
use cli::output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody to tell when the output is closed.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    // One provider for all TLS of this process; a second call would be a bug of this function.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        output::note("Error: a TLS provider is already installed");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(format!("Error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(args.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Wrong use of the command line, as istioctl reports it.
const EXIT_USAGE: u8 = 64;
