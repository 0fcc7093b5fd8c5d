//! Endpoints of slices that are not pods become workloads of their own.

use std::net::IpAddr;

use mesh_core::addr::ip_to_bytes;
use mesh_wire::workload::{NetworkMode, PortList, Workload, WorkloadStatus, WorkloadType};

use super::service::{self, joined_ports};
use super::subject::{network_gateway, trust_domain};
use crate::world::{MeshSettings, Service, Slice, World};

/// One workload an address. Such endpoints have neither account nor policies: nothing proves who they are.
///
/// # Source
/// spec of the workload model, section 7.
pub fn workloads<'a>(world: &'a World, slice: &'a Slice, service: &'a Service) -> impl Iterator<Item = Workload> + 'a {
    let settings = world.settings();
    let key = service::key(&service.key, settings);
    let ports = PortList { ports: joined_ports(service, slice) };
    slice.addresses.iter().map(move |(ip, healthy)| {
        let status = if *healthy { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
        Workload {
            uid: uid(settings, slice, *ip),
            name: slice.key.name.to_string(),
            namespace: slice.key.namespace.to_string(),
            addresses: vec![ip_to_bytes(*ip)],
            network: world.network().to_owned(),
            network_gateway: network_gateway(world, world.network()),
            trust_domain: trust_domain(&settings.trust_domain),
            canonical_name: service.key.name.to_string(),
            canonical_revision: "latest".to_owned(),
            workload_type: WorkloadType::Pod.into(),
            workload_name: slice.key.name.to_string(),
            services: [(key.clone(), ports.clone())].into(),
            status: status.into(),
            cluster_id: settings.cluster_id.to_string(),
            network_mode: NetworkMode::HostNetwork.into(),
            ..Workload::default()
        }
    })
}

fn uid(settings: &MeshSettings, slice: &Slice, ip: IpAddr) -> String {
    format!("{}/discovery.k8s.io/EndpointSlice/{}/{}/{ip}", settings.cluster_id, slice.key.namespace, slice.key.name)
}
