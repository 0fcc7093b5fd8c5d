//! Who claims which virtual address. A ServiceEntry may say any, those of others included.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Dirty, HostKey, HostSource, Kind, Object, Service, ServiceEntry, World};

impl World {
    /// Everyone who claims an address for one of its ports, wherever; Services first.
    pub fn claims_of_address(&self, ip: IpAddr) -> impl Iterator<Item = &HostSource> {
        self.index.addresses.of(&ip)
    }

    /// Whoever claims an address that a Service or ServiceEntry claims: which of them has it may depend on it.
    pub(super) fn reach_addresses(&self, object: &Object, dirty: &mut Dirty) {
        match object {
            Object::Service(service) => self.reach_claimants(&of_service(service), dirty),
            Object::ServiceEntry(entry) => self.reach_claimants(&of_entry(entry), dirty),
            _ => {}
        }
    }

    /// Adds whoever claims an address, or the hostname, of these: which of them has it may depend on how they are bound.
    pub fn reach_rivals(&self, hosts: &BTreeSet<HostKey>, dirty: &mut Dirty) {
        for host in hosts {
            for source in self.claims(&host.hostname) {
                if source.key().namespace != host.namespace {
                    self.reach_claim(source, dirty);
                    continue;
                }
                let addresses = match source {
                    HostSource::Service(key) => self.services.get(key).map(|service| of_service(service)),
                    HostSource::Entry(key) => self.entries.get(key).map(|entry| of_entry(entry)),
                };
                self.reach_claimants(&addresses.unwrap_or_default(), dirty);
            }
        }
    }

    fn reach_claimants(&self, addresses: &BTreeSet<IpAddr>, dirty: &mut Dirty) {
        for source in addresses.iter().flat_map(|ip| self.claims_of_address(*ip)) {
            self.reach_claim(source, dirty);
        }
    }

    /// Ports of what claims something, and its status. Services keep what they have.
    fn reach_claim(&self, source: &HostSource, dirty: &mut Dirty) {
        let HostSource::Entry(key) = source else { return };
        let hosts = self.entries.get(key).into_iter().flat_map(|entry| entry.hosts.iter().cloned());
        dirty.ports.extend(hosts.map(|host| HostKey::new(key.namespace.clone(), host)));
        dirty.conditions.insert((Kind::ServiceEntry, key.clone()));
    }
}

/// Addresses of a Service.
pub(super) fn of_service(service: &Service) -> BTreeSet<IpAddr> {
    service.cluster_ips.iter().copied().collect()
}

/// Single addresses that a ServiceEntry says or was given; a block of addresses is nobody's.
pub(super) fn of_entry(entry: &ServiceEntry) -> BTreeSet<IpAddr> {
    entry.single_addresses().chain(entry.auto_addresses.iter().map(|(_, ip)| *ip)).collect()
}
