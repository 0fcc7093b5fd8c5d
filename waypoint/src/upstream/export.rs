//! The metrics of pools, read from where they count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use mesh_telemetry::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::shared::UpstreamShared;

/// Asked at every scrape.
struct Exporter(Weak<UpstreamShared>);

impl UpstreamShared {
    /// Shows the pools in `registry`: those that were used, by name.
    pub fn export(self: &Arc<Self>, registry: &Registry) {
        registry.register_collector(Box::new(Exporter(Arc::downgrade(self))));
    }

    /// Values by metric, then by pool. Pools of one name are one.
    fn totals(&self) -> BTreeMap<&'static str, BTreeMap<Arc<str>, u64>> {
        let mut totals: BTreeMap<&'static str, BTreeMap<Arc<str>, u64>> = BTreeMap::new();
        for cluster in self.clusters() {
            let stats = cluster.stats();
            if stats.rq_total.total() + stats.cx_total.total() + stats.cx_connect_fail.total() == 0 {
                continue;
            }
            for (name, value) in stats.list().into_iter().chain(cluster.gauges()) {
                *totals.entry(name).or_default().entry(cluster.policy().label().clone()).or_default() += value;
            }
        }
        totals
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        for (name, pools) in shared.totals() {
            // The exposition gives counters that ending. Dashboards know the others by a name without it.
            let counter = name.strip_suffix("_total").filter(|_| !name.starts_with("membership"));
            let kind = if counter.is_some() { MetricType::Counter } else { MetricType::Gauge };
            let family = format!("envoy_cluster_{}", counter.unwrap_or(name));
            let mut encoder = encoder.encode_descriptor(&family, "Of a pool of endpoints", None, kind)?;
            for (cluster, value) in pools {
                let labels = [("cluster_name", &*cluster)];
                let encoder = encoder.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                    _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::host::testing::{backend, endpoints, shared, view};

    #[tokio::test]
    async fn what_clients_choose_is_no_label() {
        let (shared, registry) = (shared(), Registry::new());
        shared.export(&registry);
        let wildcard = "*.example.com".to_owned();
        let clusters: Vec<_> = (0..100)
            .flat_map(|n| {
                let mut host = backend(Default::default());
                (host.hostname, host.dynamic_wildcard) = (format!("h{n}.example.com"), wildcard.clone());
                let mut workload = backend(Default::default());
                (workload.hostname, workload.port) = ("10.0.0.1".to_owned(), 1_000 + n);
                [host, workload]
            })
            .map(|backend| shared.cluster(&backend, view(endpoints(1))).unwrap())
            .collect();
        clusters.iter().for_each(|cluster| cluster.stats().rq_total.add());
        let (_, text) = registry.encode_for(None);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("envoy_cluster_upstream_rq_total{")).collect();
        assert_eq!(
            lines,
            [
                "envoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||*.example.com\"} 100",
                "envoy_cluster_upstream_rq_total{cluster_name=\"workload\"} 100",
            ]
        );
    }

    #[tokio::test]
    async fn pools_that_were_used_are_shown_under_the_names_that_dashboards_know() {
        let (shared, registry) = (shared(), Registry::new());
        shared.export(&registry);
        let cluster = shared.cluster(&backend(Default::default()), view(endpoints(2))).unwrap();
        assert!(!registry.encode().contains("cluster_name"));
        cluster.stats().rq_total.add();
        cluster.stats().cx_connect_fail.add();
        let (_, text) = registry.encode_for(None);
        for line in [
            "envoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||cart.shop\"} 1",
            "envoy_cluster_upstream_cx_connect_fail{cluster_name=\"outbound|80||cart.shop\"} 1",
            "envoy_cluster_upstream_cx_active{cluster_name=\"outbound|80||cart.shop\"} 0",
            "envoy_cluster_membership_total{cluster_name=\"outbound|80||cart.shop\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
