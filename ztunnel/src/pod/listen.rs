//! A pod's listening sockets and the loops that accept from them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;

use mesh_core::addr::canonical;
use mesh_core::drain::DrainWatch;
use mesh_sys::socket::{TcpListenOptions, ipv6_available, wildcard};
use tokio::net::{TcpListener, TcpStream};

use super::{DataPath, PodError, PodSpec, PodWorker};
use crate::config::OriginalSource;
use crate::joined::Work;
use crate::limits::{ACCEPT_PAUSE, LISTEN_BACKLOG};
use crate::{inbound, outbound};

/// Outbound capture.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// Inbound plaintext capture.
pub(crate) const PLAINTEXT_PORT: u16 = 15006;
/// Tunnels.
pub(crate) const HBONE_PORT: u16 = 15008;

/// The sockets of one pod for one worker.
pub(super) struct PodListeners {
    outbound: StdListener,
    plaintext: StdListener,
    hbone: StdListener,
}

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    /// Canonical.
    pub(crate) peer: SocketAddr,
}

impl PodListeners {
    /// Binds the three ports once for each worker, inside the pod.
    pub(super) fn bind(spec: &PodSpec, settings: &DataPath, workers: usize) -> Result<Vec<Self>, PodError> {
        let pod = || format!("{}/{}", spec.namespace, spec.name);
        let bound = spec.netns.run(|| {
            let ip = wildcard(settings.ipv6 && ipv6_available());
            let bind = |port| bind_shared(SocketAddr::new(ip, port), settings, workers).map_err(|e| (port, e));
            Ok([bind(OUTBOUND_PORT)?, bind(PLAINTEXT_PORT)?, bind(HBONE_PORT)?])
        });
        let bound = bound.map_err(|source| PodError::Enter { pod: pod(), source })?;
        let [outbound, plaintext, hbone] =
            bound.map_err(|(port, source)| PodError::Bind { pod: pod(), port, source })?;
        let sets = outbound.into_iter().zip(plaintext).zip(hbone);
        Ok(sets.map(|((outbound, plaintext), hbone)| Self { outbound, plaintext, hbone }).collect())
    }

    /// Accepts on all three until the drain starts, then closes the listeners.
    pub(super) async fn accept(self, worker: Rc<PodWorker>, watch: DrainWatch) {
        let slots = worker.pod.slots.clone();
        let tunnels = worker.pod.tunnels.clone();
        // Never closed.
        let slot = async || slots.clone().acquire_owned().await.ok();
        let room = async || tunnels.room().await;
        tokio::join!(
            accept_each(self.outbound, slot, &watch, |accepted, slot| {
                spawn_until_cut(outbound::serve(worker.clone(), accepted), watch.clone(), slot);
            }),
            accept_each(self.plaintext, slot, &watch, |accepted, slot| {
                spawn_until_cut(inbound::plaintext::serve(worker.clone(), accepted), watch.clone(), slot);
            }),
            accept_each(self.hbone, room, &watch, |accepted, slot| {
                let place = tunnels.enter(slot);
                let work = inbound::tunnel::serve(worker.clone(), accepted, place, watch.clone());
                spawn_until_cut(work, watch.clone(), ());
            }),
        );
    }
}

/// One listener per worker on the same port; without port sharing the workers share one socket.
fn bind_shared(addr: SocketAddr, settings: &DataPath, workers: usize) -> io::Result<Vec<StdListener>> {
    let options = TcpListenOptions {
        reuse_port: settings.port_reuse,
        transparent: settings.original_source != OriginalSource::Off,
        mark: settings.mark,
        backlog: LISTEN_BACKLOG,
        keepalive: settings.keepalive.clone(),
        ..TcpListenOptions::new(addr)
    };
    let first = bind(&options, settings)?;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 1..workers {
        listeners.push(if settings.port_reuse { bind(&options, settings)? } else { first.try_clone()? });
    }
    listeners.push(first);
    Ok(listeners)
}

/// Where transparency cannot be had it is left out, unless it is required.
fn bind(options: &TcpListenOptions, settings: &DataPath) -> io::Result<StdListener> {
    match options.bind() {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && options.transparent
                && settings.original_source != OriginalSource::Require =>
        {
            tracing::warn!(%error, addr = %options.addr, "listener cannot be transparent");
            TcpListenOptions { transparent: false, ..options.clone() }.bind()
        }
        bound => bound,
    }
}

/// Accepts until the drain starts; `serve` gives each connection a task of its own, so that a panic ends that connection
/// only. Until there is a `slot` nothing is accepted; the kernel's backlog fills, and only this pod waits.
async fn accept_each<S>(
    listener: StdListener,
    slot: impl AsyncFn() -> S,
    watch: &DrainWatch,
    serve: impl Fn(Accepted, S),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener cannot be watched");
            return;
        }
    };
    let mut draining = watch.clone();
    loop {
        let next = async {
            let slot = slot().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            _ = draining.signaled() => return,
            next = next => next,
        };
        match accepted {
            Ok((tcp, peer)) => {
                serve(Accepted { tcp, peer: canonical(peer) }, slot);
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Runs a connection in a task of its own until it ends or everything is cut. The drain waits for it, and what is `held`
/// is given back at its end.
pub(crate) fn spawn_until_cut(work: Work, mut cut: DrainWatch, held: impl Sized + 'static) {
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = work => {}
            () = cut.cut() => {}
        }
        drop(held);
    });
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
