//! The metrics of the data path, read from where workers count.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::labels::Shown;
use super::series::{BOUNDS, HistogramTotals, Kind, Labels, Report, Totals};

/// Asked at every scrape.
pub(super) struct Exporter(pub(super) Arc<Report>);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.table.totals();
        for counter in COUNTERS {
            let mut family = encoder.encode_descriptor(counter.name, counter.help, None, MetricType::Counter)?;
            for (labels, totals) in totals.iter().filter(|(labels, _)| (counter.of)(labels)) {
                let shown = Shown { labels, report: &self.0 };
                ConstCounter::new((counter.value)(totals)).encode(family.encode_family(&shown)?)?;
            }
        }
        for (index, (name, help)) in HISTOGRAMS.iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (labels, totals) in totals.iter().filter(|(labels, _)| is_http(labels)) {
                let Some(histogram) = totals.histograms.get(index) else { continue };
                let shown = Shown { labels, report: &self.0 };
                histogram.encode(family.encode_family(&shown)?)?;
            }
        }
        Ok(())
    }
}

impl EncodeMetric for HistogramTotals {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum, self.buckets.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

struct CounterFamily {
    /// Without the `_total` that the exposition adds.
    name: &'static str,
    help: &'static str,
    of: fn(&Labels) -> bool,
    value: fn(&Totals) -> u64,
}

fn is_http(labels: &Labels) -> bool {
    matches!(labels.kind, Kind::Http { .. })
}

fn is_grpc(labels: &Labels) -> bool {
    matches!(labels.kind, Kind::Http { grpc: true, .. })
}

fn is_tcp(labels: &Labels) -> bool {
    labels.kind == Kind::Tcp
}

const COUNTERS: [CounterFamily; 7] = [
    CounterFamily {
        name: "istio_requests",
        help: "Requests that have ended",
        of: is_http,
        value: |totals| totals.first,
    },
    CounterFamily {
        name: "istio_request_messages",
        help: "gRPC messages of clients",
        of: is_grpc,
        value: |totals| totals.received,
    },
    CounterFamily {
        name: "istio_response_messages",
        help: "gRPC messages of servers",
        of: is_grpc,
        value: |totals| totals.sent,
    },
    CounterFamily {
        name: "istio_tcp_connections_opened",
        help: "TCP connections that were opened",
        of: is_tcp,
        value: |totals| totals.first,
    },
    CounterFamily {
        name: "istio_tcp_connections_closed",
        help: "TCP connections that were closed",
        of: is_tcp,
        value: |totals| totals.closed,
    },
    CounterFamily {
        name: "istio_tcp_sent_bytes",
        help: "Bytes sent to clients of TCP connections",
        of: is_tcp,
        value: |totals| totals.sent,
    },
    CounterFamily {
        name: "istio_tcp_received_bytes",
        help: "Bytes received from clients of TCP connections",
        of: is_tcp,
        value: |totals| totals.received,
    },
];

/// In the order in which a request's histograms are kept.
const HISTOGRAMS: [(&str, &str); 3] = [
    ("istio_request_duration_milliseconds", "First byte of the request to last of the response"),
    ("istio_request_bytes", "Bytes of requests, headers included"),
    ("istio_response_bytes", "Bytes of responses, headers included"),
];
