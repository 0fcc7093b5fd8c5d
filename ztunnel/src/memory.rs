//! Memory of a load that is over goes back to the system.

use std::io;
use std::sync::Arc;
use std::thread;

use mesh_sys::{memory, rest};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::workers::Workers;

/// Tidies up after each load, until `shared` is gone. To be called on the control runtime.
///
/// # Errors
/// The system gives no more threads.
pub(crate) fn tidy_up(shared: &Arc<Shared>) -> io::Result<()> {
    let weak = Arc::downgrade(shared);
    let on_each = move || {
        let owner = weak.upgrade()?;
        Some(async move { on_each_thread(&owner.workers).await })
    };
    rest::tidy_up(Handle::current(), on_each)
}

/// Each worker has a heap of its own, and so has the control thread. Waits for a thread, so not on one of these.
///
/// Of each small size the GNU C library keeps some blocks for the thread that freed them, wherever they lie: after a load
/// they are scattered over the whole heap, and each keeps a page that is empty otherwise. Only the end of a thread frees
/// what it keeps, so they are given to one that ends.
async fn on_each_thread(workers: &Workers) {
    let kept = run_on_each(workers, kept_blocks).await;
    match thread::Builder::new().name("memory".to_owned()).stack_size(STACK_BYTES).spawn(move || drop(kept)) {
        // It cannot panic.
        Ok(freeing) => drop(freeing.join()),
        Err(error) => tracing::debug!(%error, "small blocks of memory are kept"),
    }
    run_on_each(workers, memory::release_own_heap).await;
}

/// What each thread made of `work`; those that have ended are left out.
async fn run_on_each<T: Send + 'static>(workers: &Workers, work: fn() -> T) -> Vec<T> {
    let mut results = Vec::new();
    for seat in workers.seats() {
        let (done, result) = oneshot::channel();
        let job = move || async move { drop(done.send(work())) };
        if workers.spawn(seat, job).await.is_ok() {
            results.extend(result.await);
        }
    }
    results.extend(tokio::spawn(async move { work() }).await);
    results
}

/// Takes the blocks that the allocator keeps for the calling thread; where there are fewer, others of the same sizes.
fn kept_blocks() -> Vec<Vec<u8>> {
    // Made first, so that it does not grow in blocks of such sizes.
    let mut blocks = Vec::with_capacity(KEPT_SIZES * KEPT_OF_EACH);
    let sizes = (0..KEPT_SIZES).map(|nth| KEPT_BYTES_MIN + nth * KEPT_BYTES_STEP);
    blocks.extend(sizes.flat_map(|bytes| (0..KEPT_OF_EACH).map(move |_| Vec::with_capacity(bytes))));
    std::hint::black_box(blocks)
}

/// Sizes of which the allocator keeps blocks for each thread.
const KEPT_SIZES: usize = 64;
/// How many of each.
const KEPT_OF_EACH: usize = 7;
/// The smallest of them.
const KEPT_BYTES_MIN: usize = 24;
/// From one size to the next.
const KEPT_BYTES_STEP: usize = 16;
/// Of the thread that frees them.
const STACK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident part of the heap that holds `block`, KB.
    fn resident_kb(block: &[u8]) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap();
            if let Some((start, end)) = first.split_once('-') {
                let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
                here = (start..end).contains(&block.as_ptr().addr());
            } else if here && first == "Rss:" {
                return words.next().unwrap().parse().unwrap();
            }
        }
        panic!("the block is nowhere");
    }

    #[tokio::test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    async fn small_blocks_of_a_load_that_is_over_keep_no_pages() {
        fn load() -> Vec<u8> {
            let still_used = vec![1_u8; 2000];
            let (mut small, mut between) = (Vec::new(), Vec::new());
            for _ in 0..KEPT_OF_EACH {
                for nth in 0..KEPT_SIZES {
                    small.push(vec![1_u8; KEPT_BYTES_MIN + nth * KEPT_BYTES_STEP]);
                    between.push(vec![1_u8; 8000]);
                }
            }
            drop(small);
            drop(between);
            still_used
        }
        let workers = Workers::start(2).unwrap();
        let used = run_on_each(&workers, load).await;
        let resident = || used.iter().take(2).map(|block| resident_kb(block)).sum::<u64>();
        memory::release(async { drop(run_on_each(&workers, memory::release_own_heap).await) }).await;
        let before = resident();
        memory::release(on_each_thread(&workers)).await;
        let after = resident();
        assert!(before > 2000, "{before} KB: the allocator no longer keeps small blocks, nobody need free them");
        assert!(after < before / 2, "{after} KB of {before} are kept");
    }
}
