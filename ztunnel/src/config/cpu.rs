//! How many data-plane workers to run.

use super::reader::Reader;

/// Workers from the settings, the mesh configuration and the cores of this machine; at least 1.
pub(super) fn workers(read: &mut Reader<'_>, concurrency: Option<u16>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = cpus(read, "ZTUNNEL_CPU_LIMIT").unwrap_or(cores);
    let request = cpus(read, "ZTUNNEL_RESOURCE_CPU_REQUEST");
    let limit = cpus(read, "ZTUNNEL_RESOURCE_CPU_LIMIT");
    let chosen = match read.optional("ZTUNNEL_WORKER_THREADS") {
        None => match concurrency {
            None => automatic(cores, request, limit),
            Some(0) => cores,
            Some(count) => count.into(),
        },
        Some(text) => explicit(&text, cores).unwrap_or_else(|| {
            read.error(format!("ZTUNNEL_WORKER_THREADS={text:?}: expected a number or a percentage such as 50%"));
            1
        }),
    };
    chosen.max(1)
}

fn explicit(text: &str, cores: usize) -> Option<usize> {
    match text.strip_suffix('%') {
        Some(percent) => Some((cores * percent.parse::<u16>().ok()? as usize).div_ceil(100)),
        None => text.parse::<u16>().ok().map(|count| if count == 0 { cores } else { count.into() }),
    }
}

/// What the container may use; without a limit a quarter of the machine.
fn automatic(cores: usize, request: Option<usize>, limit: Option<usize>) -> usize {
    let request = request.unwrap_or(0);
    match limit {
        Some(limit) => limit.max(request),
        None => cores.div_ceil(4).max(request).max(WORKERS_MIN),
    }
}

/// Whole cores of a Kubernetes quantity, rounded up; `None` when unset.
fn cpus(read: &mut Reader<'_>, name: &str) -> Option<usize> {
    let text = read.optional(name)?;
    let count = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<usize>().ok().map(|millis| millis.div_ceil(1000)),
        None => text.parse().ok(),
    };
    if count.is_none() {
        read.error(format!("{name}={text:?}: expected a number of cores such as 2 or 500m"));
    }
    count
}

/// One worker that is busy must not stop all traffic of the node.
const WORKERS_MIN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up_and_zero_means_all() {
        assert_eq!(explicit("50%", 3), Some(2));
        assert_eq!(explicit("0", 8), Some(8));
        assert_eq!(explicit("5", 8), Some(5));
        assert_eq!(explicit("-1", 8), None);
        assert_eq!(explicit("half", 8), None);
    }

    #[test]
    fn automatic_follows_limit_then_request_then_machine() {
        assert_eq!(automatic(64, Some(4), Some(2)), 4);
        assert_eq!(automatic(64, None, Some(3)), 3);
        assert_eq!(automatic(64, None, None), 16);
        assert_eq!(automatic(2, Some(3), None), 3);
        assert_eq!(automatic(1, None, None), 2);
    }
}
