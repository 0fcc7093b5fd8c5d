//! What a thread uses of the processor.

use std::io;
use std::time::Duration;

/// Counts the CPU time of one thread of this process. Any thread may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the calling thread.
    ///
    /// # Errors
    /// The system has no such clocks.
    #[allow(unsafe_code)] // the calls have no safe wrapper
    pub fn of_this_thread() -> io::Result<Self> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: pthread_self(3) always succeeds.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: pthread_getcpuclockid(3): the thread runs, as it is the caller; the result goes to an integer on this
        // frame.
        let error = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
        if error == 0 { Ok(Self(clock)) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// CPU time since the thread began; nothing once the system has forgotten it.
    #[must_use]
    #[allow(unsafe_code)] // the call has no safe wrapper
    pub fn used(self) -> Duration {
        let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime(2): any clock id may be passed, the time goes to a structure on this frame.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut used) } != 0;
        if failed {
            return Duration::ZERO;
        }
        Duration::new(u64::try_from(used.tv_sec).unwrap_or_default(), u32::try_from(used.tv_nsec).unwrap_or_default())
    }
}

/// From now on the calling thread stands back behind the others of its group by so many steps of nice(2). It still gets
/// a share when all of them are busy.
///
/// # Errors
/// The system's error of setpriority(2).
pub fn stand_back(steps: i32) -> io::Result<()> {
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: setpriority(2) takes integers; on Linux 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, steps) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_stands_back_and_no_other() {
        let nice = || {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", nix::unistd::gettid())).unwrap();
            // Field 19, counted from field 3.
            stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        let there = std::thread::spawn(move || {
            stand_back(before + 3).unwrap();
            nice()
        });
        assert_eq!((there.join().unwrap(), nice()), (before + 3, before));
    }

    #[test]
    fn each_thread_is_counted_by_itself() {
        let (clock_there, clock) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let idle = std::thread::spawn(move || {
            clock_there.send(ThreadClock::of_this_thread().unwrap()).unwrap();
            let _ = ended.recv();
        });
        let (own, other) = (ThreadClock::of_this_thread().unwrap(), clock.recv().unwrap());
        let before = own.used();
        while own.used() < before + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(other.used() < Duration::from_millis(20));
        drop(end);
        idle.join().unwrap();
        assert!(other.used() < Duration::from_millis(20), "at most what it had used by then");
    }
}
