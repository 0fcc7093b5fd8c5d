//! The threads that carry traffic, and those that shake hands: each a single-threaded runtime of its own.
//!
//! A connection, its stream and its tunnel stay on one worker, so that no byte and no request wakes another thread.
//! Clients that have not proven who they are never reach a worker: acceptors, which stand back behind the workers, hear
//! them and compute for them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_sys::thread::{ThreadClock, stand_back};
use tokio::runtime::{Builder, LocalOptions, RuntimeMetrics};
use tokio::sync::mpsc;

use crate::limits::WORKER_QUEUE_MAX;

/// The worker threads of the process, and the acceptors. They end when this value is dropped.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    acceptors: Vec<Worker>,
}

/// One of the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Carries traffic.
    Worker(usize),
    /// Shakes hands.
    Acceptor(usize),
}

#[derive(Debug)]
struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    metrics: RuntimeMetrics,
    clock: ThreadClock,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The worker threads are gone: the process is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("thread {name} has ended")]
pub struct WorkerGone {
    /// Which one.
    pub name: Seat,
}

impl Workers {
    /// Starts `count` workers, at least one, and half as many acceptors: whoever makes us compute leaves processors to
    /// others.
    ///
    /// # Errors
    /// The system gives no more threads, or no event queue for one.
    pub fn start(count: usize) -> io::Result<Self> {
        let start = |seats: Vec<Seat>| seats.into_iter().map(Worker::start).collect::<io::Result<_>>();
        Ok(Self {
            workers: start((0..count.max(1)).map(Seat::Worker).collect())?,
            acceptors: start((0..(count / 2).max(1)).map(Seat::Acceptor).collect())?,
        })
    }

    /// How many workers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// How many acceptors there are.
    pub(crate) fn acceptors(&self) -> usize {
        self.acceptors.len()
    }

    /// All threads.
    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat> + use<> {
        let acceptors = (0..self.acceptors.len()).map(Seat::Acceptor);
        (0..self.workers.len()).map(Seat::Worker).chain(acceptors)
    }

    /// How busy each thread is, with its name: workers have numbers.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, RuntimeMetrics)> {
        let label = |seat: Seat| match seat {
            Seat::Worker(index) => index.to_string(),
            Seat::Acceptor(_) => seat.to_string(),
        };
        let of = |seat: Seat| Some((label(seat), self.at(seat)?.metrics.clone()));
        self.seats().filter_map(of).collect()
    }

    fn at(&self, seat: Seat) -> Option<&Worker> {
        match seat {
            Seat::Worker(index) => self.workers.get(index),
            Seat::Acceptor(index) => self.acceptors.get(index),
        }
    }

    /// CPU time that each worker has used.
    pub(crate) fn used(&self) -> impl Iterator<Item = Duration> {
        self.workers.iter().map(|worker| worker.clock.used())
    }

    /// Hands `job` to a thread; what it returns runs there, beside everything else.
    ///
    /// # Errors
    /// [`WorkerGone`].
    ///
    /// # Cancel safety
    /// A job that was not yet handed over is dropped.
    pub(crate) async fn spawn<F, J>(&self, seat: Seat, job: J) -> Result<(), WorkerGone>
    where
        J: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let gone = WorkerGone { name: seat };
        let jobs = self.at(seat).and_then(|worker| worker.jobs.as_ref()).ok_or(gone)?;
        jobs.send(Box::new(move || Box::pin(job()))).await.map_err(|_| gone)
    }
}

impl Worker {
    fn start(seat: Seat) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(WORKER_QUEUE_MAX);
        let runtime = || {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().event_interval(TASKS_IN_A_ROW_MAX).build_local(LocalOptions::default())
        };
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(seat.to_string()).spawn(move || {
            if matches!(seat, Seat::Acceptor(_))
                && let Err(error) = stand_back(ACCEPTORS_STAND_BACK)
            {
                tracing::warn!(%error, "handshakes compete with traffic");
            }
            let (runtime, clock) = match runtime().and_then(|runtime| Ok((runtime, ThreadClock::of_this_thread()?))) {
                Ok(ready) => ready,
                Err(error) => {
                    // The receiver waits for exactly this.
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(Ok((runtime.metrics(), clock)));
            runtime.block_on(async move {
                while let Some(job) = queue.recv().await {
                    tokio::task::spawn_local(job());
                }
            });
        })?;
        let (metrics, clock) = started.recv().map_err(|_| io::Error::other("worker thread ended at once"))??;
        Ok(Self { jobs: Some(jobs), metrics, clock, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last user of the workers may be a task of one of them: that thread ends by itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(index) => write!(f, "worker-{index}"),
            Self::Acceptor(index) => write!(f, "accept-{index}"),
        }
    }
}

/// Steps of nice(2). A tenth of a processor is left to handshakes that compete with traffic for it.
const ACCEPTORS_STAND_BACK: i32 = 10;
/// Tasks that run before sockets are looked at again: what is ready there waits for so many at most.
const TASKS_IN_A_ROW_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn jobs_run_on_the_worker_they_are_given_to() {
        let workers = Workers::start(2).unwrap();
        let (sender, mut names) = mpsc::channel(3);
        for seat in workers.seats() {
            let sender = sender.clone();
            let name = || std::thread::current().name().unwrap().to_owned();
            workers.spawn(seat, move || async move { sender.send(name()).await.unwrap() }).await.unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(names.recv().await.unwrap());
        }
        seen.sort();
        assert_eq!(seen, ["accept-0", "worker-0", "worker-1"]);
        let nobody = Seat::Worker(2);
        assert_eq!(workers.spawn(nobody, || async {}).await, Err(WorkerGone { name: nobody }));
    }

    #[tokio::test]
    async fn the_last_handle_may_be_dropped_on_a_worker() {
        let workers = Arc::new(Workers::start(2).unwrap());
        let (sender, mut done) = mpsc::channel(1);
        let held = workers.clone();
        workers
            .spawn(Seat::Worker(0), move || async move {
                // Waits until the test has let go.
                while Arc::strong_count(&held) > 1 {
                    tokio::task::yield_now().await;
                }
                drop(held);
                sender.send(()).await.unwrap();
            })
            .await
            .unwrap();
        drop(workers);
        assert_eq!(done.recv().await, Some(()));
    }

    #[tokio::test]
    async fn a_panic_in_one_job_leaves_the_worker_alive() {
        let workers = Workers::start(1).unwrap();
        workers.spawn(Seat::Worker(0), || async { panic!("on purpose") }).await.unwrap();
        let (sender, answer) = tokio::sync::oneshot::channel();
        workers.spawn(Seat::Worker(0), move || async move { sender.send(7).unwrap() }).await.unwrap();
        assert_eq!(answer.await.unwrap(), 7);
    }
}
