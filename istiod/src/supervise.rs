//! Tasks that must live as long as the process: when one panics the process ends, so that it is started anew instead of
//! going on without a part of itself.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// Spawns tasks and tells when one of them has panicked. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Supervisor {
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// Nothing has failed.
    pub fn new() -> Self {
        Self { failed: Arc::new(watch::Sender::new(None)) }
    }

    /// Spawns a task under a name for the log. Its end is no failure; its panic is.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let failed = self.failed.clone();
        tokio::spawn(
            async move {
                // Nothing of the task is looked at afterwards: the process ends.
                if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                    failed.send_replace(Some(name));
                }
            }
            .in_current_span(),
        )
    }

    /// Resolves with the name of a task once one has panicked.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        let name = failed.wait_for(Option::is_some).await.ok().and_then(|name| *name);
        match name {
            Some(name) => name,
            // The sender is ours: it does not go while we look.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_told_and_an_end_is_not() {
        let supervisor = Supervisor::new();
        supervisor.spawn("fine", async {}).await.unwrap();
        supervisor.spawn("aborted", std::future::pending()).abort();
        assert!(tokio::time::timeout(Duration::from_secs(1), supervisor.failed()).await.is_err());
        supervisor.clone().spawn("publisher", async { panic!("on purpose") });
        assert_eq!(supervisor.failed().await, "publisher");
    }
}
