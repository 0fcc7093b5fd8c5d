//! Puts the process together and takes it apart in the right order.

mod process;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_core::Identity;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_identity::{CaClient, CaConfig, CertManager, SystemClock};
use mesh_telemetry::http;
use mesh_telemetry::log::LogHandle;
use mesh_telemetry::metrics::{Counter, Family, Gauge, Registry};
use mesh_telemetry::ready::{Readiness, Task};
use mesh_wire::{discovery, type_url};
use mesh_xds::client::{self as xds, DeltaClient, Observer, StreamEnd};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::config::{Config, Root, Token};
use crate::node::{self, Node, Pods};
use crate::pod::PodProxies;
use crate::report::Report;
use crate::shared::Shared;
use crate::state::{IdentityWatcher, Local, State};
use crate::workers::Workers;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Admin endpoints, on loopback.
pub const ADMIN_PORT: u16 = 15000;
/// Metrics.
pub const STATS_PORT: u16 = 15020;
/// Readiness.
pub const READY_PORT: u16 = 15021;
/// Time for the request of the node agent that is being served.
const SESSION_END_BUDGET: Duration = Duration::from_secs(1);
/// Beyond the termination deadline, for cutting what is left.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// Time for the last log lines and responses after the data plane is gone.
const LINGER: Duration = Duration::from_millis(100);

/// Runs the proxy until it is told to end.
///
/// # Errors
/// It cannot start, or the node agent broke the protocol.
pub async fn run(config: Config, log: LogHandle) -> anyhow::Result<()> {
    let config = Arc::new(config);
    tracing::info!(version = VERSION, workers = config.workers, "ztunnel starts");
    for name in &config.without_effect {
        tracing::warn!(name, "this setting has no effect in this version");
    }
    process::raise_descriptor_limit();
    process::check_capabilities(config.packet_mark).context("a node proxy needs NET_ADMIN, NET_RAW and SYS_ADMIN")?;
    let registry = Registry::new();
    register_build(&registry);
    process::register(&registry);
    let readiness = Readiness::new();
    let listeners = Listeners::bind(config.ipv6).await?;

    let certs = CertManager::spawn(Arc::new(CaClient::new(ca_config(&config))), Arc::new(SystemClock));
    let local = Local { network: config.network.as_str().into(), node: config.node.as_deref().map(Into::into) };
    let (state, feed) = State::new(local, Arc::new(Certificates(certs.clone())));
    let (synced_sender, synced) = watch::channel(false);
    let shared = Arc::new(Shared {
        report: Report::new(&registry, config.policy_info_logging),
        workers: Workers::start(config.workers).context("starting the data-plane workers")?,
        config: Arc::clone(&config),
        state,
        certs,
        readiness: readiness.clone(),
        synced,
    });
    let pods = Pods::new(Arc::new(PodProxies::new(Arc::clone(&shared))), &registry);

    let (quit, mut quit_asked) = mpsc::channel(1);
    let (control, control_watch) = drain::channel();
    let admin = Admin { shared: Arc::clone(&shared), pods: pods.clone(), log: log.clone(), quit };
    listeners.serve(admin, &registry, &readiness, &control_watch);
    let watcher = StreamWatcher::new(&registry, readiness.register("state manager"), synced_sender);
    let client = DeltaClient::new(xds_node(&config), &[type_url::ADDRESS, type_url::AUTHORIZATION]);
    let stream = tokio::spawn(xds::run(xds_config(&config), client, feed, watcher));

    let (session, session_watch) = drain::channel();
    let node = Node::new(config.inpod_uds.clone(), pods.clone(), readiness.gate(node::READY_TASK));
    let mut node = tokio::spawn(node.run(session_watch));
    let ended = until_end(&mut node, &mut quit_asked).await;

    let _not_ready = readiness.register("shutdown");
    end_session(&session, node).await;
    stop_pods(&pods, config.termination_deadline).await;
    // The control plane stays until here, so that running connections keep policy updates.
    stream.abort();
    drop(control_watch);
    stop_control(control).await;
    tracing::info!("ztunnel ends");
    tokio::time::sleep(LINGER).await;
    log.flush();
    ended
}

/// Waits for a signal, a request on the admin port, or the failure of the node session.
async fn until_end(
    node: &mut JoinHandle<Result<(), node::ProtocolError>>,
    quit: &mut mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => {
            tracing::info!("SIGINT: draining, once more ends at once");
            tokio::spawn(async move {
                interrupt.recv().await;
                std::process::exit(130);
            });
        }
        _ = quit.recv() => tracing::info!("asked to quit: draining"),
        ended = node => {
            return ended.context("the node session panicked")?.context("node session");
        }
    }
    Ok(())
}

/// Ends the session with the node agent for good: a pod that it added later would never be stopped.
async fn end_session<T>(session: &DrainSignal, mut node: JoinHandle<T>) {
    session.start(DrainMode::Graceful);
    // A session that ended by itself has told why.
    if !node.is_finished() && tokio::time::timeout(SESSION_END_BUDGET, &mut node).await.is_err() {
        tracing::warn!("the session with the node agent did not end in time");
        node.abort();
        let _ = node.await;
    }
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

/// The ports of the process itself. Bound first, so that a conflict ends the start.
struct Listeners {
    admin: Vec<TcpListener>,
    stats: TcpListener,
    ready: TcpListener,
}

impl Listeners {
    async fn bind(ipv6: bool) -> anyhow::Result<Self> {
        let mut admin = vec![listen((Ipv4Addr::LOCALHOST, ADMIN_PORT).into()).await?];
        let ipv6 = ipv6 && mesh_sys::socket::ipv6_available();
        if ipv6 {
            admin.push(listen((Ipv6Addr::LOCALHOST, ADMIN_PORT).into()).await?);
        }
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Ok(Self {
            admin,
            stats: listen((any, STATS_PORT).into()).await?,
            ready: listen((any, READY_PORT).into()).await?,
        })
    }

    fn serve(self, admin: Admin, registry: &Registry, readiness: &Readiness, drain: &drain::DrainWatch) {
        let router = admin::router(admin);
        let all = self.admin.into_iter().map(|listener| (listener, router.clone()));
        let rest = [(self.stats, registry.router()), (self.ready, readiness.router())];
        for (listener, router) in all.chain(rest) {
            let mut drain = drain.clone();
            tokio::spawn(async move {
                http::serve(listener, router, drain.signaled()).await;
            });
        }
    }
}

async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("listening on {addr}"))
}

/// Warms and forgets certificates as workloads come and go.
struct Certificates(CertManager);

impl IdentityWatcher for Certificates {
    fn needed(&self, identity: &Identity) {
        self.0.prefetch(identity);
    }

    fn unneeded(&self, identity: &Identity) {
        self.0.forget(identity);
    }
}

/// Metrics and readiness of the stream to the control plane.
struct StreamWatcher {
    terminations: Family<Vec<(&'static str, &'static str)>, Counter>,
    messages: Family<Vec<(&'static str, String)>, Counter>,
    bytes: Family<Vec<(&'static str, String)>, Counter>,
    task: Option<Task>,
    synced: watch::Sender<bool>,
}

impl StreamWatcher {
    fn new(registry: &Registry, task: Task, synced: watch::Sender<bool>) -> Self {
        let (terminations, messages, bytes) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "istio_xds_connection_terminations",
            "The total number of completed connections to the control plane, by reason",
            Family::clone(&terminations),
        );
        registry.register("istio_xds_message", "Total number of messages received", Family::clone(&messages));
        registry.register("istio_xds_message_bytes", "Total number of bytes received", Family::clone(&bytes));
        Self { terminations, messages, bytes, task: Some(task), synced }
    }
}

impl Observer for StreamWatcher {
    fn message(&mut self, type_url: &str, bytes: usize) {
        let label = vec![("url", type_url.to_owned())];
        self.messages.get_or_create_owned(&label).inc();
        self.bytes.get_or_create_owned(&label).inc_by(bytes as u64);
    }

    fn terminated(&mut self, end: &StreamEnd) {
        self.terminations.get_or_create_owned(&vec![("reason", end.reason())]).inc();
    }

    fn ready(&mut self) {
        tracing::info!("first state of the control plane is complete");
        self.synced.send_replace(true);
        self.task = None;
    }
}

fn xds_config(config: &Config) -> xds::Config {
    let root = match config.xds_root.clone() {
        Root::File(path) => xds::RootSource::File(path),
        Root::System => xds::RootSource::System,
        Root::Inline(pem) => xds::RootSource::Inline(pem),
    };
    let token = match config.token.clone() {
        Token::File(path) => xds::TokenSource::File(path),
        Token::Literal(token) => xds::TokenSource::Literal(token),
        Token::None => xds::TokenSource::None,
    };
    let mut headers = vec![("clusterid".to_owned(), config.cluster_id.clone())];
    headers.extend(config.xds_headers.iter().cloned());
    xds::Config {
        address: config.xds_address.clone(),
        root,
        alt_hostname: config.alt_xds_hostname.clone(),
        token,
        headers,
    }
}

fn ca_config(config: &Config) -> CaConfig {
    let root = match config.ca_root.clone() {
        Root::File(path) => mesh_identity::RootSource::File(path),
        Root::System => mesh_identity::RootSource::System,
        Root::Inline(pem) => mesh_identity::RootSource::Inline(pem),
    };
    let token = match config.token.clone() {
        Token::File(path) => mesh_identity::TokenSource::File(path),
        Token::Literal(token) => mesh_identity::TokenSource::Literal(token),
        Token::None => mesh_identity::TokenSource::None,
    };
    CaConfig {
        address: config.ca_address.clone(),
        root,
        alt_hostname: config.alt_ca_hostname.clone(),
        token,
        cluster_id: config.cluster_id.clone(),
        extra_headers: config.ca_headers.clone(),
        ttl: config.secret_ttl,
        impersonate: true,
        key_exchange: config.key_exchange,
    }
}

fn xds_node(config: &Config) -> discovery::Node {
    let fields = config.node_metadata().into_iter().map(|(name, value)| (name, to_proto(value)));
    discovery::Node {
        id: config.node_id(),
        metadata: Some(prost_types::Struct { fields: fields.collect() }),
        ..Default::default()
    }
}

/// JSON as its protobuf twin.
fn to_proto(value: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(to_proto).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields.into_iter().map(|(name, value)| (name, to_proto(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

fn register_build(registry: &Registry) {
    let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
    build.get_or_create_owned(&vec![("component", "ztunnel"), ("tag", VERSION)]).set(1);
    registry.register("istio_build", "Istio component build info", build);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_of_the_session_happens_once_it_has_ended() {
        for (needs, reached) in [(Duration::from_millis(300), 1), (Duration::from_secs(60), 0)] {
            let (session, mut watch) = drain::channel();
            let added = Arc::new(AtomicU8::new(0));
            let adds = Arc::clone(&added);
            let node = tokio::spawn(async move {
                watch.signaled().await;
                tokio::time::sleep(needs).await;
                adds.fetch_add(1, Ordering::SeqCst);
            });
            end_session(&session, node).await;
            assert_eq!(added.load(Ordering::SeqCst), reached);
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(added.load(Ordering::SeqCst), reached, "added after the session had ended");
        }
    }
}
