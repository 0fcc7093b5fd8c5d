//! The endpoint slices that a Service should have. Pure.
//!
//! Pods whose named target ports resolve to different numbers get slices of their own, one per
//! distinct list of ports and per address family.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::controllers::{owner, pod_state};

/// Names the Service of a slice.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The zone of a node.
pub(super) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Endpoints of one slice (Kubernetes' own default).
const ENDPOINTS_PER_SLICE_MAX: usize = 100;

/// The slice is this controller's.
pub(super) fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY)
}

/// What of a pod shows in slices; a change of anything else is none.
pub(super) fn facts(pod: &Pod) -> impl PartialEq {
    (
        pod.metadata.uid.clone(),
        pod.metadata.labels.clone(),
        pod.metadata.deletion_timestamp.is_some(),
        pod_state::is_finished(pod),
        pod_state::is_ready(pod),
        pod_state::node_name(pod).map(str::to_owned),
        addresses(pod),
    )
}

/// Whether a Service's selector matches a pod.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = selector(service) else {
        return false;
    };
    let labels = pod.labels();
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && spec.type_.as_deref() != Some("ExternalName"))
}

/// A live slice is as it should be (versions and server-set metadata aside).
pub(super) fn is_same(live: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    live.name_any() == wanted.name_any()
        && live.labels() == wanted.labels()
        && live.address_type == wanted.address_type
        && live.endpoints == wanted.endpoints
        && live.ports == wanted.ports
}

/// All slices of a Service; empty for one without selector.
pub(super) fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<EndpointSlice> {
    if selector(service).is_none() {
        return Vec::new();
    }
    let mut groups: BTreeMap<(bool, Vec<PortKey>), Vec<Endpoint>> = BTreeMap::new();
    for family in families(service) {
        // A Service without endpoints has one empty slice per family, so that "none" is known.
        groups.entry((family, Vec::new())).or_default();
    }
    for pod in pods {
        if !selects(service, pod) || pod_state::is_finished(pod) {
            continue;
        }
        let ports = ports(service, pod);
        for address in addresses(pod) {
            let group = (address.is_ipv6(), ports.clone());
            if families(service).contains(&group.0) {
                groups.entry(group).or_default().push(endpoint(service, pod, address, &zone));
            }
        }
    }
    drop_placeholders(&mut groups);
    let mut slices = Vec::new();
    let mut numbers: BTreeMap<bool, usize> = BTreeMap::new();
    for ((v6, ports), endpoints) in groups {
        let mut chunks: Vec<_> = endpoints.chunks(ENDPOINTS_PER_SLICE_MAX).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let number = numbers.entry(v6).or_default();
            slices.push(slice(service, v6, *number, &ports, chunk));
            *number += 1;
        }
    }
    slices
}

/// An empty slice is only kept for a family that has no other.
fn drop_placeholders(groups: &mut BTreeMap<(bool, Vec<PortKey>), Vec<Endpoint>>) {
    for v6 in [false, true] {
        let filled = groups.iter().any(|((family, _), endpoints)| *family == v6 && !endpoints.is_empty());
        if filled {
            groups.retain(|(family, _), endpoints| *family != v6 || !endpoints.is_empty());
        }
    }
}

/// Name, protocol, number and application protocol of a resolved port; ordered, to group by.
type PortKey = (String, String, i32, Option<String>);

/// The Service's ports as they are on one pod; those whose name it does not have are left out.
fn ports(service: &Service, pod: &Pod) -> Vec<PortKey> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    ports
        .unwrap_or_default()
        .iter()
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = target_port(port, &protocol, pod)?;
            let name = port.name.clone().unwrap_or_default();
            Some((name, protocol, number, port.app_protocol.clone()))
        })
        .collect()
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .flat_map(|container| container.ports.iter().flatten())
                .find(|candidate| {
                    candidate.name.as_ref() == Some(name) && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|candidate| candidate.container_port)
        }
    }
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    pod.status
        .as_ref()
        .and_then(|status| status.pod_ips.as_ref())
        .map(|ips| ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect())
        .unwrap_or_default()
}

/// The families a Service has: `false` is IPv4, `true` IPv6.
fn families(service: &Service) -> Vec<bool> {
    let spec = service.spec.as_ref();
    match spec.and_then(|spec| spec.ip_families.as_ref()) {
        Some(families) if !families.is_empty() => families.iter().map(|family| family == "IPv6").collect(),
        _ => vec![spec.and_then(|spec| spec.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':'))],
    }
}

fn endpoint(service: &Service, pod: &Pod, address: IpAddr, zone: &impl Fn(&str) -> Option<String>) -> Endpoint {
    let spec = pod.spec.as_ref();
    let publish_all = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = pod_state::is_ready(pod);
    let node = pod_state::node_name(pod);
    let named = spec.and_then(|spec| {
        let same = spec.subdomain.as_deref() == Some(&service.name_any());
        spec.hostname.clone().filter(|_| same)
    });
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(publish_all || serving),
            terminating: Some(terminating),
        }),
        hostname: named,
        node_name: node.map(str::to_owned),
        zone: node.and_then(zone),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        deprecated_topology: None,
        hints: None,
    }
}

fn slice(service: &Service, v6: bool, number: usize, ports: &[PortKey], endpoints: &[Endpoint]) -> EndpointSlice {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_LABEL.to_owned(), service.name_any());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}-{number}", service.name_any(), family.to_ascii_lowercase())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owner::controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: endpoints.to_vec(),
        ports: Some(
            ports
                .iter()
                .map(|(name, protocol, number, app_protocol)| EndpointPort {
                    name: Some(name.clone()),
                    protocol: Some(protocol.clone()),
                    port: Some(*number),
                    app_protocol: app_protocol.clone(),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests;
