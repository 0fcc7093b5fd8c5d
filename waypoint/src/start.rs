//! Puts the process together and takes it apart in the right order.

mod control;
mod ports;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_identity::{CertManager, Crl, SystemClock, TlsPolicy};
use mesh_telemetry::http;
use mesh_telemetry::log::LogHandle;
use mesh_telemetry::metrics::{Family, Gauge, Registry};
use mesh_telemetry::ready::{Readiness, Task};
use mesh_wire::type_url;
use mesh_xds::client::{self as xds, DeltaClient, Demand, Demands, Subscriptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::config::{Config, Start};
use crate::endpoints::{self, Place, Store};
use crate::listener::Listeners;
use crate::overload::{self, Overload};
use crate::own::Own;
use crate::report::{Report, Reporter};
use crate::shared::Shared;
use crate::snapshot::{self, Snapshots};
use crate::upstream::UpstreamShared;
use crate::workers::Workers;
use ports::Ports;
use stream::StreamWatcher;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Time for the last log lines and responses after the data plane is gone.
const LINGER: Duration = Duration::from_millis(50);
/// What the shell calls a process that ^C ended.
const INTERRUPTED: i32 = 130;
/// Until the first certificate, the proxy is not ready; how often it is asked for meanwhile.
const CERTIFICATE_PAUSE: Duration = Duration::from_millis(200);

/// Runs the proxy until it is told to end.
///
/// # Errors
/// It cannot start.
pub async fn run(config: Config, log: LogHandle) -> anyhow::Result<()> {
    tracing::info!(version = VERSION, workers = config.workers, gateway = config.gateway, "waypoint starts");
    let config = Arc::new(config);
    let signals = Signals::listen()?;
    raise_descriptor_limit();
    let registry = Registry::new();
    mesh_process::register(&registry);
    register_build(&registry);
    let readiness = Readiness::new();
    let ports = Ports::bind(&config).await?;
    let crl = match &config.crl_path {
        Some(path) => Crl::open(path, stream::Revocations::register(&registry)).await,
        None => None,
    };
    let (demand, demands) = Demand::channel();
    let made = make(&config, &registry, &readiness, crl, demand)?;
    let shared = made.shared.clone();
    let (quit, quit_asked) = mpsc::channel(1);
    let (control, control_watch) = drain::channel();
    let admin = Admin { shared: shared.clone(), log: log.clone(), quit };
    ports.serve(admin, &registry, &readiness, &control_watch);
    let house = tokio::spawn(shared.report.clone().keep_house());
    let time = tokio::spawn(made.feed.clone().keep_time());
    let stream = follow_control_plane(&shared, made.feed, StreamWatcher::new(&registry), demands);
    let workers = Arc::new(Workers::start(&shared).context("starting the data-plane workers")?);
    crate::memory::tidy_up(&workers).context("starting a thread")?;
    overload::keep_watch(shared.overload.clone(), &workers).context("watching the memory")?;
    let (traffic, traffic_watch) = drain::channel();
    let ready = tokio::spawn(become_ready(shared.clone(), made.complete.clone()));
    let listeners = Listeners::new(shared.clone(), workers.clone(), traffic_watch);
    let open = readiness.register("listeners");
    let listeners = tokio::spawn(listen_when(made.complete, listeners, open));

    until_end(signals, quit_asked).await;
    let _not_ready = readiness.register("shutdown");
    wind_down(&shared, traffic, listeners).await;
    // Not before: connections live on their threads.
    drop(workers);
    ready.abort();
    house.abort();
    time.abort();
    // The control plane stays until here, so that connections keep policy updates.
    stream.abort();
    drop(control_watch);
    stop_control(control).await;
    tracing::info!("waypoint ends");
    tokio::time::sleep(LINGER).await;
    log.flush();
    Ok(())
}

/// What the parts share, and what keeps it up to date.
struct Made {
    shared: Arc<Shared>,
    feed: snapshot::Feed,
    complete: watch::Receiver<bool>,
}

fn make(
    config: &Arc<Config>,
    registry: &Registry,
    readiness: &Readiness,
    crl: Option<Crl>,
    demand: Demand,
) -> anyhow::Result<Made> {
    let tls = TlsPolicy::new(config.key_exchange).with_crl(crl.clone());
    let certs = CertManager::spawn(control::authority(config, tls)?, Arc::new(SystemClock));
    let own = Own::new(config.identity(), certs);
    let subscriptions = Subscriptions::new();
    subscriptions.set(type_url::L7, [Arc::from(config.gateway.as_str())].into());
    let place = Place {
        network: config.network.as_str().into(),
        cluster: config.cluster_id.as_str().into(),
        node: config.node.as_str().into(),
        ..Place::default()
    };
    let store = Arc::new(Store::new(place));
    let endpoints = endpoints::Feed::new(store.clone(), subscriptions.clone(), config.instance_ips.clone());
    let snapshots = Snapshots::new();
    let upstream = UpstreamShared::new(own.clone(), store.clone(), crl.clone());
    upstream.export(registry);
    let (feed, complete) = snapshot::Feed::new(&config.gateway, endpoints, upstream.clone(), snapshots.clone());
    let reporter = match config.start {
        Start::Waypoint => Reporter::Waypoint,
        Start::Router => Reporter::Source,
    };
    let shared = Arc::new(Shared {
        report: Report::new(registry, reporter, own.identity().clone(), config.logged),
        config: config.clone(),
        own,
        snapshots,
        endpoints: store,
        upstream,
        crl,
        overload: Overload::new(config.memory_limit),
        tunnel_turns: Shared::tunnel_turns(config.workers),
        listener_turns: Shared::listener_turns(config.workers),
        readiness: readiness.clone(),
        demand,
        subscriptions,
    });
    Ok(Made { shared, feed, complete })
}

/// Ready with the first state of the control plane and a certificate.
async fn become_ready(shared: Arc<Shared>, mut complete: watch::Receiver<bool>) {
    let state = shared.readiness.register("state of the control plane");
    let certificate = shared.readiness.register("own certificate");
    if complete.wait_for(|complete| *complete).await.is_err() {
        return;
    }
    tracing::info!("first state of the control plane is complete");
    state.done();
    while let Err(error) = shared.own.certificate().await {
        shared.readiness.explain("own certificate", error.to_string());
        tokio::time::sleep(CERTIFICATE_PAUSE).await;
    }
    certificate.done();
}

/// Nothing is accepted before the first state is complete: it would be refused for nothing.
async fn listen_when(mut complete: watch::Receiver<bool>, listeners: Listeners, open: Task) {
    if complete.wait_for(|complete| *complete).await.is_ok() {
        listeners.follow(open).await;
    }
}

fn follow_control_plane(
    shared: &Shared,
    feed: snapshot::Feed,
    watcher: StreamWatcher,
    demands: Demands,
) -> JoinHandle<()> {
    let config = &shared.config;
    let client = DeltaClient::new(control::xds_node(config), &[type_url::ADDRESS, type_url::L7])
        .on_demand(type_url::ADDRESS)
        .listed(type_url::ADDRESS)
        .listed(type_url::L7);
    let asked = (demands, shared.subscriptions.clone());
    tokio::spawn(xds::run_subscribed(control::xds_config(config), client, feed, watcher, asked))
}

/// Tells clients to go elsewhere, goes on accepting for a while, lets what is under way finish, then cuts what is left.
async fn wind_down(shared: &Shared, mut traffic: DrainSignal, listeners: JoinHandle<()>) {
    let config = &shared.config;
    let said = shared.snapshots.load().proxy.as_ref().and_then(|proxy| proxy.settings.drain);
    let (accepting, finishing) = if config.exit_on_zero {
        (config.drain_min, config.grace.max(config.drain_min))
    } else {
        (said.unwrap_or(config.drain), config.grace)
    };
    tracing::info!(?accepting, ?finishing, "draining");
    let until = tokio::time::Instant::now() + finishing.max(accepting);
    traffic.start(DrainMode::Graceful);
    tokio::time::sleep(accepting).await;
    // Together with their watches on the drain.
    listeners.abort();
    let _ = listeners.await;
    if tokio::time::timeout_at(until, traffic.drained()).await.is_err() {
        tracing::warn!("connections are cut: they did not end in time");
        traffic.start(DrainMode::Immediate);
        let _ = tokio::time::timeout(crate::limits::CUT_BUDGET, traffic.drained()).await;
    }
}

/// Asked for before anything that takes time, so that none is lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }
}

/// Waits for a signal or a request on the admin port. From then on SIGINT ends the process at once.
async fn until_end(mut signals: Signals, mut quit: mpsc::Receiver<()>) {
    tokio::select! {
        _ = signals.terminate.recv() => tracing::info!("SIGTERM"),
        _ = signals.interrupt.recv() => tracing::info!("SIGINT, once more ends at once"),
        _ = quit.recv() => tracing::info!("asked to quit"),
    }
    tokio::spawn(async move {
        signals.interrupt.recv().await;
        std::process::exit(INTERRUPTED);
    });
}

async fn stop_control(control: DrainSignal) {
    if !control.drain_within(http::DRAIN_TIMEOUT).await {
        tracing::warn!("admin requests were cut");
    }
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}

fn register_build(registry: &Registry) {
    let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
    build.get_or_create_owned(&vec![("component", "proxy"), ("tag", VERSION)]).set(1);
    registry.register("istio_build", "Istio component build info", build);
}
