//! Who goes first on a machine where everything shares a few processors.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Puts all threads of a process behind the test's own, in the order that they have among themselves, for a test that
/// measures what it does and not what it competes for: whoever talks to it has other processors in real life.
///
/// # Errors
/// It is gone, or renice(1) is missing.
pub fn step_back(pid: u32) -> Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let stat = std::fs::read_to_string(thread.path().join("stat"))?;
        // Field 19, counted from field 3.
        let nice = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(16));
        let nice: i32 = nice.context("proc(5) has no priority of a thread")?.parse()?;
        let mut command = Command::new("renice");
        command.arg("-n").arg((nice + STEPS_BACK).to_string()).arg("-p").arg(thread.file_name());
        let status = command.stdout(Stdio::null()).status().context("renice(1) is part of every Linux distribution")?;
        ensure!(status.success(), "renice: {status}");
    }
    Ok(())
}

/// Of nice(2); with them, what stands back furthest has the 19 that there are.
const STEPS_BACK: i32 = 9;
