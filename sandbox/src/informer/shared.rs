//! The informers that controllers, Services, DNS and kubelets share.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};

use super::Informer;

/// One informer per resource, all namespaces. Clones share the caches.
#[derive(Clone)]
pub struct Informers {
    /// All pods.
    pub pods: Informer<Pod>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// All namespaces.
    pub namespaces: Informer<Namespace>,
    /// All Services.
    pub services: Informer<Service>,
    /// All endpoint slices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// All Deployments.
    pub deployments: Informer<Deployment>,
    /// All ReplicaSets.
    pub replica_sets: Informer<ReplicaSet>,
    /// All DaemonSets.
    pub daemon_sets: Informer<DaemonSet>,
    /// All Jobs.
    pub jobs: Informer<Job>,
    /// All ConfigMaps; the kubelets' volumes follow them.
    pub config_maps: Informer<ConfigMap>,
    /// All Secrets; the kubelets' volumes follow them.
    pub secrets: Informer<Secret>,
    /// All service accounts.
    pub service_accounts: Informer<ServiceAccount>,
}

impl Informers {
    /// Starts following every resource. Must run inside a tokio runtime.
    #[must_use]
    pub fn start(client: &Client) -> Self {
        fn follow<K>(client: &Client) -> Informer<K>
        where
            K: kube::Resource<DynamicType = ()>
                + Clone
                + std::fmt::Debug
                + serde::de::DeserializeOwned
                + Send
                + Sync
                + 'static,
        {
            Informer::start(Api::all(client.clone()), watcher::Config::default())
        }
        Self {
            pods: follow(client),
            nodes: follow(client),
            namespaces: follow(client),
            services: follow(client),
            endpoint_slices: follow(client),
            deployments: follow(client),
            replica_sets: follow(client),
            daemon_sets: follow(client),
            jobs: follow(client),
            config_maps: follow(client),
            secrets: follow(client),
            service_accounts: follow(client),
        }
    }

    /// Waits until every first list is complete: a decision made earlier would take "not yet
    /// seen" for "not there".
    pub async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.namespaces.synced(),
            self.services.synced(),
            self.endpoint_slices.synced(),
            self.deployments.synced(),
            self.replica_sets.synced(),
            self.daemon_sets.synced(),
            self.jobs.synced(),
            self.config_maps.synced(),
            self.secrets.synced(),
            self.service_accounts.synced(),
        );
    }
}
