//! A ServiceEntry becomes services, one for each hostname, and workloads for the endpoints that it writes itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::addr::ip_to_bytes;
use mesh_wire::workload::{NetworkAddress, Port, Service as WireService, Visibility as WireVisibility, Workload};

use super::service::{app_protocol, wire_port};
use super::subject::{Subject, set_address};
use super::{balance, member, waypoint};
use crate::world::{EntryEndpoint, Locality, Resolution, ServiceEntry, Visibility, WorkloadAddress, World};

/// The service of one hostname of an entry that won it, without what waypoints add.
///
/// # Source
/// spec of the workload model, section 5.
pub fn service(world: &World, entry: &ServiceEntry, hostname: &str) -> WireService {
    let namespace = world.namespace(&entry.key.namespace);
    let ports = entry.ports.iter();
    let visibility = match world.entry_visibility(&entry.key.namespace) {
        Visibility::Namespace => WireVisibility::Namespace,
        Visibility::Public | Visibility::None => WireVisibility::Public,
    };
    WireService {
        name: entry.key.name.to_string(),
        namespace: entry.key.namespace.to_string(),
        hostname: hostname.to_owned(),
        addresses: addresses(entry, hostname, world.network()),
        ports: ports
            .map(|port| Port {
                app_protocol: app_protocol(port.protocol).into(),
                ..wire_port(port.number, port.target())
            })
            .collect(),
        subject_alt_names: entry.subject_alt_names.iter().map(|name| name.to_string()).collect(),
        load_balancing: match entry.resolution {
            Resolution::None => Some(balance::passthrough()),
            _ => balance::of_entry(entry, namespace),
        },
        canonical: world.is_canonical(entry, hostname),
        visibility: visibility.into(),
        ..WireService::default()
    }
}

/// Workloads of the endpoints that an entry writes, or of its hostnames where those are resolved. Only hostnames that the
/// entry won count.
pub fn workloads(world: &World, entry: &ServiceEntry) -> Vec<Workload> {
    let won: Vec<_> = entry.hosts.iter().filter(|host| world.wins(entry, host)).collect();
    if won.is_empty() {
        return Vec::new();
    }
    if !entry.endpoints.is_empty() {
        let mut seen = BTreeMap::new();
        return entry.endpoints.iter().map(|one| endpoint(world, entry, &won, one, &mut seen)).collect();
    }
    if entry.selector.is_some() || !entry.resolution.is_dns() {
        return Vec::new();
    }
    won.into_iter().map(|host| resolved(world, entry, host)).collect()
}

fn endpoint(
    world: &World,
    entry: &ServiceEntry,
    hosts: &[&Arc<str>],
    endpoint: &EntryEndpoint,
    seen: &mut BTreeMap<String, usize>,
) -> Workload {
    let subject = Subject {
        service_account: &endpoint.service_account,
        network: &endpoint.network,
        locality: Some(&endpoint.locality),
        ..common(entry)
    };
    let members = member::of_endpoint(world, entry, hosts.iter().copied(), &endpoint.ports);
    let bound = member::subject(world, entry, endpoint.binding.as_deref());
    let address = match &endpoint.address {
        WorkloadAddress::Ip(ip) => ip.to_string(),
        WorkloadAddress::Host(host) => host.to_string(),
        WorkloadAddress::None => endpoint.network.to_string(),
    };
    // The same address may serve other ports under another endpoint.
    let times = seen.entry(address.clone()).and_modify(|times| *times += 1).or_insert(1);
    let suffix = if *times > 1 { format!("{address}/{times}") } else { address };
    let mut workload = Workload {
        uid: uid(world, entry, &suffix),
        waypoint: waypoint::for_workload(world, bound).waypoint,
        capacity: (endpoint.weight > 0).then_some(endpoint.weight),
        ..subject.workload(world)
    };
    set_address(&mut workload, &endpoint.address);
    workload.authorization_policies.extend(members.implicit_policies(world, Some(bound)));
    workload.services = members.ports;
    workload
}

/// The hostname itself is the endpoint.
fn resolved(world: &World, entry: &ServiceEntry, host: &Arc<str>) -> Workload {
    let members = member::of_endpoint(world, entry, [host], &[]);
    let mut workload =
        Workload { uid: uid(world, entry, host), hostname: host.to_string(), ..common(entry).workload(world) };
    workload.authorization_policies.extend(members.implicit_policies(world, None));
    workload.services = members.ports;
    workload
}

fn common(entry: &ServiceEntry) -> Subject<'_> {
    Subject {
        key: &entry.key,
        labels: &entry.labels,
        workload_name: &entry.key.name,
        service_account: "",
        network: "",
        locality: None::<&Locality>,
        redirected: entry.redirected,
    }
}

fn uid(world: &World, entry: &ServiceEntry, endpoint: &str) -> String {
    let cluster = &world.settings().cluster_id;
    let group = mesh_api::labels::NETWORKING_GROUP;
    format!("{cluster}/{group}/ServiceEntry/{}/{}/{endpoint}", entry.key.namespace, entry.key.name)
}

/// What was written, else what was allocated for this hostname.
fn addresses(entry: &ServiceEntry, hostname: &str, network: &str) -> Vec<NetworkAddress> {
    let address = |ip: IpAddr, length| NetworkAddress { network: network.to_owned(), address: ip_to_bytes(ip), length };
    if entry.addresses.is_empty() {
        return entry.allocated(hostname).map(|ip| address(ip, None)).collect();
    }
    let block = |block: &IpNet| {
        let length = (block.prefix_len() < block.max_prefix_len()).then(|| block.prefix_len().into());
        address(block.network(), length)
    };
    entry.addresses.iter().map(block).collect()
}
