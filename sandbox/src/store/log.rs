//! The bounded event log of one resource and the cursors that read it.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;

use super::{Object, ResourceKey, Store};

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for a removal its last state, at the removal's revision.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// The log does not reach back to the requested revision: list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {requested} ({oldest})")]
pub struct Expired {
    /// The revision asked for.
    pub requested: u64,
    /// The oldest revision that can still be asked for.
    pub oldest: u64,
}

/// Events of one resource, oldest first.
#[derive(Debug)]
pub(super) struct EventLog {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    /// Revision of the newest event that was dropped.
    dropped: u64,
    newest: watch::Sender<u64>,
}

impl EventLog {
    /// A log that knows what happens after the revision `base`.
    pub(super) fn new(capacity: usize, base: u64) -> Self {
        Self { events: VecDeque::new(), capacity: capacity.max(1), dropped: base, newest: watch::Sender::new(0) }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() >= self.capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.dropped = oldest.object.revision();
        }
        let revision = event.object.revision();
        self.events.push_back(Arc::new(event));
        self.newest.send_replace(revision);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(super) fn check(&self, cursor: u64) -> Result<(), Expired> {
        if cursor < self.dropped {
            return Err(Expired { requested: cursor, oldest: self.dropped });
        }
        Ok(())
    }

    pub(super) fn after(&self, cursor: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        self.check(cursor)?;
        let start = self.events.partition_point(|event| event.object.revision() <= cursor);
        Ok(self.events.iter().skip(start).take(limit).cloned().collect())
    }
}

/// A reader of one resource's events. Holds no events itself, so it costs the same when slow.
#[derive(Debug)]
pub struct Watcher {
    store: Arc<Store>,
    resource: ResourceKey,
    cursor: u64,
    newest: watch::Receiver<u64>,
}

impl Watcher {
    pub(super) fn new(store: Arc<Store>, resource: ResourceKey, cursor: u64, newest: watch::Receiver<u64>) -> Self {
        Self { store, resource, cursor, newest }
    }

    /// The revision up to which everything has been read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Waits for events and returns at most `limit`; `None` when the resource no longer exists.
    ///
    /// # Errors
    ///
    /// [`Expired`] when events were dropped before they were read. The watcher is then useless.
    ///
    /// # Cancel safety
    ///
    /// The cursor moves only when events are returned.
    pub async fn next(&mut self, limit: usize) -> Result<Option<Vec<Arc<Event>>>, Expired> {
        loop {
            self.newest.borrow_and_update();
            match self.poll_now(limit)? {
                None => return Ok(None),
                Some(events) if !events.is_empty() => return Ok(Some(events)),
                Some(_) => {}
            }
            if self.newest.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// What can be read without waiting.
    fn poll_now(&mut self, limit: usize) -> Result<Option<Vec<Arc<Event>>>, Expired> {
        let batch = self.store.events_after(&self.resource, self.cursor, limit)?;
        Ok(batch.map(|batch| {
            self.cursor = batch.cursor;
            batch.events
        }))
    }

    /// Moves the cursor to now if there is nothing to read, and tells where it is: the revision a
    /// bookmark may carry.
    pub fn bookmark(&mut self) -> Option<u64> {
        let batch = self.store.events_after(&self.resource, self.cursor, 1).ok()??;
        batch.events.is_empty().then(|| {
            self.cursor = batch.cursor;
            batch.cursor
        })
    }
}
