//! What a workload says of itself, and whether it may be registered like that. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::validate::is_object_name;
use mesh_core::names::NamespacedName;
use mesh_wire::discovery::{Locality, Node};
use prost_types::value::Kind;

use super::Refusal;
use crate::auth::Caller;
use crate::world::{WorkloadGroup, World};

/// What a workload that wants to be registered says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The group, in the namespace of the node.
    pub group: NamespacedName,
    /// Where it is.
    pub address: IpAddr,
    /// Its network; empty where the group, or else the cluster, says it.
    pub network: Arc<str>,
    /// Where it stands, as entries have it (`region/zone/subzone`); empty where it does not say.
    pub locality: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
}

impl Claim {
    /// Reads the metadata of a node of this namespace; none where it does not want to be registered.
    ///
    /// # Errors
    /// A field cannot be used.
    pub fn of(node: &Node, namespace: &str) -> Result<Option<Self>, Refusal> {
        let fields = node.metadata.as_ref().map(|all| &all.fields);
        let kind = |name: &str| fields?.get(name)?.kind.as_ref();
        let text = |field: &'static str| match kind(field) {
            None | Some(Kind::NullValue(_)) => Ok(""),
            Some(Kind::StringValue(text)) if text.len() <= TEXT_BYTES_MAX => Ok(text.as_str()),
            Some(other) => Err(unreadable(field, &shown(other), "a text of at most 253 bytes")),
        };
        let group = text(GROUP)?;
        if group.is_empty() {
            return Ok(None);
        }
        if !is_object_name(group) {
            return Err(unreadable(GROUP, group, "the name of a WorkloadGroup"));
        }
        let network = text("NETWORK")?;
        if !network.is_empty() && !is_object_name(network) {
            return Err(unreadable("NETWORK", network, "lower-case letters, digits, - and ."));
        }
        let labels = match kind(LABELS) {
            None | Some(Kind::NullValue(_)) => BTreeMap::new(),
            Some(Kind::StructValue(all)) => labels(&all.fields)?,
            Some(other) => return Err(unreadable(LABELS, &shown(other), "an object of texts")),
        };
        let part = node.id.split('~').nth(1).unwrap_or_default();
        let address = address(text(ADDRESSES)?, part)?;
        let locality = node.locality.as_ref().map(locality).transpose()?.unwrap_or_default();
        let (group, network) = (NamespacedName::new(namespace, group), network.into());
        Ok(Some(Self { group, address, network, locality, labels }))
    }

    /// Whether the caller may have what it claims, and the group that says so. What it may not know it is not told: of
    /// groups of other namespaces nothing.
    ///
    /// # Errors
    /// It may not.
    pub fn judge(&self, caller: Option<&Caller>, world: &World) -> Result<Arc<WorkloadGroup>, Refusal> {
        let caller = caller.filter(|caller| caller.cluster.is_none()).ok_or(Refusal::Unproven)?;
        if caller.namespace != self.group.namespace {
            let (claimed, proved) = (self.group.namespace.clone(), caller.namespace.clone());
            return Err(Refusal::OtherNamespace { claimed, proved });
        }
        let visible = world.visible(&self.group.namespace);
        let group = world.workload_group(&self.group).filter(|_| visible);
        let group = group.ok_or_else(|| Refusal::NoGroup { group: self.group.clone() })?;
        let wanted = account(group);
        if *caller.service_account != *wanted {
            let (proved, group) = (caller.service_account.clone(), self.group.clone());
            return Err(Refusal::OtherAccount { proved, group, wanted: wanted.into() });
        }
        let network = group.spec.template.network.as_deref().unwrap_or_default();
        if !network.is_empty() && !self.network.is_empty() && *self.network != *network {
            return Err(unreadable("NETWORK", &self.network, "the network of the WorkloadGroup, or none"));
        }
        Ok(group.clone())
    }

    /// Whether it is about the same workload.
    pub fn is_of_same(&self, other: &Self) -> bool {
        (&self.group, self.address, &self.network) == (&other.group, other.address, &other.network)
    }

    /// Network of the workload: its own word, or that of its group; empty for that of the cluster.
    pub fn network<'a>(&'a self, group: &'a WorkloadGroup) -> &'a str {
        if self.network.is_empty() { group.spec.template.network.as_deref().unwrap_or_default() } else { &self.network }
    }

    /// Whether another workload is known to be where this one says that it is. `own` is the entry of this one.
    pub fn is_elsewhere(&self, own: &NamespacedName, network: &str, world: &World) -> bool {
        let full = |network: &'_ str| -> Arc<str> { if network.is_empty() { world.network() } else { network }.into() };
        let network = full(network);
        let mut entries = world.workload_entries_at(self.address).filter(|entry| entry.key != *own);
        // One that has left no longer counts: machines are replaced, and their addresses given to others.
        let left = |entry: &crate::world::WorkloadEntry| {
            entry.registered.as_ref().is_some_and(|registered| registered.disconnected.is_some())
        };
        entries.any(|entry| full(&entry.network) == network && !left(entry))
            || (*network == *world.network() && world.has_pod_at(self.address))
    }
}

/// Service account that workloads of a group have.
pub fn account(group: &WorkloadGroup) -> &str {
    group.spec.template.service_account.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// The first of the told addresses, or the one of the node's id. Others than the workload itself must be able to use it.
fn address(told: &str, part: &str) -> Result<IpAddr, Refusal> {
    let first = told.split(',').map(str::trim).find(|one| !one.is_empty());
    let text = first.unwrap_or(part);
    let expected = "an address that others reach the workload at";
    let address: IpAddr = text.parse().map_err(|_| unreadable(ADDRESSES, text, expected))?;
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(unreadable(ADDRESSES, text, expected));
    }
    Ok(address)
}

/// The parts of a node's locality as one text: of a part that is missing nothing narrower is told.
fn locality(told: &Locality) -> Result<String, Refusal> {
    let parts = [&told.region, &told.zone, &told.sub_zone];
    let parts: Vec<_> = parts.into_iter().take_while(|part| !part.is_empty()).map(String::as_str).collect();
    let plain = |part: &str| part.len() <= VALUE_BYTES_MAX && !part.contains(|c: char| c == '/' || c.is_control());
    match parts.iter().find(|part| !plain(part)) {
        Some(part) => Err(unreadable(LOCALITY, part, "texts of at most 63 bytes, without slashes")),
        None => Ok(parts.join("/")),
    }
}

fn labels(fields: &BTreeMap<String, prost_types::Value>) -> Result<BTreeMap<String, String>, Refusal> {
    if fields.len() > LABELS_MAX {
        return Err(unreadable(LABELS, &format!("{} labels", fields.len()), "at most 64 labels"));
    }
    let one = |(key, value): (&String, &prost_types::Value)| match &value.kind {
        Some(Kind::StringValue(text)) if key.len() <= KEY_BYTES_MAX && text.len() <= VALUE_BYTES_MAX => {
            Ok((key.clone(), text.clone()))
        }
        _ => Err(unreadable(LABELS, key, "the key of a label, and a text of at most 63 bytes")),
    };
    // What decides how its traffic is led is for the group to say.
    fields.iter().filter(|(key, _)| !is_reserved(key)).map(one).collect()
}

/// Labels that a workload cannot give itself.
fn is_reserved(key: &str) -> bool {
    key.starts_with("istio.io/") || key.starts_with("ambient.istio.io/")
}

/// A value as it was written, or what it is where it may be of any length.
fn shown(kind: &Kind) -> String {
    match kind {
        Kind::StringValue(text) => text.chars().take(SHOWN_MAX).collect(),
        Kind::NumberValue(number) => number.to_string(),
        Kind::BoolValue(value) => value.to_string(),
        Kind::NullValue(_) => "null".to_owned(),
        Kind::StructValue(_) => "an object".to_owned(),
        Kind::ListValue(_) => "a list".to_owned(),
    }
}

fn unreadable(field: &'static str, found: &str, expected: &'static str) -> Refusal {
    Refusal::Unreadable { field, found: found.chars().take(SHOWN_MAX).collect(), expected }
}

const GROUP: &str = "AUTO_REGISTER_GROUP";
const ADDRESSES: &str = "INSTANCE_IPS";
const LABELS: &str = "LABELS";
/// The field of the node itself, not of its metadata.
const LOCALITY: &str = "locality";
/// Longest text that is read.
const TEXT_BYTES_MAX: usize = 253;
/// Most labels of a node.
const LABELS_MAX: usize = 64;
/// Longest key and value of a label; no part of a locality is longer either, for it is one of a node's labels.
const KEY_BYTES_MAX: usize = 317;
const VALUE_BYTES_MAX: usize = 63;
/// Characters that are shown of what cannot be read.
const SHOWN_MAX: usize = 64;
