//! A pod becomes a workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::labels;
use mesh_core::addr::ip_to_bytes;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::{
    Locality as WireLocality, NetworkMode, PortList, TunnelProtocol, Workload, WorkloadStatus, WorkloadType,
};

use super::service;
use crate::world::{Locality, MeshSettings, Pod, Service, Slice, TargetPort};

/// Everything outside a pod that its workload depends on.
#[derive(Debug)]
pub struct PodContext<'a> {
    /// Mesh settings.
    pub settings: &'a MeshSettings,
    /// Network of the cluster.
    pub network: &'a str,
    /// Where the pod's node stands.
    pub locality: Option<&'a Locality>,
    /// Services whose selector takes the pod.
    pub selected_by: Vec<&'a Service>,
    /// Services without selector, with the slice that names the pod.
    pub named_by: Vec<(&'a Service, &'a Slice)>,
    /// Keys of the policies attached to the pod, in their order.
    pub policies: Vec<String>,
}

/// The workload of a pod, or none while it has no usable address.
///
/// # Source
/// spec of the workload model, section 3.
pub fn workload(pod: &Pod, context: &PodContext<'_>) -> Option<Workload> {
    if pod.ips.is_empty() {
        return None;
    }
    let settings = context.settings;
    let native_tunnel = pod.labels.get(labels::TUNNEL).is_some_and(|list| list.split(',').any(|one| one == "http"));
    let tunnel = if pod.redirected || native_tunnel { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    let status = if pod.ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    let network_mode = if pod.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    Some(Workload {
        uid: uid(settings, &pod.key),
        name: pod.key.name.to_string(),
        namespace: pod.key.namespace.to_string(),
        addresses: pod.ips.iter().map(|ip| ip_to_bytes(*ip)).collect(),
        network: context.network.to_owned(),
        tunnel_protocol: tunnel.into(),
        trust_domain: trust_domain(&settings.trust_domain),
        service_account: pod.service_account.to_string(),
        node: pod.node.to_string(),
        canonical_name: canonical_name(pod),
        canonical_revision: canonical_revision(pod),
        workload_type: WorkloadType::Pod.into(),
        workload_name: pod.workload_name.to_string(),
        native_tunnel,
        services: services(pod, context),
        authorization_policies: context.policies.clone(),
        status: status.into(),
        cluster_id: settings.cluster_id.to_string(),
        locality: context.locality.and_then(locality),
        network_mode: network_mode.into(),
        ..Workload::default()
    })
}

/// The resource name of a pod: core objects have an empty group, hence the two slashes.
pub fn uid(settings: &MeshSettings, pod: &NamespacedName) -> String {
    format!("{}//Pod/{}/{}", settings.cluster_id, pod.namespace, pod.name)
}

/// The trust domain as it goes on the wire: the default one is left out.
pub(super) fn trust_domain(domain: &TrustDomain) -> String {
    if domain.as_str() == TrustDomain::DEFAULT { String::new() } else { domain.as_str().to_owned() }
}

fn locality(locality: &Locality) -> Option<WireLocality> {
    let Locality { region, zone, subzone } = locality;
    let known = !(region.is_empty() && zone.is_empty() && subzone.is_empty());
    known.then(|| WireLocality { region: region.to_string(), zone: zone.to_string(), subzone: subzone.to_string() })
}

fn canonical_name(pod: &Pod) -> String {
    let labels = [labels::CANONICAL_NAME, labels::APP_NAME, "app"];
    labels.iter().find_map(|label| pod.labels.get(label)).unwrap_or(&pod.workload_name).to_owned()
}

fn canonical_revision(pod: &Pod) -> String {
    let labels = [labels::CANONICAL_REVISION, labels::APP_VERSION, "version"];
    labels.iter().find_map(|label| pod.labels.get(label)).unwrap_or("latest").to_owned()
}

fn services(pod: &Pod, context: &PodContext<'_>) -> BTreeMap<String, PortList> {
    let mut services = BTreeMap::new();
    for service in &context.selected_by {
        services.insert(service::key(&service.key, context.settings), selected_ports(pod, service));
    }
    for (service, slice) in &context.named_by {
        let joined = service::joined_ports(service, slice);
        let ports: &mut PortList = services.entry(service::key(&service.key, context.settings)).or_default();
        for port in joined {
            if !ports.ports.contains(&port) {
                ports.ports.push(port);
            }
        }
        ports.ports.sort_by_key(|port| (port.service_port, port.target_port));
    }
    services
}

/// Ports of a service as this pod serves them; a named port that the pod does not have is left out.
fn selected_ports(pod: &Pod, service: &Service) -> PortList {
    let named = |name: &Arc<str>| pod.ports.iter().find(|(have, _)| have == name).map(|(_, number)| *number);
    let ports = service.ports.iter().filter_map(|port| {
        let target = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => named(name)?,
        };
        Some(service::wire_port(port.port, target))
    });
    PortList { ports: ports.collect() }
}
