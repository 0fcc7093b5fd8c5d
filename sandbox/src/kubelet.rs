//! The kubelet: one per node. It registers the node, keeps its heartbeat, and runs the pods that
//! are bound to it on the node's [`NodeRuntime`].
//!
//! A pod's way: `pod_worker` (one task a pod: volumes, sandbox, init containers, containers, the
//! end) → `container` (one task a container: start, probes, restarts) → `record` (what is known)
//! → `status` (what is written). Decisions are in pure modules: `env`, `fields`, `probe`,
//! `resolv`, `restart`, `status`.

mod container;
mod env;
mod fields;
mod hook;
mod node;
mod pod_files;
mod pod_worker;
mod probe;
mod probing;
mod quantity;
mod record;
mod resolv;
mod restart;
mod status;
mod status_writer;
mod volumes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::events::Recorder;
use crate::informer::{Informer, Informers, Key, KeyQueue, key_of};
use crate::runtime::NodeRuntime;
use fields::Placement;
use pod_worker::PodView;
use record::PodState;

/// What a kubelet is told about its node and cluster.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// `topology.kubernetes.io/region`.
    pub region: String,
    /// `topology.kubernetes.io/zone`.
    pub zone: String,
    /// Ranges of the node's pod addresses, IPv4 first.
    pub pod_cidrs: Vec<String>,
    /// Addresses of the cluster DNS as pods use them (the Service's).
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The address and port of the API server's Service, for the pods' environment.
    pub api_service: (IpAddr, u16),
    /// More labels for the node.
    pub labels: BTreeMap<String, String>,
}

/// A node could not be registered. Retry with back-off.
#[derive(Debug, thiserror::Error)]
#[error("registering node {node}: {source}")]
pub struct RegisterError {
    /// The node's name.
    pub node: String,
    /// The API's answer.
    pub source: Box<kube::Error>,
}

/// What the tasks of one kubelet share.
struct Kubelet {
    client: Client,
    cache: Informers,
    runtime: NodeRuntime,
    config: KubeletConfig,
    events: Recorder,
    capacity: node::Capacity,
}

impl Kubelet {
    /// What containers may learn about where they are.
    fn placement(&self, state: &PodState) -> Placement {
        Placement {
            pod_ips: state.ips.clone(),
            host_ips: state.host_ips.clone(),
            node_cpu: self.capacity.cpus.to_string(),
            node_memory: self.capacity.memory_bytes.to_string(),
        }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Runs the kubelet of a node for ever. `ready` is told once the node is registered.
///
/// # Errors
/// [`RegisterError`] when the API server keeps refusing the node.
pub async fn run(
    client: Client,
    cache: Informers,
    runtime: NodeRuntime,
    config: KubeletConfig,
) -> Result<(), RegisterError> {
    let capacity = node::Capacity::of_host();
    node::register(&client, &runtime, &config, capacity).await?;
    tokio::spawn(node::heartbeat(client.clone(), runtime.node_name().to_owned()));
    cache.synced().await;
    let fields = format!("spec.nodeName={}", runtime.node_name());
    let pods = Informer::start(Api::<Pod>::all(client.clone()), watcher::Config::default().fields(&fields));
    let events = Recorder::start(client.clone(), "kubelet", Some(runtime.node_name().to_owned()));
    let kubelet = Arc::new(Kubelet { client, cache, runtime, config, events, capacity });
    dispatch(kubelet, pods).await;
    Ok(())
}

/// A pod's task and the way to tell it news.
struct Worker {
    key: Key,
    view: watch::Sender<PodView>,
}

/// Hands each pod's changes to its task; starts a task for each new pod (by uid, so that a pod
/// that replaced one of the same name is another).
async fn dispatch(kubelet: Arc<Kubelet>, pods: Informer<Pod>) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    pods.on_change(move |change| {
        for pod in change.sides() {
            keys.push(key_of(pod.as_ref()));
        }
    });
    let mut workers: BTreeMap<String, Worker> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let key = tokio::select! {
            key = queue.next() => key,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a pod's task panicked");
                }
                continue;
            }
        };
        let pod = pods.get(&key.namespace, &key.name);
        let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        workers.retain(|known, worker| {
            let replaced = worker.key == key && Some(known) != uid.as_ref();
            if replaced {
                worker.view.send_modify(|view| view.gone = true);
            }
            !replaced
        });
        let (Some(pod), Some(uid)) = (pod, uid) else {
            continue;
        };
        match workers.get(&uid) {
            Some(worker) => worker.view.send_modify(|view| view.pod = pod),
            None => {
                let (view, updates) = watch::channel(PodView { pod, gone: false });
                tasks.spawn(pod_worker::run(Arc::clone(&kubelet), uid.clone(), updates));
                workers.insert(uid, Worker { key, view });
            }
        }
    }
}

/// Waits of something that is tried again: doubling from `first` to `cap`.
#[derive(Debug)]
struct RetryWait {
    next: Duration,
    cap: Duration,
}

impl RetryWait {
    fn new(first: Duration, cap: Duration) -> Self {
        Self { next: first, cap }
    }

    fn advance(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.cap);
        wait
    }
}
