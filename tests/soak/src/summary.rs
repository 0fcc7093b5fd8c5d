//! What came of it, as a table, and what of it must not be.

use std::fmt;

use hostile::proxy::Footprint;

use crate::change::Changed;
use crate::load::Noticed;
use crate::plan::Plan;

/// One run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What was asked for.
    pub plan: Plan,
    /// By the applications.
    pub noticed: Noticed,
    /// While they ran.
    pub changed: Changed,
    /// How often the control plane said something.
    pub said: u64,
    /// How often a proxy rejected it.
    pub rejected: u64,
    /// Before the load.
    pub idle: Usage,
    /// At its end.
    pub busy: Usage,
    /// After the rest.
    pub left: Usage,
    /// Tasks of the proxies that panicked.
    pub panics: usize,
    /// What the proxies' logs give as reasons, to start from when something failed.
    pub errors: Vec<String>,
}

/// What both proxies take.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The clients' proxy.
    pub near: Users,
    /// The servers' proxy.
    pub far: Users,
}

/// What one proxy takes.
#[derive(Debug, Clone, Copy)]
pub struct Users {
    /// Of the machine.
    pub footprint: Footprint,
    /// Tasks that have not ended.
    pub tasks: u64,
    /// Metrics, each with its labels.
    pub series: u64,
}

impl Usage {
    /// Whether either proxy has more descriptors or tasks than in `idle`.
    #[must_use]
    pub fn holds_more_than(&self, idle: &Self) -> bool {
        let more = |now: Users, idle: Users| {
            now.tasks > idle.tasks || now.footprint.descriptors > idle.footprint.descriptors + READY_SOCKETS
        };
        more(self.near, idle.near) || more(self.far, idle.far)
    }

    /// The memory of `self` and everything else of `later`.
    #[must_use]
    pub fn with_held_of(&self, later: &Self) -> Self {
        let merge = |now: Users, later: Users| Users {
            footprint: Footprint { rss_bytes: now.footprint.rss_bytes, ..later.footprint },
            ..later
        };
        Self { near: merge(self.near, later.near), far: merge(self.far, later.far) }
    }
}

impl Summary {
    /// What must not be; nothing in a good run.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.noticed.failures.iter().map(|(what, count)| format!("{count} times: {what}")).collect();
        if self.noticed.connections.is_empty() || self.noticed.requests == 0 {
            faults.push("nothing was asked for".to_owned());
        }
        if self.rejected > 0 {
            faults.push(format!("{} changes were rejected", self.rejected));
        }
        if self.panics > 0 {
            faults.push(format!("{} tasks panicked", self.panics));
        }
        let both = [("near", self.idle.near, self.left.near), ("far", self.idle.far, self.left.far)];
        for (node, idle, left) in both {
            let allowed = idle.footprint.rss_bytes * (100 + self.plan.left_percent) / 100;
            if left.footprint.rss_bytes > allowed {
                let (before, after) = (idle.footprint.rss_bytes >> 10, left.footprint.rss_bytes >> 10);
                faults.push(format!("{node}: {before} KB idle before, {after} KB after"));
            }
            if left.footprint.descriptors > idle.footprint.descriptors + READY_SOCKETS {
                let (before, after) = (idle.footprint.descriptors, left.footprint.descriptors);
                faults.push(format!("{node}: {before} descriptors before, {after} after"));
            }
            if left.tasks > idle.tasks {
                faults.push(format!("{node}: {} tasks before, {} after", idle.tasks, left.tasks));
            }
        }
        faults
    }
}

/// A proxy makes sockets ahead of their use while connections come quickly: so many more or fewer may be there, whatever
/// the length of the run. Pods that went are many times more.
const READY_SOCKETS: u64 = 16;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latencies = &self.noticed.connections;
        let us = |percent| latencies.percentile(percent).as_micros();
        writeln!(f, "load        {:.1} min", self.plan.duration.as_secs_f64() / 60.0)?;
        writeln!(f, "connections {} new, p50 {} us, p99 {} us", latencies.len(), us(50), us(99))?;
        writeln!(f, "            {} held, {} requests on them", self.plan.held, self.noticed.requests)?;
        let Changed { came, went, endpoints, policies } = self.changed;
        writeln!(f, "changes     {endpoints} of endpoints, {policies} of policies; {came} pods came, {went} went")?;
        writeln!(f, "control     said something {} times, {} rejected", self.said, self.rejected)?;
        let heads = ["memory KB", "descriptors", "threads", "tasks", "metrics"];
        let [memory, descriptors, threads, tasks, series] = heads;
        writeln!(f, "{:<12}{memory:>14}{descriptors:>14}{threads:>10}{tasks:>10}{series:>10}", "")?;
        for (node, of) in [("near", (|usage: &Usage| usage.near) as fn(&Usage) -> Users), ("far", |usage| usage.far)] {
            for (when, usage) in [("idle", &self.idle), ("busy", &self.busy), ("after", &self.left)] {
                let Users { footprint, tasks, series } = of(usage);
                let Footprint { rss_bytes, descriptors, threads } = footprint;
                let name = format!("{node} {when}");
                let memory = rss_bytes >> 10;
                writeln!(f, "{name:<12}{memory:>14}{descriptors:>14}{threads:>10}{tasks:>10}{series:>10}")?;
            }
        }
        match self.faults() {
            faults if faults.is_empty() => write!(f, "result      ok"),
            faults => {
                writeln!(f, "proxies say {}", self.errors.join("\n            "))?;
                write!(f, "result      {}", faults.join("\n            "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn users(rss_kb: u64, descriptors: u64, tasks: u64) -> Users {
        Users { footprint: Footprint { rss_bytes: rss_kb << 10, descriptors, threads: 4 }, tasks, series: 100 }
    }

    fn good() -> Summary {
        let mut noticed = Noticed { requests: 1, ..Noticed::default() };
        noticed.connections.push(Duration::from_millis(1));
        let usage = Usage { near: users(10_000, 50, 20), far: users(10_000, 50, 20) };
        Summary {
            plan: Plan::of_minutes(15.0),
            noticed,
            changed: Changed::default(),
            said: 1,
            rejected: 0,
            idle: usage,
            busy: usage,
            left: usage,
            panics: 0,
            errors: vec![],
        }
    }

    #[test]
    fn a_good_run_has_no_faults_and_each_fault_is_named() {
        assert!(good().faults().is_empty() && good().to_string().ends_with("ok"));
        type Spoil = fn(&mut Summary);
        let table: [(Spoil, &str); 6] = [
            (|run| run.left.far = users(11_001, 50, 20), "far: 10000 KB idle before, 11001 KB after"),
            (|run| run.left.near = users(10_000, 67, 20), "near: 50 descriptors before, 67 after"),
            (|run| run.left.near = users(10_000, 50, 21), "near: 20 tasks before, 21 after"),
            (|run| run.rejected = 1, "1 changes were rejected"),
            (|run| run.panics = 2, "2 tasks panicked"),
            (|run| run.noticed.failures = [("reading: reset".to_owned(), 3)].into(), "3 times: reading: reset"),
        ];
        for (spoil, words) in table {
            let mut run = good();
            spoil(&mut run);
            assert_eq!(run.faults(), [words]);
            assert!(run.to_string().contains(words));
        }
    }
}
