//! Which workloads have an address, for whoever wants to be another one there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::index::MultiMap;
use super::store::Step;
use super::{Pod, WorkloadAddress, WorkloadEntry, World};

/// Workloads by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Located {
    /// How many pods have an address: of pods nobody asks which ones, and there are many of them.
    pods: HashMap<IpAddr, usize>,
    entries: MultiMap<IpAddr, NamespacedName>,
}

impl Located {
    pub(super) fn index_pod(&mut self, pod: &Pod, step: Step) {
        for ip in &pod.ips {
            let count = self.pods.entry(*ip).or_default();
            *count = match step {
                Step::Insert => *count + 1,
                Step::Remove => count.saturating_sub(1),
            };
            if *count == 0 {
                self.pods.remove(ip);
            }
        }
    }

    pub(super) fn index_entry(&mut self, entry: &WorkloadEntry, step: Step) {
        if let WorkloadAddress::Ip(ip) = entry.address {
            step.on(&mut self.entries, &ip, &entry.key);
        }
    }
}

impl World {
    /// Whether a pod has this address.
    pub fn has_pod_at(&self, ip: IpAddr) -> bool {
        self.index.located.pods.contains_key(&ip)
    }

    /// WorkloadEntries with this address, of whatever network.
    pub fn workload_entries_at(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        self.index.located.entries.of(&ip).filter_map(|key| self.workload_entries.get(key))
    }
}
