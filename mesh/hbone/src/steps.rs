//! A future's steps, one at a time, for those who decide when the next one may be computed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Semaphore;

/// Remembers whether a future has been woken since its last step: while its task waits for something else, a wake-up
/// would be lost.
#[derive(Debug)]
struct Woken {
    woken: AtomicBool,
    task: Waker,
}

/// Runs `work`; each step of it that computes waits for the turn of its `group` and then for the one turn of `all`, and is
/// followed by what else is ready on the thread. Nothing is held while it waits for something else. With one permit each,
/// those who wait are served in order, one of each group.
///
/// # Cancel safety
/// As `work`.
pub async fn in_turns<F: Future>(group: &Semaphore, all: &Semaphore, work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        let (step, woken) = {
            let _group = group.acquire().await;
            let _all = all.acquire().await;
            let step = step(work.as_mut()).await;
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

/// Computes the next step of `work`. Where there is more to come, it is ready for that after [`Woken::wait`].
async fn step<F: Future>(mut work: Pin<&mut F>) -> (Poll<F::Output>, Arc<Woken>) {
    poll_fn(|cx| Poll::Ready(Woken::poll(work.as_mut(), cx))).await
}

impl Woken {
    fn poll<F: Future>(work: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, Arc<Self>) {
        let woken = Arc::new(Self { woken: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = Waker::from(woken.clone());
        (work.poll(&mut Context::from_waker(&waker)), woken)
    }

    /// Waits until the future has been woken. For the task that computed the step.
    ///
    /// # Cancel safety
    /// Cancel-safe.
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
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_wake_up_is_not_lost_while_the_task_waits_for_something_else() {
        let (send, receive) = oneshot::channel();
        let mut work = pin!(receive);
        let (first, woken) = step(work.as_mut()).await;
        assert!(first.is_pending());
        assert!(futures::poll!(pin!(woken.wait())).is_pending());
        send.send(7).unwrap();
        // The wake-up of the task itself is used up by this.
        tokio::task::yield_now().await;
        tokio::time::timeout(Duration::from_secs(5), woken.wait()).await.unwrap();
        assert_eq!(step(work.as_mut()).await.0, Poll::Ready(Ok(7)));
    }

    #[tokio::test]
    async fn a_peer_that_answers_at_once_is_heard() {
        let (group, all) = (Semaphore::new(1), Semaphore::new(1));
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
            () = in_turns(&group, &all, talk) => {}
            () = echo => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("a wake-up was lost"),
        }
    }
}
