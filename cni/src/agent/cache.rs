//! Network namespaces of enrolled pods, held open by descriptor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_sys::netns::NetNs;

use crate::zds::{PodEntry, Snapshots};

/// One entry a pod, from reservation to removal. Bounded by the pods of the node.
#[derive(Debug, Default)]
pub struct Cache {
    pods: Mutex<BTreeMap<String, PodEntry>>,
}

impl Cache {
    /// Makes sure that the pod has an entry, so that a snapshot taken meanwhile does not lose it.
    pub fn reserve(&self, pod: PodEntry) {
        self.lock().entry(pod.uid.clone()).or_insert(pod);
    }

    /// Sets the pod's namespace and returns the one to use: an equal one that is already held is kept.
    pub fn hold(&self, uid: &str, netns: NetNs) -> Arc<NetNs> {
        let mut pods = self.lock();
        let Some(entry) = pods.get_mut(uid) else { return Arc::new(netns) };
        match &entry.netns {
            Some(held) if held.id() == netns.id() => Arc::clone(held),
            _ => {
                let netns = Arc::new(netns);
                entry.netns = Some(Arc::clone(&netns));
                netns
            }
        }
    }

    /// The pod's namespace, if it is held.
    #[must_use]
    pub fn netns(&self, uid: &str) -> Option<Arc<NetNs>> {
        self.lock().get(uid)?.netns.clone()
    }

    /// Lets go of the pod. Returns its namespace.
    pub fn remove(&self, uid: &str) -> Option<Arc<NetNs>> {
        self.lock().remove(uid)?.netns
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PodEntry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshots for Cache {
    fn snapshot(&self) -> Vec<PodEntry> {
        self.lock().values().cloned().collect()
    }
}
