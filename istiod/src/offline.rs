//! The control plane without a cluster: objects from files, xDS in plain text. For trying the node proxy and for tests.
//!
//! There is no authority, no admission, no status and no election: nobody is there who could prove an identity or keep
//! an object. Debugging is answered to this machine only.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, RwLock};

use anyhow::Context;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_core::drain::{self, DrainWatch};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_xds::server::{AdsService, Hub, HubOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::service::Routes;

use crate::auth::{Attempts, AuthError, Authenticator, TokenReviewer};
use crate::config::Config;
use crate::config::mesh::MeshReport;
use crate::debug::Turns;
use crate::debug::http::{self, DebugState};
use crate::gate::{Gate, RateLimiter};
use crate::listen::{self, Bounds};
use crate::metrics::{HubMetrics, Metrics};
use crate::publish::{Publisher, TYPES};
use crate::run::{CHANGES_MAX, promises, trust_domains};
use crate::serve::HttpServer;
use crate::source::files::Files;
use crate::source::mesh::{self, Told};
use crate::supervise::Supervisor;
use crate::translate::Model;
use crate::world::{Change, Kind};

/// Serves what the files say until `stop` resolves, then drains.
///
/// # Errors
/// Whatever keeps it from starting: the directory cannot be read, the mesh configuration cannot be used, a port is taken.
pub async fn run(config: Arc<Config>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (signal, watch) = drain::channel();
    let plane = Plane::new(&config)?;
    plane.supervisor.spawn("memory", crate::memory::run(watch.clone()));
    plane.serve_http(&config, &watch).await?;
    plane.serve_grpc(&config, watch).await?;
    tokio::select! {
        () = stop => {}
        task = plane.supervisor.failed() => anyhow::bail!("task {task:?} panicked"),
    }
    plane.hub.close();
    drop(plane);
    if !signal.drain_within(config.shutdown).await {
        tracing::warn!("open streams were cut");
    }
    Ok(())
}

struct Plane {
    hub: Arc<Hub>,
    model: Arc<RwLock<Model>>,
    registry: Registry,
    readiness: Readiness,
    supervisor: Supervisor,
    mesh_report: MeshReport,
}

impl Plane {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let registry = Registry::new();
        mesh_process::register(&registry);
        let metrics = Arc::new(Metrics::new(&registry));
        let readiness = Readiness::new();
        let supervisor = Supervisor::new();
        let options = HubOptions { push_throttle: config.push_throttle, ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, Box::new(HubMetrics(metrics.clone())));
        let text = std::fs::read_to_string(&config.mesh_config_file).unwrap_or_default();
        let told = Told { metrics: metrics.clone(), report: MeshReport::default() };
        let settings = mesh::read(&text, config, &told)?;
        let mut model = Model::default();
        model.apply(Change::Settings(Arc::new(settings)));
        let model = Arc::new(RwLock::new(model));
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let dir = config.config_dir.clone().context("without a cluster --configDir is needed")?;
        let revision = config.revision.as_str().into();
        let files =
            Files { dir, kinds: &Kind::ALL, revision, changes, metrics: metrics.clone(), readiness: readiness.clone() };
        files.check().context("--configDir")?;
        tracing::warn!(dir = %files.dir.display(), "no cluster: objects are read from files, and nobody is authenticated");
        supervisor.spawn("files", files.run());
        let publisher = Publisher {
            model: model.clone(),
            hub: hub.clone(),
            changes: receiver,
            awaited: BTreeSet::from(Kind::ALL),
            awaits_clusters: false,
            ready: Some(readiness.register("discovery")),
            debounce: config.debounce,
            statuses: Arc::default(),
            metrics,
            published: 0,
            publications: watch::channel(()).0,
            progress: watch::channel(false).0,
            reasons: BTreeSet::new(),
            renew: false,
            named: 0,
        };
        supervisor.spawn("publisher", publisher.run());
        Ok(Self { hub, model, registry, readiness, supervisor, mesh_report: told.report })
    }

    async fn serve_http(&self, config: &Config, drain: &DrainWatch) -> anyhow::Result<()> {
        let authenticator = Authenticator {
            reviewer: Nobody,
            audiences: Vec::new(),
            cluster_id: config.cluster_id.as_str().into(),
            cluster_aliases: Vec::new(),
            trust_domains: trust_domains(&self.model),
            attempts: Attempts::default(),
        };
        let debug = http::debug(Arc::new(DebugState {
            hub: self.hub.clone(),
            model: self.model.clone(),
            authenticator: Arc::new(authenticator),
            namespace: config.namespace.as_str().into(),
            clusters: None,
            simulations: Arc::new(Semaphore::new(1)),
            turns: Turns::default(),
            mesh_report: self.mesh_report.clone(),
            warnings: config.warnings.clone(),
            unsafe_admin: config.unsafe_admin,
        }));
        let ready = http::ready(self.readiness.clone()).merge(debug.clone());
        let monitoring = self.registry.router().merge(http::version()).merge(debug);
        for (name, addr, router) in
            [("readiness", &config.http_addr, ready), ("monitoring", &config.monitoring_addr, monitoring)]
        {
            let server = HttpServer::open(name, listen::bind(addr).await?, router);
            self.supervisor.spawn(name, server.run(drain.clone()));
        }
        Ok(())
    }

    async fn serve_grpc(&self, config: &Config, drain: DrainWatch) -> anyhow::Result<()> {
        let gate = Gate::<Nobody> {
            authenticator: None,
            identity_check: false,
            limiter: Arc::new(RateLimiter::new(config.streams_per_second)),
            promises: promises(&self.model),
            workloads: None,
        };
        let addr = config.grpc_addr.as_deref().unwrap_or(GRPC_ADDR);
        tracing::warn!(addr, "xDS is served in plain text and to anybody");
        let server = HttpServer {
            name: "plain-text gRPC",
            listener: listen::bind(addr).await?,
            tls: None,
            clients: None,
            plain_http2: true,
            bounds: Bounds::default(),
            keepalive: config.keepalive,
            max_age: config.max_connection_age,
            router: Routes::new(AdsService::new(self.hub.clone(), Arc::new(gate))).prepare().into_axum_router(),
        };
        self.supervisor.spawn("plain-text gRPC", server.run(drain));
        Ok(())
    }
}

/// There is no API server to ask: no token is good.
#[derive(Debug)]
pub(crate) struct Nobody;

impl TokenReviewer for Nobody {
    async fn review(&self, _token: &str, _audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        Err(AuthError::Unreviewed { reason: "there is no cluster that could review a token".to_owned() })
    }
}

/// Where xDS is served unless told otherwise: to this machine.
const GRPC_ADDR: &str = "127.0.0.1:15010";
