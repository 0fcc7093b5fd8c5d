//! Gateways and GatewayClasses.

use std::net::IpAddr;
use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::gateway::GatewaySpec;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Converted, Unreadable, annotation, fields, labels, list};
use crate::world::gateway::{
    AllowedNamespaces, Gateway, GatewayAddress, GatewayClass, InboundBinding, Listener, ListenerProtocol, TrafficType,
};
use crate::world::{Labels, Object};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    spec: Spec,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    gateway_class_name: String,
    #[serde(deserialize_with = "list")]
    listeners: Vec<ListenerFields>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListenerFields {
    name: String,
    port: u16,
    protocol: String,
    tls: Option<Tls>,
    allowed_routes: Option<AllowedRoutes>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tls {
    mode: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AllowedRoutes {
    namespaces: Option<RouteNamespaces>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RouteNamespaces {
    from: Option<String>,
    selector: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "list")]
    addresses: Vec<Address>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    type_: Option<String>,
    value: String,
}

pub(super) fn gateway(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let written = whole(&object)?;
    let Fields { spec, status } = fields(&mut object)?;
    let network = object.metadata.labels.as_ref().and_then(|labels| labels.get(names::NETWORK));
    let account = annotation(&object, names::GATEWAY_SERVICE_ACCOUNT).filter(|one| !one.is_empty());
    Ok(Some(Object::Gateway(Gateway {
        key: key.clone(),
        class: spec.gateway_class_name.as_str().into(),
        created_s: object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()).unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        waypoint_for: waypoint_for(&object),
        inbound_binding: inbound_binding(&object),
        network: network.map(|one| one.as_str().into()),
        service_account: account.map(Into::into),
        listeners: spec.listeners.iter().map(listener).collect(),
        addresses: status.unwrap_or_default().addresses.iter().filter_map(address).collect(),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        labels: labels(&object),
        annotations: annotations(&object),
        spec: Arc::new(written),
    })))
}

/// The specification as the API defines it; fields that are null are as if they were not there.
fn whole(object: &DynamicObject) -> Result<GatewaySpec, Unreadable> {
    let mut spec = object.data.get("spec").cloned().unwrap_or_else(|| json!({}));
    without_nulls(&mut spec);
    serde_path_to_error::deserialize(spec)
        .map_err(|error| Unreadable(format!("spec.{}: {}", error.path(), error.inner())))
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn annotations(object: &DynamicObject) -> Labels {
    let all = object.metadata.annotations.iter().flatten();
    all.filter(|(key, _)| *key != LAST_APPLIED).map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What kubectl remembers of the last apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Deserialize, Default)]
#[serde(default)]
struct ClassFields {
    spec: ClassSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    controller_name: String,
}

pub(super) fn class(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let ClassFields { spec } = fields(&mut object)?;
    Ok(Some(Object::GatewayClass(GatewayClass {
        name: key.name.clone(),
        controller: spec.controller_name.as_str().into(),
        generation: object.metadata.generation.unwrap_or_default(),
        waypoint_for: waypoint_for(&object),
        inbound_binding: inbound_binding(&object),
    })))
}

fn waypoint_for(object: &DynamicObject) -> Option<TrafficType> {
    object.metadata.labels.as_ref()?.get(names::WAYPOINT_FOR).map(|text| TrafficType::read(text))
}

fn inbound_binding(object: &DynamicObject) -> Option<InboundBinding> {
    annotation(object, names::WAYPOINT_INBOUND_BINDING).map(InboundBinding::read)
}

fn listener(written: &ListenerFields) -> Listener {
    let mode = written.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("Terminate"));
    let namespaces = written.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
    Listener {
        name: written.name.as_str().into(),
        port: written.port,
        protocol: ListenerProtocol::read(&written.protocol),
        terminates: mode == Some("Terminate"),
        allowed: namespaces.map(allowed).unwrap_or_default(),
    }
}

/// What cannot be read lets nobody in.
fn allowed(written: &RouteNamespaces) -> AllowedNamespaces {
    match written.from.as_deref() {
        None | Some("Same") => AllowedNamespaces::Same,
        Some("All") => AllowedNamespaces::All,
        Some("Selector") if !written.selector.is_null() => match serde_json::from_value(written.selector.clone()) {
            Ok(selector) => AllowedNamespaces::Selected(Box::new(selector)),
            Err(_) => AllowedNamespaces::Nobody,
        },
        Some(_) => AllowedNamespaces::Nobody,
    }
}

fn address(written: &Address) -> Option<GatewayAddress> {
    match written.type_.as_deref() {
        Some("Hostname") if !written.value.is_empty() => Some(GatewayAddress::Hostname(written.value.as_str().into())),
        None | Some("IPAddress") => written.value.parse::<IpAddr>().ok().map(GatewayAddress::Ip),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Gateway {
        let object: DynamicObject = serde_json::from_value(value).unwrap();
        match gateway(&super::super::key(&object), object) {
            Ok(Some(Object::Gateway(gateway))) => gateway,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_gateway_is_reduced_to_what_waypoints_and_networks_need() {
        let gateway = read(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {
                "name": "wp", "namespace": "infra", "generation": 2, "creationTimestamp": "1970-01-01T00:01:00Z",
                "labels": {"istio.io/waypoint-for": "all", "topology.istio.io/network": "net1"},
                "annotations": {"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088", "gateway.istio.io/service-account": "sa"},
            },
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
                {"name": "mesh", "port": 15008, "protocol": "HBONE", "tls": {}},
                {"name": "all", "port": 1, "protocol": "TCP", "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "some", "port": 2, "protocol": "istio.io/PROXY", "allowedRoutes": {"namespaces":
                    {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}}},
                {"name": "bad", "port": 3, "protocol": "TLS", "tls": {"mode": "Passthrough"}, "allowedRoutes": {"namespaces":
                    {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}}},
                {"name": "gone", "port": 4, "protocol": "TLS", "allowedRoutes": {"namespaces": {"from": "Selector"}}},
            ]},
            "status": {"addresses": [
                {"type": "IPAddress", "value": "10.0.0.1"}, {"value": "fd00::1"}, {"type": "IPAddress", "value": "bogus"},
                {"type": "Hostname", "value": "wp.infra.svc.cluster.local"}, {"type": "Named", "value": "x"},
            ]},
        }));
        assert_eq!((gateway.created_s, gateway.generation, &*gateway.class), (60, 2, "istio-waypoint"));
        assert_eq!(
            (gateway.waypoint_for, gateway.inbound_binding),
            (Some(TrafficType::All), Some(InboundBinding::Proxy(15088)))
        );
        assert_eq!((gateway.network.as_deref(), gateway.service_account.as_deref()), (Some("net1"), Some("sa")));
        let [mesh, all, some, bad, gone] = &*gateway.listeners else { panic!("{gateway:?}") };
        assert_eq!(
            (mesh.protocol, mesh.terminates, &mesh.allowed),
            (ListenerProtocol::Hbone, true, &AllowedNamespaces::Same)
        );
        assert_eq!(
            (all.protocol, all.terminates, &all.allowed),
            (ListenerProtocol::Other, false, &AllowedNamespaces::All)
        );
        assert_eq!(some.protocol, ListenerProtocol::Proxy);
        assert!(matches!(&some.allowed, AllowedNamespaces::Selected(one) if one.match_labels.contains_key("team")));
        assert_eq!((bad.terminates, &bad.allowed), (false, &AllowedNamespaces::Nobody));
        assert_eq!(gone.allowed, AllowedNamespaces::Nobody);
        let host = GatewayAddress::Hostname("wp.infra.svc.cluster.local".into());
        let ips = ["10.0.0.1", "fd00::1"].map(|ip| GatewayAddress::Ip(ip.parse().unwrap()));
        assert_eq!(*gateway.addresses, [ips[0].clone(), ips[1].clone(), host]);
    }

    #[test]
    fn a_new_gateway_has_neither_addresses_nor_labels() {
        let gateway = read(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "wp", "namespace": "ns"},
            "spec": {"gatewayClassName": "istio-waypoint"}, "status": null,
        }));
        assert_eq!((gateway.waypoint_for, gateway.addresses.len(), gateway.listeners.len()), (None, 0, 0));
    }
}
