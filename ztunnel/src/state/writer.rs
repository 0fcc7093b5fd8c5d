//! Turns what the control plane sends into the next snapshot. There is one writer.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName, NetworkAddr};
use mesh_policy::Policy;

use super::gateway::Ports;
use super::policies::PolicyIndex;
use super::service::Service;
use super::shards::Shards;
use super::snapshot::{Endpoint, Endpoints, Found, Snapshot};
use super::workload::{NetworkMode, Protocol, Workload};

/// The next snapshot in the making, and what must outlive it.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    next: Snapshot,
    /// Identities of HBONE workloads of this node, with the number of such workloads.
    identities: HashMap<Identity, usize>,
}

/// Which identities this node began or ceased to need.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct IdentityChanges {
    pub(crate) needed: Vec<Identity>,
    pub(crate) unneeded: Vec<Identity>,
}

impl Writer {
    pub(crate) fn new(first: Snapshot) -> Self {
        Self { next: first, identities: HashMap::new() }
    }

    /// Applies a batch: everything in it becomes visible at once, through [`Writer::snapshot`].
    pub(crate) fn apply_addresses(&mut self, upserts: Vec<Found>, removed: &[String]) -> IdentityChanges {
        let mut touched = Vec::new();
        for resource in upserts {
            match resource {
                Found::Workload(workload) => self.upsert_workload(workload, &mut touched),
                Found::Service(service) => self.upsert_service(service),
            }
        }
        for name in removed {
            self.remove(name, &mut touched);
        }
        self.next.generation += 1;
        self.settle(touched)
    }

    /// Applies a batch of policies.
    pub(crate) fn apply_policies(&mut self, upserts: Vec<Policy>, removed: &[String]) {
        let index: &mut PolicyIndex = Arc::make_mut(&mut self.next.policies);
        for policy in upserts {
            index.insert(Arc::new(policy));
        }
        for name in removed {
            index.remove(name);
        }
        self.next.generation += 1;
    }

    /// What readers may see now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.next.clone()
    }

    fn upsert_workload(&mut self, workload: Arc<Workload>, touched: &mut Vec<(Identity, isize)>) {
        self.remove_workload(&workload.uid, touched);
        for addr in addresses(&workload) {
            insert_ranked(self.next.by_ip.entry(addr), &workload);
        }
        if !workload.hostname.is_empty() {
            insert_ranked(self.next.by_hostname.entry(hostname_key(&workload)), &workload);
        }
        if self.next.local.serves(&workload) {
            insert_ranked(self.next.local_workloads.entry(name_key(&workload)), &workload);
            if needs_certificate(&workload) {
                touched.push((workload.identity.clone(), 1));
            }
        }
        for (service, ports) in &workload.services {
            self.add_endpoint(service, &workload, ports.clone());
        }
        self.next.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    fn add_endpoint(&mut self, key: &NamespacedName, workload: &Arc<Workload>, ports: Ports) {
        let endpoint = Endpoint { workload: Arc::clone(workload), ports };
        let set = match self.next.services.get(key) {
            Some(service) if service.takes(workload.health) => self.next.endpoints.entry(key.clone()),
            Some(_) => return,
            None => self.next.staged.entry(key.clone()),
        };
        Arc::make_mut(set).insert(Arc::clone(&workload.uid), endpoint);
    }

    fn upsert_service(&mut self, service: Arc<Service>) {
        self.unlink_service(&service.key);
        for vip in &service.vips {
            insert_sorted(self.next.by_vip.entry(vip.clone()), &service);
        }
        insert_sorted(self.next.service_hostnames.entry(lower_case(service.hostname())), &service);
        if !service.cidr_vips.is_empty() {
            let ranges = Arc::make_mut(&mut self.next.by_cidr);
            ranges.extend(service.cidr_vips.iter().map(|range| (range.clone(), Arc::clone(&service))));
            ranges.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        }
        let mut endpoints = self.next.endpoints.remove(&service.key).unwrap_or_default();
        let staged = self.next.staged.remove(&service.key).unwrap_or_default();
        let set = Arc::make_mut(&mut endpoints);
        set.extend(staged.iter().map(|(uid, endpoint)| (Arc::clone(uid), endpoint.clone())));
        set.retain(|_, endpoint| service.takes(endpoint.workload.health));
        if !set.is_empty() {
            self.next.endpoints.insert(service.key.clone(), endpoints);
        }
        self.next.services.insert(service.key.clone(), service);
    }

    /// A removed name is a workload uid, else `namespace/hostname` of a service.
    fn remove(&mut self, name: &str, touched: &mut Vec<(Identity, isize)>) {
        if self.remove_workload(name, touched) {
            return;
        }
        if let Ok(key) = name.parse::<NamespacedName>()
            && self.next.services.get(&key).is_some()
        {
            self.unlink_service(&key);
            self.next.services.remove(&key);
            self.next.endpoints.remove(&key);
            self.next.staged.remove(&key);
        } else if let Ok(key) = name.parse::<NamespacedName>() {
            self.next.staged.remove(&key);
        }
    }

    fn remove_workload(&mut self, uid: &str, touched: &mut Vec<(Identity, isize)>) -> bool {
        let Some(old) = self.next.workloads.remove(uid) else { return false };
        for addr in addresses(&old) {
            remove_from(&mut self.next.by_ip, &addr, |workload| workload.uid == old.uid);
        }
        if !old.hostname.is_empty() {
            remove_from(&mut self.next.by_hostname, &hostname_key(&old), |workload| workload.uid == old.uid);
        }
        if self.next.local.serves(&old) {
            remove_from(&mut self.next.local_workloads, &name_key(&old), |workload| workload.uid == old.uid);
            if needs_certificate(&old) {
                touched.push((old.identity.clone(), -1));
            }
        }
        for (service, _) in &old.services {
            remove_endpoint(&mut self.next.endpoints, service, uid);
            remove_endpoint(&mut self.next.staged, service, uid);
        }
        true
    }

    /// Takes a service out of every index but leaves its record and endpoints.
    fn unlink_service(&mut self, key: &NamespacedName) {
        let Some(old) = self.next.services.get(key).cloned() else { return };
        for vip in &old.vips {
            remove_from(&mut self.next.by_vip, vip, |service| service.key == *key);
        }
        remove_from(&mut self.next.service_hostnames, &lower_case(old.hostname()), |service| service.key == *key);
        if !old.cidr_vips.is_empty() {
            Arc::make_mut(&mut self.next.by_cidr).retain(|(_, service)| service.key != *key);
        }
    }

    /// Counts the uses of identities after a whole batch, so that an update is no removal.
    fn settle(&mut self, touched: Vec<(Identity, isize)>) -> IdentityChanges {
        let mut before = HashMap::new();
        for (identity, by) in touched {
            let count = self.identities.entry(identity.clone()).or_insert(0);
            before.entry(identity).or_insert(*count);
            *count = count.saturating_add_signed(by);
        }
        let mut changes = IdentityChanges::default();
        for (identity, before) in before {
            let now = self.identities.get(&identity).copied().unwrap_or(0);
            if now == 0 {
                self.identities.remove(&identity);
            }
            match (before, now) {
                (0, 1..) => changes.needed.push(identity),
                (1.., 0) => changes.unneeded.push(identity),
                _ => {}
            }
        }
        changes
    }
}

fn addresses(workload: &Workload) -> Vec<NetworkAddr> {
    if workload.network_mode == NetworkMode::HostNetwork {
        return Vec::new();
    }
    workload.ips.iter().map(|ip| NetworkAddr::new(Arc::clone(&workload.network), *ip)).collect()
}

fn hostname_key(workload: &Workload) -> NamespacedName {
    NamespacedName::new(Arc::clone(&workload.namespace), Arc::clone(&workload.hostname))
}

fn name_key(workload: &Workload) -> NamespacedName {
    NamespacedName::new(Arc::clone(&workload.namespace), Arc::clone(&workload.name))
}

fn needs_certificate(workload: &Workload) -> bool {
    workload.protocol == Protocol::Hbone || workload.native_tunnel
}

/// Best rank first; equals by uid, so that the choice is stable.
fn insert_ranked(list: &mut Vec<Arc<Workload>>, workload: &Arc<Workload>) {
    list.retain(|known| known.uid != workload.uid);
    list.push(Arc::clone(workload));
    list.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.uid.cmp(&b.uid)));
}

fn insert_sorted(list: &mut Vec<Arc<Service>>, service: &Arc<Service>) {
    list.retain(|known| known.key != service.key);
    list.push(Arc::clone(service));
    list.sort_by(|a, b| a.key.cmp(&b.key));
}

/// Host names are the same whatever the case.
fn lower_case(name: &Arc<str>) -> Arc<str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { Arc::clone(name) }
}

fn remove_from<K, T>(index: &mut Shards<K, Vec<T>>, key: &K, is_it: impl Fn(&T) -> bool)
where
    K: std::hash::Hash + Eq + Clone,
    T: Clone,
{
    let Some(list) = index.get_mut(key) else { return };
    list.retain(|entry| !is_it(entry));
    if list.is_empty() {
        index.remove(key);
    }
}

fn remove_endpoint(sets: &mut Shards<NamespacedName, Arc<Endpoints>>, service: &NamespacedName, uid: &str) {
    let Some(set) = sets.get_mut(service) else { return };
    if set.contains_key(uid) {
        Arc::make_mut(set).remove(uid);
    }
    if set.is_empty() {
        sets.remove(service);
    }
}
