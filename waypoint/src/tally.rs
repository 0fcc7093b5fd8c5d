//! Lines of the log about what clients bring about in crowds: each is written while there are few of them, the others are
//! counted, so that nobody fills the log.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mesh_core::bucket::{Allowance, Bucket};
use tokio::time::Instant;

/// One kind of lines of one worker.
pub(crate) struct Tally {
    /// What happens, for the line that sums up.
    what: &'static str,
    bucket: RefCell<Bucket>,
    since: Instant,
    /// Since the last sum.
    left_out: Cell<u64>,
}

impl Tally {
    /// Nothing was left out yet.
    pub(crate) fn new(what: &'static str) -> Rc<Self> {
        let bucket = RefCell::new(Bucket::full(LINES));
        Rc::new(Self { what, bucket, since: Instant::now(), left_out: Cell::new(0) })
    }

    /// Whether there is a line for one more. If not it is counted, and a line tells of how many within a second. Must be
    /// called on a worker.
    pub(crate) fn has_line(self: &Rc<Self>) -> bool {
        if self.bucket.borrow_mut().take(LINES, || self.since.elapsed()) {
            return true;
        }
        if self.left_out.replace(self.left_out.get() + 1) == 0 {
            let tally = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(SUM_PAUSE).await;
                let suppressed = tally.left_out.take();
                tracing::info!(what = tally.what, suppressed, "more of it happens than is written line by line");
            });
        }
        false
    }
}

/// Enough to see what happens and where it comes from.
const LINES: Allowance = Allowance { burst: 20, per_second: 1 };
/// Between two lines that sum up, at least.
const SUM_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    #[tokio::test(start_paused = true)]
    async fn a_flood_gets_few_lines_and_nothing_of_it_is_forgotten() {
        let test = async {
            let tally = Tally::new("connections were cut");
            let lines = (0..1_000).filter(|_| tally.has_line()).count();
            assert_eq!((lines, tally.left_out.get()), (20, 980));
            tokio::time::sleep(SUM_PAUSE * 2).await;
            assert_eq!(tally.left_out.get(), 0, "a line has told");
            let lines = (0..1_000).filter(|_| tally.has_line()).count();
            assert_eq!((lines, tally.left_out.get()), (2, 998), "lines come back with time");
            tokio::time::sleep(SUM_PAUSE * 2).await;
            assert_eq!(tally.left_out.get(), 0);
        };
        LocalSet::new().run_until(test).await;
    }
}
