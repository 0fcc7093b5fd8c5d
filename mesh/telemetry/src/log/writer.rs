//! The thread that writes log lines. Each thread that logs has a queue of its own, so that workers
//! do not meet at a lock; the writer collects from all of them, puts what came as a [`Record`] into
//! words, and writes everything in the order of its time. No line is lost: a thread whose queue is
//! full waits for the writer.
//!
//! The writer sleeps while nothing is logged. Woken, it waits a moment more, so that a busy proxy
//! wakes it a few times a second rather than once a line.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::Format;
use super::line::{self, Head, Line};

/// Lines of one thread that may wait for the writer before the thread is held back.
pub(super) const LINES_MAX: usize = 10_000;
/// Bytes of finished text that may wait, whichever of the two is reached first: 10,000 lines of 400 bytes.
pub(super) const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a line may wait for others before it is written.
pub(super) const GATHER_DELAY: Duration = Duration::from_millis(20);
/// Text that is written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// Entries that a queue keeps room for between two rounds.
const QUEUE_KEEP: usize = 64;

/// Something that was logged, to be put into words by the writer thread: what is kept until then
/// should be small, and nothing is formatted where it happened.
pub trait Record: Send + Sync {
    /// Adds the fields of the line.
    fn fields(&self, line: &mut Line<'_>);
}

/// Handle to the writer thread. The thread ends when the last handle is gone and all is written.
#[derive(Clone)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
    /// Counts the handles apart from the thread's own reference.
    _alive: Arc<Alive>,
}

/// What of a record's line is the same for all of its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) level: Level,
    pub(super) scope: &'static str,
    pub(super) message: &'static str,
}

struct Shared {
    /// Tells writers of one process apart.
    id: u64,
    format: Format,
    queues: Mutex<Vec<Arc<Queue>>>,
    /// For threads that are just ending.
    common: Arc<Queue>,
    /// Something waits in a queue.
    filled: AtomicBool,
    /// Somebody waits for the writer: no gathering now.
    urgent: AtomicBool,
    closed: AtomicBool,
    flushes: Mutex<Flushes>,
    flushed: Condvar,
}

/// The lines of one thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Signalled when the queue was emptied.
    taken: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    text_bytes: usize,
    /// The writer knows that this queue is not empty.
    announced: bool,
}

struct Entry {
    time: SystemTime,
    body: Body,
}

enum Body {
    Text(Box<str>),
    Record(Kind, Arc<dyn Record>),
}

#[derive(Default)]
struct Flushes {
    asked: u64,
    done: u64,
}

struct Alive(Arc<Shared>, Thread);

impl Writer {
    /// Starts the thread that owns `sink`.
    pub(super) fn start(component: &str, format: Format, sink: Box<dyn Write + Send>) -> io::Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let common = Arc::new(Queue::default());
        let shared = Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            format,
            queues: Mutex::new(vec![Arc::clone(&common)]),
            common,
            filled: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            flushes: Mutex::default(),
            flushed: Condvar::new(),
        });
        let in_thread = Arc::clone(&shared);
        let builder = thread::Builder::new().name(format!("{component}-log"));
        let thread = builder.spawn(move || in_thread.write_all(sink))?.thread().clone();
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared), thread.clone())), shared, thread })
    }

    /// Queues a line that is finished. Blocks while the thread's queue is full.
    pub(super) fn line(&self, time: SystemTime, text: Box<str>) {
        self.push(Entry { time, body: Body::Text(text) });
    }

    /// Queues a line that is yet to be put into words. Blocks while the thread's queue is full.
    pub(super) fn record(&self, kind: Kind, record: Arc<dyn Record>) {
        self.push(Entry { time: SystemTime::now(), body: Body::Record(kind, record) });
    }

    /// Blocks until all lines that were queued before are written.
    pub(super) fn flush(&self) {
        let mut flushes = locked(&self.shared.flushes);
        flushes.asked += 1;
        let ticket = flushes.asked;
        self.hurry();
        while flushes.done < ticket {
            flushes = self.shared.flushed.wait(flushes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn push(&self, entry: Entry) {
        let mut entry = Some(entry);
        // Fails while the thread ends.
        let _ = QUEUES.try_with(|queues| {
            // Borrowed only if this very thread is in the middle of a push.
            if let Ok(mut queues) = queues.try_borrow_mut()
                && let Some(entry) = entry.take()
            {
                self.push_to(queue_of(&mut queues, &self.shared), entry);
            }
        });
        if let Some(entry) = entry {
            self.push_to(&self.shared.common, entry);
        }
    }

    fn push_to(&self, queue: &Queue, entry: Entry) {
        let bytes = entry.text_bytes();
        let mut waiting = locked(&queue.waiting);
        while waiting.is_full(bytes) && thread::current().id() != self.thread.id() {
            self.hurry();
            waiting = queue.taken.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.entries.push(entry);
        waiting.text_bytes += bytes;
        let announced = std::mem::replace(&mut waiting.announced, true);
        let half_full = waiting.entries.len() == LINES_MAX / 2;
        drop(waiting);
        if half_full {
            self.hurry();
        } else if !announced {
            self.shared.filled.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    fn hurry(&self) {
        self.shared.urgent.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Waiting {
    fn is_full(&self, more: usize) -> bool {
        self.entries.len() >= LINES_MAX || (!self.entries.is_empty() && self.text_bytes + more > BYTES_MAX)
    }
}

impl Entry {
    fn text_bytes(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            Body::Record(..) => 0,
        }
    }
}

impl Shared {
    fn write_all(&self, mut sink: Box<dyn Write + Send>) {
        let mut text = String::new();
        loop {
            self.wait();
            // Both are read before the queues are: what came earlier is in this round.
            let closed = self.closed.load(Ordering::Acquire);
            let asked = locked(&self.flushes).asked;
            let entries = self.take();
            let none = entries.is_empty();
            for entry in entries {
                self.put(&mut text, &entry);
                if text.len() >= WRITE_BYTES {
                    write(&mut sink, &mut text);
                }
            }
            write(&mut sink, &mut text);
            text.shrink_to(WRITE_BYTES);
            locked(&self.flushes).done = asked;
            self.flushed.notify_all();
            if closed && none {
                return;
            }
        }
    }

    /// Sleeps until something waits, and then until others have had a chance to add to it.
    fn wait(&self) {
        let hurried = || self.urgent.swap(false, Ordering::AcqRel) || self.closed.load(Ordering::Acquire);
        while !self.filled.swap(false, Ordering::AcqRel) {
            if hurried() {
                return;
            }
            thread::park();
        }
        let until = Instant::now() + GATHER_DELAY;
        while !hurried() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            thread::park_timeout(left);
        }
    }

    /// Everything that waits, oldest first.
    fn take(&self) -> Vec<Entry> {
        let mut queues = locked(&self.queues);
        // A queue that only this list knows belongs to a thread that has ended: empty, it can go.
        queues.retain(|queue| Arc::strong_count(queue) > 1 || !locked(&queue.waiting).entries.is_empty());
        let mut all = Vec::new();
        let mut sources = 0;
        for queue in queues.iter() {
            let mut waiting = locked(&queue.waiting);
            if waiting.entries.is_empty() {
                continue;
            }
            let room = waiting.entries.len().min(QUEUE_KEEP);
            let taken = std::mem::replace(&mut waiting.entries, Vec::with_capacity(room));
            waiting.text_bytes = 0;
            waiting.announced = false;
            drop(waiting);
            queue.taken.notify_all();
            sources += 1;
            if all.is_empty() { all = taken } else { all.extend(taken) }
        }
        if sources > 1 {
            all.sort_by_key(|entry| entry.time);
        }
        all
    }

    fn put(&self, out: &mut String, entry: &Entry) {
        match &entry.body {
            Body::Text(text) => out.push_str(text),
            Body::Record(Kind { level, scope, message }, record) => {
                let head = Head { time: entry.time, level: *level, scope, message };
                let start = out.len();
                let written = catch_unwind(AssertUnwindSafe(|| {
                    line::push(out, self.format, head, |line| record.fields(line));
                }));
                // A bug in one kind of line must not silence the log, nor stop who waits for it.
                if written.is_err() {
                    out.truncate(start);
                    line::push(out, self.format, head, |line| line.text("error", "this line could not be written"));
                }
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// This thread's queue to a writer, made when it is first needed.
fn queue_of<'a>(queues: &'a mut Vec<(u64, Arc<Queue>)>, shared: &Shared) -> &'a Queue {
    if let Some(known) = queues.iter().position(|(id, _)| *id == shared.id)
        && known > 0
    {
        queues.swap(0, known);
    }
    if queues.first().is_none_or(|(id, _)| *id != shared.id) {
        // Those of writers that are gone; there is more than one writer only in tests.
        queues.retain(|(_, queue)| Arc::strong_count(queue) > 1);
        let queue = Arc::new(Queue::default());
        locked(&shared.queues).push(Arc::clone(&queue));
        queues.insert(0, (shared.id, queue));
    }
    queues.first().map(|(_, queue)| &**queue).expect("put there just now")
}

fn write(sink: &mut Box<dyn Write + Send>, text: &mut String) {
    if !text.is_empty() {
        // A closed pipe or a full disk must not stop the proxy; there is no place left to report it to.
        let _ = sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
        text.clear();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// This thread's queues, the one used last first.
    static QUEUES: RefCell<Vec<(u64, Arc<Queue>)>> = const { RefCell::new(Vec::new()) };
}
