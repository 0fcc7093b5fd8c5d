//! Costly steps one at a time: pods take turns on a thread, and within a pod its clients.
//!
//! A thread runs its tasks in the order in which they became ready. Without this, a hundred handshakes of one pod that
//! become ready together would all be computed before any other pod's.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

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
        let mut work = pin!(work);
        loop {
            let (step, woken) = {
                let _pod = self.pod.acquire().await;
                let _thread = self.thread.acquire().await;
                let step = poll_fn(|cx| Poll::Ready(Woken::poll(work.as_mut(), cx))).await;
                // The turn is over when the others had theirs.
                tokio::task::yield_now().await;
                step
            };
            if let Poll::Ready(done) = step {
                return done;
            }
            woken.wait().await;
        }
    }
}

/// Remembers whether a future has been woken: while its task waits for something else, a wake-up would be lost.
struct Woken {
    woken: AtomicBool,
    task: Waker,
}

impl Woken {
    fn poll<F: Future>(work: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, Arc<Self>) {
        let woken = Arc::new(Self { woken: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = Waker::from(woken.clone());
        (work.poll(&mut Context::from_waker(&waker)), woken)
    }

    async fn wait(&self) {
        // The task is always the same, so its waker is.
        poll_fn(|_| if self.woken.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
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

    #[tokio::test]
    async fn a_peer_that_answers_at_once_is_heard() {
        let pace = Pace::of_this_thread();
        let (mut here, mut there) = tokio::io::duplex(64);
        let talk = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            for n in 0..50 {
                here.write_u8(n).await.unwrap();
                assert_eq!(here.read_u8().await.unwrap(), n);
            }
        };
        let echo = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            while let Ok(n) = there.read_u8().await {
                there.write_u8(n).await.unwrap();
            }
        };
        tokio::select! {
            () = pace.run(talk) => {}
            () = echo => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => panic!("a wake-up was lost"),
        }
    }
}
