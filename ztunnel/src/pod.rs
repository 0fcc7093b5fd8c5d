//! One enrolled pod: its listeners on every worker and on one acceptor, its tunnels, its live connections.

mod accept;
pub(crate) mod acceptor;
mod door;
mod learn;
pub(crate) mod listen;
mod lookup;
mod pace;
mod settings;
mod share;
mod starter;
mod tasks;
pub(crate) mod tunnels;
mod watch;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use mesh_core::drain::{self, DrainMode, DrainSignal, DrainWatch};
use mesh_hbone::{Pool, TurnBounds, Turns};
use mesh_sys::netns::NetNs;
use tokio::sync::{Semaphore, oneshot};

pub use listen::Listening;
pub use settings::DataPath;
pub use starter::PodProxies;

use crate::config::OriginalSource;
use crate::connections::{ConnectionInfo, PodConnections};
use crate::dial::{HboneDialer, Sockets};
use crate::dns;
use crate::limits::{
    CUT_BUDGET, POD_CONNECTIONS_MAX, POD_HANDSHAKES_MAX, SOURCE_HANDSHAKES_MAX, TURN_GRACE, TURN_GRACE_NEWCOMER,
};
use crate::shared::Shared;
use crate::state::Workload;
use crate::workers::{Seat, WorkerGone};
use acceptor::{Arriving, PodAcceptor};
use door::Places;
use listen::PodListeners;
use tasks::Tasks;
use tunnels::Tunnels;

/// Which pod.
#[derive(Debug)]
pub struct PodSpec {
    /// Kubernetes uid.
    pub uid: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Its network namespace.
    pub netns: Arc<NetNs>,
}

/// Why a pod cannot be served. The others are not affected; trying again may help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PodError {
    /// A port cannot be bound in the pod.
    #[error("port {port} cannot be bound in pod {pod}: {source}")]
    Bind {
        /// `namespace/name`.
        pod: String,
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The pod's network namespace cannot be entered.
    #[error("network namespace of pod {pod} cannot be entered: {source}")]
    Enter {
        /// `namespace/name`.
        pod: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process is ending.
    #[error(transparent)]
    Ending(#[from] WorkerGone),
}

/// A pod that is being served. Dropping it cuts everything at once.
#[derive(Debug)]
pub struct PodProxy {
    uid: Arc<str>,
    /// Taken by the first stop.
    drain: Mutex<Option<DrainSignal>>,
    live: Arc<PodConnections>,
    drain_deadline: Duration,
}

/// What all workers know of a pod.
pub(crate) struct Pod {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) netns: Arc<NetNs>,
    pub(crate) settings: DataPath,
    pub(crate) live: Arc<PodConnections>,
    /// Application connections, both directions.
    pub(crate) slots: Arc<Semaphore>,
    /// Tunnel connections that were accepted.
    pub(crate) tunnels: Arc<Tunnels>,
    /// TLS accepts under way.
    pub(crate) handshakes: Turns,
    /// Tells the watch over its connections, by being dropped, that nobody serves the pod any more.
    _served: oneshot::Sender<()>,
}

/// What one worker needs to serve a pod. Never leaves its thread.
pub(crate) struct PodWorker {
    pub(crate) pod: Arc<Pod>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sockets: Rc<Sockets>,
    pub(crate) pool: Pool<HboneDialer>,
    /// Its connections and tunnels on this worker.
    pub(crate) tasks: Rc<Tasks>,
    /// The pod's own baggage header, for the record it was made from.
    baggage: RefCell<Option<(Arc<Workload>, Option<HeaderValue>)>>,
}

impl PodProxy {
    /// Binds the pod's ports on every worker and starts to serve; returns when all are bound, so that traffic that is
    /// redirected from then on is not refused. Connections are taken once the control plane's first answers are in.
    ///
    /// Must be called on the control runtime.
    ///
    /// # Errors
    /// [`PodError`]; nothing is left behind.
    pub async fn start(spec: PodSpec, shared: Arc<Shared>) -> Result<Self, PodError> {
        let listening = Listening::from_config(&shared.config);
        Self::start_listening(spec, listening, shared).await
    }

    /// [`PodProxy::start`] with only some of the ports.
    ///
    /// # Errors
    /// As [`PodProxy::start`].
    pub async fn start_listening(spec: PodSpec, listening: Listening, shared: Arc<Shared>) -> Result<Self, PodError> {
        let mut settings = DataPath::from_config(&shared.config);
        if !listening.presents_clients {
            settings.original_source = OriginalSource::Off;
        }
        let workers = shared.workers.count();
        let home = worker_of(&spec.uid, workers);
        let bound = PodListeners::bind(&spec, listening, &settings, Places { workers, home })?;
        let dns = if listening.dns { Some(bind_dns(&spec, &shared.config.dns_addrs, &settings)?) } else { None };
        let live = Arc::new(PodConnections::default());
        let drain_deadline = settings.drain_deadline;
        let (served, gone) = oneshot::channel();
        let pod = Arc::new(Pod {
            name: spec.name,
            namespace: spec.namespace,
            service_account: spec.service_account,
            netns: spec.netns,
            settings,
            live: live.clone(),
            slots: Arc::new(Semaphore::new(POD_CONNECTIONS_MAX)),
            tunnels: Tunnels::of_a_pod(),
            handshakes: Turns::new(HANDSHAKES),
            _served: served,
        });
        let (drain, watch) = drain::channel();
        // From here on dropping the proxy undoes everything.
        let proxy = Self { uid: spec.uid, drain: Mutex::new(Some(drain)), live, drain_deadline };
        let mut onward = Vec::with_capacity(workers);
        for (index, listeners) in bound.workers.into_iter().enumerate() {
            let (pod, shared_there, watch) = (pod.clone(), shared.clone(), watch.clone());
            let (proven, arriving) = acceptor::channel();
            onward.push(proven);
            let serve =
                move || async move { PodWorker::new(pod, shared_there).serve(listeners, arriving, watch).await };
            shared.workers.spawn(Seat::Worker(index), serve).await?;
        }
        if let Some(door) = bound.hbone {
            let (pod, shared_there, watch) = (pod.clone(), shared.clone(), watch.clone());
            let serve = move || PodAcceptor::new(pod, shared_there, home, onward).serve(door, watch);
            shared.workers.spawn(Seat::Acceptor(worker_of(&proxy.uid, shared.workers.acceptors())), serve).await?;
        }
        if let Some(sockets) = dns {
            let (pod, shared_there, watch) = (pod.clone(), shared.clone(), watch.clone());
            let serve = move || dns::serve(pod, shared_there, sockets, watch);
            shared.workers.spawn(Seat::Worker(home), serve).await?;
        }
        tokio::spawn(watch::judge_connections(Arc::downgrade(&pod), gone, shared));
        Ok(proxy)
    }

    /// Stops serving: at once, or after letting open connections finish within the configured deadline. Listeners are
    /// closed first thing in both cases. Only the first call does anything.
    pub async fn stop(&self, mode: DrainMode) {
        let drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut drain) = drain else {
            return;
        };
        match mode {
            DrainMode::Graceful => {
                let deadline = self.drain_deadline;
                if !drain.drain_within(deadline).await {
                    tracing::info!(pod = %self.uid, ?deadline, "connections were cut at the end of the drain");
                }
            }
            DrainMode::Immediate => {
                drain.start(DrainMode::Immediate);
                // Bounded: a task that does not notice must not hold the session with the node agent.
                if tokio::time::timeout(CUT_BUDGET, drain.drained()).await.is_err() {
                    tracing::warn!(pod = %self.uid, "some connections did not end when they were cut");
                }
            }
        }
    }

    /// Its live connections.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.live.list()
    }
}

impl Pod {
    /// The pod's record, if the control plane has sent it.
    pub(crate) fn workload(&self, shared: &Shared) -> Option<Arc<Workload>> {
        let snapshot = shared.state.snapshot();
        snapshot.local_workload(&self.name, &self.namespace, &self.service_account).cloned()
    }

    /// The pod's record, waiting for it as long as a connection may.
    pub(crate) async fn await_workload(&self, shared: &Shared) -> Option<Arc<Workload>> {
        if let Some(workload) = self.workload(shared) {
            return Some(workload);
        }
        let Self { name, namespace, service_account, .. } = self;
        shared.state.await_local_workload(name, namespace, service_account).await
    }
}

impl PodWorker {
    fn new(pod: Arc<Pod>, shared: Arc<Shared>) -> Rc<Self> {
        let settings = &pod.settings;
        let sockets = Rc::new(Sockets::new(
            pod.netns.clone(),
            settings.mark,
            settings.keepalive.clone(),
            settings.original_source,
        ));
        let dialer = HboneDialer::new(sockets.clone(), shared.certs.clone()).with_crl(shared.crl.clone());
        let pool = Pool::new(dialer, settings.hbone.clone());
        Rc::new(Self { pod, shared, sockets, pool, tasks: Rc::default(), baggage: RefCell::default() })
    }

    /// See [`Pod::await_workload`].
    pub(crate) async fn await_workload(&self) -> Option<Arc<Workload>> {
        self.pod.await_workload(&self.shared).await
    }

    /// The `baggage` header that describes `workload`, which is the pod's own.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Option<HeaderValue> {
        let mut cached = self.baggage.borrow_mut();
        if let Some((of, header)) = &*cached
            && Arc::ptr_eq(of, workload)
        {
            return header.clone();
        }
        let header = settings::baggage_of(workload).encode();
        *cached = Some((workload.clone(), header.clone()));
        header
    }

    async fn serve(self: Rc<Self>, listeners: PodListeners, arriving: Arriving, mut watch: DrainWatch) {
        tokio::select! {
            () = self.shared.until_synced() => {}
            _ = watch.signaled() => return,
        }
        if self.shared.crl.is_some() {
            tokio::task::spawn_local(watch::cut_revoked_tunnels(Rc::downgrade(&self)));
        }
        listeners.accept(self, arriving, watch).await;
    }
}

/// In the pod; where the redirection sends its queries.
fn bind_dns(spec: &PodSpec, addrs: &[SocketAddr], settings: &DataPath) -> Result<dns::Sockets, PodError> {
    let pod = || format!("{}/{}", spec.namespace, spec.name);
    let bound = spec.netns.run(|| dns::Sockets::bind(addrs, settings.mark, settings.port_reuse));
    bound.map_err(|source| PodError::Enter { pod: pod(), source })?.map_err(|(addr, source)| PodError::Bind {
        pod: pod(),
        port: addr.port(),
        source,
    })
}

/// Spreads pods over the workers; what belongs to one pod stays together while that worker can do it.
fn worker_of(uid: &str, workers: usize) -> usize {
    uid.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % workers.max(1)
}

/// The turns at handshakes with one pod.
const HANDSHAKES: TurnBounds = TurnBounds {
    all: POD_HANDSHAKES_MAX,
    source: SOURCE_HANDSHAKES_MAX,
    grace: TURN_GRACE,
    grace_newcomer: TURN_GRACE_NEWCOMER,
};
