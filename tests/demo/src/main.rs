//! `make demo`: two nodes of pods go from plaintext to mutual TLS by labelling a namespace.

mod canary;
mod story;
mod telling;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Tells the story with real traffic; each step is proved by what it shows.
#[derive(Debug, Parser)]
#[command(after_help = "Example: demo --stop")]
struct Args {
    /// Folder of the sandbox's files; default is that of `meltemi sandbox`.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Take the sandbox down at the end instead of leaving it for you to play with.
    #[arg(long)]
    stop: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match story::tell(args.dir, args.stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telling::failed(&error);
            ExitCode::FAILURE
        }
    }
}
