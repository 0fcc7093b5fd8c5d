//! The metrics of the data path, read from where workers count.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::denial::DenialKind;
use super::labels::{Labels, Shown};
use super::local::read;
use super::series::Totals;
use super::{Direction, Inner};

/// Asked at every scrape.
pub(super) struct Exporter(pub(super) Arc<Inner>);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

type All = [(Arc<Labels>, Totals)];

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.table.totals();
        let encoder = &mut encoder;
        let name = "istio_tcp_connections_opened";
        plain(encoder, name, "The total number of TCP connections opened", &all, |totals| Some(totals.opened))?;
        ends(encoder, &all)?;
        let help = "The size of total bytes received during request in case of a TCP connection";
        plain(encoder, "istio_tcp_received_bytes", help, &all, |totals| Some(totals.received))?;
        let help = "The size of total bytes sent during response in case of a TCP connection";
        plain(encoder, "istio_tcp_sent_bytes", help, &all, |totals| Some(totals.sent))?;
        self.sockets(encoder)?;
        self.lookups(encoder)?;
        self.denials(encoder)
    }
}

/// A counter whose flag is always `-`.
fn plain(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &All,
    value: impl Fn(&Totals) -> Option<u64>,
) -> Result<(), fmt::Error> {
    let values = all.iter().filter_map(|(labels, totals)| Some((Shown { labels, flag: None }, value(totals)?)));
    counters(encoder, name, help, values)
}

/// The counters that have the final flag.
fn ends(encoder: &mut DescriptorEncoder<'_>, all: &All) -> Result<(), fmt::Error> {
    let each = || {
        all.iter().flat_map(|(labels, totals)| {
            let shown = move |(flag, count)| (Shown { labels, flag }, count);
            totals.ended().map(shown)
        })
    };
    let (name, help) = ("istio_tcp_connections_closed", "The total number of TCP connections closed");
    counters(encoder, name, help, each())?;
    let (name, help) = ("istio_tcp_connections_failed", "The total number of TCP connections that failed");
    counters(encoder, name, help, each().filter(|(shown, _)| shown.flag.is_some()))
}

/// One counter for each label set.
pub(super) fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (L, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Exporter {
    fn sockets(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (name, help) = ("istio_tcp_sockets_open", "Accepted sockets that are open");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let locals = self.0.locals();
        for direction in [Direction::Inbound, Direction::Outbound] {
            let open: i64 = locals.iter().map(|local| local.sockets(direction).load(Ordering::Relaxed)).sum();
            let labels = [("reporter", direction.reporter())];
            ConstGauge::new(open).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn lookups(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (name, help) = ("istio_on_demand_dns", "Host names of workloads that were looked up for a connection");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in self.0.lookups().iter() {
            ConstCounter::new(*count).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn denials(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let locals = self.0.locals();
        let count = |n: usize| locals.iter().filter_map(|local| local.denials.get(n)).map(read).sum::<u64>();
        let kinds = DenialKind::ALL.iter().enumerate().map(|(n, kind)| ([("reason", kind.as_str())], count(n)));
        let help = "Connections that were denied, by what decided";
        counters(encoder, "ztunnel_denials", help, kinds.filter(|(_, count)| *count > 0))?;
        let left_out: u64 = locals.iter().map(|local| read(&local.denials_left_out)).sum();
        let (name, help) =
            ("ztunnel_denial_records_suppressed", "Denials that were counted but not recorded, to bound the log");
        let counter = ConstCounter::new(left_out);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }
}
