//! The thread that writes log lines: callers append to a shared buffer and wait only when it is
//! full, so that no line is lost and none is written inline.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Lines that may wait for the writer before callers are held back.
pub(crate) const LINES_MAX: usize = 10_000;
/// Bytes that may wait, whichever of the two is reached first: 10,000 lines of 400 bytes.
pub(crate) const BYTES_MAX: usize = 4 * 1024 * 1024;
/// A swapped-out buffer larger than this is given back to the allocator after a burst.
const BUFFER_KEEP_BYTES: usize = 64 * 1024;

/// Handle to the writer thread. The thread ends when the last handle is gone and all is written.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Counts the handles apart from the thread's own reference.
    _alive: Arc<Alive>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when the queue stops being empty, or on close.
    filled: Condvar,
    /// Signalled when the queue was taken or written.
    taken: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: usize,
    /// Batches handed to the sink that are not written yet: 0 or 1.
    writing: bool,
    closed: bool,
}

struct Alive(Arc<Shared>);

impl Writer {
    /// Starts the thread that owns `sink`.
    pub(crate) fn start(component: &str, sink: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), taken: Condvar::new() });
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new().name(format!("{component}-log")).spawn(move || thread_shared.write_all(sink))?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// Queues one line, which ends in a newline. Blocks while the queue is full.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        while queue.lines >= LINES_MAX || (queue.lines > 0 && queue.bytes.len() + line.len() > BYTES_MAX) {
            queue = self.shared.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let was_empty = queue.lines == 0;
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        drop(queue);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }

    /// Blocks until all queued lines are written.
    pub(crate) fn flush(&self) {
        let mut queue = self.shared.lock();
        while queue.lines > 0 || queue.writing {
            queue = self.shared.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut sink: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            // A closed pipe or a full disk must not stop the proxy; there is no place left to
            // report it to.
            let _ = sink.write_all(&batch).and_then(|()| sink.flush());
            batch.clear();
            batch.shrink_to(BUFFER_KEEP_BYTES);
            self.lock().writing = false;
            self.taken.notify_all();
        }
    }

    /// Swaps the queued bytes into the empty `batch`; false when closed and drained.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        while queue.lines == 0 {
            if queue.closed {
                return false;
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.bytes, batch);
        queue.lines = 0;
        queue.writing = true;
        drop(queue);
        self.taken.notify_all();
        true
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}
