//! Looks at the memory of the process, and makes room when there is little left.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use mesh_sys::memory::{self, Resident};
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Level, Overload};
use crate::limits::{MEMORY_LOOK, MEMORY_LOOK_BUSY};
use crate::worker::Worker;
use crate::workers::Workers;

/// Looks until `workers` is gone, where memory is limited. A thread, since the control runtime may be busy with a large
/// configuration at the very moment. To be called on that runtime.
///
/// # Errors
/// The system gives no more threads, or does not tell how much memory is in use.
pub(crate) fn keep_watch(overload: Arc<Overload>, workers: &Arc<Workers>) -> io::Result<()> {
    let Some(limit) = overload.limit else { return Ok(()) };
    let (resident, control) = (Resident::open()?, Handle::current());
    let watcher = Watcher { overload, limit, resident, workers: Arc::downgrade(workers), control };
    let thread = std::thread::Builder::new().name("overload".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || watcher.run()).map(drop)
}

struct Watcher {
    overload: Arc<Overload>,
    limit: u64,
    resident: Resident,
    workers: Weak<Workers>,
    control: Handle,
}

impl Watcher {
    fn run(self) {
        let mut asked = Vec::new();
        let mut pause = MEMORY_LOOK;
        loop {
            std::thread::sleep(pause);
            let Some(workers) = self.workers.upgrade() else { return };
            let Some(mut used) = self.look() else { continue };
            pause = if used < self.limit / 2 { MEMORY_LOOK } else { MEMORY_LOOK_BUSY };
            // Workers that are busy take a moment to cut: nothing more is asked of them before they have.
            asked.retain_mut(|told: &mut oneshot::Receiver<()>| matches!(told.try_recv(), Err(TryRecvError::Empty)));
            if self.overload.level() < Level::Full || !asked.is_empty() {
                continue;
            }
            // Most of it may be free already: the allocator keeps what a load leaves behind.
            self.control.block_on(memory::release(std::future::ready(())));
            used = self.look().map_or(used, |now| used.min(now));
            let level = self.overload.level();
            if level >= Level::Full {
                asked = self.control.block_on(self.make_room(&workers, used));
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

    /// Has each worker cut what holds back most, until four fifths of the limit are used; they tell when it is gone.
    async fn make_room(&self, workers: &Arc<Workers>, used: u64) -> Vec<oneshot::Receiver<()>> {
        let excess = used.saturating_sub(self.limit / 5 * 4) / workers.count().max(1) as u64;
        let mut asked = Vec::new();
        for index in 0..workers.count() {
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
            // Without the worker nothing is held back.
            if workers.spawn(index, job).await.is_ok() {
                asked.push(told);
            }
        }
        asked
    }
}

/// Of the thread, which does next to nothing.
const STACK_BYTES: usize = 256 << 10;
