//! `meltemi sandbox …`: hands over to the program `meltemi-sandbox` that is installed beside this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Replaces this process. Returns only when that fails.
///
/// # Errors
/// Says where the program was looked for.
pub fn exec(arguments: &[OsString]) -> Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    let program = own.with_file_name("meltemi-sandbox");
    ensure!(
        program.is_file(),
        "{} does not exist: the sandbox is a program of its own; build it with 'make' or install it beside meltemi",
        program.display()
    );
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
