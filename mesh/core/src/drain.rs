//! Ending work in an orderly way: one signal, many watchers, and a wait until the last watcher is gone.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How the work is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainMode {
    /// Take nothing new, finish what runs.
    Graceful,
    /// Cut everything now.
    Immediate,
}

/// A signal and a first watch on it.
#[must_use]
pub fn channel() -> (DrainSignal, DrainWatch) {
    let (mode_tx, mode) = watch::channel(None);
    // The channel never carries a message: it only tells when the last sender is dropped.
    let (alive, gone) = mpsc::channel(1);
    (DrainSignal { mode: mode_tx, gone }, DrainWatch { mode, _alive: alive })
}

/// Starts the drain and waits for its end. Owned by whoever started the work.
#[derive(Debug)]
pub struct DrainSignal {
    mode: watch::Sender<Option<DrainMode>>,
    gone: mpsc::Receiver<()>,
}

impl DrainSignal {
    /// Tells every watch. A later call may turn a graceful drain into an immediate one, never back.
    pub fn start(&self, mode: DrainMode) {
        self.mode.send_if_modified(|current| {
            let stronger = !matches!(current, Some(DrainMode::Immediate)) && *current != Some(mode);
            if stronger {
                *current = Some(mode);
            }
            stronger
        });
    }

    /// Resolves when the last [`DrainWatch`] is dropped.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn drained(&mut self) {
        while self.gone.recv().await.is_some() {}
    }

    /// Starts a graceful drain, waits up to `deadline`, then cuts what is left and waits for it to notice.
    /// Tells whether everything ended by itself.
    pub async fn drain_within(mut self, deadline: Duration) -> bool {
        self.start(DrainMode::Graceful);
        if tokio::time::timeout(deadline, self.drained()).await.is_ok() {
            return true;
        }
        self.start(DrainMode::Immediate);
        // Bounded: a task that ignores the signal must not hold the process.
        let _ = tokio::time::timeout(CUT_GRACE, self.drained()).await;
        false
    }
}

/// Held by each piece of work for as long as it runs.
#[derive(Debug, Clone)]
pub struct DrainWatch {
    mode: watch::Receiver<Option<DrainMode>>,
    _alive: mpsc::Sender<()>,
}

impl DrainWatch {
    /// Waits until the drain starts and tells how. A dropped signal counts as an immediate drain.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn signaled(&mut self) -> DrainMode {
        match self.mode.wait_for(Option::is_some).await {
            Ok(mode) => mode.unwrap_or(DrainMode::Immediate),
            Err(_) => DrainMode::Immediate,
        }
    }

    /// Waits until everything must be cut.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn cut(&mut self) {
        let _ = self.mode.wait_for(|mode| *mode == Some(DrainMode::Immediate)).await;
    }

    /// What was signalled so far.
    #[must_use]
    pub fn state(&self) -> Option<DrainMode> {
        *self.mode.borrow()
    }
}

/// How long cut work may take to notice before it is abandoned.
const CUT_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_when_the_last_watch_is_dropped() {
        let (signal, mut watch) = channel();
        let worker = tokio::spawn(async move {
            assert_eq!(watch.signaled().await, DrainMode::Graceful);
            tokio::time::sleep(Duration::from_secs(3)).await;
        });
        assert!(signal.drain_within(Duration::from_secs(5)).await);
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlives_the_deadline_is_cut() {
        let (signal, mut watch) = channel();
        let worker = tokio::spawn(async move {
            watch.cut().await;
            "cut"
        });
        assert!(!signal.drain_within(Duration::from_secs(5)).await);
        assert_eq!(worker.await.unwrap(), "cut");
    }

    #[tokio::test]
    async fn an_immediate_drain_never_turns_graceful_again() {
        let (signal, mut watch) = channel();
        signal.start(DrainMode::Immediate);
        signal.start(DrainMode::Graceful);
        assert_eq!(watch.signaled().await, DrainMode::Immediate);
    }

    #[tokio::test]
    async fn a_dropped_signal_counts_as_immediate() {
        let (signal, mut watch) = channel();
        drop(signal);
        assert_eq!(watch.signaled().await, DrainMode::Immediate);
    }
}
