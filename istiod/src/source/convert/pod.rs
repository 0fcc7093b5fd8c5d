//! Pods.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Converted, annotation, fields, labels, list};
use crate::world::{Binding, Labels, Object, Pod};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(deserialize_with = "list")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "list")]
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    #[serde(deserialize_with = "list")]
    ports: Vec<Port>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(deserialize_with = "list")]
    conditions: Vec<Condition>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", deserialize_with = "list")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// Pods that ended are of no interest: their address may belong to another pod already.
pub(super) fn pod(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let Fields { spec, status } = fields(&mut object)?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return Ok(None);
    }
    let ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    let labels = labels(&object);
    let redirected = annotation(&object, names::REDIRECTION) == Some(names::REDIRECTION_ENABLED);
    Ok(Some(Object::Pod(Pod {
        key: key.clone(),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        service_account: spec.service_account_name.as_deref().unwrap_or_default().into(),
        node: spec.node_name.as_deref().unwrap_or_default().into(),
        workload_name: workload_name(key, &object, &labels).into(),
        ips: ips(&status),
        ready: ready && object.metadata.deletion_timestamp.is_none(),
        host_network: spec.host_network.unwrap_or_default(),
        redirected,
        ports: ports(&spec),
        binding: Binding::read(object.metadata.labels.as_ref(), object.metadata.annotations.as_ref()),
        labels,
    })))
}

/// Every address, or none at all when one of them is not an address.
fn ips(status: &Status) -> Box<[IpAddr]> {
    let mut texts: Vec<_> = status.pod_ips.iter().map(|one| one.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref().filter(|ip| !ip.is_empty()));
    }
    let parsed: Result<Vec<IpAddr>, _> = texts.iter().map(|text| text.parse()).collect();
    parsed.unwrap_or_default().into()
}

/// Named TCP ports of containers, then of init containers that keep running.
fn ports(spec: &Spec) -> Box<[(Arc<str>, u16)]> {
    let sidecars = spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let tcp = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("" | "TCP")));
    tcp.filter_map(|port| Some((port.name.as_deref()?.into(), port.container_port))).collect()
}

/// What a user would call the thing that the pod is a replica of.
///
/// # Source
/// spec of the workload model, section 3 (owner heuristic).
fn workload_name(key: &NamespacedName, object: &DynamicObject, labels: &Labels) -> String {
    if let Some(name) = labels.get(names::WORKLOAD_NAME) {
        return name.to_owned();
    }
    let owners = object.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if object.metadata.generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty()) => {
            replicated(owner, labels).unwrap_or(&owner.name).to_owned()
        }
        _ => key.name.to_string(),
    }
}

/// What stands behind an owner that is itself generated.
fn replicated<'a>(owner: &'a OwnerReference, labels: &'a Labels) -> Option<&'a str> {
    match owner.kind.as_str() {
        "ReplicaSet" => ["pod-template-hash", "rollouts-pod-template-hash"].iter().find_map(|label| {
            let hash = labels.get(label).filter(|hash| !hash.is_empty())?;
            owner.name.strip_suffix(hash)?.strip_suffix('-')
        }),
        "ReplicationController" => labels.get("deploymentconfig"),
        "Job" => {
            let (cron_job, digits) = owner.name.rsplit_once('-')?;
            let scheduled = (8..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            scheduled.then_some(cron_job)
        }
        _ => None,
    }
}
