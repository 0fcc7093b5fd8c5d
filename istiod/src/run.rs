//! Puts the control plane together and takes it apart again.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use axum::Router;
use futures::Stream;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use mesh_core::drain::{self, DrainWatch};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_xds::server::{AdsService, Hub, HubOptions};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::auth::Authenticator;
use crate::ca::rotation::{Rotation, Source};
use crate::ca::service::{CaSettings, CertificateService};
use crate::ca::serving::{Serving, dns_names};
use crate::ca::{Authority, CurrentAuthority, material, self_signed};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::debug::http::{self, DebugState};
use crate::gate::{Gate, RateLimiter};
use crate::lead::Election;
use crate::listen;
use crate::metrics::{HubMetrics, Metrics};
use crate::publish::{Publisher, Statuses, TYPES};
use crate::roots::RootDistributor;
use crate::source::{Sources, mesh};
use crate::status::StatusWriter;
use crate::supervise::Supervisor;
use crate::translate::Model;
use crate::world::{Change, Kind, MeshSettings};

/// Runs the control plane until `stop` resolves, then drains it.
///
/// # Errors
/// Whatever keeps it from starting. Once it runs only `stop` ends it, or the panic of one of its tasks.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let client = Client::try_default().await.context("connecting to the API server")?;
    let settings = mesh::initial(&client, &config).await.context("reading the mesh configuration")?;
    let (signal, watch) = drain::channel();
    let plane = Plane::new(config.clone(), client, settings, watch.clone());
    let authority = plane.authority().await.context("certificate authority")?;
    let serving =
        Serving::new(dns_names(&config.custom_hosts, &config.revision, &config.namespace), authority.clone())?;
    plane.serve_http().await?;
    plane.serve_grpc(&serving, authority.clone()).await?;
    plane.control(authority);
    plane.supervisor.spawn("serving certificate", serving.run(watch));
    tokio::select! {
        () = stop => {}
        // Half a control plane is worse than none: another replica, or the next start of this one, does better.
        task = plane.supervisor.failed() => anyhow::bail!("task {task:?} panicked"),
    }
    tracing::info!("stopping");
    plane.hub.close();
    let (hub, shutdown) = (plane.hub.clone(), config.shutdown);
    drop(plane);
    if !signal.drain_within(shutdown).await {
        tracing::warn!(proxies = hub.connections().len(), "open streams were cut");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the parts share.
struct Plane {
    config: Arc<Config>,
    client: Client,
    drain: DrainWatch,
    registry: Registry,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    hub: Arc<Hub>,
    model: Arc<RwLock<Model>>,
    statuses: watch::Receiver<Statuses>,
    authenticator: Arc<Authenticator<Cluster>>,
    supervisor: Supervisor,
    /// Changes with every publication.
    publications: watch::Receiver<()>,
}

impl Plane {
    /// Starts reading the cluster: from here on the model fills.
    fn new(config: Arc<Config>, client: Client, settings: MeshSettings, drain: DrainWatch) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::new(&registry));
        let readiness = Readiness::new();
        let options = HubOptions { push_throttle: config.push_throttle, ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, Box::new(HubMetrics(metrics.clone())));
        let model: Arc<RwLock<Model>> = Arc::default();
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let (statuses_tx, statuses) = watch::channel(Statuses::default());
        let revision = Arc::from(config.revision.as_str());
        if let Ok(mut model) = model.write() {
            model.apply(Change::Settings(Arc::new(settings)));
        }
        let supervisor = Supervisor::new();
        let sources = Sources {
            client: client.clone(),
            changes: changes.clone(),
            metrics: metrics.clone(),
            revision,
            readiness: readiness.clone(),
            supervisor: supervisor.clone(),
        };
        sources.start();
        supervisor.spawn("mesh configuration", mesh::follow(client.clone(), config.clone(), changes));
        let (publications_tx, publications) = watch::channel(());
        let publisher = Publisher {
            model: model.clone(),
            hub: hub.clone(),
            changes: receiver,
            awaited: BTreeSet::from(Kind::ALL),
            ready: Some(readiness.register("discovery")),
            debounce: config.debounce,
            statuses: statuses_tx,
            metrics: metrics.clone(),
            published: 0,
            publications: publications_tx,
        };
        supervisor.spawn("publisher", publisher.run());
        let authenticator = Arc::new(Authenticator {
            reviewer: Cluster(client.clone()),
            audiences: config.audiences.clone(),
            cluster_id: config.cluster_id.as_str().into(),
            cluster_aliases: config.cluster_aliases.clone(),
        });
        Self {
            config,
            client,
            drain,
            registry,
            metrics,
            readiness,
            hub,
            model,
            statuses,
            authenticator,
            supervisor,
            publications,
        }
    }

    /// The authority, plugged in or self-made, and whoever follows its material.
    async fn authority(&self) -> anyhow::Result<CurrentAuthority> {
        let config = &self.config;
        let (source, current) = match material::plugged(&config.root_ca_dir)? {
            Some(plugged) => (Source::Plugged(config.root_ca_dir.clone()), plugged),
            None => {
                let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &config.namespace);
                let trust_domain = self.settings().trust_domain.clone();
                let made =
                    self_signed::load_or_create(&secrets, &config.namespace, &trust_domain, SystemTime::now()).await?;
                (Source::SelfSigned { secrets, namespace: config.namespace.clone(), trust_domain }, made)
            }
        };
        let authority = Authority::new(&current)?;
        tracing::info!(?source, "certificate authority is ready");
        let (sender, receiver) = watch::channel(Arc::new(authority));
        let mut ends = receiver.clone();
        let metrics = self.metrics.clone();
        metrics.authority_ends(ends.borrow_and_update().validity().1);
        tokio::spawn(async move {
            while ends.changed().await.is_ok() {
                metrics.authority_ends(ends.borrow_and_update().validity().1);
            }
        });
        let rotation = Rotation { source, current, multi_root: config.multi_root, authority: sender };
        self.supervisor.spawn("authority", rotation.run(self.drain.clone()));
        Ok(receiver)
    }

    fn settings(&self) -> Arc<MeshSettings> {
        self.model.read().unwrap_or_else(std::sync::PoisonError::into_inner).world().settings().clone()
    }

    async fn serve_http(&self) -> anyhow::Result<()> {
        let debug = http::debug(Arc::new(DebugState {
            hub: self.hub.clone(),
            model: self.model.clone(),
            authenticator: self.authenticator.clone(),
            namespace: self.config.namespace.as_str().into(),
        }));
        let mut readiness = http::ready(self.readiness.clone());
        if self.config.debug_on_http {
            readiness = readiness.merge(debug.clone());
        }
        let monitoring = self.registry.router().merge(http::version()).merge(debug);
        self.serve_router(listen::bind(&self.config.http_addr).await?, readiness);
        self.serve_router(listen::bind(&self.config.monitoring_addr).await?, monitoring);
        Ok(())
    }

    fn serve_router(&self, listener: TcpListener, router: Router) {
        let mut drain = self.drain.clone();
        tokio::spawn(mesh_telemetry::http::serve(listener, router, async move { drain.signaled().await }));
    }

    async fn serve_grpc(&self, serving: &Serving, authority: CurrentAuthority) -> anyhow::Result<()> {
        let limiter = Arc::new(RateLimiter::new(self.config.streams_per_second));
        let authenticated = Gate {
            authenticator: self.config.xds_auth.then(|| self.authenticator.clone()),
            identity_check: self.config.identity_check,
            limiter: limiter.clone(),
        };
        let certificates = IstioCertificateServiceServer::new(CertificateService::new(
            self.authenticator.clone(),
            Cluster(self.client.clone()),
            self.model.clone(),
            authority,
            CaSettings {
                trusted_node_accounts: self.config.trusted_node_accounts.clone(),
                lifetimes: self.config.lifetimes,
            },
            self.metrics.clone(),
        ))
        .max_decoding_message_size(CERTIFICATE_REQUEST_BYTES_MAX);
        let listener = listen::bind(&self.config.secure_grpc_addr).await?;
        let incoming = listen::tls(listener, serving.server_config()?);
        let ads = AdsService::new(self.hub.clone(), Arc::new(authenticated));
        let router = self.server().add_service(ads).add_service(certificates.clone());
        self.serve_until_drained(router, incoming, "secure");
        if let Some(addr) = &self.config.grpc_addr {
            let listener = listen::bind(addr).await?;
            tracing::warn!(addr, "xDS is served in plain text and to anybody");
            let open = Gate::<Cluster> { authenticator: None, identity_check: false, limiter };
            let ads = AdsService::new(self.hub.clone(), Arc::new(open));
            let router = self.server().add_service(ads).add_service(certificates);
            self.serve_until_drained(router, TcpListenerStream::new(listener), "plain-text");
        }
        Ok(())
    }

    /// Serves until the drain starts, then until every stream has ended; the drain waits for that.
    fn serve_until_drained<IO>(
        &self,
        router: tonic::transport::server::Router,
        incoming: impl Stream<Item = std::io::Result<IO>> + Send + 'static,
        name: &'static str,
    ) where
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (mut drain, held) = (self.drain.clone(), self.drain.clone());
        let stop = async move {
            drain.signaled().await;
        };
        tokio::spawn(async move {
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop).await {
                tracing::error!(%error, name, "gRPC server ended");
            }
            drop(held);
        });
    }

    fn server(&self) -> Server {
        let (interval, timeout) = self.config.keepalive;
        let server = Server::builder()
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
            .max_concurrent_streams(STREAMS_MAX);
        match self.config.max_connection_age {
            // Jitter, so that replicas do not shed their proxies at the same time.
            Some(age) => {
                server.max_connection_age(age.mul_f64(rand::random_range(0.9..1.1))).max_connection_age_grace(AGE_GRACE)
            }
            None => server,
        }
    }

    /// Starts the writers.
    fn control(&self, authority: CurrentAuthority) {
        let roots = RootDistributor {
            client: self.client.clone(),
            authority,
            leading: self.lead(NAMESPACE_LOCK),
            model: self.model.clone(),
            publications: self.publications.clone(),
        };
        self.supervisor.spawn("root distributor", roots.run(self.drain.clone()));
        if self.config.status {
            let writer = StatusWriter {
                client: self.client.clone(),
                wanted: self.statuses.clone(),
                leading: self.lead(STATUS_LOCK),
            };
            self.supervisor.spawn("status writer", writer.run(self.drain.clone()));
        }
    }

    fn lead(&self, name: &'static str) -> watch::Receiver<bool> {
        if !self.config.leader_election {
            let (sender, leading) = watch::channel(true);
            let mut drain = self.drain.clone();
            // Without election we lead for as long as we run.
            tokio::spawn(async move {
                drain.signaled().await;
                sender.send_replace(false);
            });
            return leading;
        }
        let leases = Api::namespaced(self.client.clone(), &self.config.namespace);
        let election = Election { leases, name, me: self.config.pod_name.clone() };
        let (leading, receiver) = watch::channel(false);
        self.supervisor.spawn(name, election.run(leading, self.drain.clone()));
        receiver
    }
}

/// Changes that wait for the model; sources wait when it is full.
const CHANGES_MAX: usize = 1024;
/// Streams on one connection.
const STREAMS_MAX: u32 = 100_000;
/// How long streams may go on after their connection's age is over.
const AGE_GRACE: Duration = Duration::from_secs(10);
/// A certificate request has some 500 bytes of PEM and a few of metadata.
const CERTIFICATE_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Lock of whoever writes root certificates.
const NAMESPACE_LOCK: &str = "istio-namespace-controller-election";
/// Lock of whoever writes status.
const STATUS_LOCK: &str = "istio-status-leader";
