//! The series of the TCP metrics: sums over everything that has the same labels.
//!
//! Workers count in [`Counts`] of their own, which nobody else writes; a scrape adds them up. The
//! table itself is touched when a worker meets a pair of ends for the first time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::labels::Labels;
use super::{Outcome, ResponseFlag};
use crate::state::Snapshot;

/// Series at once. Beyond that, new pairs of ends are counted together, under labels that say
/// `unknown`: a peer that invents names must not fill the memory.
pub(super) const SERIES_MAX: usize = 20_000;
/// A series that nothing was counted in for so long is dropped; if it comes back, it starts at 0.
pub(super) const SERIES_IDLE: Duration = Duration::from_secs(3600);
/// After so long already if one of its ends has left the state, so that nothing will be counted in it any more. Not
/// sooner: whoever scrapes must have seen the last that was counted.
pub(super) const SERIES_GONE: Duration = Duration::from_secs(60);
/// At the bound, series that are idle for this long already make room.
const SERIES_IDLE_CROWDED: Duration = Duration::from_secs(60);
/// Between two searches for room.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);
/// Series that are settled at once: for less than a millisecond workers wait if they meet a new pair of ends.
const SETTLED_MAX: usize = 1000;
/// Ways to end: well, then each flag.
const ENDS: usize = 1 + ResponseFlag::ALL.len();

/// What one worker counted between one pair of ends. Only that worker adds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    ended: [AtomicU64; ENDS],
}

/// Adds to a number that only this thread changes: no locked instruction is needed.
pub(super) fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Counts {
    pub(super) fn ended(&self, outcome: &Outcome) {
        let slot = match outcome {
            Outcome::Complete => 0,
            Outcome::Failed { flag, .. } => 1 + flag.index(),
        };
        if let Some(count) = self.ended.get(slot) {
            add(count, 1);
        }
    }
}

/// What one series amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) opened: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    ended: [u64; ENDS],
}

impl Totals {
    fn add(&mut self, counts: &Counts) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.opened += read(&counts.opened);
        self.received += read(&counts.received);
        self.sent += read(&counts.sent);
        for (total, count) in self.ended.iter_mut().zip(&counts.ended) {
            *total += read(count);
        }
    }

    /// Connections that ended, by flag; ways in which none did are left out.
    pub(super) fn ended(&self) -> impl Iterator<Item = (Option<ResponseFlag>, u64)> + use<> {
        let flags = std::iter::once(None).chain(ResponseFlag::ALL.into_iter().map(Some));
        flags.zip(self.ended).filter(|(_, count)| *count > 0)
    }
}

/// All series.
#[derive(Debug)]
pub(super) struct Table {
    series_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    series: HashMap<Arc<Labels>, Series>,
    /// When room was last looked for in vain.
    crowded: Option<Instant>,
}

#[derive(Debug)]
struct Series {
    /// Of parts that are gone.
    base: Totals,
    parts: Vec<Arc<Counts>>,
    /// Since when there are no parts.
    idle_since: Instant,
    /// Whether the control plane has described the source, and the destination. Who is known from elsewhere cannot leave
    /// the state.
    described: [bool; 2],
    /// Its labels are no longer where a worker put them.
    settled: bool,
}

impl Table {
    /// No series yet, and at most `series_max`, usually [`SERIES_MAX`].
    pub(super) fn new(series_max: usize) -> Self {
        Self { series_max, inner: Mutex::default() }
    }

    /// Adds what is counted in `flow` to the series with its labels.
    pub(super) fn join(&self, flow: &Flow, now: Instant) {
        let labels = Labels::of(flow);
        let mut inner = self.lock();
        let labels =
            if inner.has_room(self.series_max, &labels, now) { labels } else { Labels::crowd(labels.direction) };
        let new = || Series {
            base: Totals::default(),
            parts: Vec::with_capacity(1),
            idle_since: now,
            described: [false; 2],
            settled: false,
        };
        let series = inner.series.entry(Arc::new(labels)).or_insert_with(new);
        series.parts.push(Arc::clone(&flow.counts));
        for (described, end) in series.described.iter_mut().zip([&flow.source, &flow.destination]) {
            *described |= end.workload.is_some();
        }
    }

    /// What is known now. The lock is not held while that is put into words.
    pub(super) fn totals(&self) -> Vec<(Arc<Labels>, Totals)> {
        let inner = self.lock();
        let total = |(labels, series): (&Arc<Labels>, &Series)| (Arc::clone(labels), series.total());
        inner.series.iter().map(total).collect()
    }

    /// Takes over what was counted by parts that nobody uses any more, and drops series that are long idle, or idle and
    /// between ends of which one is gone. Series between ends that live are only dropped when they are long idle: their
    /// counters must not start anew.
    pub(super) fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        let resting = {
            let mut inner = self.lock();
            inner.sweep(now, SERIES_IDLE);
            inner.idle(now, SERIES_GONE)
        };
        if resting.is_empty() {
            return;
        }
        // Without the lock: there may be many workloads.
        let gone = gone(&resting, snapshot);
        let mut inner = self.lock();
        for (labels, described) in &resting {
            let is_gone = described_ends(labels, *described).any(|end| gone.contains(&end));
            if is_gone && inner.series.get(labels).is_some_and(|series| series.is_idle(now, SERIES_GONE)) {
                inner.series.remove(labels);
            }
        }
        inner.shrink();
    }

    /// Whether [`Table::settle`] has anything to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.lock().series.values().any(|series| !series.settled)
    }

    /// Moves labels to memory of the calling thread. Workers made them amid the buffers of a load, which end with it, while
    /// a series stays for an hour: each would keep a page of its own. Tells how many were moved.
    ///
    /// The thread is to end soon: what it lets go here goes back to the workers' heaps only then.
    pub(super) fn settle(&self) -> usize {
        let mut inner = self.lock();
        let unsettled = inner.series.iter().filter(|(_, series)| !series.settled).take(SETTLED_MAX);
        // All before the first is let go, or the next would take its place.
        let moved: Vec<_> = unsettled.map(|(labels, _)| (Arc::clone(labels), Arc::new(labels.moved()))).collect();
        for (before, labels) in &moved {
            if let Some(series) = inner.series.remove(before) {
                inner.series.insert(Arc::clone(labels), Series { settled: true, ..series });
            }
        }
        drop(inner);
        moved.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&mut self, series_max: usize, labels: &Labels, now: Instant) -> bool {
        if self.series.len() < series_max || self.series.contains_key(labels) {
            return true;
        }
        if self.crowded.is_some_and(|then| now.saturating_duration_since(then) < CROWDED_PAUSE) {
            return false;
        }
        self.crowded = Some(now);
        self.sweep(now, SERIES_IDLE_CROWDED);
        self.series.len() < series_max
    }

    fn sweep(&mut self, now: Instant, idle_max: Duration) {
        self.series.retain(|_, series| {
            let had_parts = !series.parts.is_empty();
            let base = &mut series.base;
            series.parts.retain_mut(|part| {
                // Alone with it, and everything that was counted is seen.
                let gone = Arc::get_mut(part).is_some();
                if gone {
                    base.add(part);
                }
                !gone
            });
            // None is worth a place among a worker's buffers.
            let room = if series.parts.is_empty() { 0 } else { 4 };
            series.parts.shrink_to(room);
            if had_parts {
                series.idle_since = now;
            }
            !series.is_idle(now, idle_max)
        });
        self.shrink();
    }

    /// Series that are idle for `idle_min`, each with which of its ends were described.
    fn idle(&self, now: Instant, idle_min: Duration) -> Vec<(Arc<Labels>, [bool; 2])> {
        let idle = self.series.iter().filter(|(_, series)| series.is_idle(now, idle_min));
        idle.map(|(labels, series)| (Arc::clone(labels), series.described)).collect()
    }

    /// Gives memory back once most of it is not used.
    fn shrink(&mut self) {
        if self.series.len() < self.series.capacity() / 4 {
            self.series.shrink_to(self.series.len() * 2);
        }
    }
}

/// Namespaces and names of those ends that the control plane has described.
fn described_ends(labels: &Labels, described: [bool; 2]) -> impl Iterator<Item = (&str, &str)> {
    labels.ends().into_iter().zip(described).filter_map(|(end, described)| end.filter(|_| described))
}

/// Those ends of `series` that no workload has any more.
fn gone<'a>(series: &'a [(Arc<Labels>, [bool; 2])], snapshot: &'a Snapshot) -> HashSet<(&'a str, &'a str)> {
    let mut ends: HashSet<_> =
        series.iter().flat_map(|(labels, described)| described_ends(labels, *described)).collect();
    for workload in snapshot.workloads() {
        ends.remove(&(&*workload.namespace, &*workload.workload_name));
    }
    ends
}

impl Series {
    fn is_idle(&self, now: Instant, at_least: Duration) -> bool {
        self.parts.is_empty() && now.saturating_duration_since(self.idle_since) >= at_least
    }

    fn total(&self) -> Totals {
        let mut total = self.base;
        self.parts.iter().for_each(|part| total.add(part));
        total
    }
}
