//! A WorkloadEntry becomes a workload.

use mesh_core::names::NamespacedName;
use mesh_wire::workload::{Workload, WorkloadStatus};

use super::subject::{self, Subject};
use super::{member, waypoint};
use crate::world::{MeshSettings, WorkloadEntry, World};

/// The workload of a WorkloadEntry. It counts as healthy, unless its health is watched and it is not known to be.
///
/// # Source
/// spec of the workload model, section 6.
pub fn workload(world: &World, entry: &WorkloadEntry) -> Workload {
    let subject = Subject {
        key: &entry.key,
        labels: &entry.labels,
        workload_name: &entry.workload_name,
        service_account: &entry.service_account,
        network: &entry.network,
        locality: Some(&entry.locality),
        redirected: entry.redirected,
    };
    let members = member::of_workload_entry(world, entry);
    let bound = waypoint::Subject::new(&entry.key.namespace, entry.binding.as_deref());
    let mut workload = Workload {
        uid: uid(world.settings(), &entry.key),
        waypoint: waypoint::for_workload(world, bound).waypoint,
        capacity: (entry.weight > 0).then_some(entry.weight),
        ..subject.workload(world)
    };
    if entry.unhealthy {
        workload.status = WorkloadStatus::Unhealthy.into();
    }
    subject::set_address(&mut workload, &entry.address);
    workload.authorization_policies.extend(members.implicit_policies(world, Some(bound)));
    workload.services = members.ports;
    workload
}

/// The resource name of a WorkloadEntry.
pub fn uid(settings: &MeshSettings, entry: &NamespacedName) -> String {
    format!(
        "{}/{}/WorkloadEntry/{}/{}",
        settings.cluster_id,
        mesh_api::labels::NETWORKING_GROUP,
        entry.namespace,
        entry.name
    )
}
