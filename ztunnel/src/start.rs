//! Puts the process together and takes it apart in the right order.

mod control;
mod listeners;
mod process;
mod serving;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_identity::{CertManager, Crl, SystemClock, TlsPolicy};
use mesh_telemetry::http;
use mesh_telemetry::log::LogHandle;
use mesh_telemetry::metrics::{Family, Gauge, Registry};
use mesh_telemetry::ready::Readiness;
use mesh_wire::type_url;
use mesh_xds::client::{self as xds, DeltaClient, Demand, Demands, Observer as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::config::Config;
use crate::dns::{Dns, Resolver};
use crate::node::Pods;
use crate::pod::PodProxies;
use crate::promises::{Promises, Strict};
use crate::report::{self, Report};
use crate::revocation::RevocationMetrics;
use crate::shared::Shared;
use crate::state::{Feed, Local, LocalConfig, State};
use crate::workers::Workers;
use control::{Certificates, authority, xds_config, xds_node};
use listeners::Listeners;
use serving::Serving;
use stream::StreamWatcher;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Beyond the termination deadline, for cutting what is left.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// Time for the last log lines and responses after the data plane is gone.
const LINGER: Duration = Duration::from_millis(100);
/// What the shell calls a process that ^C ended.
const INTERRUPTED: i32 = 130;

/// Runs the proxy until it is told to end.
///
/// # Errors
/// It cannot start, or the node agent broke the protocol.
pub async fn run(mut config: Config, log: LogHandle) -> anyhow::Result<()> {
    tracing::info!(version = VERSION, workers = config.workers, "ztunnel starts");
    process::settle_original_source(&mut config);
    let config = Arc::new(config);
    let signals = Signals::listen()?;
    process::raise_descriptor_limit();
    process::check_capabilities(&config)?;
    let registry = Registry::new();
    register_build(&registry);
    mesh_process::register(&registry);
    let readiness = Readiness::new();
    let listeners = Listeners::bind(&config).await?;
    let local_config = config.local_config.as_ref().map(LocalConfig::load).transpose()?;

    let (synced_sender, synced) = watch::channel(false);
    let (demand, demands) = config.on_demand.then(Demand::channel).unzip();
    let given = Given { synced, demand, crl: open_crl(&config, &registry).await };
    let (shared, mut feed) = share(&config, &registry, &readiness, given)?;
    if let Some(local_config) = local_config {
        local_config.apply(&mut feed)?;
    }
    report::runtime::register(&registry, shared.workers.metrics());
    tokio::spawn(shared.report.clone().keep_house(shared.state.clone()));
    crate::memory::tidy_up(&shared).context("starting a thread")?;
    let pods = Pods::new(Arc::new(PodProxies::new(Arc::clone(&shared))), &registry);
    let (quit, quit_asked) = mpsc::channel(1);
    let (control, control_watch) = drain::channel();
    let admin = Admin { shared: Arc::clone(&shared), pods: pods.clone(), log: log.clone(), quit };
    listeners.serve(admin, &registry, &readiness, &control_watch);
    let watcher = StreamWatcher::new(&registry, &readiness, synced_sender, shared.promises.clone());
    let stream = follow_control_plane(&config, feed, watcher, demands);
    let mut serving = Serving::start(&shared, &pods, &readiness).await?;

    let ended = until_end(&mut serving, signals, quit_asked).await;
    let _not_ready = readiness.register("shutdown");
    serving.end_session().await;
    tokio::join!(stop_pods(&pods, config.termination_deadline), serving.stop_own());
    // The control plane stays until here, so that running connections keep policy updates.
    stream.abort();
    drop(control_watch);
    stop_control(control).await;
    tracing::info!("ztunnel ends");
    tokio::time::sleep(LINGER).await;
    log.flush();
    ended
}

/// What is there before everything else.
struct Given {
    synced: watch::Receiver<bool>,
    demand: Option<Demand>,
    crl: Option<Crl>,
}

async fn open_crl(config: &Config, registry: &Registry) -> Option<Crl> {
    let path = config.crl_path.as_ref()?;
    Crl::open(path, RevocationMetrics::register(registry)).await
}

/// What all parts share, and the one feed of its state.
fn share(
    config: &Arc<Config>,
    registry: &Registry,
    readiness: &Readiness,
    given: Given,
) -> anyhow::Result<(Arc<Shared>, Feed)> {
    let Given { synced, demand, crl } = given;
    let tls = TlsPolicy::new(config.key_exchange).with_tls12(config.tls12).with_crl(crl.clone());
    let certs = CertManager::spawn(authority(config, tls)?, Arc::new(SystemClock));
    let local = Local {
        network: config.network.as_str().into(),
        node: config.node.as_deref().map(Into::into),
        socks5: config.socks5,
        localhost_app_tunnel: config.localhost_app_tunnel,
    };
    let (state, feed) = State::new(local, Arc::new(Certificates::new(config, certs.clone())?));
    let dns = Dns::from_config(config, registry);
    let shared = Arc::new(Shared {
        report: Report::new(registry, config.policy_info_logging),
        resolver: Arc::new(Resolver::new(dns.servers.clone())),
        dns,
        workers: Workers::start(config.workers).context("starting the data-plane workers")?,
        config: Arc::clone(config),
        state,
        certs,
        crl,
        promises: Promises::new(Strict::from_config(config)),
        readiness: readiness.clone(),
        synced,
        demand,
    });
    Ok((shared, feed))
}

/// Keeps the state up to date. Without a control plane it is complete as it is.
fn follow_control_plane(
    config: &Config,
    feed: Feed,
    mut watcher: StreamWatcher,
    demands: Option<Demands>,
) -> JoinHandle<()> {
    let Some(address) = &config.xds_address else {
        tracing::info!("XDS_ADDRESS is empty: no control plane");
        watcher.ready();
        return tokio::spawn(async move {
            // Those who wait on the state must not take its end for the end of the process.
            let _kept = (feed, watcher);
            std::future::pending::<()>().await;
        });
    };
    let client = DeltaClient::new(xds_node(config), &[type_url::ADDRESS, type_url::AUTHORIZATION]);
    let xds_config = xds_config(config, address);
    match demands {
        Some(demands) => {
            let client = client.on_demand(type_url::ADDRESS);
            tokio::spawn(xds::run_on_demand(xds_config, client, feed, watcher, demands))
        }
        None => tokio::spawn(xds::run(xds_config, client, feed, watcher)),
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

/// Waits for a signal, a request on the admin port, or the failure of the node session. From then on SIGINT ends the
/// process at once.
async fn until_end(serving: &mut Serving, mut signals: Signals, mut quit: mpsc::Receiver<()>) -> anyhow::Result<()> {
    let ended = tokio::select! {
        _ = signals.terminate.recv() => {
            tracing::info!("SIGTERM: draining");
            Ok(())
        }
        _ = signals.interrupt.recv() => {
            tracing::info!("SIGINT: draining, once more ends at once");
            Ok(())
        }
        _ = quit.recv() => {
            tracing::info!("asked to quit: draining");
            Ok(())
        }
        ended = serving.failed() => ended,
    };
    tokio::spawn(async move {
        signals.interrupt.recv().await;
        std::process::exit(INTERRUPTED);
    });
    ended
}

/// Each pod keeps the deadline itself and cuts what is left; this one is for a pod that hangs.
async fn stop_pods(pods: &Pods, deadline: Duration) {
    if tokio::time::timeout(deadline + CUT_GRACE, pods.stop_all(DrainMode::Graceful)).await.is_err() {
        tracing::warn!(?deadline, "pods did not stop in time");
    }
}

async fn stop_control(control: DrainSignal) {
    if !control.drain_within(http::DRAIN_TIMEOUT).await {
        tracing::warn!("admin requests were cut");
    }
}

fn register_build(registry: &Registry) {
    let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
    build.get_or_create_owned(&vec![("component", "ztunnel"), ("tag", VERSION)]).set(1);
    registry.register("istio_build", "Istio component build info", build);
}
