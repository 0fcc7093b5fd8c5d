//! ServiceEntries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::workload_entry::{self, WorkloadFields};
use super::{Unreadable, annotation, core, created_s, fields, labels, list};
use crate::world::{
    Binding, Change, EntryEndpoint, EntryPort, Kind, Labels, Object, Resolution, ServiceEntry, WorkloadAddress,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    spec: Spec,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "list")]
    hosts: Vec<String>,
    #[serde(deserialize_with = "list")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "list")]
    ports: Vec<PortFields>,
    location: Option<String>,
    resolution: Option<String>,
    #[serde(deserialize_with = "list")]
    endpoints: Vec<WorkloadFields>,
    workload_selector: Option<SelectorFields>,
    #[serde(deserialize_with = "list")]
    subject_alt_names: Vec<String>,
    #[serde(deserialize_with = "list")]
    export_to: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PortFields {
    name: Option<String>,
    number: u16,
    target_port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorFields {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "list")]
    addresses: Vec<StatusAddress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusAddress {
    value: String,
    host: Option<String>,
}

/// An entry with an address that is none gives no service; other entries are not touched by that.
///
/// # Source
/// spec of the workload model, section 5.
pub(super) fn entry(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let Fields { spec, status } = match fields(&mut object) {
        Ok(fields) => fields,
        Err(Unreadable(reason)) => {
            return Change::Broken { kind: Kind::ServiceEntry, key, generation, reason, stand_in: None };
        }
    };
    let mut bad = Vec::new();
    let addresses = addresses(&spec.addresses, &mut bad);
    let usable = bad.is_empty();
    let labels = labels(&object);
    let metadata = &object.metadata;
    let entry = ServiceEntry {
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        created_s: created_s(&object),
        generation,
        hosts: if usable { hosts(&spec.hosts) } else { Box::default() },
        addresses,
        ports: spec.ports.iter().filter_map(|one| port(one, &mut bad)).collect(),
        resolution: resolution(spec.resolution.as_deref(), &mut bad),
        internal: spec.location.as_deref() == Some("MESH_INTERNAL"),
        endpoints: spec.endpoints.iter().enumerate().filter_map(|one| endpoint(one, &mut bad)).collect(),
        selector: selector(spec.workload_selector.as_ref()),
        subject_alt_names: spec.subject_alt_names.iter().map(|name| name.as_str().into()).collect(),
        auto_addresses: auto_addresses(status),
        export_to: spec.export_to.iter().map(|one| one.as_str().into()).collect(),
        distribution_annotation: annotation(&object, names::TRAFFIC_DISTRIBUTION).map(core::distribution),
        redirected: annotation(&object, names::REDIRECTION) == Some(names::REDIRECTION_ENABLED),
        binding: Binding::read(metadata.labels.as_ref(), metadata.annotations.as_ref()),
        labels,
        key,
    };
    let object = Object::ServiceEntry(entry);
    if bad.is_empty() { Change::Upsert(object) } else { Change::Partial { object, reason: bad.join("; ") } }
}

/// Each once, in the order written.
fn hosts(written: &[String]) -> Box<[Arc<str>]> {
    let mut hosts: Vec<Arc<str>> = Vec::new();
    for host in written.iter().filter(|host| !host.is_empty()) {
        if !hosts.iter().any(|have| **have == **host) {
            hosts.push(host.as_str().into());
        }
    }
    hosts.into()
}

/// Blocks are masked to their network address.
fn addresses(written: &[String], bad: &mut Vec<String>) -> Box<[IpNet]> {
    let parse = |text: &String| match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
        (Ok(ip), _) => Some(ip.into()),
        (_, Ok(block)) => Some(block.trunc()),
        _ => {
            bad.push(format!("spec.addresses {text:?}: expected an IP address or a CIDR block; the entry is not used"));
            None
        }
    };
    written.iter().filter_map(parse).collect()
}

fn port(port: &PortFields, bad: &mut Vec<String>) -> Option<EntryPort> {
    if port.number == 0 {
        bad.push("spec.ports.number 0: expected a port from 1 to 65535; the port is not used".to_owned());
        return None;
    }
    Some(EntryPort {
        name: port.name.as_deref().unwrap_or_default().into(),
        number: port.number,
        target: port.target_port.filter(|target| *target != 0),
        protocol: core::plain_protocol(port.protocol.as_deref().unwrap_or_default()),
    })
}

fn resolution(written: Option<&str>, bad: &mut Vec<String>) -> Resolution {
    match written {
        None | Some("" | "NONE") => Resolution::None,
        Some("STATIC") => Resolution::Static,
        Some("DNS") => Resolution::Dns,
        Some("DNS_ROUND_ROBIN") => Resolution::DnsRoundRobin,
        Some("DYNAMIC_DNS") => Resolution::DynamicDns,
        Some(other) => {
            bad.push(format!("spec.resolution {other:?}: expected NONE, STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS"));
            Resolution::None
        }
    }
}

fn endpoint((number, written): (usize, &WorkloadFields), bad: &mut Vec<String>) -> Option<EntryEndpoint> {
    let address = match workload_entry::address(written.address.as_deref().unwrap_or_default()) {
        Ok(address) => address,
        Err(Unreadable(reason)) => {
            bad.push(format!("spec.endpoints[{number}].{reason}; the endpoint is not used"));
            return None;
        }
    };
    if address == WorkloadAddress::None && written.network.as_deref().is_none_or(str::is_empty) {
        bad.push(format!("spec.endpoints[{number}]: expected an address or a network; the endpoint is not used"));
        return None;
    }
    Some(EntryEndpoint {
        address,
        ports: written.ports(),
        network: written.network.as_deref().unwrap_or_default().into(),
        locality: written.locality(),
        weight: written.weight.unwrap_or_default(),
        service_account: written.service_account.as_deref().unwrap_or_default().into(),
        binding: Binding::read(written.labels.as_ref(), None),
    })
}

fn selector(written: Option<&SelectorFields>) -> Option<Labels> {
    let labels = written?.labels.as_ref()?;
    let labels: Labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    (!labels.is_empty()).then_some(labels)
}

/// Written by the control plane itself; what is no address is nobody's.
fn auto_addresses(status: Option<Status>) -> Box<[(Arc<str>, IpAddr)]> {
    let written = status.map(|status| status.addresses).unwrap_or_default();
    let parse = |one: StatusAddress| Some((one.host?.into(), one.value.parse().ok()?));
    written.into_iter().filter_map(parse).collect()
}
