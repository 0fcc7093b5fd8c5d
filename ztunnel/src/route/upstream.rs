//! Finding the workload behind an address, and resolving references to waypoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{Identity, NetworkAddr};

use super::{Pick, Refusal, balance};
use crate::state::{Destination, Endpoint, Found, GatewayAddress, Mode, Service, Snapshot, Workload};

/// A chosen workload and the port at which it serves.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) workload: Arc<Workload>,
    pub(super) port: u16,
    /// The service through which it was found.
    pub(super) service: Option<Arc<Service>>,
}

/// What the endpoints are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Ordinary traffic.
    Traffic,
    /// A waypoint: its service need not declare the port when the endpoint has an application tunnel.
    Waypoint,
}

impl Upstream {
    /// Identities that the server may prove: the service's extra ones, then the workload's own.
    pub(super) fn expected(&self) -> Vec<Identity> {
        let extra = self.service.iter().flat_map(|service| service.identities.iter().cloned());
        extra.chain([self.workload.identity.clone()]).collect()
    }

    /// The address to dial for a connection to `wanted`.
    ///
    /// # Errors
    /// There is none of a usable family.
    pub(super) fn ip(&self, wanted: IpAddr) -> Result<IpAddr, Refusal> {
        let workload = &self.workload;
        if workload.owns(wanted) {
            return Ok(wanted);
        }
        let fits = |ip: &&IpAddr| self.service.as_ref().is_none_or(|service| service.ip_families.accepts(**ip));
        let mut usable = workload.ips.iter().filter(fits);
        let same_family = usable.clone().find(|ip| ip.is_ipv4() == wanted.is_ipv4());
        same_family.or_else(|| usable.next()).copied().ok_or_else(|| Refusal::NoAddress {
            workload: workload.uid.to_string(),
            reason: match (workload.ips.is_empty(), workload.hostname.is_empty()) {
                (true, false) => "it is known by host name only, which this version does not resolve",
                (true, true) => "it has none",
                (false, _) => "none is of a family that the service allows",
            },
        })
    }
}

/// What serves an address: a visible service first, then a workload.
pub(super) fn by_address(
    snapshot: &Snapshot,
    source: &Workload,
    addr: &NetworkAddr,
    port: u16,
    purpose: Purpose,
    pick: &mut Pick<'_>,
) -> Option<Upstream> {
    if let Some(service) = snapshot.service_by_vip(Some(&source.namespace), addr)
        && let Some(upstream) = by_service(snapshot, source, service, port, purpose, pick)
    {
        return Some(upstream);
    }
    // Also when the address belongs to a service without endpoints: a known workload is never
    // taken for an unknown address, which would be reached in the clear.
    let workload = Arc::clone(snapshot.workload_by_ip(addr)?);
    Some(Upstream { workload, port, service: None })
}

/// One endpoint of a service for a service port.
pub(super) fn by_service(
    snapshot: &Snapshot,
    source: &Workload,
    service: &Arc<Service>,
    port: u16,
    purpose: Purpose,
    pick: &mut Pick<'_>,
) -> Option<Upstream> {
    if service.mode() == Mode::Passthrough {
        return None;
    }
    let declared = service.ports.target(port);
    if declared.is_none() && purpose == Purpose::Traffic {
        return None;
    }
    let endpoints = snapshot.endpoints(service)?;
    let candidates = endpoints.values().filter(|endpoint| usable(endpoint, source, declared, port, purpose)).collect();
    let chosen = balance::choose(service, source, candidates, pick)?;
    let target = target_port(chosen, declared, port)?;
    Some(Upstream { workload: Arc::clone(&chosen.workload), port: target, service: Some(Arc::clone(service)) })
}

fn usable(endpoint: &Endpoint, source: &Workload, declared: Option<u16>, port: u16, purpose: Purpose) -> bool {
    let workload = &endpoint.workload;
    let reachable = !workload.ips.is_empty()
        || !workload.hostname.is_empty()
        || (workload.network != source.network && workload.network_gateway.is_some());
    let has_port = match (declared, purpose) {
        (Some(0), Purpose::Traffic) => endpoint.ports.target(port).is_some(),
        (Some(_), _) => true,
        (None, _) => workload.application_tunnel.is_some(),
    };
    reachable && has_port
}

/// The endpoint's own port, else the service's, else the service port itself for a tunnel that has
/// a port of its own.
fn target_port(endpoint: &Endpoint, declared: Option<u16>, port: u16) -> Option<u16> {
    let own = endpoint.ports.target(port).filter(|target| *target != 0);
    let tunnel = endpoint.workload.application_tunnel.and_then(|tunnel| tunnel.port);
    own.or_else(|| declared.filter(|target| *target != 0)).or_else(|| tunnel.map(|_| port))
}

/// The waypoint of a service: one of the weighted ones, else the single one.
pub(super) fn service_waypoint<'a>(service: &'a Service, pick: &mut Pick<'_>) -> Option<&'a GatewayAddress> {
    let total: u64 = service.weighted_waypoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return service.waypoint.as_deref();
    }
    let mut at = pick(total);
    let mut weighted = service.weighted_waypoints.iter();
    let chosen = weighted.find(|(_, weight)| {
        let weight = u64::from(*weight);
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    });
    chosen.map(|(waypoint, _)| waypoint)
}

/// Resolves a reference to a waypoint, for a connection to `dst`.
///
/// # Errors
/// What keeps it from being used; traffic must then not go on without it.
pub(super) fn waypoint(
    snapshot: &Snapshot,
    source: &Workload,
    reference: &GatewayAddress,
    pick: &mut Pick<'_>,
) -> Result<Upstream, &'static str> {
    let port = reference.hbone_mtls_port;
    match &reference.destination {
        Destination::Hostname(name) => match snapshot.hostname(name) {
            Some(Found::Service(service)) => by_service(snapshot, source, &service, port, Purpose::Waypoint, pick)
                .ok_or("it has no healthy endpoint"),
            Some(Found::Workload(workload)) => Ok(Upstream { workload, port, service: None }),
            None => Err("it is not known to this proxy"),
        },
        Destination::Address(addr) => by_address(snapshot, source, addr, port, Purpose::Waypoint, pick)
            .ok_or("nothing with a usable endpoint is known at that address"),
    }
}

/// Family preference when dialling what a reference led to: an address decides itself.
pub(super) fn wanted_ip(reference: &GatewayAddress, dst: SocketAddr) -> IpAddr {
    match &reference.destination {
        Destination::Hostname(_) => dst.ip(),
        Destination::Address(addr) => addr.ip,
    }
}

/// Whether the caller is one of the workloads that a reference stands for: by identity and by
/// address, since several workloads may share an identity.
pub(super) fn is_caller(snapshot: &Snapshot, reference: &GatewayAddress, caller: &Identity, ip: IpAddr) -> bool {
    let is_it = |workload: &Workload| workload.identity == *caller && workload.owns(ip);
    members(snapshot, reference, &is_it)
}

/// Whether a reference stands for a workload that satisfies `is_it`: any endpoint of a service,
/// else the workload itself.
pub(super) fn members(snapshot: &Snapshot, reference: &GatewayAddress, is_it: &dyn Fn(&Workload) -> bool) -> bool {
    let found = match &reference.destination {
        Destination::Hostname(name) => snapshot.hostname(name),
        Destination::Address(addr) => snapshot.address(None, addr),
    };
    match found {
        Some(Found::Workload(workload)) => is_it(&workload),
        Some(Found::Service(service)) => {
            let endpoints = snapshot.endpoints(&service);
            endpoints.is_some_and(|set| set.values().any(|endpoint| is_it(&endpoint.workload)))
        }
        None => false,
    }
}
