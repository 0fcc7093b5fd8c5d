//! What a process takes, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU seconds of all threads so far, to the nanosecond; threads that have ended are not counted.
///
/// # Errors
/// The process is gone.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(sum / 1e9)
}

/// Resident memory in kilobytes.
///
/// # Errors
/// The process is gone.
pub fn resident_kb(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most that was ever resident, in kilobytes.
///
/// # Errors
/// The process is gone.
pub fn peak_kb(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// Allows as many open files as the system lets us: a thousand proxies need a thousand connections.
///
/// # Errors
/// The limit cannot be read or set.
pub fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let field = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    field.with_context(|| format!("{name} of process {pid}"))
}
