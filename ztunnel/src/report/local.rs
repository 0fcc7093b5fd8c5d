//! What a worker thread keeps for itself, so that workers do not meet at a lock: its flows, its live
//! connections, its open sockets. Others look in when metrics are scraped or connections are listed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::access::Live;
use super::denial::{Budgets, DenialKind};
use super::flow::{self, Flow};
use super::series::Table;
use super::{ConnectionInfo, Direction};
use crate::state::Snapshot;

/// Flows that a worker remembers: pairs of pods, per service, that talk at one time.
pub(super) const FLOWS_MAX: usize = 4096;
/// A flow without connections is forgotten after so long, and at once when its records were replaced. Not much later: it
/// lies among the buffers of a load that may be over, and keeps their pages. The next connection makes it anew in some
/// microseconds.
pub(super) const FLOW_IDLE: Duration = Duration::from_secs(30);

/// One worker's part of a report. Its lock is taken by that worker, and by a scrape now and then.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) state: Mutex<State>,
    sockets: [AtomicI64; 2],
    pub(super) denials: [AtomicU64; DenialKind::ALL.len()],
    pub(super) denials_left_out: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    hasher: RandomState,
    flows: HashMap<u64, Arc<Flow>, BuildHasherDefault<Numbers>>,
    live: Slots,
    pub(super) budgets: Budgets,
}

impl Local {
    /// The flow of a connection, made when it is met for the first time.
    pub(super) fn flow(&self, info: ConnectionInfo, table: &Table, started: Instant, now: Instant) -> Arc<Flow> {
        let now_s = seconds(started, now);
        let mut state = self.lock();
        let number = flow::number_of(&info, &state.hasher);
        if let Some(flow) = state.flows.get(&number)
            && flow.is_of(&info)
        {
            flow.touch(now_s);
            return Arc::clone(flow);
        }
        let flow = Arc::new(Flow::new(info));
        flow.touch(now_s);
        table.join(&flow, now);
        if state.flows.len() >= FLOWS_MAX {
            state.flows.retain(|_, flow| Arc::strong_count(flow) > 1);
        }
        // With as many pairs connected, one more is not remembered: its next connection makes it anew.
        if state.flows.len() < FLOWS_MAX {
            state.flows.insert(number, Arc::clone(&flow));
        }
        flow
    }

    pub(super) fn add(&self, live: &Arc<Live>) -> u32 {
        self.lock().live.add(Arc::clone(live))
    }

    pub(super) fn remove(&self, slot: u32) {
        let removed = self.lock().live.remove(slot);
        drop(removed);
    }

    /// Live connections of this worker that `wanted` holds for.
    pub(super) fn live(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Arc<Live>> {
        self.lock().live.entries.iter().flatten().filter(|live| wanted(live)).cloned().collect()
    }

    /// Forgets flows without connections that have been so for long, or can have none any more.
    pub(super) fn sweep(&self, snapshot: &Snapshot, started: Instant, now: Instant) {
        let (now_s, idle_s) = (seconds(started, now), FLOW_IDLE.as_secs());
        let mut state = self.lock();
        let fresh = |flow: &Flow| u64::from(now_s.saturating_sub(flow.used_s())) < idle_s && flow.is_current(snapshot);
        state.flows.retain(|_, flow| Arc::strong_count(flow) > 1 || fresh(flow));
        // Some room stays: a table that grows again and again is copied again and again.
        if state.flows.len() < state.flows.capacity() / 4 {
            state.flows.shrink_to(0);
        }
        state.budgets.sweep(now);
    }

    pub(super) fn sockets(&self, direction: Direction) -> &AtomicI64 {
        let [inbound, outbound] = &self.sockets;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This thread's part of the report with that id, made by `new` when it is first needed.
pub(super) fn of_this_thread(id: u64, new: impl FnOnce() -> Arc<Local>) -> Option<Arc<Local>> {
    let find = |locals: &RefCell<Vec<(u64, Arc<Local>)>>| {
        let mut locals = locals.try_borrow_mut().ok()?;
        if let Some((_, local)) = locals.iter().find(|(of, _)| *of == id) {
            return Some(Arc::clone(local));
        }
        // Those of reports that are gone; there is more than one only in tests.
        locals.retain(|(_, local)| Arc::strong_count(local) > 1);
        let local = new();
        locals.push((id, Arc::clone(&local)));
        Some(local)
    };
    // Not while the thread ends.
    LOCALS.try_with(find).ok().flatten()
}

thread_local! {
    static LOCALS: RefCell<Vec<(u64, Arc<Local>)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn seconds(started: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(started).as_secs()).unwrap_or(u32::MAX)
}

/// A table with numbered places that are used again.
#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Arc<Live>>>,
    free: Vec<u32>,
}

impl Slots {
    fn add(&mut self, live: Arc<Live>) -> u32 {
        if let Some(slot) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(slot as usize)
        {
            *entry = Some(live);
            return slot;
        }
        let slot = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Some(live));
        slot
    }

    fn remove(&mut self, slot: u32) -> Option<Arc<Live>> {
        let removed = self.entries.get_mut(slot as usize)?.take();
        self.free.push(slot);
        if self.free.len() == self.entries.len() && self.entries.capacity() > SLOTS_KEEP {
            // The last one of many: give their places back.
            *self = Self::default();
        }
        removed
    }
}

/// Places that are kept while no connection is open.
const SLOTS_KEEP: usize = 64;

/// Hashes numbers that are hashes already.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used with the keys of this table; any value would be right.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
