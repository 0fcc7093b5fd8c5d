//! The order of writes while we lead: some at a time, each tried again a few times.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Feed, Writer};
use crate::translate::{ObjectStatus, StatusTarget};

/// Everything about one term as leader.
pub(super) struct Queue<'a> {
    writer: &'a Writer,
    feed: &'a Feed,
    /// What was written, or found to be there.
    written: HashMap<StatusTarget, Arc<ObjectStatus>>,
    /// Found by a sweep: to be written whatever we remember.
    stale: HashSet<StatusTarget>,
    running: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Targets of `running`.
    busy: BTreeSet<StatusTarget>,
    /// Failed attempts.
    failures: HashMap<StatusTarget, u32>,
    /// When to try again.
    later: BTreeMap<(Instant, StatusTarget), ()>,
    /// When to look at everything.
    sweep_at: Instant,
}

/// A finished attempt.
struct Done {
    target: StatusTarget,
    wanted: Option<Arc<ObjectStatus>>,
    result: Result<(), kube::Error>,
}

impl<'a> Queue<'a> {
    pub(super) fn new(writer: &'a Writer, feed: &'a Feed) -> Self {
        Self {
            writer,
            feed,
            written: HashMap::new(),
            stale: HashSet::new(),
            running: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            failures: HashMap::new(),
            later: BTreeMap::new(),
            sweep_at: Instant::now(),
        }
    }

    /// Writes for as long as it is polled.
    pub(super) async fn run(mut self) {
        self.feed.completed().await;
        let _taken = self.feed.taken();
        loop {
            if self.running.is_empty() && Instant::now() >= self.sweep_at {
                self.sweep().await;
            }
            self.start();
            let wake = self.later.keys().next().map_or(self.sweep_at, |(at, _)| (*at).min(self.sweep_at));
            // A sweep that is due waits for what runs.
            let wake = if self.running.is_empty() { wake } else { wake.max(Instant::now() + POLL) };
            tokio::select! {
                Some(done) = self.running.next(), if !self.running.is_empty() => self.done(done),
                () = self.feed.changed() => {}
                () = tokio::time::sleep_until(wake) => self.retry(),
            }
        }
    }

    /// Starts writes as long as there is room.
    fn start(&mut self) {
        while self.running.len() < WRITES_MAX
            && let Some(target) = self.feed.take(&self.busy)
        {
            let wanted = self.writer.wanted(&target);
            if self.written.get(&target) == wanted.as_ref() && !self.stale.contains(&target) {
                continue;
            }
            self.busy.insert(target.clone());
            let writer = self.writer;
            self.running.push(Box::pin(async move {
                let result = match tokio::time::timeout(WRITE_MAX, writer.write(&target, wanted.as_deref())).await {
                    Ok(result) => result,
                    Err(_) => Err(kube::Error::Service("no answer in time".into())),
                };
                Done { target, wanted, result }
            }));
        }
    }

    fn done(&mut self, done: Done) {
        let Done { target, wanted, result } = done;
        self.busy.remove(&target);
        match result {
            Ok(()) => {
                self.failures.remove(&target);
                self.stale.remove(&target);
                match wanted {
                    Some(wanted) => self.written.insert(target, wanted),
                    None => self.written.remove(&target),
                };
            }
            Err(error) => self.failed(target, &error),
        }
    }

    fn failed(&mut self, target: StatusTarget, error: &kube::Error) {
        let failures = self.failures.entry(target.clone()).or_default();
        *failures += 1;
        let (kind, object, failures) = (target.kind.name(), target.key.clone(), *failures);
        if failures >= ATTEMPTS_MAX {
            tracing::error!(kind, %object, %error, failures, "status not written, given up until it changes");
            self.failures.remove(&target);
            // Whatever comes next is written, even if it is what was there before.
            self.stale.insert(target);
            return;
        }
        tracing::warn!(kind, %object, %error, failures, "status not written, trying again");
        self.later.insert((Instant::now() + RETRY * 2u32.pow(failures - 1), target), ());
    }

    /// Puts what is due back into the queue.
    fn retry(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, target), ()) = entry.remove_entry();
            self.feed.add([target]);
        }
    }

    async fn sweep(&mut self) {
        // What changes from here on is added again.
        self.feed.clear();
        match self.writer.sweep().await {
            Ok(found) => {
                self.written.clear();
                self.written.extend(found.current);
                self.stale.extend(found.stale.iter().cloned());
                self.feed.add(found.stale);
                self.sweep_at = Instant::now() + SWEEP_EVERY;
            }
            Err(error) => {
                tracing::warn!(error = %crate::source::chain(&error), "statuses could not be read, trying again");
                self.sweep_at = Instant::now() + RETRY;
            }
        }
    }
}

/// Writes at the same time: an API server has others to serve.
const WRITES_MAX: usize = 8;
/// Longest write.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// Attempts a status, before it waits for its next change or for the next look at everything.
const ATTEMPTS_MAX: u32 = 5;
/// After the first failure; doubles with each.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at everything: others may have overwritten what is ours.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Shortest sleep while writes run.
const POLL: Duration = Duration::from_millis(100);
