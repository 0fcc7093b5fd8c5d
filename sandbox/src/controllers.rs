//! The cluster's controllers: what a control plane's controller manager and scheduler do, as far
//! as the sandbox needs it.
//!
//! Each controller is a file with an async shell (`run`: a queue of keys, one at a time) and a
//! pure part beside it that decides. They see the cluster only through the API.

pub mod bootstrap;
mod daemon_set;
mod deployment;
mod endpoints;
mod job;
pub(crate) mod load_balancer;
mod node_health;
mod owner;
mod pod_state;
mod replica_set;
mod scale;
mod scheduler;
mod service_account;
pub(crate) mod status_patch;

use std::time::Duration;

use kube::{Api, Client};

pub use bootstrap::bootstrap;

use crate::informer::{Informers, Key, KeyQueue};

/// Facts about the cluster that no object tells.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Addresses of the API server as nodes and pods reach it (one per family at most).
    pub api_addresses: Vec<std::net::IpAddr>,
    /// Its port at those addresses.
    pub api_port: u16,
    /// Addresses of the cluster DNS as nodes reach it.
    pub dns_addresses: Vec<std::net::IpAddr>,
    /// ClusterIP of Service `default/kubernetes`.
    pub api_service_ip: std::net::IpAddr,
    /// ClusterIP of Service `kube-system/kube-dns`.
    pub dns_service_ip: std::net::IpAddr,
    /// The API server's CA, published in every namespace as ConfigMap `kube-root-ca.crt`.
    pub ca_pem: String,
}

/// Why a reconciliation did not finish. Every variant is retried with back-off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The API server refused or failed.
    #[error("{what}: {source}")]
    Api {
        /// What was being done, with the object's name.
        what: String,
        /// The API's answer.
        source: Box<kube::Error>,
    },
    /// The object's selector cannot be read. Retried, as the object may be fixed.
    #[error("selector of {kind} {key}: {reason}")]
    Selector {
        /// Kind of the object.
        kind: &'static str,
        /// Its namespace and name.
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
    /// The API server did not answer: the other objects must not wait for it. Retried from the beginning.
    #[error("{key} took longer than {RECONCILE_BUDGET:?}")]
    TimedOut {
        /// Namespace and name of the object.
        key: Key,
    },
}

/// Gives API errors the context that [`ControllerError::Api`] wants.
trait ApiContext<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ControllerError>;
}

impl<T> ApiContext<T> for Result<T, kube::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ControllerError> {
        self.map_err(|source| ControllerError::Api { what: what(), source: Box::new(source) })
    }
}

/// What every controller works with.
#[derive(Clone)]
struct Cluster {
    client: Client,
    cache: Informers,
}

impl Cluster {
    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Runs all controllers; returns only when one of them panicked.
pub async fn run(client: Client, cache: Informers, config: ClusterConfig) {
    let cluster = Cluster { client, cache: cache.clone() };
    cache.synced().await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(service_account::run(cluster.clone(), config));
    tasks.spawn(scheduler::run(cluster.clone()));
    tasks.spawn(replica_set::run(cluster.clone()));
    tasks.spawn(deployment::run(cluster.clone()));
    tasks.spawn(daemon_set::run(cluster.clone()));
    tasks.spawn(job::run(cluster.clone()));
    tasks.spawn(endpoints::run(cluster.clone()));
    tasks.spawn(load_balancer::run(cluster.clone()));
    tasks.spawn(node_health::run(cluster));
    if let Some(Err(error)) = tasks.join_next().await {
        tracing::error!(%error, "a controller ended");
    }
}

/// Handles the keys of a queue one by one, for ever.
async fn work<F>(name: &'static str, queue: KeyQueue, reconcile: impl Fn(Key) -> F)
where
    F: Future<Output = Result<(), ControllerError>>,
{
    loop {
        let key = queue.next().await;
        let reconciled = tokio::time::timeout(RECONCILE_BUDGET, reconcile(key.clone())).await;
        match reconciled.unwrap_or_else(|_| Err(ControllerError::TimedOut { key: key.clone() })) {
            Ok(()) => queue.done(&key),
            Err(error @ ControllerError::TimedOut { .. }) => {
                tracing::warn!(controller = name, %key, %error, "reconcile was cut, will retry");
                queue.retry(key);
            }
            Err(error) => {
                tracing::debug!(controller = name, %key, %error, "reconcile failed, will retry");
                queue.retry(key);
            }
        }
    }
}

/// One object at a time has a controller to itself for so long: several times what a hundred writes take.
const RECONCILE_BUDGET: Duration = Duration::from_secs(10);

/// Whether an API error says that the object is not there.
fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an API error says that the object exists already or was changed meanwhile.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::informer::key;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn an_object_whose_answer_never_comes_holds_nobody_up_and_is_tried_again() {
        let queue = KeyQueue::default();
        queue.push(key("a", "stuck"));
        queue.push(key("a", "web"));
        let (stuck, others) = (Cell::new(0), Cell::new(0));
        let working = work("test", queue, |key| {
            let (stuck, others) = (&stuck, &others);
            async move {
                if key.name.as_ref() == "stuck" {
                    stuck.set(stuck.get() + 1);
                    std::future::pending::<()>().await;
                }
                others.set(others.get() + 1);
                Ok(())
            }
        });
        assert!(tokio::time::timeout(3 * RECONCILE_BUDGET, working).await.is_err());
        assert_eq!(others.get(), 1);
        assert!(stuck.get() >= 2, "{}", stuck.get());
    }
}
