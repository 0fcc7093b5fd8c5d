//! The pods of this node and all namespaces, followed through the API server.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::enrol::SCOPE;
use super::queue::{Change, Queue};
use crate::eligibility::Labels;

/// What is known about the node. Written by the watches, read by everybody.
#[derive(Debug)]
pub struct World {
    objects: RwLock<Objects>,
    queue: Arc<Queue>,
    /// Whether pods and namespaces have been listed once.
    synced: watch::Sender<(bool, bool)>,
}

#[derive(Debug, Default)]
struct Objects {
    /// By UID. Holds only what decisions need.
    pods: HashMap<String, Arc<Pod>>,
    namespaces: HashMap<String, Arc<Labels>>,
}

impl World {
    /// Knows nothing yet; changes go to `queue`.
    #[must_use]
    pub fn new(queue: Arc<Queue>) -> Self {
        Self { objects: RwLock::default(), queue, synced: watch::channel((false, false)).0 }
    }

    /// Follows the pods of `node`. Ends never; reconnects by itself.
    pub async fn watch_pods(self: Arc<Self>, client: Client, node: String) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let stream = watcher(Api::<Pod>::all(client), config).default_backoff();
        self.follow_pods(std::pin::pin!(stream)).await;
    }

    /// Follows all namespaces. Ends never; reconnects by itself.
    pub async fn watch_namespaces(self: Arc<Self>, client: Client) {
        let stream = watcher(Api::<Namespace>::all(client), watcher::Config::default()).default_backoff();
        self.follow_namespaces(std::pin::pin!(stream)).await;
    }

    /// Waits until pods and namespaces have been listed once.
    pub async fn synced(&self) {
        // The sender lives as long as self.
        let _ = self.synced.subscribe().wait_for(|(pods, namespaces)| *pods && *namespaces).await;
    }

    /// The pod as it is now.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.read().pods.get(uid).cloned()
    }

    /// The pod of this name, if it is known.
    #[must_use]
    pub fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let is = |pod: &&Arc<Pod>| pod.name_any() == name && pod.namespace().as_deref() == Some(namespace);
        self.read().pods.values().find(is).cloned()
    }

    /// All pods of the node.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.read().pods.values().cloned().collect()
    }

    /// Labels of a namespace, if it is known.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Arc<Labels>> {
        self.read().namespaces.get(name).cloned()
    }

    async fn follow_pods(&self, mut events: impl Stream<Item = watcher::Result<Event<Pod>>> + Unpin) {
        let mut listed: Option<HashMap<String, Arc<Pod>>> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = Some(HashMap::new()),
                Ok(Event::InitApply(pod)) => {
                    if let (Some(all), Some(uid)) = (&mut listed, pod.uid()) {
                        all.insert(uid, Arc::new(slim(pod)));
                    }
                }
                Ok(Event::InitDone) => {
                    self.replace_pods(listed.take().unwrap_or_default());
                    self.synced.send_modify(|synced| synced.0 = true);
                }
                Ok(Event::Apply(pod)) => self.set_pod(Arc::new(slim(pod))),
                Ok(Event::Delete(pod)) => self.delete_pod(Arc::new(slim(pod))),
                Err(error) => tracing::warn!(target: SCOPE, %error, "watching pods failed, trying again"),
            }
        }
    }

    async fn follow_namespaces(&self, mut events: impl Stream<Item = watcher::Result<Event<Namespace>>> + Unpin) {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(namespace) | Event::Apply(namespace)) => self.set_namespace(&namespace),
                // Pods of a namespace end before it does; its labels must hold until then.
                Ok(Event::Init | Event::Delete(_)) => {}
                Ok(Event::InitDone) => self.synced.send_modify(|synced| synced.1 = true),
                Err(error) => tracing::warn!(target: SCOPE, %error, "watching namespaces failed, trying again"),
            }
        }
    }

    fn replace_pods(&self, now: HashMap<String, Arc<Pod>>) {
        let before = std::mem::replace(&mut self.write().pods, now.clone());
        for (uid, last) in &before {
            if !now.contains_key(uid) {
                self.queue.push(uid.clone(), Change::Deleted { last: Arc::clone(last) });
            }
        }
        for uid in now.into_keys() {
            let old = before.get(&uid).cloned();
            self.queue.push(uid, Change::Updated { old });
        }
    }

    fn set_pod(&self, pod: Arc<Pod>) {
        let Some(uid) = pod.uid() else { return };
        let old = self.write().pods.insert(uid.clone(), pod);
        self.queue.push(uid, Change::Updated { old });
    }

    fn delete_pod(&self, pod: Arc<Pod>) {
        let Some(uid) = pod.uid() else { return };
        self.write().pods.remove(&uid);
        self.queue.push(uid, Change::Deleted { last: pod });
    }

    fn set_namespace(&self, namespace: &Namespace) {
        let labels = Arc::new(namespace.metadata.labels.clone().unwrap_or_default());
        let name = namespace.name_any();
        let old = self.write().namespaces.insert(name.clone(), Arc::clone(&labels));
        if old.is_some_and(|old| old == labels) {
            return;
        }
        for pod in self.pods().into_iter().filter(|pod| pod.namespace().as_deref() == Some(&name)) {
            if let Some(uid) = pod.uid() {
                self.queue.push(uid, Change::Updated { old: Some(pod) });
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of a pod that decisions are made of; the rest is most of its size.
#[must_use]
pub fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod.spec = pod.spec.map(|spec| PodSpec {
        host_network: spec.host_network,
        node_name: spec.node_name,
        service_account_name: spec.service_account_name,
        ..PodSpec::default()
    });
    if let Some(status) = &mut pod.status {
        *status = k8s_openapi::api::core::v1::PodStatus {
            phase: status.phase.take(),
            pod_ip: status.pod_ip.take(),
            pod_ips: status.pod_ips.take(),
            ..Default::default()
        };
    }
    pod
}
