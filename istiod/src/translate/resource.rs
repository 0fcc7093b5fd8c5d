//! Messages become published resources: serialised once, with their names and versions.

use std::sync::Arc;

use bytes::Bytes;
use mesh_core::addr::ip_from_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::l7::{self, resource::Kind};
use mesh_wire::security::{Authorization, Scope};
use mesh_wire::workload::address::Type;
use mesh_wire::workload::{Address, NetworkAddress, Service, Workload};
use mesh_xds::server::{Resource, content_version};
use prost::Message;

/// A workload, as an Address.
pub(super) fn workload(workload: Workload) -> Resource {
    let alias = |address: &Vec<u8>| Some(format!("{}/{}", workload.network, ip_from_bytes(address)?).into());
    let aliases = workload.addresses.iter().filter_map(alias).collect();
    let groups = workload.services.keys().map(|key| Arc::from(key.as_str())).collect();
    let node = (!workload.node.is_empty()).then(|| Arc::from(workload.node.as_str()));
    let name = workload.uid.as_str().into();
    let (body, version) = encoded(Type::Workload(workload));
    Resource { name, aliases, version, body, groups, is_group: false, node, referenced: false, audience: None }
}

/// A service, as an Address.
pub(super) fn service(service: Service) -> Resource {
    let aliases = service.addresses.iter().filter_map(alias).collect();
    let name = format!("{}/{}", service.namespace, service.hostname).into();
    let (body, version) = encoded(Type::Service(service));
    let groups = Box::default();
    Resource { name, aliases, version, body, groups, is_group: true, node: None, referenced: false, audience: None }
}

/// A policy. Policies have no version: a reconnecting client gets them all again.
pub(super) fn authorization(policy: &Authorization) -> Resource {
    Resource {
        name: format!("{}/{}", policy.namespace, policy.name).into(),
        aliases: Box::default(),
        version: Arc::default(),
        body: policy.encode_to_vec().into(),
        groups: Box::default(),
        is_group: false,
        node: None,
        referenced: policy.scope() == Scope::WorkloadSelector,
        audience: None,
    }
}

/// What a proxy of layer 7 is told: `gateway` is the group that it asks for, `audience` the only one who may have it.
pub(super) fn l7(name: String, kind: Kind, gateway: &NamespacedName, audience: Arc<str>) -> Resource {
    let gateway: Arc<str> = gateway.to_string().into();
    let is_group = *gateway == *name;
    let body = Bytes::from(l7::Resource { kind: Some(kind) }.encode_to_vec());
    Resource {
        name: name.into(),
        aliases: Box::default(),
        version: content_version(&body),
        body,
        groups: if is_group { Box::default() } else { [gateway].into() },
        is_group,
        node: None,
        referenced: false,
        audience: Some(audience),
    }
}

fn alias(address: &NetworkAddress) -> Option<Arc<str>> {
    let ip = ip_from_bytes(&address.address)?;
    Some(match address.length {
        Some(length) => format!("{}/{ip}/{length}", address.network).into(),
        None => format!("{}/{ip}", address.network).into(),
    })
}

fn encoded(content: Type) -> (Bytes, Arc<str>) {
    let body = Bytes::from(Address { r#type: Some(content) }.encode_to_vec());
    let version = content_version(&body);
    (body, version)
}
