//! Gateways through which workloads of a network are reached.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Dirty, World};

/// The gateway of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkGateway {
    /// Where it is.
    pub address: NetworkGatewayAddress,
    /// Its port for tunnels.
    pub port: u16,
}

/// Where a [`NetworkGateway`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkGatewayAddress {
    /// An address in the gateway's own network.
    Ip(Arc<str>, IpAddr),
    /// A hostname, with the namespace of the gateway's account.
    Hostname(Arc<str>, Arc<str>),
}

/// Gateways by the network that they lead to.
pub type NetworkGateways = BTreeMap<Arc<str>, NetworkGateway>;

impl World {
    /// The gateway that leads to the workloads of a network.
    pub fn network_gateway(&self, network: &str) -> Option<&NetworkGateway> {
        self.network_gateways.get(network)
    }

    /// Every gateway, by the network that it leads to.
    pub fn network_gateways(&self) -> &NetworkGateways {
        &self.network_gateways
    }

    /// Replaces all gateways, and adds the workloads that are reached in another way now.
    pub fn set_network_gateways(&mut self, gateways: NetworkGateways, dirty: &mut Dirty) {
        self.memo.forget();
        let old = std::mem::replace(&mut self.network_gateways, gateways);
        let networks = old.keys().chain(self.network_gateways.keys());
        for network in networks.filter(|one| old.get(*one) != self.network_gateways.get(*one)) {
            let own = **network == *self.network();
            let lies_there = |written: &Arc<str>| written == network || (own && written.is_empty());
            if own {
                dirty.pods.extend(self.pods.keys().cloned());
                dirty.slices.extend(self.slices.keys().cloned());
            }
            let workload_entries = self.workload_entries.values().filter(|entry| lies_there(&entry.network));
            dirty.workload_entries.extend(workload_entries.map(|entry| entry.key.clone()));
            let entries = self
                .entries
                .values()
                .filter(|entry| own || entry.endpoints.iter().any(|endpoint| lies_there(&endpoint.network)));
            dirty.entries.extend(entries.map(|entry| entry.key.clone()));
        }
    }
}
