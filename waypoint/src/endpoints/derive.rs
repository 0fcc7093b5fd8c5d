//! The endpoints of a service port, from services and workloads. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName, NetworkAddr};

use super::decode::{Gateway, GatewayDestination, HBONE_PORT, Service, Workload};
use super::{Endpoint, EndpointSet, ServiceKey, Transport};

/// What is known, as far as endpoints depend on it.
pub(super) trait Known {
    /// A service by name.
    fn service(&self, name: &NamespacedName) -> Option<&Service>;
    /// A service by address.
    fn service_at(&self, address: &NetworkAddr) -> Option<&Service>;
    /// Workloads that back a service, by uid.
    fn members(&self, name: &NamespacedName) -> impl Iterator<Item = &Arc<Workload>>;
    /// A workload by its DNS name.
    fn workload_named(&self, name: &NamespacedName) -> Option<&Arc<Workload>>;
    /// A workload by address.
    fn workload_at(&self, address: &NetworkAddr) -> Option<&Arc<Workload>>;
    /// Everyone who has an address, or says so.
    fn holders(&self, address: &NetworkAddr) -> &[Arc<Workload>];
    /// The network that we are on.
    fn network(&self) -> &str;
}

/// Endpoints of a view. The version is not set.
pub(super) fn endpoints(known: &impl Known, key: &ServiceKey) -> EndpointSet {
    let name = NamespacedName::new(key.namespace.clone(), key.hostname.clone());
    let Some(service) = known.service(&name) else { return EndpointSet::default() };
    let own = || members(known, service, key.port);
    let list = if key.via_waypoint && !service.waypoints.is_empty() {
        // Without a virtual address there is nothing to ask a waypoint for.
        virtual_address(known, service)
            .map_or_else(own, |address| through_waypoints(known, service, SocketAddr::new(address, key.port)))
    } else {
        own()
    };
    EndpointSet { version: 0, exists: true, list: list.into(), preference: service.preference.clone() }
}

/// Names that must be followed for a service to be reachable: gateways of its endpoints, and its waypoints.
pub(super) fn needs(known: &impl Known, name: &NamespacedName, via_waypoint: bool) -> Vec<Arc<str>> {
    let mut needs = Vec::new();
    let Some(service) = known.service(name) else { return needs };
    if via_waypoint {
        needs.extend(service.waypoints.iter().map(|(gateway, _)| gateway.resource_name()));
    }
    for workload in known.members(name).filter(|one| *one.network != *known.network()) {
        needs.extend(workload.network_gateway.as_ref().map(Gateway::resource_name));
    }
    // Whether a policy guards what pods of other namespaces serve there.
    for workload in known.members(name).filter(|one| one.end.namespace != name.namespace) {
        let own = workload.own_services();
        needs.extend(own.map(|(service, _)| Arc::from(format!("{}/{}", service.namespace, service.name))));
    }
    needs
}

/// Whether others say that they have an address of an endpoint.
pub(super) fn is_shared(known: &impl Known, name: &NamespacedName) -> bool {
    known.members(name).any(|workload| {
        let mut addresses = workload.addresses.iter();
        addresses.any(|ip| known.holders(&NetworkAddr::new(workload.network.clone(), *ip)).len() > 1)
    })
}

/// Whether an endpoint is really a pod of another namespace, at a port of a service there that a policy guards: whoever may
/// write a service can say that anything is an endpoint of it, and the pod's node proxy could not tell what was called.
fn is_anothers(known: &impl Known, service: &Service, workload: &Workload, ip: IpAddr, target: u16) -> bool {
    let holders = known.holders(&NetworkAddr::new(workload.network.clone(), ip));
    let Some(pod) = holders.iter().find(|one| one.is_pod()) else { return false };
    pod.end.namespace != service.key.namespace
        && pod.own_services().any(|(name, own)| match known.service(name) {
            Some(guarded) => guarded.guarded && guarded.ports.lead_to(own, target),
            // It is being asked for, if it is this endpoint's own.
            None => pod.uid == workload.uid,
        })
}

impl Gateway {
    /// What the control plane is asked for.
    fn resource_name(&self) -> Arc<str> {
        match &self.destination {
            GatewayDestination::Name(name) => format!("{}/{}", name.namespace, name.name).into(),
            GatewayDestination::Address(address) => format!("{}/{}", address.network, address.ip).into(),
        }
    }
}

fn members(known: &impl Known, service: &Service, port: u16) -> Vec<Endpoint> {
    let Some(declared) = service.ports.target(port) else { return Vec::new() };
    let endpoint = |workload: &Arc<Workload>| {
        let own = workload.ports_for(&service.key).and_then(|ports| ports.target(port)).filter(|port| *port > 0);
        let target = own.or(Some(declared).filter(|port| *port > 0))?;
        one(known, service, workload, port, target)
    };
    known.members(&service.key).filter_map(endpoint).collect()
}

fn one(known: &impl Known, service: &Service, workload: &Arc<Workload>, port: u16, target: u16) -> Option<Endpoint> {
    if *workload.network != *known.network() {
        return across(known, service, workload, port, target);
    }
    let identities = expected(service, workload);
    match workload.addresses.first() {
        Some(ip) if is_anothers(known, service, workload, *ip, target) => None,
        Some(ip) => {
            let address = SocketAddr::new(*ip, target);
            let proxy = SocketAddr::new(*ip, HBONE_PORT);
            let transport =
                if workload.tunnel { Transport::Hbone { proxy, expected: identities } } else { Transport::Plain };
            Some(endpoint(workload, address, transport))
        }
        None if !workload.hostname.is_empty() => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), target);
            let mut endpoint = endpoint(workload, address, Transport::Plain);
            endpoint.hostname = Some(workload.hostname.clone());
            Some(endpoint)
        }
        None => None,
    }
}

/// A workload of another network, which only its gateway can reach.
fn across(known: &impl Known, service: &Service, workload: &Arc<Workload>, port: u16, target: u16) -> Option<Endpoint> {
    let reference = workload.network_gateway.as_ref()?;
    let (gateway, gateway_expected) = resolve(known, reference).into_iter().next()?;
    let transport = Transport::Nested {
        gateway,
        gateway_expected,
        authority: format!("{}:{port}", service.key.name).into(),
        // Which workload answers is not ours to choose.
        expected: service.identities.iter().cloned().collect(),
    };
    let ip = workload.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(endpoint(workload, SocketAddr::new(ip, target), transport))
}

fn through_waypoints(known: &impl Known, service: &Service, address: SocketAddr) -> Vec<Endpoint> {
    let mut list = Vec::new();
    for (gateway, weight) in &service.waypoints {
        for (workload, proxy, expected) in gateways(known, gateway) {
            let mut endpoint = endpoint(&workload, address, Transport::Hbone { proxy, expected });
            endpoint.weight = endpoint.weight.saturating_mul(*weight);
            list.push(endpoint);
        }
    }
    list
}

/// Where a gateway is, and who it must be.
fn resolve(known: &impl Known, gateway: &Gateway) -> Vec<(SocketAddr, Arc<[Identity]>)> {
    gateways(known, gateway).into_iter().map(|(_, address, expected)| (address, expected)).collect()
}

/// The workloads that a reference stands for; none when it cannot be resolved, which closes the way.
fn gateways(known: &impl Known, gateway: &Gateway) -> Vec<(Arc<Workload>, SocketAddr, Arc<[Identity]>)> {
    let (service, workload) = match &gateway.destination {
        GatewayDestination::Name(name) => (known.service(name), known.workload_named(name)),
        GatewayDestination::Address(address) => (known.service_at(address), known.workload_at(address)),
    };
    let at = |workload: &Arc<Workload>, port: u16, expected| {
        let ip = match &gateway.destination {
            GatewayDestination::Address(address) if service.is_none() => address.ip,
            _ => *workload.addresses.first()?,
        };
        Some((workload.clone(), SocketAddr::new(ip, port), expected))
    };
    match (service, workload) {
        (Some(service), _) => {
            let healthy = known.members(&service.key).filter(|one| one.healthy);
            let port = |workload: &Workload| {
                let own = workload.ports_for(&service.key).and_then(|ports| ports.target(gateway.port));
                own.or_else(|| service.ports.target(gateway.port)).filter(|port| *port > 0).unwrap_or(gateway.port)
            };
            healthy.filter_map(|one| at(one, port(one), expected(service, one))).collect()
        }
        (None, Some(workload)) => at(workload, gateway.port, [workload.identity.clone()].into()).into_iter().collect(),
        (None, None) => Vec::new(),
    }
}

/// What an endpoint may prove: names of the service, then its own.
fn expected(service: &Service, workload: &Workload) -> Arc<[Identity]> {
    service.identities.iter().chain([&workload.identity]).cloned().collect()
}

fn virtual_address(known: &impl Known, service: &Service) -> Option<IpAddr> {
    let near = service.addresses.iter().find(|address| *address.network == *known.network());
    near.or(service.addresses.first()).map(|address| address.ip)
}

/// The endpoint that a workload is at an address.
pub(super) fn endpoint(workload: &Arc<Workload>, address: SocketAddr, transport: Transport) -> Endpoint {
    let in_mesh = !matches!(transport, Transport::Plain);
    Endpoint {
        id: workload.uid.clone(),
        address,
        hostname: None,
        transport,
        weight: workload.weight,
        healthy: workload.healthy,
        locality: workload.locality.clone(),
        network: workload.network.clone(),
        cluster: workload.cluster.clone(),
        node: workload.node.clone(),
        labels: workload.labels.clone(),
        identity: in_mesh.then(|| workload.identity.clone()),
        end: workload.end.clone(),
    }
}

/// A workload that is called by its address, on any port.
pub(super) fn direct(workload: &Arc<Workload>, address: SocketAddr) -> Endpoint {
    let transport = if workload.tunnel {
        let expected = [workload.identity.clone()].into();
        Transport::Hbone { proxy: SocketAddr::new(address.ip(), HBONE_PORT), expected }
    } else {
        Transport::Plain
    };
    endpoint(workload, address, transport)
}
