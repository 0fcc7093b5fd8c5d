//! The tasks of a pod on one worker: cut all at once, waited for at the end.

use std::cell::RefCell;
use std::rc::Rc;

use mesh_core::drain::DrainWatch;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::connections::slab::Slab;
use crate::joined::Work;

/// Connections and tunnels of one pod on one worker. A table of handles costs a connection less than a watch of its own.
#[derive(Default)]
pub(crate) struct Tasks {
    table: RefCell<Table>,
    ended: Notify,
}

#[derive(Default)]
struct Table {
    handles: Slab<Option<AbortHandle>>,
    count: usize,
    cut: bool,
}

/// A running task; says so when it is gone.
struct Running {
    tasks: Rc<Tasks>,
    place: usize,
}

impl Tasks {
    /// Runs a connection in a task of its own until it ends or everything is cut; what is `held` is given back then.
    pub(crate) fn spawn(self: &Rc<Self>, work: Work, held: impl Sized + 'static) {
        let place = {
            let mut table = self.table.borrow_mut();
            table.count += 1;
            table.handles.insert(None)
        };
        let running = Running { tasks: self.clone(), place };
        let task = tokio::task::spawn_local(async move {
            // Dropped from the last to the first: the connection is closed when it counts as gone.
            let _running = running;
            let _held = held;
            work.await;
        });
        let mut table = self.table.borrow_mut();
        if table.cut {
            task.abort();
        } else if let Some(handle) = table.handles.get_mut(place) {
            *handle = Some(task.abort_handle());
        }
    }

    /// Ends all that run, and all that begin later. What is cut says so, even if its peer, cut as well, is noticed at the
    /// same time.
    fn cut(&self) {
        let mut table = self.table.borrow_mut();
        table.cut = true;
        table.handles.iter().flatten().for_each(AbortHandle::abort);
    }

    /// Accepts until that has ended; waits for those accepted, or cuts them when all is cut.
    pub(super) async fn serve(&self, accepting: impl Future<Output = ()>, mut watch: DrainWatch) {
        let all = async {
            accepting.await;
            self.gone().await;
        };
        tokio::select! {
            biased;
            () = watch.cut() => self.cut(),
            () = all => return,
        }
        self.gone().await;
    }

    /// Waits until none is left.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    async fn gone(&self) {
        loop {
            let ended = self.ended.notified();
            if self.table.borrow().count == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let left = {
            let mut table = self.tasks.table.borrow_mut();
            table.handles.remove(self.place);
            table.count -= 1;
            table.count
        };
        if left == 0 {
            self.tasks.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::cell::Cell;
    use tokio::task::{LocalSet, yield_now};

    struct Told(Rc<Cell<u32>>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[tokio::test]
    async fn a_cut_ends_what_runs_and_what_begins_later() {
        let (tasks, dropped) = (Rc::new(Tasks::default()), Rc::new(Cell::new(0)));
        let told = || Told(dropped.clone());
        LocalSet::new()
            .run_until(async {
                tasks.spawn(Box::pin(async {}), told());
                yield_now().await;
                assert_eq!(dropped.get(), 1);
                assert!(tasks.gone().now_or_never().is_some());
                tasks.spawn(Box::pin(std::future::pending()), told());
                yield_now().await;
                assert!(tasks.gone().now_or_never().is_none());
                tasks.cut();
                tasks.spawn(Box::pin(std::future::pending()), told());
                tasks.gone().await;
                assert_eq!(dropped.get(), 3);
                assert_eq!(tasks.table.borrow().handles.iter().count(), 0);
            })
            .await;
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Rc::new(Tasks::default());
        LocalSet::new()
            .run_until(async {
                tasks.spawn(Box::pin(async { panic!("on purpose") }), ());
                tasks.gone().await;
            })
            .await;
    }
}
