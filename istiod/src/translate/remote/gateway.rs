//! Gateways through which other networks are reached: from Gateway objects of ours and of other clusters.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::{TunnelProtocol, Workload, WorkloadType};

use crate::translate::subject::trust_domain;
use crate::world::gateway::{GatewayAddress, ListenerProtocol};
use crate::world::{
    EAST_WEST_CLASS, Gateway, MeshSettings, NetworkGateway, NetworkGatewayAddress, NetworkGateways, World,
};

/// One address of a gateway that leads to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    /// The network.
    pub(super) network: Arc<str>,
    /// Where it is.
    pub(super) address: GatewayAddress,
    /// Its port for tunnels.
    pub(super) port: u16,
    /// The Gateway.
    pub(super) key: NamespacedName,
    /// Account that it proves.
    service_account: Arc<str>,
    /// Cluster that it stands in, as far as known.
    pub(super) cluster: Arc<str>,
}

impl Gate {
    /// Address as text.
    pub(super) fn place(&self) -> String {
        match &self.address {
            GatewayAddress::Ip(ip) => ip.to_string(),
            GatewayAddress::Hostname(name) => name.to_string(),
        }
    }

    /// For the workloads behind it.
    pub(super) fn reference(&self) -> NetworkGateway {
        let address = match &self.address {
            GatewayAddress::Ip(ip) => NetworkGatewayAddress::Ip(self.network.clone(), *ip),
            GatewayAddress::Hostname(name) => NetworkGatewayAddress::Hostname(self.key.namespace.clone(), name.clone()),
        };
        NetworkGateway { address, port: self.port }
    }

    /// The gateway as a workload: who it must prove to be.
    pub(super) fn workload(&self, settings: &MeshSettings) -> Workload {
        let (addresses, hostname) = match &self.address {
            GatewayAddress::Ip(ip) => (vec![ip_to_bytes(*ip)], String::new()),
            GatewayAddress::Hostname(name) => (Vec::new(), name.to_string()),
        };
        Workload {
            uid: format!("NetworkGateway/{}/{}/{}", self.network, self.place(), self.port),
            name: self.key.name.to_string(),
            namespace: self.key.namespace.to_string(),
            addresses,
            hostname,
            network: self.network.to_string(),
            tunnel_protocol: TunnelProtocol::Hbone.into(),
            trust_domain: trust_domain(&settings.trust_domain),
            service_account: self.service_account.to_string(),
            canonical_name: self.key.name.to_string(),
            canonical_revision: "latest".to_owned(),
            workload_name: self.key.name.to_string(),
            workload_type: WorkloadType::Pod.into(),
            cluster_id: self.cluster.to_string(),
            ..Workload::default()
        }
    }
}

/// Every gateway, in the order of preference: those that our cluster defines, then those that others run, by cluster,
/// name and address. An address of a network counts once.
///
/// # Source
/// spec of the workload model, section 11.
pub(super) fn gates<'a>(local: &World, remotes: impl Iterator<Item = &'a World> + Clone) -> Vec<Gate> {
    let mut found = Vec::new();
    for gateway in local.gateways().filter(|gateway| *gateway.class == *REMOTE_CLASS) {
        let network = gateway.network.as_deref().unwrap_or_default();
        let of_network = remotes.clone().find(|world| world.network() == network);
        collect(gateway, of_network.unwrap_or(local), |_| true, &mut found);
    }
    for world in remotes {
        for gateway in world.gateways().filter(|gateway| *gateway.class == *EAST_WEST_CLASS) {
            collect(gateway, world, |terminates| terminates, &mut found);
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|gate: &Gate| seen.insert((gate.network.clone(), gate.place())));
    found
}

fn collect(gateway: &Gateway, cluster: &World, accepts: impl Fn(bool) -> bool, found: &mut Vec<Gate>) {
    let Some(network) = gateway.network.as_ref().filter(|network| !network.is_empty()) else { return };
    let mut listeners = gateway.listeners.iter().filter(|one| one.protocol == ListenerProtocol::Hbone);
    let Some(listener) = listeners.find(|one| accepts(one.terminates)) else { return };
    found.extend(gateway.addresses.iter().map(|address| Gate {
        network: network.clone(),
        address: address.clone(),
        port: if listener.port == 0 { HBONE_PORT } else { listener.port },
        key: gateway.key.clone(),
        service_account: gateway.service_account.clone().unwrap_or_else(|| gateway.key.name.clone()),
        cluster: cluster.settings().cluster_id.clone(),
    }));
}

/// The first gateway of each network.
pub(super) fn first(gates: &[Gate]) -> NetworkGateways {
    let mut first = NetworkGateways::new();
    for gate in gates {
        first.entry(gate.network.clone()).or_insert_with(|| gate.reference());
    }
    first
}

/// Class of Gateways that stand for a gateway elsewhere.
const REMOTE_CLASS: &str = "istio-remote";
/// Port for tunnels where none is said.
const HBONE_PORT: u16 = 15008;
