//! The threads that carry traffic: each a single-threaded runtime of its own.
//!
//! A connection, its stream and its tunnel stay on the worker that accepted it, so that no byte and no request wakes
//! another thread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_sys::thread::ThreadClock;
use tokio::runtime::{Builder, LocalOptions, RuntimeMetrics};
use tokio::sync::{Semaphore, mpsc};

use crate::limits::WORKER_QUEUE_MAX;

/// The worker threads of the process. They end when this value is dropped.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    costly: Arc<Semaphore>,
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
#[error("worker {index} has ended")]
pub struct WorkerGone {
    /// Which one.
    pub index: usize,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system gives no more threads, or no event queue for one.
    pub fn start(count: usize) -> io::Result<Self> {
        let workers: Vec<_> = (0..count.max(1)).map(Worker::start).collect::<io::Result<_>>()?;
        let costly = Arc::new(Semaphore::new((workers.len() / 2).max(1)));
        Ok(Self { workers, costly })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// How busy each is.
    #[must_use]
    pub fn metrics(&self) -> Vec<RuntimeMetrics> {
        self.workers.iter().map(|worker| worker.metrics.clone()).collect()
    }

    /// Leaves to compute something costly, for half of them at once: whoever makes us compute leaves processors to others.
    pub(crate) fn costly(&self) -> Arc<Semaphore> {
        self.costly.clone()
    }

    /// CPU time that each has used.
    pub(crate) fn used(&self) -> impl Iterator<Item = Duration> {
        self.workers.iter().map(|worker| worker.clock.used())
    }

    /// Hands `job` to worker `index`; what it returns runs there, beside everything else.
    ///
    /// # Errors
    /// [`WorkerGone`].
    ///
    /// # Cancel safety
    /// A job that was not yet handed over is dropped.
    pub async fn spawn<F, J>(&self, index: usize, job: J) -> Result<(), WorkerGone>
    where
        J: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let gone = WorkerGone { index };
        let jobs = self.workers.get(index).and_then(|worker| worker.jobs.as_ref()).ok_or(gone)?;
        jobs.send(Box::new(move || Box::pin(job()))).await.map_err(|_| gone)
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(WORKER_QUEUE_MAX);
        let runtime = || {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().event_interval(TASKS_IN_A_ROW_MAX).build_local(LocalOptions::default())
        };
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
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

/// Tasks that run before sockets are looked at again: what is ready there waits for so many at most.
const TASKS_IN_A_ROW_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_the_worker_they_are_given_to() {
        let workers = Workers::start(2).unwrap();
        let (sender, mut names) = mpsc::channel(2);
        for index in 0..2 {
            let sender = sender.clone();
            let name = || std::thread::current().name().unwrap().to_owned();
            workers.spawn(index, move || async move { sender.send(name()).await.unwrap() }).await.unwrap();
        }
        let mut seen = [names.recv().await.unwrap(), names.recv().await.unwrap()];
        seen.sort();
        assert_eq!(seen, ["worker-0", "worker-1"]);
        assert_eq!(workers.spawn(2, || async {}).await, Err(WorkerGone { index: 2 }));
    }

    #[tokio::test]
    async fn the_last_handle_may_be_dropped_on_a_worker() {
        let workers = Arc::new(Workers::start(2).unwrap());
        let (sender, mut done) = mpsc::channel(1);
        let held = workers.clone();
        workers
            .spawn(0, move || async move {
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
        workers.spawn(0, || async { panic!("on purpose") }).await.unwrap();
        let (sender, answer) = tokio::sync::oneshot::channel();
        workers.spawn(0, move || async move { sender.send(7).unwrap() }).await.unwrap();
        assert_eq!(answer.await.unwrap(), 7);
    }
}
