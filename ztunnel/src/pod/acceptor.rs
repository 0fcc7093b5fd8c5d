//! Where clients of a pod's tunnels arrive: an acceptor hears who they are before a worker does anything for them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::drain::DrainWatch;
use tokio::sync::mpsc;

use super::Pod;
use super::accept::accept_each;
use super::door::{Door, Rota};
use super::pace::Pace;
use super::tasks::Tasks;
use crate::inbound::handshake::{self, Proven};
use crate::shared::Shared;

/// What an acceptor needs to serve a pod. Never leaves its thread.
pub(crate) struct PodAcceptor {
    pub(crate) pod: Arc<Pod>,
    pub(crate) shared: Arc<Shared>,
    /// Of TLS accepts, the costliest that a client can ask for.
    pub(crate) pace: Pace,
    /// To each worker.
    onward: Vec<mpsc::Sender<Box<Proven>>>,
    rota: Rota,
    /// The worker that had the last one.
    present: Cell<usize>,
}

/// Tunnels for one worker.
pub(super) type Arriving = mpsc::Receiver<Box<Proven>>;

/// From the acceptor to one worker.
pub(super) fn channel() -> (mpsc::Sender<Box<Proven>>, Arriving) {
    mpsc::channel(ARRIVING_MAX)
}

impl PodAcceptor {
    pub(super) fn new(pod: Arc<Pod>, shared: Arc<Shared>, home: usize, onward: Vec<mpsc::Sender<Box<Proven>>>) -> Self {
        let (pace, rota) = (Pace::of_this_thread(), Rota::new(home));
        Self { pod, shared, pace, onward, rota, present: Cell::new(home) }
    }

    /// Accepts until the drain starts, then closes the listener. Returns when the last handshake is done.
    pub(super) async fn serve(self, door: Door, mut watch: DrainWatch) {
        tokio::select! {
            () = self.shared.until_synced() => {}
            _ = watch.signaled() => return,
        }
        let acceptor = Rc::new(self);
        let tasks = Rc::new(Tasks::default());
        let tunnels = &acceptor.pod.tunnels;
        let room = async || tunnels.room().await;
        let accepting = accept_each(Some(door), &acceptor.shared.workers, room, &watch, |accepted, slot| {
            let place = tunnels.enter(slot, accepted.peer.ip());
            tasks.spawn(Box::pin(handshake::serve(acceptor.clone(), accepted, place)), ());
        });
        tasks.serve(accepting, watch.clone()).await;
    }

    /// To a worker that has time, which from then on is alone with it. Drops it if that one is about to end.
    pub(crate) async fn pass_on(&self, proven: Proven) {
        let next = self.rota.next(self.present.get(), || self.shared.workers.used().collect());
        self.present.set(next);
        if let Some(worker) = self.onward.get(next) {
            // A worker that no longer receives was told to cut everything.
            let _ = worker.send(Box::new(proven)).await;
        }
    }
}

/// Tunnels that wait for one worker: it takes them one after the other, so more would not make it faster.
const ARRIVING_MAX: usize = 16;
