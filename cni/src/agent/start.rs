//! Puts the agent together, in an order in which each part finds what it needs: the plugin comes onto the node last,
//! so that whoever calls it is answered.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use kube::Client;
use mesh_core::drain::DrainWatch;
use mesh_sys::netns::NetNs;
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use tokio::net::TcpListener;

use super::admission::{self, Admission};
use super::cache::Cache;
use super::enrol::{Enroller, SCOPE};
use super::notice::Notices;
use super::queue::Queue;
use super::settle::{Settler, is_node_proxy};
use super::watch::World;
use super::{decide, health, overdue, plugin_log};
use crate::config::Config;
use crate::eligibility::is_terminal;
use crate::event;
use crate::install::{self, Installer};
use crate::metrics::Metrics;
use crate::redirect::{HostRules, kubelet_uid};
use crate::zds::{self, Proxies};

/// Why the agent could not start. The process ends and is started again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port or a socket.
    #[error("listening on {what}")]
    Listen {
        /// Address or path.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The node's network namespace.
    #[error("opening the node's network namespace {path}")]
    HostNamespace {
        /// Where it should be.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The node's kubelet.
    #[error("{0}")]
    Kubelet(String),
    /// The node's own rules, after several attempts.
    #[error("probe rules of the node: {0}")]
    HostRules(String),
}

/// Runs the agent until `drain` is signalled, then decides whether to leave the node as it is.
///
/// # Errors
/// See [`StartError`].
pub async fn run(config: Config, client: Client, registry: Registry, mut drain: DrainWatch) -> Result<(), StartError> {
    let metrics = Metrics::register(&registry);
    let readiness = Readiness::new();
    let ambient = readiness.register("ambient server");
    let installed = readiness.gate("cni installation");

    serve_tcp(config.monitoring, registry.router(), &drain).await?;
    serve_unix(&config.paths.run_dir.join(event::LOG_SOCKET), plugin_log::router(), &drain)?;
    serve_tcp(config.health, health::router(readiness.clone()), &drain).await?;

    let proxies = Proxies::new(metrics.ztunnel_connected.clone());
    let cache = Arc::new(Cache::default());
    let host = host_rules(&config)?;
    let enroller = Arc::new(Enroller::new(client.clone(), config.clone(), Arc::clone(&cache), proxies.clone(), host));
    let world = start_ambient(&config, &client, &metrics, &enroller, &proxies).await?;

    let socket = &config.paths.ztunnel_socket;
    let listener = zds::listener::bind(socket).map_err(|source| listen(socket.display(), source))?;
    tokio::spawn(zds::serve(listener, proxies, cache, drain.clone()));
    let admission = Admission {
        world,
        enroller: Arc::clone(&enroller),
        eligibility: Arc::new(config.eligibility.clone()),
        client: client.clone(),
        metrics: metrics.clone(),
    };
    serve_unix(&config.paths.run_dir.join(event::SOCKET), admission.router(), &drain)?;
    ambient.done();

    let installer = Installer::new(&config, metrics);
    let work = installer.clone().run(installed);
    tokio::select! {
        () = work => {}
        _ = drain.signaled() => {}
    }
    leave(&config, &client, &installer, &enroller).await;
    Ok(())
}

/// Knows the node, settles what an earlier agent has left, then follows changes.
async fn start_ambient(
    config: &Config,
    client: &Client,
    metrics: &Metrics,
    enroller: &Arc<Enroller>,
    proxies: &Proxies,
) -> Result<Arc<World>, StartError> {
    let queue = Arc::new(Queue::default());
    let world = Arc::new(World::new(Arc::clone(&queue)));
    tokio::spawn(Arc::clone(&world).watch_pods(client.clone(), config.node_name.clone()));
    tokio::spawn(Arc::clone(&world).watch_namespaces(client.clone()));
    world.synced().await;
    // Whether they still should be is settled later, like any other change.
    let enrolled: Vec<_> = world
        .pods()
        .iter()
        .filter(|pod| decide::is_enrolled(pod) && !is_terminal(pod) && !is_node_proxy(pod))
        .map(|pod| (**pod).clone())
        .collect();
    enroller.adopt(&enrolled).await;
    sync_host(enroller).await?;
    tracing::info!(target: SCOPE, node = config.node_name, pods = enrolled.len(), "enrolled pods taken over");

    let eligibility = Arc::new(config.eligibility.clone());
    let notices = Notices::new(client.clone(), config.node_name.clone());
    tokio::spawn(hurry(proxies.changes(), Arc::clone(&queue)));
    let settler = Settler {
        world: Arc::clone(&world),
        queue,
        enroller: Arc::clone(enroller),
        eligibility: Arc::clone(&eligibility),
        metrics: metrics.clone(),
        notices: notices.clone(),
    };
    for _ in 0..SETTLERS {
        tokio::spawn(settler.clone().run());
    }
    tokio::spawn(overdue::run(Arc::clone(&world), eligibility, metrics.clone(), notices));
    Ok(world)
}

/// Pods that could not be served for want of a proxy wait no longer when one has come.
async fn hurry(mut connected: tokio::sync::watch::Receiver<usize>, queue: Arc<Queue>) {
    let mut before = 0;
    while connected.changed().await.is_ok() {
        let now = *connected.borrow_and_update();
        if now > before {
            queue.hurry();
        }
        before = now;
    }
}

async fn sync_host(enroller: &Enroller) -> Result<(), StartError> {
    let mut last = String::new();
    for _ in 0..HOST_RULE_ATTEMPTS {
        match enroller.sync_node() {
            Ok(()) => return Ok(()),
            Err(error) => last = super::settle::error_chain(&error),
        }
        tracing::warn!(target: SCOPE, error = last, "probe rules of the node are not in force, trying again");
        tokio::time::sleep(HOST_RULE_PAUSE).await;
    }
    Err(StartError::HostRules(last))
}

fn host_rules(config: &Config) -> Result<HostRules, StartError> {
    let path = config.paths.host_proc.join("1/ns/net");
    let netns = if config.switch_to_host_netns { NetNs::open(&path) } else { NetNs::current() };
    let netns = netns.map_err(|source| StartError::HostNamespace { path: path.display().to_string(), source })?;
    let uid = kubelet_uid(&config.paths.host_proc).map_err(StartError::Kubelet)?;
    Ok(HostRules::new(netns, config.probes.clone(), uid, config.ipv6))
}

/// A restart or an upgrade leaves everything in place; an uninstallation leaves nothing.
async fn leave(config: &Config, client: &Client, installer: &Installer, enroller: &Enroller) {
    let decision = install::shutdown::decide(client, config).await;
    tracing::info!(target: SCOPE, ?decision, "agent is stopping");
    if decision == install::shutdown::Decision::Leave {
        return;
    }
    installer.remove();
    for socket in [event::SOCKET, event::LOG_SOCKET] {
        // Nobody answers there any more.
        let _ = std::fs::remove_file(config.paths.run_dir.join(socket));
    }
    if let Err(error) = enroller.leave_node() {
        tracing::warn!(target: SCOPE, %error, "probe rules of the node stay");
    }
}

async fn serve_tcp(address: SocketAddr, router: Router, drain: &DrainWatch) -> Result<(), StartError> {
    let listener = TcpListener::bind(address).await.map_err(|source| listen(address, source))?;
    let mut drain = drain.clone();
    // Health is asked for until the end.
    tokio::spawn(async move {
        mesh_telemetry::http::serve(listener, router, drain.cut()).await;
    });
    Ok(())
}

fn serve_unix(path: &Path, router: Router, drain: &DrainWatch) -> Result<(), StartError> {
    let listener = admission::bind(path).map_err(|source| listen(path.display(), source))?;
    let mut drain = drain.clone();
    tokio::spawn(async move {
        let stopped = async move {
            drain.signaled().await;
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(target: SCOPE, %error, "plugin socket ended");
        }
    });
    Ok(())
}

fn listen(what: impl std::fmt::Display, source: io::Error) -> StartError {
    StartError::Listen { what: what.to_string(), source }
}

/// Pods that are worked on at once: a proxy that does not answer for one pod must not hold up the others.
const SETTLERS: usize = 8;
const HOST_RULE_ATTEMPTS: u32 = 10;
const HOST_RULE_PAUSE: Duration = Duration::from_secs(2);
