//! Memory of a load that is over goes back to the system: most of it at once, the rest as what the load left behind
//! expires.

use std::io;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tokio::runtime::Handle;

use crate::memory;

/// Starts the thread that waits for loads to end, the start of the process being the first one, and tidies up some times
/// after each. A thread, because a timer of the runtime wakes up several times for each long wait.
///
/// `on_each_thread` is run on `control` each time, and has every thread that may have used much call
/// [`memory::release_own_heap`]. Once it gives `None`, the thread ends.
///
/// # Errors
/// The system gives no more threads.
pub fn tidy_up<F>(control: Handle, mut on_each_thread: impl FnMut() -> Option<F> + Send + 'static) -> io::Result<()>
where
    F: Future<Output = ()>,
{
    let tidy = move || {
        let mut rest = Rest { busy: true, ..Rest::default() };
        loop {
            // Soon after a load, seldom at rest.
            std::thread::sleep(if rest.busy { LOAD_PAUSE } else { REST_PAUSE });
            let Some(on_each_thread) = on_each_thread() else { return };
            let Some(nth) = rest.tidies(cpu()) else { continue };
            control.block_on(memory::release(on_each_thread));
            // Once: a process at rest soon has its code back that it needs at rest.
            if nth == 0
                && let Err(error) = memory::unmap_idle_code()
            {
                tracing::debug!(%error, "code that is not used stays in memory");
            }
        }
    };
    std::thread::Builder::new().name("memory".to_owned()).stack_size(STACK_BYTES).spawn(tidy).map(drop)
}

/// Tells the end of a load by the CPU time that the process has used so far.
#[derive(Debug, Default)]
struct Rest {
    seen: Duration,
    busy: bool,
    /// Looks since the last load.
    looks: u32,
}

impl Rest {
    /// The how-manieth look after a load, from 0 on, if it is time to tidy up: at once, and then ever less often, because each
    /// time wakes every thread. Unused tunnels and counters of pods that are gone expire one after the other.
    fn tidies(&mut self, used: Duration) -> Option<u32> {
        self.busy = used.saturating_sub(self.seen) > RESTING_CPU_MAX;
        self.seen = used;
        if self.busy {
            self.looks = 0;
            return None;
        }
        let nth = self.looks;
        self.looks = nth.saturating_add(1).min(LOOKS);
        (nth < LOOKS && (nth + 1).is_power_of_two()).then_some(nth)
    }
}

/// CPU time of all threads.
fn cpu() -> Duration {
    let part = |time: TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default())
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    // Fails only for an unknown first argument.
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| part(usage.user_time()) + part(usage.system_time()))
}

/// Of the thread, which does next to nothing.
const STACK_BYTES: usize = 256 << 10;
/// How often the process looks whether a load has ended.
const LOAD_PAUSE: Duration = Duration::from_secs(5);
/// How often it looks whether one has begun.
const REST_PAUSE: Duration = Duration::from_secs(15);
/// Looks at which it may tidy up after a load: for two minutes, by when all that a load left has expired but what is kept on
/// purpose.
const LOOKS: u32 = 8;
/// CPU time between two looks of a process at rest.
const RESTING_CPU_MAX: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tidied_up_some_times_after_each_load() {
        let step = RESTING_CPU_MAX / 2;
        let mut rest = Rest { busy: true, ..Rest::default() };
        let mut told = |steps| rest.tidies(step * steps);
        assert_eq!([4, 8].map(&mut told), [None; 2], "under load");
        assert_eq!([9, 10].map(&mut told), [Some(0), Some(1)]);
        assert_eq!(told(14), None, "the next load");
        let tidied: Vec<u32> = (0..50).filter_map(|look| told(14 + look)).collect();
        assert_eq!(tidied, [0, 1, 3, 7], "and then everything has expired");
    }

    #[test]
    fn the_cpu_time_of_the_process_grows() {
        let before = cpu();
        while cpu() == before {
            std::hint::black_box(vec![0_u8; 1 << 16]);
        }
    }
}
