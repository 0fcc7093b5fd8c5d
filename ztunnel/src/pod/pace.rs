//! Costly steps one at a time: pods take turns on a thread, and within a pod its clients.
//!
//! A thread runs its tasks in the order in which they became ready. Without this, a hundred handshakes of one pod that
//! become ready together would all be computed before any other pod's.

use std::rc::Rc;

use mesh_hbone::steps::in_turns;
use tokio::sync::Semaphore;

/// The pace of one pod on one thread.
#[derive(Debug)]
pub(crate) struct Pace {
    pod: Semaphore,
    /// The same for all pods of the thread. Those who wait are served in order, one of each pod.
    thread: Rc<Semaphore>,
}

impl Pace {
    /// For the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        thread_local! {
            static THREAD: Rc<Semaphore> = Rc::new(Semaphore::new(1));
        }
        Self { pod: Semaphore::new(1), thread: THREAD.with(Rc::clone) }
    }

    /// Runs `work`; each step of it that computes waits for the pod's turn, and is followed by what else is ready on the
    /// thread. Nothing is held while it waits for its peer.
    ///
    /// # Cancel safety
    /// As `work`.
    pub(crate) async fn run<F: Future>(&self, work: F) -> F::Output {
        in_turns(&self.pod, &self.thread, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::pin::pin;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// Steps in the order in which they ran: which pod each belonged to.
    async fn order(pods: &[(&'static str, usize)]) -> Vec<&'static str> {
        let ran = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for &(name, handshakes) in pods {
            let pace = Rc::new(Pace::of_this_thread());
            for _ in 0..handshakes {
                let (pace, ran) = (pace.clone(), ran.clone());
                tasks.push(spawn_local(async move {
                    let handshake = async {
                        for _ in 0..2 {
                            ran.borrow_mut().push(name);
                            yield_now().await;
                        }
                    };
                    pace.run(handshake).await;
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        ran.take()
    }

    #[tokio::test]
    async fn a_pod_with_many_handshakes_does_not_hold_up_one_with_few() {
        LocalSet::new()
            .run_until(async {
                let ran = order(&[("crowded", 50), ("quiet", 1)]).await;
                assert_eq!(ran.len(), 102);
                let done = ran.iter().rposition(|name| *name == "quiet").unwrap();
                assert!(done < 12, "the quiet pod was done after {done} steps of the other");
            })
            .await;
    }

    #[tokio::test]
    async fn other_tasks_run_between_two_steps() {
        LocalSet::new()
            .run_until(async {
                let turns = Rc::new(std::cell::Cell::new(0));
                let counting = turns.clone();
                let other = spawn_local(async move {
                    loop {
                        counting.set(counting.get() + 1);
                        yield_now().await;
                    }
                });
                order(&[("crowded", 50)]).await;
                assert!(turns.get() >= 100, "{}", turns.get());
                other.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn a_step_that_waits_for_its_peer_holds_nothing() {
        let pace = Pace::of_this_thread();
        let mut stuck = pin!(pace.run(std::future::pending::<()>()));
        assert!(futures::poll!(&mut stuck).is_pending());
        // The step ends when others had their turn.
        yield_now().await;
        assert!(futures::poll!(&mut stuck).is_pending());
        let other = tokio::time::timeout(std::time::Duration::from_secs(1), pace.run(async { 7 }));
        assert_eq!(other.await.unwrap(), 7);
    }
}
