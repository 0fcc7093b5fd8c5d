//! What pods, WorkloadEntries and endpoints of ServiceEntries have in common as workloads.

use mesh_api::labels;
use mesh_core::addr::ip_to_bytes;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use mesh_wire::meltemi;
use mesh_wire::workload::gateway_address::Destination;
use mesh_wire::workload::{
    Extension, GatewayAddress, Locality as WireLocality, NamespacedHostname, NetworkAddress, TunnelProtocol, Workload,
    WorkloadType,
};
use prost::Message;
use prost_types::Any;

use super::{canonical, references};
use crate::world::{Labels, Locality, NetworkGateway, NetworkGatewayAddress, WorkloadAddress, World};

/// The parts of an object that mean the same for every kind of workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// Namespace and name of the object.
    pub(super) key: &'a NamespacedName,
    /// Labels that policies select by.
    pub(super) labels: &'a Labels,
    /// What stands behind it.
    pub(super) workload_name: &'a str,
    /// Account, empty where there is none.
    pub(super) service_account: &'a str,
    /// Network as written; empty for that of the cluster.
    pub(super) network: &'a str,
    /// Where it stands.
    pub(super) locality: Option<&'a Locality>,
    /// The node agent says that redirection works.
    pub(super) redirected: bool,
}

impl Subject<'_> {
    /// The workload, of which the caller fills in uid, addresses, services and what only its kind has.
    pub(super) fn workload(self, world: &World) -> Workload {
        let settings = world.settings();
        let native_tunnel =
            self.labels.get(labels::TUNNEL).is_some_and(|list| list.split(',').any(|one| one == "http"));
        let tunnel = if self.redirected || native_tunnel { TunnelProtocol::Hbone } else { TunnelProtocol::None };
        let network = if self.network.is_empty() { world.network() } else { self.network };
        Workload {
            name: self.key.name.to_string(),
            namespace: self.key.namespace.to_string(),
            network: network.to_owned(),
            network_gateway: network_gateway(world, network),
            tunnel_protocol: tunnel.into(),
            trust_domain: trust_domain(&settings.trust_domain),
            service_account: self.service_account.to_owned(),
            canonical_name: canonical::name(self.labels, self.workload_name),
            canonical_revision: canonical::revision(self.labels),
            workload_type: WorkloadType::Pod.into(),
            workload_name: self.workload_name.to_owned(),
            native_tunnel,
            authorization_policies: references::policies(world, &self.key.namespace, self.labels),
            cluster_id: settings.cluster_id.to_string(),
            locality: self.locality.and_then(locality),
            extensions: told_labels(world, self.labels).into_iter().collect(),
            ..Workload::default()
        }
    }
}

/// Labels that proxies of layer 7 choose endpoints by; none where there is nothing to choose by.
fn told_labels(world: &World, labels: &Labels) -> Option<Extension> {
    let labels = world.told_labels(labels);
    if labels.is_empty() {
        return None;
    }
    let value = meltemi::Labels { labels: labels.into_iter().collect() }.encode_to_vec();
    let config = Any { type_url: meltemi::LABELS_TYPE.to_owned(), value };
    Some(Extension { name: meltemi::LABELS.to_owned(), config: Some(config) })
}

/// The trust domain as it goes on the wire: the default one is left out.
pub(super) fn trust_domain(domain: &TrustDomain) -> String {
    if domain.as_str() == TrustDomain::DEFAULT { String::new() } else { domain.as_str().to_owned() }
}

/// Sets what a workload that is no pod says about where it is.
pub(super) fn set_address(workload: &mut Workload, address: &WorkloadAddress) {
    match address {
        WorkloadAddress::Ip(ip) => workload.addresses = vec![ip_to_bytes(*ip)],
        WorkloadAddress::Host(host) => workload.hostname = host.to_string(),
        WorkloadAddress::None => {}
    }
}

/// How the network of a workload is reached from others.
pub(super) fn network_gateway(world: &World, network: &str) -> Option<GatewayAddress> {
    world.network_gateway(network).map(gateway_address)
}

/// A gateway as workloads name it.
pub(super) fn gateway_address(gateway: &NetworkGateway) -> GatewayAddress {
    let destination = match &gateway.address {
        NetworkGatewayAddress::Ip(network, ip) => Destination::Address(NetworkAddress {
            network: network.to_string(),
            address: ip_to_bytes(*ip),
            length: None,
        }),
        NetworkGatewayAddress::Hostname(namespace, hostname) => Destination::Hostname(NamespacedHostname {
            namespace: namespace.to_string(),
            hostname: hostname.to_string(),
        }),
    };
    GatewayAddress { destination: Some(destination), hbone_mtls_port: gateway.port.into() }
}

fn locality(locality: &Locality) -> Option<WireLocality> {
    let Locality { region, zone, subzone } = locality;
    let known = !(region.is_empty() && zone.is_empty() && subzone.is_empty());
    known.then(|| WireLocality { region: region.to_string(), zone: zone.to_string(), subzone: subzone.to_string() })
}
