//! The CNI plugin. Everything is in the library.

use std::process::ExitCode;

use mesh_core::env::Env;

fn main() -> ExitCode {
    let (stdout, stderr) = (&mut std::io::stdout(), &mut std::io::stderr());
    ExitCode::from(cni::plugin::run(&Env::process(), std::io::stdin(), stdout, stderr))
}
