//! Looks at the memory of the process, and makes room when there is little left.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use futures::FutureExt;
use mesh_sys::memory::{self, Resident};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Level, Overload};
use crate::limits::{MEMORY_LOOK, MEMORY_LOOK_BUSY, ROOM_BUDGET};
use crate::worker::Worker;
use crate::workers::Workers;

/// Looks until `workers` is gone, where memory is limited. A thread, since the control runtime may be busy with a large
/// configuration at the very moment. It waits for nobody: a worker that is stuck must not keep the others from being told.
///
/// # Errors
/// The system gives no more threads, or does not tell how much memory is in use.
pub(crate) fn keep_watch(overload: Arc<Overload>, workers: &Arc<Workers>) -> io::Result<()> {
    let Some(limit) = overload.limit else { return Ok(()) };
    let watcher = Watcher { overload, limit, resident: Resident::open()?, workers: Arc::downgrade(workers) };
    let thread = std::thread::Builder::new().name("overload".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || watcher.run()).map(drop)
}

struct Watcher {
    overload: Arc<Overload>,
    limit: u64,
    resident: Resident,
    workers: Weak<Workers>,
}

/// Workers that were told to make room and have not yet done it.
#[derive(Default)]
struct Orders {
    /// The latest.
    given: Option<Instant>,
    /// By worker.
    open: BTreeMap<usize, oneshot::Receiver<()>>,
}

impl Watcher {
    fn run(self) {
        let mut orders = Orders::default();
        let mut pause = MEMORY_LOOK;
        loop {
            std::thread::sleep(pause);
            let Some(workers) = self.workers.upgrade() else { return };
            let Some(mut used) = self.look() else { continue };
            pause = if used < self.limit / 2 { MEMORY_LOOK } else { MEMORY_LOOK_BUSY };
            // Workers that are busy take a moment to cut: nothing more is asked of anybody before they have.
            if self.overload.level() < Level::Full || orders.are_awaited(Instant::now()) {
                continue;
            }
            // Most of it may be free already: the allocator keeps what a load leaves behind. Nothing here is waited for.
            let _ = memory::release(std::future::ready(())).now_or_never();
            used = self.look().map_or(used, |now| used.min(now));
            let level = self.overload.level();
            if level >= Level::Full {
                self.make_room(&workers, used, &mut orders, Instant::now());
            }
            if level == Level::Over {
                let cut = workers.places().thin_out();
                if cut > 0 {
                    tracing::warn!(cut, "connections of the address with most were cut: memory runs out");
                }
            }
        }
    }

    /// Finds the level of now; yields the bytes in use. Where the system does not tell them, the level stays.
    fn look(&self) -> Option<u64> {
        let used = self.resident.bytes().ok()?;
        let before = self.overload.level();
        let level = Level::of(used, self.limit, before);
        if level != before {
            self.overload.set(level);
            let (used_mib, limit_mib) = (used >> 20, self.limit >> 20);
            if level >= Level::Full && before < Level::Full {
                tracing::warn!(used_mib, limit_mib, "memory runs out: no new connections");
            } else if level < Level::Full && before >= Level::Full {
                tracing::info!(used_mib, limit_mib, "there is memory again");
            }
        }
        Some(used)
    }

    /// Has each worker cut what holds back most, until four fifths of the limit are used; they tell when it is gone. Those
    /// that are still at it are left alone.
    fn make_room(&self, workers: &Workers, used: u64, orders: &mut Orders, now: Instant) {
        let excess = used.saturating_sub(self.limit / 5 * 4) / workers.count().max(1) as u64;
        for index in 0..workers.count() {
            if orders.open.contains_key(&index) {
                continue;
            }
            let (tell, told) = oneshot::channel();
            let job = move |worker: Rc<Worker>| async move {
                let cut = worker.hoards.shed(excess);
                if cut > 0 {
                    tracing::warn!(cut, "streams and connections that held back most were cut: memory runs out");
                    // They end before this goes on.
                    tokio::task::yield_now().await;
                }
                memory::release_own_heap();
                drop(tell);
            };
            // One whose queue is full is asked at the next look: no connections are added to it meanwhile.
            if workers.try_spawn(index, job).is_ok() {
                orders.open.insert(index, told);
                orders.given = Some(now);
            }
        }
    }
}

impl Orders {
    /// Whether room is about to be made. A worker that takes very long is not waited for.
    fn are_awaited(&mut self, now: Instant) -> bool {
        self.open.retain(|_, told| matches!(told.try_recv(), Err(TryRecvError::Empty)));
        let fresh = self.given.is_some_and(|given| now.saturating_duration_since(given) < ROOM_BUDGET);
        fresh && !self.open.is_empty()
    }
}

/// Of the thread, which does next to nothing.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::tests::fixture::shared;

    #[tokio::test]
    async fn a_worker_that_is_stuck_is_not_waited_for() {
        let workers = Arc::new(Workers::start(&shared()).unwrap());
        assert!(workers.count() > 1);
        let (free, stuck) = std::sync::mpsc::channel::<()>();
        let (told, is_stuck) = std::sync::mpsc::channel();
        let job = move |_| async move {
            told.send(()).unwrap();
            let _ = stuck.recv();
        };
        workers.try_spawn(0, job).unwrap();
        is_stuck.recv().unwrap();
        let (overload, resident) = (Overload::new(Some(1 << 30)), Resident::open().unwrap());
        let watcher = Watcher { overload, limit: 1 << 30, resident, workers: Arc::downgrade(&workers) };
        let (mut orders, began) = (Orders::default(), Instant::now());
        watcher.make_room(&workers, 1 << 30, &mut orders, began);
        assert!(orders.open.contains_key(&0) && orders.are_awaited(began));
        assert!(!orders.are_awaited(began + ROOM_BUDGET), "the others are told again");
        watcher.make_room(&workers, 1 << 30, &mut orders, began + ROOM_BUDGET);
        assert!(orders.open.contains_key(&0), "it was not told twice");
        // Its queue is full: whoever waited for it would wait for ever.
        orders.open.clear();
        while workers.try_spawn(0, |_| async {}).is_ok() {}
        watcher.make_room(&workers, 1 << 30, &mut orders, began + 2 * ROOM_BUDGET);
        assert!(!orders.open.contains_key(&0) && orders.open.contains_key(&1));
        drop(free);
        let wait = Duration::from_millis(1);
        while orders.are_awaited(began + 2 * ROOM_BUDGET) {
            std::thread::sleep(wait);
        }
    }
}
