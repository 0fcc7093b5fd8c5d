//! What a process uses of the system, as metrics of the names that dashboards know: read from `/proc` at each scrape.

use std::fmt;
use std::path::Path;

use mesh_telemetry::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Registers the metrics of this process.
pub fn register(registry: &Registry) {
    registry.register_collector(Box::new(Process));
}

/// Counted at each scrape.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let own = Path::new("/proc/self");
        let text = |file: &str| std::fs::read_to_string(own.join(file)).unwrap_or_default();
        // One of them is the listing's own.
        let open = std::fs::read_dir(own.join("fd")).map_or(0, |entries| entries.count().saturating_sub(1));
        let (status, sizes) = (Status::read(&text("stat")).unwrap_or_default(), text("status"));
        let since = boot_seconds(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
        let started = since.map_or(0.0, |boot| boot + seconds(status.started_ticks));
        for (name, help, value) in [
            ("process_open_fds", "Open file descriptors", whole(open)),
            ("process_max_fds", "Limit of open file descriptors", open_files_max(&text("limits"))),
            ("process_threads", "Threads", Value::Whole(status.threads)),
            ("process_resident_memory_bytes", "Resident memory", Value::Whole(memory(&sizes, "VmRSS:"))),
            ("process_virtual_memory_bytes", "Virtual memory", Value::Whole(memory(&sizes, "VmSize:"))),
            ("process_start_time_seconds", "When the process started, in seconds since 1970", Value::Seconds(started)),
            ("process_cpu_seconds", "Processor time used", Value::Total(seconds(status.cpu_ticks))),
        ] {
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
        }
        Ok(())
    }
}

/// A value of the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Whole(u64),
    Seconds(f64),
    /// It only grows; the exposition ends its name with `_total`.
    Total(f64),
}

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Whole(value) => encoder.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX)),
            Self::Seconds(value) => encoder.encode_gauge(value),
            Self::Total(value) => encoder.encode_counter::<NoLabelSet, f64, f64>(value, None),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Whole(_) | Self::Seconds(_) => MetricType::Gauge,
            Self::Total(_) => MetricType::Counter,
        }
    }
}

/// What `/proc/self/stat` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    cpu_ticks: u64,
    threads: u64,
    /// Since the system started.
    started_ticks: u64,
}

impl Status {
    /// # Source
    /// proc_pid_stat(5): fields 14 (utime), 15 (stime), 20 (num_threads), 22 (starttime).
    fn read(stat: &str) -> Option<Self> {
        // The name of the program, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of these is field 3.
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)?.saturating_add(field(15)?), threads: field(20)?, started_ticks: field(22)? })
    }
}

fn whole(count: usize) -> Value {
    Value::Whole(u64::try_from(count).unwrap_or(u64::MAX))
}

/// The soft limit of `/proc/self/limits`.
fn open_files_max(limits: &str) -> Value {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    Value::Whole(match soft {
        Some("unlimited") => u64::MAX,
        other => other.and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

/// A size of `/proc/self/status`, in bytes.
fn memory(status: &str, field: &str) -> u64 {
    let size = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next());
    size.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default().saturating_mul(1024)
}

/// When the system started, in seconds since 1970.
fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn seconds(ticks: u64) -> f64 {
    // Centuries of ticks are exact in a float.
    #[allow(clippy::cast_precision_loss)]
    let ticks = ticks as f64;
    ticks / TICKS_PER_SECOND
}

/// What the kernel counts in towards programs, on every architecture: USER_HZ, see time(7).
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_metrics_are_those_of_this_process() {
        let registry = Registry::new();
        register(&registry);
        let before = registry.encode();
        let held: Vec<_> = (0..20).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        let filled = vec![1_u8; 32 << 20];
        let began = std::time::Instant::now();
        let used = |text: &str| value(text, "process_cpu_seconds_total");
        let mut after = registry.encode();
        while used(&after) <= used(&before) {
            assert!(began.elapsed().as_secs() < 30, "no processor time is counted");
            after = registry.encode();
        }
        assert!(value(&after, "process_open_fds") >= value(&before, "process_open_fds") + 20.0 - 10.0);
        assert!(value(&after, "process_max_fds") >= 256.0);
        assert!(value(&after, "process_threads") >= 1.0);
        assert!(value(&after, "process_resident_memory_bytes") >= 32.0 * 1024.0 * 1024.0);
        assert!(value(&after, "process_virtual_memory_bytes") >= value(&after, "process_resident_memory_bytes"));
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let started = value(&after, "process_start_time_seconds");
        assert!(started <= now + 2.0 && started > now - 3600.0, "{started} {now}");
        assert!(filled.len() > held.len());
    }

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 12 0 4200 1000 10";
        assert_eq!(Status::read(stat), Some(Status { cpu_ticks: 200, threads: 12, started_ticks: 4200 }));
        assert_eq!(Status::read("7 (a"), None);
        assert_eq!(Status::read("7 (a) S 1"), None);
    }

    #[test]
    fn sizes_and_limits_are_read_and_what_is_missing_is_nothing() {
        assert_eq!(memory("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), 12 << 10);
        assert_eq!(memory("", "VmRSS:"), 0);
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files_max(limits), Value::Whole(1024));
        assert_eq!(open_files_max("Max open files unlimited unlimited files"), Value::Whole(u64::MAX));
        assert_eq!(open_files_max(""), Value::Whole(0));
        assert_eq!(boot_seconds("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(boot_seconds(""), None);
    }
}
