//! A pod becomes a workload.

use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::{NetworkMode, Workload, WorkloadStatus};

use super::subject::Subject;
use super::{member, waypoint};
use crate::world::{MeshSettings, Pod, World};

/// The workload of a pod, or none while it has no usable address.
///
/// # Source
/// spec of the workload model, section 3.
pub fn workload(world: &World, pod: &Pod) -> Option<Workload> {
    if pod.ips.is_empty() {
        return None;
    }
    let subject = Subject {
        key: &pod.key,
        labels: &pod.labels,
        workload_name: &pod.workload_name,
        service_account: &pod.service_account,
        network: "",
        locality: world.locality(&pod.node),
        redirected: pod.redirected,
    };
    let status = if pod.ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    let network_mode = if pod.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let members = member::of_pod(world, pod);
    let mut workload = Workload {
        uid: uid(world.settings(), &pod.key),
        addresses: pod.ips.iter().map(|ip| ip_to_bytes(*ip)).collect(),
        node: pod.node.to_string(),
        status: status.into(),
        network_mode: network_mode.into(),
        waypoint: waypoint::for_pod(world, pod),
        application_tunnel: waypoint::application_tunnel(world, pod),
        ..subject.workload(world)
    };
    let own = waypoint::Subject::new(&pod.key.namespace, pod.binding.as_deref());
    let own = (!waypoint::is_waypoint_pod(world, pod)).then_some(own);
    workload.authorization_policies.extend(members.implicit_policies(world, own));
    workload.services = members.ports;
    Some(workload)
}

/// The resource name of a pod: core objects have an empty group, hence the two slashes.
pub fn uid(settings: &MeshSettings, pod: &NamespacedName) -> String {
    format!("{}//Pod/{}/{}", settings.cluster_id, pod.namespace, pod.name)
}
