//! Memory that was needed for a while is given back: while a thousand proxies are sent a large cluster at once, there is
//! much of it, and what stays of it in use lies scattered among what does not.

use std::time::Duration;

use mesh_core::drain::DrainWatch;
use mesh_sys::memory::Resident;
use tokio::time::Instant;

/// Gives back what the allocator holds and nobody uses, whenever the process has grown, until the drain starts.
pub async fn run(mut drain: DrainWatch) {
    let resident = match Resident::open() {
        Ok(resident) => resident,
        Err(error) => return tracing::warn!(%error, "unused memory is not given back: nobody tells how much is in use"),
    };
    let mut growth = Growth::default();
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            _ = drain.signaled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(resident_kb) = resident_kb(&resident) else { continue };
        if !growth.is_due(resident_kb, looked.elapsed()) {
            continue;
        }
        looked = Instant::now();
        // It walks through all that is free, and may have to wait for those who allocate.
        let released = tokio::task::spawn_blocking(release).await;
        growth.rested_kb = self::resident_kb(&resident).unwrap_or(resident_kb);
        if released.is_ok() {
            tracing::debug!(resident_kb, now_kb = growth.rested_kb, took = ?looked.elapsed(), "unused memory was given back");
        }
    }
}

/// How the process has grown since memory was last given back.
#[derive(Debug, Default)]
struct Growth {
    /// Resident after that, or less if it has shrunk since.
    rested_kb: u64,
}

impl Growth {
    /// Whether it is worth looking for memory that nobody uses, given when that was last done.
    fn is_due(&mut self, resident_kb: u64, since: Duration) -> bool {
        self.rested_kb = self.rested_kb.min(resident_kb);
        resident_kb > self.rested_kb + self.rested_kb / GROWN_FRACTION + GROWN_KB || since >= ANYWAY
    }
}

fn release() {
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(mesh_sys::memory::release(std::future::ready(())));
    // The limits of this program are other ones than those that are set by this.
    mesh_sys::memory::return_buffers();
}

/// None where the system does not tell.
fn resident_kb(resident: &Resident) -> Option<u64> {
    Some(resident.bytes().ok()? >> 10)
}

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// A growth by this part, and a little more, is worth it.
const GROWN_FRACTION: u64 = 8;
const GROWN_KB: u64 = 8 << 10;
/// After this time it is done in any case: what is freed by and by does not let the process grow.
const ANYWAY: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_after_growth_and_now_and_then() {
        let mut growth = Growth { rested_kb: 100_000 };
        assert!(!growth.is_due(110_000, LOOK), "a little more");
        assert!(growth.is_due(130_000, LOOK), "much more");
        assert!(growth.is_due(100_000, ANYWAY), "long ago");
        assert!(!growth.is_due(50_000, LOOK), "less");
        assert!(growth.is_due(70_000, LOOK), "much more than the least");
    }

    #[tokio::test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    async fn memory_between_what_is_used_is_given_back() {
        let resident = Resident::open().unwrap();
        let before_kb = resident_kb(&resident).unwrap();
        // As buffers of many connections, of which each keeps a little.
        let mut all: Vec<Vec<u8>> = (0..4_000).flat_map(|_| [vec![1; 24 << 10], vec![1; 64]]).collect();
        let full_kb = resident_kb(&resident).unwrap();
        assert!(full_kb > before_kb + 80_000, "{before_kb} kB, then {full_kb} kB");
        all.retain(|one| one.len() < 100);
        tokio::task::spawn_blocking(release).await.unwrap();
        let after_kb = resident_kb(&resident).unwrap();
        assert!(after_kb < full_kb - 60_000, "{full_kb} kB, then {after_kb} kB with {} small ones in use", all.len());
    }
}
