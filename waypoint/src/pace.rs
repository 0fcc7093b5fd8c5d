//! Handshakes of clients on one worker, a step at a time: after each step comes whatever else is ready, and clients take
//! turns by where they come from.
//!
//! A worker runs its tasks in the order in which they became ready. Without this, a hundred handshakes that become ready
//! together would all be computed before anything else gets on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use mesh_hbone::steps::in_turns;
use tokio::sync::Semaphore;

/// The pace of one worker.
pub(crate) struct Pace {
    /// Those who wait are served in order, one of each source.
    worker: Semaphore,
    /// Sources with handshakes under way, at most as many as there are turns.
    sources: RefCell<HashMap<IpAddr, Rc<Semaphore>>>,
}

/// One handshake of a source.
struct Share<'a> {
    pace: &'a Pace,
    source: IpAddr,
    steps: Rc<Semaphore>,
}

impl Pace {
    /// Nothing is under way.
    pub(crate) fn new() -> Self {
        Self { worker: Semaphore::new(1), sources: RefCell::default() }
    }

    /// Runs `work` for a client from `source`; each step of it that computes waits for its turn, and is followed by what
    /// else is ready on the worker. Nothing is held while it waits for the client.
    ///
    /// # Cancel safety
    /// As `work`.
    pub(crate) async fn run<F: Future>(&self, source: IpAddr, work: F) -> F::Output {
        let share = Share::new(self, source);
        in_turns(&share.steps, &self.worker, work).await
    }
}

impl<'a> Share<'a> {
    fn new(pace: &'a Pace, source: IpAddr) -> Self {
        let mut sources = pace.sources.borrow_mut();
        let steps = sources.entry(source).or_insert_with(|| Rc::new(Semaphore::new(1))).clone();
        Self { pace, source, steps }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        // The table's and this one's.
        if Rc::strong_count(&self.steps) == 2 {
            self.pace.sources.borrow_mut().remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Runs so many handshakes of each source, and yields whose steps ran, in order.
    async fn order(pace: &Rc<Pace>, sources: &[(u8, usize)]) -> Vec<u8> {
        let ran = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for &(last, handshakes) in sources {
            for _ in 0..handshakes {
                let (pace, ran) = (pace.clone(), ran.clone());
                tasks.push(spawn_local(async move {
                    let handshake = async {
                        for _ in 0..2 {
                            ran.borrow_mut().push(last);
                            yield_now().await;
                        }
                    };
                    pace.run(source(last), handshake).await;
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        ran.take()
    }

    #[tokio::test]
    async fn who_comes_with_many_handshakes_does_not_hold_up_one_who_comes_with_one() {
        LocalSet::new()
            .run_until(async {
                let pace = Rc::new(Pace::new());
                let ran = order(&pace, &[(1, 50), (2, 1)]).await;
                assert_eq!(ran.len(), 102);
                let done = ran.iter().rposition(|last| *last == 2).unwrap();
                assert!(done < 12, "the quiet one was done after {done} steps of the other");
                assert!(pace.sources.borrow().is_empty(), "nothing is kept of those that are done");
            })
            .await;
    }

    #[tokio::test]
    async fn others_get_on_after_each_step() {
        LocalSet::new()
            .run_until(async {
                let turns = Rc::new(Cell::new(0));
                let counting = turns.clone();
                let other = spawn_local(async move {
                    loop {
                        counting.set(counting.get() + 1);
                        yield_now().await;
                    }
                });
                order(&Rc::new(Pace::new()), &[(1, 25), (2, 25)]).await;
                assert!(turns.get() >= 100, "{}", turns.get());
                other.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn a_step_that_waits_for_its_client_holds_nothing() {
        let pace = Pace::new();
        tokio::select! {
            biased;
            () = pace.run(source(1), std::future::pending::<()>()) => {}
            done = pace.run(source(1), async { 7 }) => assert_eq!(done, 7),
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("a turn is held"),
        }
    }
}
