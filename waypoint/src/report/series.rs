//! The series of the metrics: sums over everything that has the same labels.
//!
//! Workers count in [`Counts`] of their own, which nobody else writes; a scrape adds them up. The table is touched when a
//! worker meets a set of labels for the first time.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::Identity;
use mesh_telemetry::metrics::Registry;

use super::ends::{End, Service};
use super::export::Exporter;
use super::flags::Flags;
use crate::limits::{SERIES_IDLE, SERIES_MAX};

/// All metrics of the data path, and what of it is logged.
pub struct Report {
    pub(super) table: Table,
    pub(super) reporter: Reporter,
    pub(super) own: Identity,
    pub(super) logged: Logged,
}

/// From where traffic is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// Between its two ends.
    Waypoint,
    /// As whoever sends it into the mesh.
    Source,
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Logged {
    /// None.
    Nothing,
    /// What did not come to pass as the client wanted.
    #[default]
    Failures,
    /// All of them.
    All,
}

impl Report {
    /// Registers the metrics.
    #[must_use]
    pub fn new(registry: &Registry, reporter: Reporter, own: Identity, logged: Logged) -> Arc<Self> {
        let report = Arc::new(Self { table: Table::new(SERIES_MAX), reporter, own, logged });
        registry.register_collector(Box::new(Exporter(report.clone())));
        report
    }

    /// Forgets what is idle, for ever.
    pub async fn keep_house(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_PAUSE).await;
            self.table.sweep(Instant::now(), SERIES_IDLE);
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

impl std::str::FromStr for Logged {
    type Err = UnknownLogged;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nothing" => Ok(Self::Nothing),
            "failures" => Ok(Self::Failures),
            "all" => Ok(Self::All),
            other => Err(UnknownLogged { found: other.to_owned() }),
        }
    }
}

/// The text says nothing about what to log.
#[derive(Debug, thiserror::Error)]
#[error("{found:?}: expected nothing, failures or all")]
pub struct UnknownLogged {
    found: String,
}

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) source: Arc<End>,
    pub(super) destination: Option<Arc<End>>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) mutual_tls: bool,
    pub(super) flags: Flags,
    pub(super) kind: Kind,
}

/// Labels that depend on the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Tcp,
    Http { status: u16, grpc: bool, grpc_status: Option<u32> },
}

/// What one worker counted. Only that worker adds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests, or connections that were opened.
    pub(super) first: AtomicU64,
    /// gRPC messages of clients, or bytes received.
    pub(super) received: AtomicU64,
    /// gRPC messages of servers, or bytes sent.
    pub(super) sent: AtomicU64,
    /// Connections that were closed.
    pub(super) closed: AtomicU64,
    /// Of requests.
    pub(super) histograms: Option<Box<[Histogram; 3]>>,
}

/// Counts by size.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Thousandths.
    sum: AtomicU64,
}

/// What a histogram amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct HistogramTotals {
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) sum: f64,
}

/// What a series amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) first: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) closed: u64,
    pub(super) histograms: [HistogramTotals; 3],
}

/// Adds to a number that only this thread changes: no locked instruction is needed.
pub(super) fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Counts {
    pub(super) fn of(kind: Kind) -> Self {
        let histograms = matches!(kind, Kind::Http { .. }).then(Box::default);
        Self { histograms, ..Self::default() }
    }
}

impl Histogram {
    /// Counts a value in thousandths of the unit.
    pub(super) fn observe(&self, thousandths: u64) {
        let value = thousandths as f64 / 1000.0;
        let at = BOUNDS.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            add(bucket, 1);
        }
        add(&self.sum, thousandths);
    }
}

impl Totals {
    fn add(&mut self, counts: &Counts) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.first += read(&counts.first);
        self.received += read(&counts.received);
        self.sent += read(&counts.sent);
        self.closed += read(&counts.closed);
        let histograms = counts.histograms.iter().flat_map(|all| all.iter());
        for (total, histogram) in self.histograms.iter_mut().zip(histograms) {
            for (total, bucket) in total.buckets.iter_mut().zip(&histogram.buckets) {
                *total += read(bucket);
            }
            total.sum += read(&histogram.sum) as f64 / 1000.0;
        }
    }
}

/// All series.
#[derive(Debug)]
pub(super) struct Table {
    series_max: usize,
    series: Mutex<HashMap<Labels, Series>>,
}

#[derive(Debug)]
struct Series {
    /// Of parts that are gone.
    base: Totals,
    parts: Vec<Arc<Counts>>,
    idle_since: Instant,
}

impl Table {
    pub(super) fn new(series_max: usize) -> Self {
        Self { series_max, series: Mutex::default() }
    }

    /// A part of the series with these labels, for one worker. `None`: there are too many series for a further one.
    pub(super) fn join(&self, labels: &Labels) -> Option<Arc<Counts>> {
        let mut all = self.lock();
        let crowded = all.len() >= self.series_max && !all.contains_key(labels);
        (!crowded).then(|| part_of(&mut all, labels))
    }

    /// As [`Table::join`], however many there are: for labels of which there are few.
    pub(super) fn join_anyway(&self, labels: &Labels) -> Arc<Counts> {
        part_of(&mut self.lock(), labels)
    }

    /// What is known now.
    pub(super) fn totals(&self) -> Vec<(Labels, Totals)> {
        let total = |(labels, series): (&Labels, &Series)| {
            let mut total = series.base;
            series.parts.iter().for_each(|part| total.add(part));
            (labels.clone(), total)
        };
        self.lock().iter().map(total).collect()
    }

    /// Takes over what was counted by parts that nobody uses any more, and drops what is long idle.
    pub(super) fn sweep(&self, now: Instant, idle_max: Duration) {
        self.lock().retain(|_, series| {
            let had_parts = !series.parts.is_empty();
            let base = &mut series.base;
            series.parts.retain_mut(|part| {
                // Alone with it, so everything that was counted is seen.
                let gone = Arc::get_mut(part).is_some();
                if gone {
                    base.add(part);
                }
                !gone
            });
            if had_parts {
                series.idle_since = now;
            }
            !series.parts.is_empty() || now.saturating_duration_since(series.idle_since) < idle_max
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn part_of(all: &mut HashMap<Labels, Series>, labels: &Labels) -> Arc<Counts> {
    let part = Arc::new(Counts::of(labels.kind));
    let new = || Series { base: Totals::default(), parts: Vec::with_capacity(1), idle_since: Instant::now() };
    all.entry(labels.clone()).or_insert_with(new).parts.push(part.clone());
    part
}

/// Upper ends of buckets: milliseconds and bytes alike, as dashboards expect.
pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// How often idle series are looked for.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
