//! CPU, memory and wake-ups of processes and of the machine, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU seconds so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// All that ran on the machine.
    pub(crate) machine: f64,
    /// Time that the hypervisor took away.
    pub(crate) stolen: f64,
    /// Each watched process.
    pub(crate) processes: Vec<f64>,
}

impl Reading {
    /// Reads the machine and `pids`.
    pub(crate) fn take(pids: &[u32]) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal
        let at = |index: usize| ticks.get(index).copied().unwrap_or_default() / TICKS_PER_SECOND;
        let machine = [0, 1, 2, 5, 6].map(at).iter().sum();
        let processes = pids.iter().map(|pid| process(*pid)).collect::<Result<_>>()?;
        Ok(Self { machine, stolen: at(7), processes })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let processes = self.processes.iter().zip(&earlier.processes).map(|(now, then)| now - then).collect();
        Self { machine: self.machine - earlier.machine, stolen: self.stolen - earlier.stolen, processes }
    }
}

fn process(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name may hold anything, a closing parenthesis ends it.
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let at = |index: usize| fields.get(index).and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime: fields 14 and 15 of the line, the state being number 3.
    Ok((at(11) + at(12)) / TICKS_PER_SECOND)
}

/// Resident memory of a process, kilobytes.
pub(crate) fn resident_kb(pid: u32) -> Result<f64> {
    status(pid, "VmRSS:")
}

/// How often the threads of a process have gone to sleep so far.
pub(crate) fn sleeps(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        sum += field(&text, "voluntary_ctxt_switches:").unwrap_or_default();
    }
    Ok(sum)
}

fn status(pid: u32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    field(&text, name).with_context(|| format!("{name} of process {pid}"))
}

fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// USER_HZ, the same on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
