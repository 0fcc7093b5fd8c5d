//! What stands behind the gateways: workloads of other networks, added up by service and network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::world::HostKey;

/// What one workload of another network adds to its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Where it is.
    pub(super) network: Arc<str>,
    /// How much it takes.
    pub(super) weight: u32,
    /// Who it proves to be.
    pub(super) identity: Option<Arc<str>>,
    /// Whether it takes traffic.
    pub(super) healthy: bool,
    /// Services that other clusters may use.
    pub(super) services: Box<[HostKey]>,
}

/// The members of a service in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    members: usize,
    healthy: usize,
    weight: u64,
    identities: BTreeMap<Arc<str>, usize>,
}

impl Group {
    /// How much they take together.
    pub(super) fn capacity(&self) -> u32 {
        self.weight.try_into().unwrap_or(u32::MAX)
    }

    /// Whether one of them takes traffic.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy > 0
    }

    /// Who they are.
    pub(super) fn identities(&self) -> impl Iterator<Item = &Arc<str>> {
        self.identities.keys()
    }

    fn add(&mut self, member: &Member) {
        self.members += 1;
        self.healthy += usize::from(member.healthy);
        self.weight += u64::from(member.weight);
        if let Some(identity) = &member.identity {
            *self.identities.entry(identity.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, member: &Member) {
        self.members -= 1;
        self.healthy -= usize::from(member.healthy);
        self.weight -= u64::from(member.weight);
        if let Some(identity) = &member.identity
            && let Some(count) = self.identities.get_mut(identity)
        {
            *count -= 1;
            if *count == 0 {
                self.identities.remove(identity);
            }
        }
    }
}

/// All members, by the resource name of their workload, and their sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    members: BTreeMap<Arc<str>, Member>,
    groups: BTreeMap<HostKey, BTreeMap<Arc<str>, Group>>,
}

impl Members {
    /// Replaces what a workload adds; notes the services that are touched.
    pub(super) fn set(&mut self, name: &Arc<str>, member: Option<Member>, touched: &mut BTreeSet<HostKey>) {
        let member = member.filter(|one| !one.services.is_empty());
        if self.members.get(name) == member.as_ref() {
            return;
        }
        if let Some(old) = self.members.remove(name) {
            for key in &old.services {
                touched.insert(key.clone());
                let Some(networks) = self.groups.get_mut(key) else { continue };
                if let Some(group) = networks.get_mut(&old.network) {
                    group.remove(&old);
                }
                networks.retain(|_, group| group.members > 0);
                if networks.is_empty() {
                    self.groups.remove(key);
                }
            }
        }
        let Some(member) = member else { return };
        for key in &member.services {
            touched.insert(key.clone());
            self.groups.entry(key.clone()).or_default().entry(member.network.clone()).or_default().add(&member);
        }
        self.members.insert(name.clone(), member);
    }

    /// The members of a service, by network.
    pub(super) fn of(&self, key: &HostKey) -> impl Iterator<Item = (&Arc<str>, &Group)> {
        self.groups.get(key).into_iter().flatten()
    }

    /// Services that have members in one of these networks.
    pub(super) fn services_in(&self, networks: &BTreeSet<Arc<str>>) -> impl Iterator<Item = &HostKey> {
        let there =
            |(_, groups): &(&HostKey, &BTreeMap<Arc<str>, Group>)| groups.keys().any(|one| networks.contains(one));
        self.groups.iter().filter(there).map(|(key, _)| key)
    }
}
