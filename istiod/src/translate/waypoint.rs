//! Which waypoint an object gets, and why not another.
//!
//! What the object's own label says hides what its namespace says, even where it then leads nowhere: an object never falls
//! back to a waypoint that it did not ask for.

mod canary;
mod implicit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use mesh_api::labels;
use mesh_api::status::{
    REASON_ATTACHMENT_DENIED, REASON_CROSS_NAMESPACE_WAYPOINT, REASON_UNSUPPORTED_TRAFFIC_TYPE,
    REASON_WAYPOINT_ACCEPTED, REASON_WAYPOINT_NOT_READY, WAYPOINT_BOUND,
};
use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::application_tunnel::Protocol;
use mesh_wire::workload::gateway_address::Destination;
use mesh_wire::workload::{
    ApplicationTunnel, GatewayAddress as WireAddress, NamespacedHostname, NetworkAddress, WeightedWaypoint,
};

use super::conditions::Condition;
use crate::world::binding::WaypointChoice;
use crate::world::gateway::{AllowedNamespaces, GatewayAddress, InboundBinding, ListenerProtocol, TrafficType};
use crate::world::{Binding, Gateway, Labels, Pod, Service, ServiceEntry, Visibility, WorkloadEntry, World};
pub(super) use canary::asked as canary_asked;
pub use implicit::{implicit_allow, implicit_key, implicit_references};

/// What waypoints depend on, of an object that may have one.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Namespace of the object.
    pub namespace: &'a Arc<str>,
    /// Its waypoint labels.
    pub binding: Option<&'a Binding>,
    /// Only its own namespace may see it.
    pub private: bool,
}

impl<'a> Subject<'a> {
    /// Of an object that everybody may see.
    pub fn new(namespace: &'a Arc<str>, binding: Option<&'a Binding>) -> Self {
        Self { namespace, binding, private: false }
    }

    /// Of a Service.
    pub fn of_service(service: &'a Service) -> Self {
        Self::new(&service.key.namespace, service.binding.as_deref())
    }

    /// Of a ServiceEntry.
    pub fn of_entry(world: &World, entry: &'a ServiceEntry) -> Self {
        let namespace = &entry.key.namespace;
        let private = world.entry_visibility(namespace) == Visibility::Namespace;
        Self { private, ..Self::new(namespace, entry.binding.as_deref()) }
    }

    /// Of a WorkloadEntry.
    pub fn of_workload_entry(entry: &'a WorkloadEntry) -> Self {
        Self::new(&entry.key.namespace, entry.binding.as_deref())
    }

    /// Of a pod, unless it belongs to a waypoint.
    pub fn of_pod(world: &World, pod: &'a Pod) -> Option<Self> {
        gateway_of(world, pod).is_none().then(|| Self::new(&pod.key.namespace, pod.binding.as_deref()))
    }
}

/// What an object gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bound {
    /// Its waypoint.
    pub waypoint: Option<WireAddress>,
    /// Its waypoints with their shares, where a canary takes part.
    pub weighted: Vec<WeightedWaypoint>,
    /// Ingress gateways send through the waypoint.
    pub ingress: bool,
    /// What its status says; nothing where no waypoint was asked for.
    pub condition: Option<Condition>,
}

/// The waypoint of a Service or ServiceEntry.
///
/// # Source
/// spec of the workload model, sections 8.4 to 8.7.
pub fn for_service(world: &World, subject: Subject<'_>) -> Bound {
    if subject.binding.is_some_and(|binding| binding.gateway) {
        return Bound::default();
    }
    let Asked::For { gateway: key, .. } = asked(world, subject) else { return Bound::default() };
    let gateway = match usable(world, &key, subject, Traffic::Service) {
        Ok(gateway) => gateway,
        Err(refusal) => return Bound { condition: Some(refusal.condition(&key)), ..Bound::default() },
    };
    let primary = address(gateway, world.network());
    let canary = canary::of(world, subject, &key);
    let weighted = match (&primary, &canary) {
        (Some(primary), Some(Ok(canary))) => canary.weighted(primary, world.network()),
        _ => Vec::new(),
    };
    let ingress = ingress(world, subject);
    let mut message = format!("bound to waypoint {key}");
    message.push_str(match ingress {
        Some(true) => "; ingress traffic goes through it",
        Some(false) => "; ingress traffic does not go through it (istio.io/ingress-use-waypoint is not true)",
        None => "",
    });
    if let Some(canary) = canary {
        message.push_str(&canary.map_or_else(|refused| refused, |canary| canary.text()));
    }
    let condition = Condition { type_: WAYPOINT_BOUND, holds: true, reason: REASON_WAYPOINT_ACCEPTED, message };
    Bound { waypoint: primary, weighted, ingress: ingress.unwrap_or_default(), condition: Some(condition) }
}

/// The waypoint of a WorkloadEntry or of an endpoint of a ServiceEntry.
pub fn for_workload(world: &World, subject: Subject<'_>) -> Bound {
    let Asked::For { gateway: key, own } = asked(world, subject) else { return Bound::default() };
    match usable(world, &key, subject, Traffic::Workload) {
        Ok(gateway) => {
            let message = format!("bound to waypoint {key}");
            let condition = Condition { type_: WAYPOINT_BOUND, holds: true, reason: REASON_WAYPOINT_ACCEPTED, message };
            Bound { waypoint: address(gateway, world.network()), condition: Some(condition), ..Bound::default() }
        }
        // A waypoint for the services of the namespace is not for its workloads, and nobody said so.
        Err(Refusal::Unsupported { .. }) if !own => Bound::default(),
        Err(refusal) => Bound { condition: Some(refusal.condition(&key)), ..Bound::default() },
    }
}

/// The waypoint of a pod; one that belongs to a waypoint has none.
pub fn for_pod(world: &World, pod: &Pod) -> Option<WireAddress> {
    for_workload(world, Subject::of_pod(world, pod)?).waypoint
}

/// How traffic is handed to a pod of a waypoint.
pub fn application_tunnel(world: &World, pod: &Pod) -> Option<ApplicationTunnel> {
    let port = inbound_port(world, gateway_of(world, pod)?)?;
    Some(ApplicationTunnel { protocol: Protocol::Proxy.into(), port: port.into() })
}

/// Whether a pod is one of a waypoint's.
pub(super) fn is_waypoint_pod(world: &World, pod: &Pod) -> bool {
    gateway_of(world, pod).is_some()
}

/// The waypoint that a pod belongs to.
fn gateway_of<'a>(world: &'a World, pod: &Pod) -> Option<&'a Arc<Gateway>> {
    let name = pod.labels.get(labels::GATEWAY_NAME)?;
    ready(world, &world.labelled_gateway(&pod.key.namespace, name))
}

/// A Gateway is a waypoint once it has an address.
pub(super) fn ready<'a>(world: &'a World, key: &NamespacedName) -> Option<&'a Arc<Gateway>> {
    let gateway = world.gateway(key).filter(|_| world.visible(&key.namespace))?;
    (!gateway.addresses.is_empty()).then_some(gateway)
}

/// What an object asks for.
pub(super) enum Asked {
    /// Nothing, or explicitly nothing.
    Nothing,
    /// A Gateway.
    For {
        /// Which.
        gateway: NamespacedName,
        /// The object's own label says so, not its namespace's.
        own: bool,
    },
}

pub(super) fn asked(world: &World, subject: Subject<'_>) -> Asked {
    let namespace = subject.namespace;
    let wide = || world.namespace(namespace)?.binding.as_deref()?.waypoint.as_ref();
    let own = subject.binding.and_then(|binding| binding.waypoint.as_ref());
    match own.or_else(wide) {
        Some(WaypointChoice::Named(gateway)) => Asked::For { gateway: gateway.key(namespace), own: own.is_some() },
        Some(WaypointChoice::OptOut) | None => Asked::Nothing,
    }
}

/// What has to go through a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// What addresses a service.
    Service,
    /// What addresses a workload.
    Workload,
}

/// Why a waypoint is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not exist, or has no address.
    NotReady,
    /// It does not take objects of this namespace.
    Denied {
        /// Namespace of the object.
        namespace: Arc<str>,
    },
    /// It takes other traffic.
    Unsupported {
        /// What is needed.
        traffic: Traffic,
        /// What it takes.
        takes: TrafficType,
    },
    /// What is private to a namespace stays in it.
    CrossNamespace {
        /// Namespace of the object.
        namespace: Arc<str>,
    },
}

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => REASON_WAYPOINT_NOT_READY,
            Self::Denied { .. } => REASON_ATTACHMENT_DENIED,
            Self::Unsupported { .. } => REASON_UNSUPPORTED_TRAFFIC_TYPE,
            Self::CrossNamespace { .. } => REASON_CROSS_NAMESPACE_WAYPOINT,
        }
    }

    /// What is wrong and what to do, after the name of the waypoint.
    fn text(&self) -> String {
        match self {
            Self::NotReady => "does not exist or has no address yet".to_owned(),
            Self::Denied { namespace } => format!(
                "takes nothing from namespace {namespace}; allowedRoutes.namespaces of its listener would have to allow it"
            ),
            Self::Unsupported { traffic, takes } => {
                let needed = match traffic {
                    Traffic::Service => "service",
                    Traffic::Workload => "workload",
                };
                format!(
                    "takes traffic of type {:?}, needed is {needed:?} or \"all\" ({})",
                    takes.name(),
                    labels::WAYPOINT_FOR
                )
            }
            Self::CrossNamespace { namespace } => {
                format!("is in another namespace, which a service that only namespace {namespace} can see may not use")
            }
        }
    }

    fn condition(&self, gateway: &NamespacedName) -> Condition {
        let message = format!("no waypoint is used: {gateway} {}", self.text());
        Condition { type_: WAYPOINT_BOUND, holds: false, reason: self.reason(), message }
    }
}

/// The waypoint of that name, if this object may use it.
pub(super) fn usable<'a>(
    world: &'a World,
    key: &NamespacedName,
    subject: Subject<'_>,
    traffic: Traffic,
) -> Result<&'a Arc<Gateway>, Refusal> {
    if subject.private && key.namespace != *subject.namespace {
        return Err(Refusal::CrossNamespace { namespace: subject.namespace.clone() });
    }
    fits(world, ready(world, key).ok_or(Refusal::NotReady)?, subject, traffic)
}

/// Gateways that are to take what addresses a service, the canary included, whether or not they have an address yet: they
/// know the service before anybody sends them something for it.
pub(super) fn serving(world: &World, subject: Subject<'_>) -> Vec<NamespacedName> {
    if subject.binding.is_some_and(|binding| binding.gateway) {
        return Vec::new();
    }
    let Asked::For { gateway: primary, .. } = asked(world, subject) else { return Vec::new() };
    let canary = canary::asked(world, subject).filter(|(key, _)| *key != primary).map(|(key, _)| key);
    let takes = |key: &NamespacedName| {
        let same = !subject.private || key.namespace == *subject.namespace;
        let gateway = world.gateway(key).filter(|_| same && world.visible(&key.namespace));
        gateway.is_some_and(|gateway| fits(world, gateway, subject, Traffic::Service).is_ok())
    };
    std::iter::once(primary).chain(canary).filter(takes).collect()
}

/// The gateway, if it takes this traffic of this object.
fn fits<'a>(
    world: &World,
    gateway: &'a Arc<Gateway>,
    subject: Subject<'_>,
    traffic: Traffic,
) -> Result<&'a Arc<Gateway>, Refusal> {
    if !admits(world, gateway, subject.namespace) {
        return Err(Refusal::Denied { namespace: subject.namespace.clone() });
    }
    let takes = traffic_type(world, gateway);
    let fits = match traffic {
        Traffic::Service => takes.takes_services(),
        Traffic::Workload => takes.takes_workloads(),
    };
    if fits { Ok(gateway) } else { Err(Refusal::Unsupported { traffic, takes }) }
}

/// What a waypoint takes: its own label, else its class's, else services.
pub(super) fn traffic_type(world: &World, gateway: &Gateway) -> TrafficType {
    let class = || world.gateway_class(&gateway.class)?.waypoint_for;
    gateway.waypoint_for.or_else(class).unwrap_or_default()
}

/// Port at which the pods of a waypoint take decrypted traffic: 0 is the port that was asked for, none is HBONE.
fn inbound_port(world: &World, gateway: &Gateway) -> Option<u16> {
    let class = || world.gateway_class(&gateway.class)?.inbound_binding;
    match gateway.inbound_binding.or_else(class)? {
        InboundBinding::Proxy(port) => Some(port),
        InboundBinding::None => None,
    }
}

/// Whether objects of a namespace may attach, by the listener that takes the mesh's traffic.
fn admits(world: &World, gateway: &Gateway, namespace: &str) -> bool {
    let binding = inbound_port(world, gateway);
    let listener = gateway.listeners.iter().find(|listener| match binding {
        Some(0) => listener.protocol == ListenerProtocol::Proxy,
        Some(port) => listener.port == port,
        None => listener.protocol == ListenerProtocol::Hbone && listener.port == HBONE_PORT,
    });
    match listener.map(|listener| &listener.allowed) {
        Some(AllowedNamespaces::All) => true,
        Some(AllowedNamespaces::Same) | None => *namespace == *gateway.key.namespace,
        Some(AllowedNamespaces::Selected(selector)) => {
            let none = Labels::default();
            selector.matches(world.namespace(namespace).map_or(&none, |one| &one.labels))
        }
        Some(AllowedNamespaces::Nobody) => false,
    }
}

/// How a waypoint is reached: by the first of its names, else by the first of its addresses.
fn address(gateway: &Gateway, network: &str) -> Option<WireAddress> {
    let hostname = gateway.addresses.iter().find_map(|address| match address {
        GatewayAddress::Hostname(hostname) => Some(Destination::Hostname(NamespacedHostname {
            namespace: gateway.key.namespace.to_string(),
            hostname: hostname.to_string(),
        })),
        GatewayAddress::Ip(_) => None,
    });
    let ip = || {
        gateway.addresses.iter().find_map(|address| match address {
            GatewayAddress::Ip(ip) => Some(Destination::Address(NetworkAddress {
                network: network.to_owned(),
                address: ip_to_bytes(*ip),
                length: None,
            })),
            GatewayAddress::Hostname(_) => None,
        })
    };
    let destination = hostname.or_else(ip)?;
    Some(WireAddress { destination: Some(destination), hbone_mtls_port: HBONE_PORT.into() })
}

/// The object's own word, else its namespace's.
fn ingress(world: &World, subject: Subject<'_>) -> Option<bool> {
    let wide = || world.namespace(subject.namespace)?.binding.as_deref()?.ingress;
    subject.binding.and_then(|binding| binding.ingress).or_else(wide)
}

/// Where waypoints take tunnels.
const HBONE_PORT: u16 = 15008;
