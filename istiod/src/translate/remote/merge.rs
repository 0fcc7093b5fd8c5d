//! One service out of those of several clusters, and the workload that stands for its members in another network.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_wire::workload::{
    NetworkAddress, Port, PortList, Service as WireService, TunnelProtocol, Workload, WorkloadStatus, WorkloadType,
};

use super::gateway::Gate;
use super::member::Group;
use crate::translate::subject::{gateway_address, trust_domain};
use crate::world::{HostKey, World};

/// Ours, else that of the first cluster, with the addresses of all, and the identities of whoever serves it elsewhere.
pub(super) fn merged<'a>(
    ours: Option<WireService>,
    theirs: Vec<WireService>,
    members: impl Iterator<Item = &'a Arc<str>>,
) -> Option<WireService> {
    let mut identities: BTreeSet<String> = members.map(|one| one.to_string()).collect();
    if theirs.is_empty() && identities.is_empty() {
        return ours;
    }
    let mut parts = ours.into_iter().chain(theirs);
    let mut service = parts.next()?;
    identities.extend(service.subject_alt_names);
    for part in parts {
        service.addresses.extend(part.addresses);
        identities.extend(part.subject_alt_names);
    }
    service.addresses.sort_by(|a, b| order(a).cmp(&order(b)));
    service.addresses.dedup();
    service.subject_alt_names = identities.into_iter().collect();
    Some(service)
}

fn order(address: &NetworkAddress) -> (&str, usize, &[u8], Option<u32>) {
    (&address.network, address.address.len(), &address.address, address.length)
}

/// The workload that stands for the members of a service behind a gateway.
pub(super) fn stand_in(local: &World, gate: &Gate, group: &Group, key: &HostKey, service: &WireService) -> Workload {
    let ports = service.ports.iter().map(|port| Port {
        service_port: port.service_port,
        target_port: port.target_port,
        ..Port::default()
    });
    let status = if group.is_healthy() { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    let (place, gateway) = (gate.place(), &gate.key);
    Workload {
        uid: format!("{}/SplitHorizonWorkload/{}/{}/{place}/{key}", gate.network, gateway.namespace, gateway.name),
        name: service.name.clone(),
        namespace: service.namespace.clone(),
        network: gate.network.to_string(),
        network_gateway: Some(gateway_address(&gate.reference())),
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        trust_domain: trust_domain(&local.settings().trust_domain),
        canonical_name: service.name.clone(),
        canonical_revision: "latest".to_owned(),
        workload_name: service.name.clone(),
        workload_type: WorkloadType::Pod.into(),
        services: [(key.to_string(), PortList { ports: ports.collect() })].into(),
        status: status.into(),
        cluster_id: gate.cluster.to_string(),
        capacity: Some(group.capacity()),
        ..Workload::default()
    }
}
