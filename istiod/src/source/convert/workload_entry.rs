//! WorkloadEntries, and the like of them inside ServiceEntries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Converted, Unreadable, annotation, created_s, fields, labels};
use crate::world::{Binding, Labels, Locality, Object, Registered, WorkloadAddress, WorkloadEntry, registered};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    spec: WorkloadFields,
    status: StatusFields,
}

/// What its own agent says of it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusFields {
    conditions: Option<Vec<Said>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    r#type: String,
    status: String,
}

/// A workload that is no pod, as it is written.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WorkloadFields {
    pub(super) address: Option<String>,
    pub(super) ports: Option<BTreeMap<String, u16>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) network: Option<String>,
    pub(super) locality: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) service_account: Option<String>,
}

impl WorkloadFields {
    /// Ports by name.
    pub(super) fn ports(&self) -> Box<[(Arc<str>, u16)]> {
        self.ports.iter().flatten().map(|(name, number)| (name.as_str().into(), *number)).collect()
    }

    /// `region/zone/subzone`, of which the rear parts may be missing; what comes after them is nothing.
    pub(super) fn locality(&self) -> Locality {
        let mut parts = self.locality.as_deref().unwrap_or_default().split('/').map(Arc::from);
        let mut part = || parts.next().unwrap_or_default();
        Locality { region: part(), zone: part(), subzone: part() }
    }
}

/// Where a workload is: an address, a name, or nothing. Paths of sockets are not reachable from elsewhere.
pub(super) fn address(written: &str) -> Result<WorkloadAddress, Unreadable> {
    if written.is_empty() {
        return Ok(WorkloadAddress::None);
    }
    if let Ok(ip) = written.parse::<IpAddr>() {
        return Ok(WorkloadAddress::Ip(ip));
    }
    if written.contains(['/', ':', ' ']) {
        return Err(Unreadable(format!("address {written:?}: expected an IP address or a DNS name")));
    }
    Ok(WorkloadAddress::Host(written.into()))
}

/// # Source
/// spec of the workload model, section 6.
pub(super) fn workload_entry(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let Fields { spec, status } = fields(&mut object)?;
    let own = labels(&object);
    let metadata = &object.metadata;
    let group = annotation(&object, names::AUTO_REGISTRATION_GROUP).filter(|group| !group.is_empty());
    Ok(Some(Object::WorkloadEntry(WorkloadEntry {
        key: key.clone(),
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        created_s: created_s(&object),
        generation: metadata.generation.unwrap_or_default(),
        address: address(spec.address.as_deref().unwrap_or_default())
            .map_err(|Unreadable(one)| Unreadable(format!("spec.{one}")))?,
        network: spec.network.as_deref().unwrap_or_default().into(),
        locality: spec.locality(),
        weight: spec.weight.unwrap_or_default(),
        ports: spec.ports(),
        service_account: spec.service_account.as_deref().unwrap_or_default().into(),
        workload_name: group.or_else(|| own.get(names::WORKLOAD_NAME)).unwrap_or(&key.name).into(),
        redirected: annotation(&object, names::REDIRECTION) == Some(names::REDIRECTION_ENABLED),
        unhealthy: annotation(&object, registered::HEALTH_CHECKED) == Some("true") && !is_healthy(&status),
        registered: Registered::read(metadata.annotations.as_ref()).map(Box::new),
        binding: Binding::read(metadata.labels.as_ref(), metadata.annotations.as_ref()),
        labels: merged(spec.labels.as_ref(), &own),
    })))
}

/// Whoever is watched is healthy once it was said.
fn is_healthy(status: &StatusFields) -> bool {
    let said = status.conditions.iter().flatten().find(|one| one.r#type == registered::HEALTHY);
    said.is_some_and(|one| one.status == "True")
}

/// Labels of the object win over those of its spec.
fn merged(spec: Option<&BTreeMap<String, String>>, own: &Labels) -> Labels {
    let spec = spec.into_iter().flatten().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())));
    spec.chain(own.iter().cloned()).collect()
}
