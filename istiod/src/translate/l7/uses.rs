//! What a resource was computed from beside the objects that it is about: when that changes, it is computed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use crate::world::{HostKey, Kind, covers};

/// What one result depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Hostnames: what they stand for, and how they are called.
    pub hosts: BTreeSet<Arc<str>>,
    /// ConfigMaps and Secrets, there or not, with the namespace of whoever names them.
    pub materials: BTreeMap<(Kind, NamespacedName), Arc<str>>,
}

impl Uses {
    /// Depends on a hostname.
    pub fn host(&mut self, hostname: &str) {
        if !self.hosts.contains(hostname) {
            self.hosts.insert(hostname.into());
        }
    }

    /// Depends on a ConfigMap or Secret that something in namespace `by` names.
    pub fn material(&mut self, kind: Kind, key: &NamespacedName, by: &Arc<str>) {
        let namer = self.materials.entry((kind, key.clone())).or_insert_with(|| by.clone());
        if *by < *namer {
            *namer = by.clone();
        }
    }

    /// Depends on what another one does, too.
    pub fn extend(&mut self, other: Self) {
        self.hosts.extend(other.hosts);
        for ((kind, key), by) in other.materials {
            self.material(kind, &key, &by);
        }
    }
}

/// What is computed again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consumer {
    /// Ports of a service.
    Ports(HostKey),
    /// Listeners of a gateway.
    Listeners(NamespacedName),
    /// What a gateway's proxies are told of themselves.
    Proxy(NamespacedName),
}

/// Who depends on what.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    uses: BTreeMap<Consumer, Uses>,
    by_host: BTreeMap<Arc<str>, BTreeSet<Consumer>>,
    by_material: BTreeMap<(Kind, NamespacedName), BTreeSet<Consumer>>,
    /// Changes whenever something else is named.
    epoch: u64,
}

impl Consumers {
    /// Replaces what a result depends on.
    pub fn set(&mut self, consumer: Consumer, uses: Uses) {
        if self.uses.get(&consumer) == Some(&uses) {
            return;
        }
        if let Some(old) = self.uses.remove(&consumer) {
            old.hosts.iter().for_each(|host| remove(&mut self.by_host, host, &consumer));
            old.materials.keys().for_each(|one| remove(&mut self.by_material, one, &consumer));
            self.epoch += u64::from(old.materials != uses.materials);
        } else {
            self.epoch += u64::from(!uses.materials.is_empty());
        }
        if uses == Uses::default() {
            return;
        }
        for host in &uses.hosts {
            self.by_host.entry(host.clone()).or_default().insert(consumer.clone());
        }
        for one in uses.materials.keys() {
            self.by_material.entry(one.clone()).or_default().insert(consumer.clone());
        }
        self.uses.insert(consumer, uses);
    }

    /// Whoever depends on a hostname, or on any that a wildcard covers.
    pub fn of_host(&self, pattern: &str) -> Vec<&Consumer> {
        if !pattern.starts_with('*') {
            return self.by_host.get(pattern).into_iter().flatten().collect();
        }
        let covered = self.by_host.iter().filter(|(host, _)| covers(pattern, host));
        covered.flat_map(|(_, consumers)| consumers).collect()
    }

    /// Whoever depends on a ConfigMap or Secret.
    pub fn of_material(&self, material: &(Kind, NamespacedName)) -> impl Iterator<Item = &Consumer> {
        self.by_material.get(material).into_iter().flatten()
    }

    /// Every ConfigMap and Secret that anything depends on, with the namespaces of those who name it.
    pub fn materials(&self) -> impl Iterator<Item = (&(Kind, NamespacedName), &Arc<str>)> {
        self.uses.values().flat_map(|uses| &uses.materials)
    }

    /// Changes whenever something else is named.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

fn remove<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_depends_on_something_is_found_until_it_no_longer_does() {
        let mut all = Consumers::default();
        let a = Consumer::Ports(HostKey::new("ns", "a.b"));
        let mut uses = Uses::default();
        uses.host("x.example.com");
        uses.material(Kind::ConfigMap, &NamespacedName::new("ns", "ca"), &"ns".into());
        all.set(a.clone(), uses);
        assert_eq!(all.of_host("x.example.com"), [&a]);
        assert_eq!(all.of_host("*.example.com"), [&a]);
        assert_eq!(all.of_host("*"), [&a]);
        assert!(all.of_host("y.example.com").is_empty() && all.of_host("*.other").is_empty());
        assert_eq!(all.materials().count(), 1);
        all.set(a, Uses::default());
        assert!(all.of_host("*").is_empty() && all.materials().count() == 0);
    }
}
