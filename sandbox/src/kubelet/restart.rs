//! Whether and when a container that ended is started again. Pure.

use std::time::Duration;

/// What becomes of a container after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has done its work, or failed for good.
    Stay,
    /// It is started again.
    Restart,
}

/// Decides by restart policy (`Always`, `OnFailure`, `Never`) and exit code. An ordinary init
/// container is done after its first success; a sidecar is always restarted.
pub(super) fn verdict(policy: &str, init: bool, sidecar: bool, exit_code: i32) -> Verdict {
    let failed = exit_code != 0;
    let restart = if sidecar {
        true
    } else if init {
        failed && policy != "Never"
    } else {
        match policy {
            "Never" => false,
            "OnFailure" => failed,
            _ => true,
        }
    };
    if restart { Verdict::Restart } else { Verdict::Stay }
}

/// The waits of one container: the first restart is immediate, then [`FIRST`] doubling to
/// [`CAP`]; a run longer than [`GOOD_RUN`] starts over.
#[derive(Debug, Default)]
pub(super) struct CrashLoop {
    restarts: u32,
}

impl CrashLoop {
    /// The wait after a run that lasted `ran`.
    pub(super) fn next_wait(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.restarts = 0;
        }
        let wait = match self.restarts.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (FIRST * 2_u32.saturating_pow(doublings.min(DOUBLINGS_MAX))).min(CAP),
        };
        self.restarts = self.restarts.saturating_add(1);
        wait
    }
}

/// Wait before the second restart (Kubernetes: 10 s; a person waits for the sandbox).
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait (Kubernetes: 300 s).
const CAP: Duration = Duration::from_secs(30);
/// A run of this length ends a crash loop (Kubernetes: twice the cap).
const GOOD_RUN: Duration = Duration::from_secs(60);
/// Doublings after which the cap is reached; keeps the arithmetic in range.
const DOUBLINGS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_role_and_code_decide() {
        use Verdict::{Restart, Stay};
        let table = [
            ("Always", false, false, 0, Restart),
            ("Always", false, false, 1, Restart),
            ("OnFailure", false, false, 0, Stay),
            ("OnFailure", false, false, 1, Restart),
            ("Never", false, false, 1, Stay),
            ("Always", true, false, 0, Stay),
            ("Always", true, false, 1, Restart),
            ("Never", true, false, 1, Stay),
            ("Never", true, true, 0, Restart),
        ];
        for (policy, init, sidecar, code, expected) in table {
            assert_eq!(verdict(policy, init, sidecar, code), expected, "{policy} {init} {sidecar} {code}");
        }
    }

    #[test]
    fn a_crash_loop_backs_off_and_a_good_run_ends_it() {
        let mut crash = CrashLoop::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u64> = (0..8).map(|_| crash.next_wait(short).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(crash.next_wait(GOOD_RUN), Duration::ZERO);
        assert_eq!(crash.next_wait(short), FIRST);
    }
}
