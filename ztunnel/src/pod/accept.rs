//! The loop that accepts from one listener: at a bounded pace, until the drain, and what is under way after that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use mesh_core::addr::canonical;
use mesh_core::bucket::Bucket;
use mesh_core::drain::{DrainMode, DrainWatch};
use mesh_sys::reuseport;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::door::Door;
use crate::limits::{ACCEPT_PAUSE, HANDOVER, POD_ACCEPTS, STARTS_IN_A_ROW_MAX};
use crate::workers::Workers;

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    /// Canonical.
    pub(crate) peer: SocketAddr,
}

/// Accepts until the drain starts, whenever it is this worker's turn; `serve` gives each connection a task of its own, so
/// that a panic ends that connection only. Until there is a `slot` nothing is accepted; the kernel's backlog fills, and
/// only this pod waits.
///
/// A graceful drain does not close the listener under connections whose handshakes are under way: the kernel would reset
/// them. New ones are handed to the successor's listeners, if there are any; what is left arrives within [`HANDOVER`].
pub(super) async fn accept_each<S>(
    door: Option<Door>,
    workers: &Workers,
    slot: impl AsyncFn() -> S,
    watch: &DrainWatch,
    serve: impl Fn(Accepted, S),
) {
    let Some(mut door) = door else { return };
    let mut pace = AcceptPace::new();
    let mut draining = watch.clone();
    let take = async |(slot, accepted): (S, io::Result<(TcpStream, SocketAddr)>)| match accepted {
        Ok((tcp, peer)) => serve(Accepted { tcp, peer: canonical(peer) }, slot),
        Err(error) => pause_after(&error).await,
    };
    let mode = loop {
        let turn = async {
            door.opens().await;
            let Some(listener) = watched(&door).await else { return };
            loop {
                let waited = pace.next().await;
                let slot = slot().await;
                take((slot, listener.accept().await)).await;
                if door.pass(waited, || workers.used().collect()) {
                    return;
                }
            }
        };
        tokio::select! {
            mode = draining.signaled() => break mode,
            () = turn => {}
        }
    };
    if !door.closes() || mode == DrainMode::Immediate {
        return;
    }
    let Some(listener) = watched(&door).await else { return };
    if door.may_have_successor()
        && let Err(error) = reuseport::steer(&listener, 1)
    {
        tracing::debug!(%error, "new connections cannot be handed to a successor before the listener closes");
    }
    let next = async |pace: &mut AcceptPace| {
        pace.next().await;
        let slot = slot().await;
        (slot, listener.accept().await)
    };
    let handover = async {
        loop {
            take(next(&mut pace).await).await;
        }
    };
    tokio::select! {
        () = draining.cut() => return,
        _ = tokio::time::timeout(HANDOVER, handover) => {}
    }
    // What arrived while the timer ran out; nothing is awaited between this and the end of the listener.
    drop(door);
    while let Some(next) = next(&mut AcceptPace::new()).now_or_never() {
        if take(next).now_or_never().is_none() {
            return;
        }
    }
}

/// The listener, known to this worker's event queue.
async fn watched(door: &Door) -> Option<TcpListener> {
    match door.listener().and_then(TcpListener::from_std) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::error!(%error, "listener cannot be watched, pausing");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Lets other tasks run after a few connections, and bounds the rate.
struct AcceptPace {
    bucket: Bucket,
    since: Instant,
    row: u32,
}

impl AcceptPace {
    fn new() -> Self {
        Self { bucket: Bucket::full(POD_ACCEPTS), since: Instant::now(), row: 0 }
    }

    /// Tells whether the rate was reached.
    async fn next(&mut self) -> bool {
        self.row += 1;
        if self.row > STARTS_IN_A_ROW_MAX {
            self.row = 0;
            tokio::task::yield_now().await;
        }
        let mut waited = false;
        while !self.bucket.take(POD_ACCEPTS, || self.since.elapsed()) {
            tokio::time::sleep(Bucket::wait(POD_ACCEPTS).max(TIMER)).await;
            waited = true;
        }
        waited
    }
}

/// A connection that vanished before it was accepted is no reason to wait; a lack of descriptors or memory is.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "accept failed, pausing");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The runtime's timers are no finer.
const TIMER: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_at_once_and_then_the_rate() {
        let mut pace = AcceptPace::new();
        let started = Instant::now();
        for _ in 0..POD_ACCEPTS.burst {
            pace.next().await;
        }
        assert!(started.elapsed() < Duration::from_millis(5));
        for _ in 0..POD_ACCEPTS.per_second * 2 {
            pace.next().await;
        }
        let waited = started.elapsed();
        assert!((Duration::from_millis(1990)..Duration::from_millis(2100)).contains(&waited), "{waited:?}");
    }

    #[tokio::test]
    async fn connections_that_wait_do_not_keep_other_tasks_from_running() {
        let turns = Rc::new(Cell::new(0));
        let counting = turns.clone();
        tokio::task::LocalSet::new()
            .run_until(async move {
                let other = tokio::task::spawn_local(async move {
                    loop {
                        counting.set(counting.get() + 1);
                        tokio::task::yield_now().await;
                    }
                });
                let mut pace = AcceptPace::new();
                for _ in 0..POD_ACCEPTS.burst {
                    pace.next().await;
                }
                other.abort();
            })
            .await;
        assert!(turns.get() >= POD_ACCEPTS.burst / (STARTS_IN_A_ROW_MAX + 1) - 1, "{}", turns.get());
    }
}
