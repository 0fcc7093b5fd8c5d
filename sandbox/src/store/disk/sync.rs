//! Flushing the log to the device, beside the writes.

use std::{
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a write may be in memory only.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// Flushes the current log while it is written to; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Syncer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<Arc<File>>,
    dirty: AtomicBool,
}

impl Syncer {
    pub(super) fn start(log: Arc<File>) -> Self {
        let shared = Arc::new(Shared { log: Mutex::new(log), dirty: AtomicBool::new(false) });
        let weak = Arc::downgrade(&shared);
        let work = move || {
            while let Some(shared) = weak.upgrade() {
                shared.sync();
                drop(shared);
                std::thread::sleep(SYNC_INTERVAL);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("store-sync".to_owned()).spawn(work) {
            tracing::warn!(%error, "the store's log is flushed by the system only");
        }
        Self(shared)
    }

    /// Something was appended.
    pub(super) fn written(&self) {
        self.0.dirty.store(true, Ordering::Release);
    }

    /// Another file is the log from now on; the one before is flushed at once.
    pub(super) fn switch(&self, log: Arc<File>) {
        self.0.sync();
        *self.0.log.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.0.sync();
    }
}

impl Shared {
    fn sync(&self) {
        if self.dirty.swap(false, Ordering::AcqRel) {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Err(error) = log.sync_data() {
                tracing::warn!(%error, "the store's log could not be flushed");
            }
        }
    }
}
