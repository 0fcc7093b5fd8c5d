//! The WorkloadEntry that follows from a group and from what one of its workloads says. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_api::labels::AUTO_REGISTRATION_GROUP;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

use super::claim::{Claim, account};
use crate::world::WorkloadGroup;
use crate::world::registered::HEALTH_CHECKED;

/// Namespace and name of the entry: the group, the address, and the network where the workload says one.
///
/// # Source
/// Names as the reference makes them, so that either finds the entries of the other: `vms-10.0.0.7-net1`, and colons
/// become dashes.
pub fn name(claim: &Claim) -> NamespacedName {
    let mut tail = format!("-{}", written(claim.address));
    if !claim.network.is_empty() {
        tail.push('-');
        tail.push_str(&claim.network);
    }
    let group = &*claim.group.name;
    // Of names that are too long a hash stands for the end.
    let mut name = if group.len() + tail.len() <= NAME_BYTES_MAX {
        format!("{group}{tail}")
    } else {
        let hash = mesh_xds::server::content_version(format!("{group}{tail}").as_bytes());
        let hash: String = hash.chars().filter(char::is_ascii_hexdigit).take(HASH_CHARS).collect();
        let room = NAME_BYTES_MAX.saturating_sub(hash.len() + 1);
        format!("{}-{hash}", format!("{group}{tail}").get(..room).unwrap_or_default().trim_end_matches(['-', '.']))
    };
    name.make_ascii_lowercase();
    NamespacedName::new(claim.group.namespace.clone(), name)
}

fn written(address: IpAddr) -> String {
    let text = address.to_string().replace(':', "-");
    // A name begins and ends with a letter or digit.
    if text.ends_with('-') { format!("{text}0") } else { text }
}

/// The object without what changes with the connection. The API server fills in the rest.
pub fn object(claim: &Claim, group: &WorkloadGroup) -> Value {
    let key = name(claim);
    let mut spec = group.spec.template.clone();
    let metadata = group.spec.metadata.clone().unwrap_or_default();
    // What the group says holds, whatever the workload says.
    let mut labels = claim.labels.clone();
    labels.extend(std::mem::take(&mut spec.labels));
    labels.extend(metadata.labels);
    spec.labels.clone_from(&labels);
    spec.address = Some(claim.address.to_string());
    spec.service_account = Some(account(group).to_owned());
    if spec.locality.as_deref().is_none_or(str::is_empty) {
        spec.locality = (!claim.locality.is_empty()).then(|| claim.locality.clone());
    }
    let network = claim.network(group);
    spec.network = (!network.is_empty()).then(|| network.to_owned());
    let mut annotations: BTreeMap<String, String> = metadata.annotations;
    annotations.insert(AUTO_REGISTRATION_GROUP.to_owned(), group.key.name.to_string());
    if group.spec.probe.is_some() {
        annotations.insert(HEALTH_CHECKED.to_owned(), "true".to_owned());
    }
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": &*key.name,
            "namespace": &*key.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadGroup",
                "name": &*group.key.name,
                "uid": &*group.uid,
                "controller": true,
            }],
        },
        "spec": spec,
    })
}

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;
/// What of a hash stands for what was cut.
const HASH_CHARS: usize = 16;
