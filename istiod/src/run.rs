//! Puts the control plane together and takes it apart again.

mod ports;
mod registering;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use mesh_core::drain::{self, DrainWatch};
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_xds::server::{Hub, HubOptions};
use tokio::sync::{mpsc, watch};

use crate::allocate::Allocator;
use crate::auth::certificate;
use crate::auth::cluster::Reviewers;
use crate::auth::{Attempts, Authenticator, TrustDomains};
use crate::ca::anchors::Anchors;
use crate::ca::rotation::{Rotation, Source};
use crate::ca::serving::{Serving, dns_names};
use crate::ca::{Authority, CurrentAuthority, material, self_signed};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::config::mesh::MeshReport;
use crate::gate::CurrentPromises;
use crate::gateway::{ClassKeeper, Deployer};
use crate::lead::Election;
use crate::metrics::{HubMetrics, Metrics};
use crate::publish::{Publisher, TYPES};
use crate::registration;
use crate::roots::{Channels, RootDistributor};
use crate::source::files::Files;
use crate::source::materials::Materials;
use crate::source::mesh::Told;
use crate::source::remote::RemoteClusters;
use crate::source::remote::registry::Clusters;
use crate::source::{Sources, mesh};
use crate::status::{Feed, StatusWriter};
use crate::supervise::Supervisor;
use crate::translate::Model;
use crate::trust_bundle::{self, TrustBundle};
use crate::world::{Change, Kind, MeshSettings};

/// Runs the control plane until `stop` resolves, then drains it.
///
/// # Errors
/// Whatever keeps it from starting. Once it runs only `stop` ends it, or the panic of one of its tasks.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Arc::new(config);
    if !config.cluster {
        return crate::offline::run(config, stop).await;
    }
    let client = Client::try_default().await.context("connecting to the API server")?;
    let registry = Registry::new();
    mesh_process::register(&registry);
    let told = Told { metrics: Arc::new(Metrics::new(&registry)), report: MeshReport::default() };
    let settings = mesh::initial(&client, &config, &told).await.context("reading the mesh configuration")?;
    let (signal, watch) = drain::channel();
    let plane = Plane::new(config.clone(), client, settings, (registry, told), watch.clone());
    let authority = plane.authority().await.context("certificate authority")?;
    let serving =
        Serving::new(dns_names(&config.custom_hosts, &config.revision, &config.namespace), authority.clone())?;
    plane.serve_http().await?;
    plane.serve_grpc(&serving, authority.clone()).await?;
    plane.serve_webhooks(&serving, authority.clone()).await?;
    plane.control(authority).await.context("starting the writers")?;
    plane.supervisor.spawn("memory", crate::memory::run(watch.clone()));
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

/// Reads ConfigMaps and Secrets that other objects name.
fn read_materials(config: &Config, sources: &Sources, model: &Arc<RwLock<Model>>, progress: watch::Receiver<bool>) {
    let materials = Materials {
        client: sources.client.clone(),
        model: model.clone(),
        changes: sources.changes.clone(),
        supervisor: sources.supervisor.clone(),
        progress,
        namespace: config.namespace.clone(),
        revision: sources.revision.clone(),
    };
    sources.supervisor.spawn("named ConfigMaps and Secrets", materials.run());
}

/// What the parts share.
struct Plane {
    config: Arc<Config>,
    client: Client,
    drain: DrainWatch,
    registry: Registry,
    metrics: Arc<Metrics>,
    mesh_report: MeshReport,
    readiness: Readiness,
    hub: Arc<Hub>,
    model: Arc<RwLock<Model>>,
    statuses: Arc<Feed>,
    authenticator: Arc<Authenticator<Reviewers>>,
    clusters: Option<Clusters>,
    /// Workloads that register themselves.
    workloads: Option<Arc<registration::Registry>>,
    supervisor: Supervisor,
    /// Changes with every publication.
    publications: watch::Receiver<()>,
}

impl Plane {
    /// Starts reading the cluster: from here on the model fills.
    fn new(
        config: Arc<Config>,
        client: Client,
        settings: MeshSettings,
        (registry, told): (Registry, Told),
        drain: DrainWatch,
    ) -> Self {
        let metrics = told.metrics.clone();
        let readiness = Readiness::new();
        let options = HubOptions { push_throttle: config.push_throttle, ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, Box::new(HubMetrics(metrics.clone())));
        let model: Arc<RwLock<Model>> = Arc::default();
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let statuses: Arc<Feed> = Arc::default();
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
        start_reading(&config, &sources);
        let clusters = config.multi_network.then(|| read_clusters(&config, &sources, &registry));
        let following = mesh::follow(client.clone(), config.clone(), changes, told.clone());
        supervisor.spawn("mesh configuration", following);
        let (publications_tx, publications) = watch::channel(());
        let (progress_tx, progress) = watch::channel(false);
        read_materials(&config, &sources, &model, progress);
        let publisher = Publisher {
            model: model.clone(),
            hub: hub.clone(),
            changes: receiver,
            awaited: Kind::ALL.into_iter().chain(Kind::REFERENCED).collect(),
            awaits_clusters: config.multi_network,
            ready: Some(readiness.register("discovery")),
            debounce: config.debounce,
            statuses: statuses.clone(),
            metrics: metrics.clone(),
            published: 0,
            publications: publications_tx,
            progress: progress_tx,
            reasons: BTreeSet::new(),
            renew: false,
            named: 0,
        };
        supervisor.spawn("publisher", publisher.run());
        let authenticator = Arc::new(Authenticator {
            reviewer: Reviewers { local: Cluster(client.clone()), others: clusters.clone() },
            audiences: config.audiences.clone(),
            cluster_id: config.cluster_id.as_str().into(),
            cluster_aliases: config.cluster_aliases.clone(),
            trust_domains: trust_domains(&model),
            attempts: Attempts::default(),
        });
        Self {
            workloads: registering::registry(&config, &model, &registry),
            config,
            client,
            drain,
            registry,
            metrics,
            mesh_report: told.report,
            readiness,
            hub,
            model,
            statuses,
            authenticator,
            clusters,
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
        let (sender, own) = watch::channel(Arc::new(authority));
        let mut anchors = Anchors { own, model: self.model.clone(), publications: self.publications.clone() };
        let (joined, receiver) = watch::channel(anchors.current());
        self.supervisor.spawn("trust anchors", anchors.run(joined, self.drain.clone()));
        self.supervisor
            .spawn("ends of certificates", watch_ends(receiver.clone(), self.metrics.clone(), self.drain.clone()));
        let rotation = Rotation { source, current, multi_root: config.multi_root, authority: sender };
        self.supervisor.spawn("authority", rotation.run(self.drain.clone()));
        Ok(receiver)
    }

    fn settings(&self) -> Arc<MeshSettings> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().clone()
    }

    /// Starts the writers.
    async fn control(&self, authority: CurrentAuthority) -> anyhow::Result<()> {
        let bundled = self.config.trust_bundle && self.trust_bundle(&authority).await?;
        let roots = RootDistributor {
            client: self.client.clone(),
            authority,
            leading: self.lead(NAMESPACE_LOCK),
            model: self.model.clone(),
            publications: self.publications.clone(),
            channels: Channels { roots: !bundled, revocations: self.config.revocation_lists },
        };
        self.supervisor.spawn("root distributor", roots.run(self.drain.clone()));
        // Objects of files have no status that could be written; those of the cluster are not ours to judge then.
        let from_files = self.config.config_dir.is_some();
        if let Some(pools) = self.config.address_pools.filter(|_| !from_files) {
            let allocator = Allocator {
                client: self.client.clone(),
                model: self.model.clone(),
                publications: self.publications.clone(),
                leading: self.lead(ALLOCATION_LOCK),
                pools,
            };
            self.supervisor.spawn("address allocator", allocator.run(self.drain.clone()));
        }
        self.register_workloads();
        if !from_files {
            self.gateways();
        }
        if self.config.status && !from_files {
            let writer = StatusWriter {
                client: self.client.clone(),
                model: self.model.clone(),
                feed: self.statuses.clone(),
                leading: self.lead(STATUS_LOCK),
                name: self.config.pod_name.clone(),
            };
            self.supervisor.spawn("status writer", writer.run(self.drain.clone()));
        }
        Ok(())
    }

    /// Starts whoever makes classes of gateways and the proxies of Gateways.
    fn gateways(&self) {
        let classes = ClassKeeper {
            client: self.client.clone(),
            model: self.model.clone(),
            publications: self.publications.clone(),
        };
        self.supervisor.spawn("classes of gateways", classes.run(self.drain.clone()));
        let lock = format!("{DEPLOYMENT_LOCK}-{}", self.config.revision);
        let deployer = Deployer {
            client: self.client.clone(),
            model: self.model.clone(),
            publications: self.publications.clone(),
            leading: self.lead(lock),
        };
        self.supervisor.spawn("deployer of gateways", deployer.run(self.drain.clone()));
    }

    /// Starts the writer of the trust bundle. Tells whether there is such a kind in this cluster.
    async fn trust_bundle(&self, authority: &CurrentAuthority) -> anyhow::Result<bool> {
        let found = trust_bundle::find(&self.client).await.context("looking for ClusterTrustBundles")?;
        let Some(kind) = found else {
            tracing::warn!(
                "ENABLE_CLUSTER_TRUST_BUNDLE_API is set, but the cluster has no ClusterTrustBundles: using ConfigMaps"
            );
            return Ok(false);
        };
        let (client, authority) = (self.client.clone(), authority.clone());
        let writer = TrustBundle { client, kind, authority, leading: self.lead(TRUST_BUNDLE_LOCK) };
        self.supervisor.spawn("trust bundle", writer.run(self.drain.clone()));
        Ok(true)
    }

    fn lead(&self, name: impl Into<Arc<str>>) -> watch::Receiver<bool> {
        let name = name.into();
        if !self.config.leader_election {
            let (sender, leading) = watch::channel(true);
            let mut drain = self.drain.clone();
            // Without election we lead for as long as we run.
            self.supervisor.spawn(ELECTION, async move {
                drain.signaled().await;
                sender.send_replace(false);
            });
            return leading;
        }
        let leases = Api::namespaced(self.client.clone(), &self.config.namespace);
        let election = Election { leases, name, me: self.config.pod_name.clone() };
        let (leading, receiver) = watch::channel(false);
        self.supervisor.spawn(ELECTION, election.run(leading, self.drain.clone()));
        receiver
    }
}

/// Starts reading our cluster, and files where they are the source of a kind.
fn start_reading(config: &Config, sources: &Sources) {
    let Some(dir) = &config.config_dir else { return sources.start() };
    sources.watch_core();
    let files = Files {
        dir: dir.clone(),
        kinds: Kind::DEFINED,
        revision: sources.revision.clone(),
        changes: sources.changes.clone(),
        metrics: sources.metrics.clone(),
        readiness: sources.readiness.clone(),
    };
    sources.supervisor.spawn("files", files.run());
}

/// Starts reading the other clusters of the mesh.
fn read_clusters(config: &Config, sources: &Sources, registry: &Registry) -> Clusters {
    let clusters = Clusters::new(registry);
    let remote = RemoteClusters {
        client: sources.client.clone(),
        namespace: config.namespace.clone(),
        own: std::iter::once(&config.cluster_id).chain(&config.cluster_aliases).cloned().collect(),
        timeout: config.remote_cluster_timeout,
        changes: sources.changes.clone(),
        metrics: sources.metrics.clone(),
        revision: sources.revision.clone(),
        supervisor: sources.supervisor.clone(),
        clusters: clusters.clone(),
    };
    sources.supervisor.spawn("clusters", remote.run());
    clusters
}

/// Our trust domains, as the mesh configuration says at the moment.
pub(crate) fn trust_domains(model: &Arc<RwLock<Model>>) -> TrustDomains {
    let model = model.clone();
    TrustDomains::new(move |one| {
        let model = model.read().unwrap_or_else(PoisonError::into_inner);
        let settings = model.world().settings();
        *one == settings.trust_domain || settings.trust_domain_aliases.contains(one)
    })
}

/// The promises, as the mesh configuration says at the moment.
pub(crate) fn promises(model: &Arc<RwLock<Model>>) -> CurrentPromises {
    let model = model.clone();
    CurrentPromises::new(move || model.read().unwrap_or_else(PoisonError::into_inner).world().settings().promises)
}

/// Shows when certificates end, until the drain starts.
async fn watch_ends(mut authority: CurrentAuthority, metrics: Arc<Metrics>, mut drain: DrainWatch) {
    loop {
        let current = authority.borrow_and_update().clone();
        let chain = current.validity().1;
        metrics.authority_ends(certificate::first_end(current.roots_pem()).unwrap_or(chain), chain, SystemTime::now());
        tokio::select! {
            _ = drain.signaled() => return,
            changed = authority.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ENDS) => {}
        }
    }
}

/// Time between two looks at how long certificates still hold.
const ENDS: Duration = Duration::from_secs(60);
/// Changes that wait for the model; sources wait when it is full.
pub(crate) const CHANGES_MAX: usize = 1024;
/// Lock of whoever writes root certificates.
const NAMESPACE_LOCK: &str = "istio-namespace-controller-election";
/// Lock of whoever writes the trust bundle.
const TRUST_BUNDLE_LOCK: &str = "istio-clustertrustbundle-controller-election";
/// Lock of whoever allocates addresses for ServiceEntries.
const ALLOCATION_LOCK: &str = "istio-ip-autoallocate";
/// Lock of whoever makes the proxies of Gateways; the revision follows.
const DEPLOYMENT_LOCK: &str = "istio-gateway-deployment";
/// Tasks that take part in an election.
const ELECTION: &str = "election";
/// Lock of whoever writes status.
const STATUS_LOCK: &str = "istio-status-leader";
