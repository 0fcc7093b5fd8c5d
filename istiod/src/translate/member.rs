//! Which services a workload is a member of, and which of its ports they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_wire::workload::PortList;

use super::service::{self, wire_port};
use super::waypoint::{self, Subject};
use crate::world::{
    Binding, EntryPort, HostKey, Pod, Service, ServiceEntry, TargetPort, Visibility, WorkloadEntry, World,
};

/// Services of a workload.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    /// Ports by the key of the service.
    pub(super) ports: BTreeMap<String, PortList>,
    /// What waypoints depend on, of each object that gives a service.
    subjects: Vec<Subject<'a>>,
}

impl Members<'_> {
    /// Policies of the waypoints of the services, and of the workload's own.
    pub(super) fn implicit_policies(&self, world: &World, own: Option<Subject<'_>>) -> impl Iterator<Item = String> {
        waypoint::implicit_references(world, own, self.subjects.iter().copied()).into_iter()
    }
}

/// Of a pod: services that select it or whose slices name it, and service entries that select it.
pub(super) fn of_pod<'a>(world: &'a World, pod: &'a Pod) -> Members<'a> {
    let (namespace, labels) = (&pod.key.namespace, &pod.labels);
    let mut members = Members::default();
    for service in world.services_selecting(namespace, labels) {
        members.subjects.push(Subject::new(namespace, service.binding.as_deref()));
        members.ports.insert(service::key(&service.key, world.settings()), selected_ports(service, &pod.ports));
    }
    if world.settings().entries_select_pods {
        for entry in world.entries_selecting(namespace, labels) {
            let ports = entry_ports(&entry.ports, |port| named(&pod.ports, &port.name));
            members.add_entry(world, entry, &ports);
        }
    }
    for (service, slice) in world.slices_naming(pod) {
        members.subjects.push(Subject::new(namespace, service.binding.as_deref()));
        let ports: &mut PortList = members.ports.entry(service::key(&service.key, world.settings())).or_default();
        for port in service::joined_ports(service, slice) {
            if !ports.ports.contains(&port) {
                ports.ports.push(port);
            }
        }
        ports.ports.sort_by_key(|port| (port.service_port, port.target_port));
    }
    members
}

/// Of a WorkloadEntry: services and service entries that select it.
///
/// # Source
/// spec of the workload model, section 6.
pub(super) fn of_workload_entry<'a>(world: &'a World, workload: &'a WorkloadEntry) -> Members<'a> {
    let (namespace, labels) = (&workload.key.namespace, &workload.labels);
    let mut members = Members::default();
    if world.settings().services_select_workload_entries {
        for service in world.services_selecting(namespace, labels) {
            members.subjects.push(Subject::new(namespace, service.binding.as_deref()));
            let ports = service.ports.iter().filter_map(|port| {
                let target = match &port.target {
                    TargetPort::Number(number) => named(&workload.ports, &port.name).unwrap_or(*number),
                    TargetPort::Name(name) => named(&workload.ports, name)?,
                };
                Some(wire_port(port.port, target))
            });
            let ports = PortList { ports: ports.collect() };
            members.ports.insert(service::key(&service.key, world.settings()), ports);
        }
    }
    for entry in world.entries_selecting(namespace, labels) {
        let ports = entry_ports(&entry.ports, |port| named(&workload.ports, &port.name));
        members.add_entry(world, entry, &ports);
    }
    members
}

/// Of an endpoint written in a ServiceEntry: the hostnames that the entry won.
pub(super) fn of_endpoint<'a>(
    world: &'a World,
    entry: &'a ServiceEntry,
    hosts: impl IntoIterator<Item = &'a Arc<str>>,
    ports: &[(Arc<str>, u16)],
) -> Members<'a> {
    let ports = entry_ports(&entry.ports, |port| named(ports, &port.name));
    let mut members = Members::default();
    for host in hosts {
        members.add_host(world, entry, host, &ports);
    }
    members
}

impl<'a> Members<'a> {
    fn add_entry(&mut self, world: &World, entry: &'a ServiceEntry, ports: &PortList) {
        for host in entry.hosts.iter().filter(|host| world.wins(entry, host)) {
            self.add_host(world, entry, host, ports);
        }
    }

    fn add_host(&mut self, world: &World, entry: &'a ServiceEntry, host: &Arc<str>, ports: &PortList) {
        let key = HostKey::new(entry.key.namespace.clone(), host.clone());
        self.ports.insert(key.to_string(), ports.clone());
        self.subjects.push(subject(world, entry, entry.binding.as_deref()));
    }
}

/// A ServiceEntry as waypoints see it.
pub(super) fn subject<'a>(world: &World, entry: &'a ServiceEntry, binding: Option<&'a Binding>) -> Subject<'a> {
    let namespace = &entry.key.namespace;
    Subject { namespace, binding, private: world.entry_visibility(namespace) == Visibility::Namespace }
}

/// Ports of a service as a pod serves them; a named port that the pod does not have is left out.
fn selected_ports(service: &Service, ports: &[(Arc<str>, u16)]) -> PortList {
    let ports = service.ports.iter().filter_map(|port| {
        let target = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => named(ports, name)?,
        };
        Some(wire_port(port.port, target))
    });
    PortList { ports: ports.collect() }
}

/// Ports of a service entry: as the workload says, else as the entry does.
fn entry_ports(ports: &[EntryPort], own: impl Fn(&EntryPort) -> Option<u16>) -> PortList {
    let ports = ports.iter().map(|port| wire_port(port.number, own(port).unwrap_or_else(|| port.target())));
    PortList { ports: ports.collect() }
}

fn named(ports: &[(Arc<str>, u16)], name: &str) -> Option<u16> {
    ports.iter().find(|(have, _)| **have == *name).map(|(_, number)| *number)
}
