//! The threads that carry traffic: each a single-threaded runtime of its own. A connection and its upstream connections
//! stay on the worker that it was given to.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::limits::WORKER_QUEUE_MAX;
use crate::places::Places;
use crate::shared::Shared;
use crate::worker::Worker;

/// The worker threads of the process. They end when this value is dropped.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Thread>,
    /// For connections, of all ports together.
    places: Arc<Places>,
}

#[derive(Debug)]
struct Thread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce(Rc<Worker>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The worker threads are gone: the process is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker {index} has ended")]
pub struct WorkerGone {
    /// Which one.
    pub index: usize,
}

/// A worker takes nothing more for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker {index} takes nothing more")]
pub(crate) struct WorkerBusy {
    /// Which one.
    index: usize,
}

impl Workers {
    /// Starts as many threads as the settings say.
    ///
    /// # Errors
    /// The system gives no more threads, or no event queue for one.
    pub fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let count = shared.config.workers.max(1);
        let threads = (0..count).map(|index| Thread::start(index, shared.clone()));
        Ok(Self { threads: threads.collect::<io::Result<_>>()?, places: Places::new(count) })
    }

    /// Places for connections: whoever accepts one takes a place for as long as it lives.
    #[must_use]
    pub(crate) fn places(&self) -> Arc<Places> {
        self.places.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
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
        J: FnOnce(Rc<Worker>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let gone = WorkerGone { index };
        let jobs = self.queue(index).ok_or(gone)?;
        jobs.send(Box::new(move |worker| Box::pin(job(worker)))).await.map_err(|_| gone)
    }

    /// The same for who cannot wait.
    ///
    /// # Errors
    /// [`WorkerBusy`]: the worker has more to begin than fits its queue, or has ended.
    pub(crate) fn try_spawn<F, J>(&self, index: usize, job: J) -> Result<(), WorkerBusy>
    where
        J: FnOnce(Rc<Worker>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let busy = WorkerBusy { index };
        let jobs = self.queue(index).ok_or(busy)?;
        jobs.try_send(Box::new(move |worker| Box::pin(job(worker)))).map_err(|_| busy)
    }

    fn queue(&self, index: usize) -> Option<&mpsc::Sender<Job>> {
        self.threads.get(index)?.jobs.as_ref()
    }
}

impl Thread {
    fn start(index: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(WORKER_QUEUE_MAX);
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().event_interval(TASKS_IN_A_ROW_MAX);
            let runtime = match builder.build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The receiver waits for exactly this.
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(Ok(()));
            runtime.block_on(async move {
                let worker = Worker::new(index, shared);
                let following = worker.clone();
                tokio::task::spawn_local(async move { following.follow().await });
                while let Some(job) = queue.recv().await {
                    tokio::task::spawn_local(job(worker.clone()));
                }
            });
        })?;
        started.recv().map_err(|_| io::Error::other("worker thread ended at once"))??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last user of the workers may be a task of one of them: that thread ends by itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// Tasks that run before sockets are looked at again.
const TASKS_IN_A_ROW_MAX: u32 = 16;
