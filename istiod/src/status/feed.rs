//! Which statuses became different: from the publisher to the writer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::translate::StatusTarget;

/// A set of statuses to look at. It holds each of them once, and none while nobody writes them: a term begins with a look at
/// everything.
#[derive(Debug, Default)]
pub struct Feed {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The first complete picture of the cluster was published.
    complete: bool,
    /// Somebody takes what is added.
    taken: bool,
    pending: BTreeSet<StatusTarget>,
}

impl Feed {
    /// These statuses are different now.
    pub fn add(&self, targets: impl IntoIterator<Item = StatusTarget>) {
        self.update(|state| {
            if state.taken {
                state.pending.extend(targets);
            }
        });
    }

    /// Everything that exists was judged: what has no status by now has none.
    pub fn complete(&self) {
        self.update(|state| state.complete = true);
    }

    /// Waits for [`Self::complete`].
    pub(super) async fn completed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().complete {
                return;
            }
            changed.await;
        }
    }

    /// Waits until something was added.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes one that is not among `busy`.
    pub(super) fn take(&self, busy: &BTreeSet<StatusTarget>) -> Option<StatusTarget> {
        let mut state = self.lock();
        let next = state.pending.iter().find(|target| !busy.contains(target)).cloned()?;
        state.pending.take(&next)
    }

    /// From now on what is added is kept, until the answer is dropped. Everything has to be looked at after this.
    pub(super) fn taken(&self) -> Taken<'_> {
        self.lock().taken = true;
        Taken(self)
    }

    /// Forgets everything that waits: all of it will be looked at anyway.
    pub(super) fn clear(&self) {
        self.lock().pending.clear();
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody takes what is added.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Feed);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.taken = false;
        state.pending.clear();
    }
}
