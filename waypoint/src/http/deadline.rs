//! A time limit that starts when the request has been received.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Runs from the moment when the last byte of the request was received, or from `not_before` if that is later.
pub(crate) struct Deadline {
    budget: Duration,
    not_before: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn new(budget: Duration, not_before: Instant) -> Self {
        Self { budget, not_before, sleep: None }
    }

    /// What is left of one that runs from `started`.
    pub(crate) fn left_of(&self, started: Instant) -> Duration {
        self.budget.saturating_sub(started.elapsed())
    }

    /// Whether it is over. `received` tells when the last byte of the request came, once it has.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        received: impl FnOnce(&mut Context<'_>) -> Poll<Instant>,
    ) -> Poll<()> {
        if self.sleep.is_none() {
            let started = ready!(received(cx)).max(self.not_before);
            self.sleep = Some(Box::pin(sleep_until(started + self.budget)));
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_starts_with_the_last_byte_of_the_request() {
        let began = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(1), began);
        let never = poll_fn(|cx| deadline.poll(cx, |_| Poll::Pending));
        assert!(tokio::time::timeout(Duration::from_secs(60), never).await.is_err());
        let received = Instant::now();
        poll_fn(|cx| deadline.poll(cx, |_| Poll::Ready(received))).await;
        assert_eq!(began.elapsed(), Duration::from_secs(61));
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_starts_before_its_time() {
        let began = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(1), began + Duration::from_secs(2));
        poll_fn(|cx| deadline.poll(cx, |_| Poll::Ready(began))).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3));
    }
}
