//! How busy the worker threads are.

use std::fmt;

use mesh_telemetry::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::RuntimeMetrics;

/// Registers the metrics of these threads, each with its name and a runtime of its own, and those of the runtime that
/// this is called on.
pub fn register(registry: &Registry, mut runtimes: Vec<(String, RuntimeMetrics)>) {
    if let Ok(control) = tokio::runtime::Handle::try_current() {
        runtimes.push(("control".to_owned(), control.metrics()));
    }
    registry.register_collector(Box::new(Runtimes(runtimes)));
}

#[derive(Debug)]
struct Runtimes(Vec<(String, RuntimeMetrics)>);

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let workers = ConstGauge::new(i64::try_from(self.0.len()).unwrap_or(i64::MAX));
        let help = "Threads that run tasks, the control thread included";
        workers.encode(encoder.encode_descriptor("ztunnel_runtime_workers", help, None, workers.metric_type())?)?;
        self.gauges(encoder, "ztunnel_runtime_alive_tasks", "Tasks that have not ended", |runtime| {
            runtime.num_alive_tasks()
        })?;
        self.gauges(encoder, "ztunnel_runtime_queue_depth", "Tasks woken from other threads that wait", |runtime| {
            runtime.global_queue_depth()
        })?;
        let help = "Time that a thread spent on tasks";
        self.counters(encoder, "ztunnel_runtime_busy_seconds", help, |runtime| {
            ConstCounter::new(runtime.worker_total_busy_duration(0).as_secs_f64())
        })?;
        let help = "Times that a thread went to sleep";
        self.counters(encoder, "ztunnel_runtime_parks", help, |runtime| ConstCounter::new(runtime.worker_park_count(0)))
    }
}

impl Runtimes {
    fn gauges(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&RuntimeMetrics) -> usize,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (worker, runtime) in &self.0 {
            let value = i64::try_from(value(runtime)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("worker", worker.as_str())])?)?;
        }
        Ok(())
    }

    fn counters<N>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&RuntimeMetrics) -> ConstCounter<N>,
    ) -> Result<(), fmt::Error>
    where
        ConstCounter<N>: prometheus_client::encoding::EncodeMetric,
    {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (worker, runtime) in &self.0 {
            value(runtime).encode(family.encode_family(&[("worker", worker.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::Workers;

    #[tokio::test]
    async fn each_thread_shows_how_busy_it_is() {
        let registry = Registry::new();
        let workers = Workers::start(2).unwrap();
        register(&registry, workers.metrics());
        let text = registry.encode();
        assert!(text.contains("ztunnel_runtime_workers 4\n"), "{text}");
        for worker in ["0", "1", "accept-0", "control"] {
            for name in ["alive_tasks", "queue_depth", "busy_seconds_total", "parks_total"] {
                let start = format!("ztunnel_runtime_{name}{{worker=\"{worker}\"}} ");
                assert!(text.lines().any(|line| line.starts_with(&start)), "{start} is missing in {text}");
            }
        }
    }
}
