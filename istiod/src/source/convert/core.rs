//! Services, endpoint slices, namespaces and nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Converted, Unreadable, annotation, fields, labels, list};
use crate::world::{
    Binding, Distribution, Families, Locality, Namespace, Node, Object, Protocol, Service, ServicePort, Slice,
    TargetPort,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceFields {
    spec: ServiceSpec,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<Balancer>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Balancer {
    #[serde(deserialize_with = "list")]
    ingress: Vec<Ingress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
    hostname: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    type_: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "list")]
    cluster_ips: Vec<String>,
    #[serde(deserialize_with = "list")]
    ip_families: Vec<String>,
    #[serde(deserialize_with = "list")]
    ports: Vec<PortFields>,
    selector: Option<BTreeMap<String, String>>,
    internal_traffic_policy: Option<String>,
    traffic_distribution: Option<String>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PortFields {
    name: Option<String>,
    port: u16,
    protocol: Option<String>,
    target_port: Option<IntOrName>,
    app_protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrName {
    Number(u16),
    Name(String),
}

/// ExternalName services are of no interest: they are names, not destinations.
pub(super) fn service(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let ServiceFields { spec, status } = fields(&mut object)?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let annotation = annotation(&object, names::TRAFFIC_DISTRIBUTION);
    let selector: Option<crate::world::Labels> = spec.selector.as_ref().map(|one| one.iter().map(owned).collect());
    Ok(Some(Object::Service(Service {
        key: key.clone(),
        cluster_ips: cluster_ips(&spec)?,
        families: families(&spec),
        ports: spec.ports.iter().map(port).collect(),
        selector: selector.filter(|labels| !labels.is_empty()),
        node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        distribution: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Some(Distribution::SameZone),
            Some("PreferSameNode") => Some(Distribution::SameNode),
            _ => None,
        },
        distribution_annotation: annotation.map(distribution),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
        external: external(status),
        labels: labels(&object),
        binding: Binding::read(object.metadata.labels.as_ref(), object.metadata.annotations.as_ref()),
    })))
}

/// What a load balancer is reached by.
fn external(status: Option<ServiceStatus>) -> Box<[Arc<str>]> {
    let ingress = status.and_then(|status| status.load_balancer).unwrap_or_default().ingress;
    let told = ingress.into_iter().flat_map(|one| [one.ip, one.hostname]).flatten();
    told.filter(|text| !text.is_empty()).map(Into::into).collect()
}

fn owned((key, value): (&String, &String)) -> (Arc<str>, Arc<str>) {
    (key.as_str().into(), value.as_str().into())
}

fn cluster_ips(spec: &ServiceSpec) -> Result<Box<[IpAddr]>, Unreadable> {
    let texts = match spec.cluster_ips.is_empty() {
        true => spec.cluster_ip.as_slice(),
        false => spec.cluster_ips.as_slice(),
    };
    let real = texts.iter().filter(|text| !matches!(text.as_str(), "" | "None"));
    let parse = |text: &String| text.parse().map_err(|_| Unreadable(format!("clusterIPs {text:?}: not an address")));
    real.map(parse).collect()
}

fn families(spec: &ServiceSpec) -> Families {
    match spec.ip_families.as_slice() {
        [] => Families::Automatic,
        [one] if one == "IPv6" => Families::V6,
        [_] => Families::V4,
        _ => Families::Dual,
    }
}

fn port(port: &PortFields) -> ServicePort {
    let name = port.name.as_deref().unwrap_or_default();
    let target = match &port.target_port {
        None | Some(IntOrName::Number(0)) => TargetPort::Number(port.port),
        Some(IntOrName::Number(number)) => TargetPort::Number(*number),
        Some(IntOrName::Name(name)) => TargetPort::Name(name.as_str().into()),
    };
    ServicePort { name: name.into(), port: port.port, target, protocol: protocol(port, name) }
}

/// `appProtocol`, else the part of the port's name before a dash, else what is usual for the number.
fn protocol(port: &PortFields, name: &str) -> Protocol {
    if !matches!(port.protocol.as_deref(), None | Some("" | "TCP")) {
        return Protocol::Udp;
    }
    let name = port.app_protocol.as_deref().unwrap_or(name).to_ascii_lowercase();
    match name.as_str() {
        "kubernetes.io/h2c" => return Protocol::Http2,
        "kubernetes.io/ws" => return Protocol::Http,
        "kubernetes.io/wss" => return Protocol::Wss,
        // The one name with a dash in it; it is HTTP/1.1 or HTTP/2, nobody knows which.
        name if name.starts_with("grpc-web") => return Protocol::GrpcWeb,
        _ => {}
    }
    let prefix = name.split('-').next().unwrap_or_default();
    match plain_protocol(prefix) {
        Protocol::Unknown if SERVER_FIRST.contains(&port.port) => Protocol::Tcp,
        protocol => protocol,
    }
}

/// A protocol by its name, in any case.
pub(super) fn plain_protocol(name: &str) -> Protocol {
    match name.to_ascii_lowercase().as_str() {
        "http" | "http_proxy" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "grpc-web" => Protocol::GrpcWeb,
        "tcp" => Protocol::Tcp,
        "tls" | "https" => Protocol::Tls,
        "mongo" | "redis" | "mysql" => Protocol::Stream,
        "udp" => Protocol::Udp,
        _ => Protocol::Unknown,
    }
}

/// An unknown value means "any", as the reference has it.
pub(super) fn distribution(text: &str) -> Distribution {
    match text.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => Distribution::SameZone,
        "prefersamenode" => Distribution::SameNode,
        _ => Distribution::Any,
    }
}

/// Ports whose protocols wait for the server to speak first: SMTP, DNS, MySQL, MongoDB.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SliceFields {
    address_type: String,
    #[serde(deserialize_with = "list")]
    endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "list")]
    ports: Vec<SlicePort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    #[serde(deserialize_with = "list")]
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    target_ref: Option<TargetRef>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TargetRef {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// Slices of names, and slices that belong to no service, are of no interest.
pub(super) fn slice(key: &NamespacedName, mut object: DynamicObject) -> Converted {
    let fields: SliceFields = fields(&mut object)?;
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(names::SERVICE_NAME));
    let Some(service) = service.filter(|_| fields.address_type != "FQDN") else { return Ok(None) };
    let mut pods = BTreeSet::new();
    let mut addresses = BTreeMap::new();
    for endpoint in &fields.endpoints {
        match endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod")) {
            Some(target) => {
                let namespace = target.namespace.as_deref().filter(|one| !one.is_empty()).unwrap_or(&key.namespace);
                let name = NamespacedName::new(namespace, target.name.as_deref().unwrap_or_default());
                pods.insert((name, Arc::from(target.uid.as_deref().unwrap_or_default())));
            }
            None => {
                let ready = endpoint.conditions.as_ref().and_then(|one| one.ready).unwrap_or(true);
                for ip in endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
                    addresses.entry(ip).or_insert(ready);
                }
            }
        }
    }
    let tcp = fields.ports.iter().filter(|port| matches!(port.protocol.as_deref(), None | Some("" | "TCP")));
    let ports = tcp.filter_map(|port| Some((port.name.as_deref().unwrap_or_default().into(), port.port?)));
    Ok(Some(Object::Slice(Slice {
        key: key.clone(),
        service: NamespacedName::new(key.namespace.clone(), service.as_str()),
        ports: ports.collect(),
        pods: pods.into_iter().collect(),
        addresses: addresses.into_iter().collect(),
    })))
}

pub(super) fn namespace(key: &NamespacedName, object: &DynamicObject) -> Option<Object> {
    Some(Object::Namespace(Namespace {
        name: key.name.clone(),
        labels: labels(object),
        distribution: annotation(object, names::TRAFFIC_DISTRIBUTION).map(distribution),
        binding: Binding::read(object.metadata.labels.as_ref(), object.metadata.annotations.as_ref()),
    }))
}

pub(super) fn node(key: &NamespacedName, object: &DynamicObject) -> Option<Object> {
    let label = |name: &str| {
        let value = object.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        Arc::from(value.map_or("", String::as_str))
    };
    let locality = Locality { region: label(names::REGION), zone: label(names::ZONE), subzone: label(names::SUBZONE) };
    Some(Object::Node(Node { name: key.name.clone(), locality }))
}
