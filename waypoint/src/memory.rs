//! Memory of a load that is over goes back to the system.

use std::io;
use std::sync::Arc;

use mesh_sys::{memory, rest};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::workers::Workers;

/// Tidies up after each load, until `workers` is gone. To be called on the control runtime.
///
/// # Errors
/// The system gives no more threads.
pub(crate) fn tidy_up(workers: &Arc<Workers>) -> io::Result<()> {
    let weak = Arc::downgrade(workers);
    let on_each = move || {
        let owner = weak.upgrade()?;
        Some(async move { on_each_worker(&owner).await })
    };
    rest::tidy_up(Handle::current(), on_each)
}

/// Each worker has a heap of its own.
async fn on_each_worker(workers: &Workers) {
    for index in 0..workers.count() {
        let (done, is_done) = oneshot::channel::<()>();
        let job = move |_| async move {
            memory::release_own_heap();
            drop(done);
        };
        // Without the worker there is nothing to release.
        if workers.spawn(index, job).await.is_ok() {
            let _ = is_done.await;
        }
    }
}
