//! Finding the workload behind an address, and resolving references to waypoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{Identity, NetworkAddr};

use super::path::{Dial, Families};
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

/// What the endpoints are wanted for. A gateway counts as ordinary traffic.
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
        let mut expected = self.service_identities();
        expected.push(self.workload.identity.clone());
        expected
    }

    /// Identities that the service names for its endpoints.
    pub(super) fn service_identities(&self) -> Vec<Identity> {
        self.service.as_ref().map_or_else(Vec::new, |service| service.identities.to_vec())
    }

    /// Where to connect for a connection to `wanted`.
    ///
    /// # Errors
    /// There is no address of a usable family.
    pub(super) fn dial(&self, wanted: IpAddr) -> Result<Dial, Refusal> {
        let workload = &self.workload;
        let at = |ip| Dial::Addr(SocketAddr::new(ip, self.port));
        if workload.owns(wanted) {
            return Ok(at(wanted));
        }
        let service = self.service.as_deref();
        if workload.ips.is_empty() && !workload.hostname.is_empty() {
            let families = Families::of(service, wanted);
            return Ok(Dial::Name { host: Arc::clone(&workload.hostname), port: self.port, families });
        }
        let fits = |ip: &&IpAddr| service.is_none_or(|service| service.ip_families.accepts(**ip));
        let mut usable = workload.ips.iter().filter(fits);
        let same_family = usable.clone().find(|ip| ip.is_ipv4() == wanted.is_ipv4());
        same_family.or_else(|| usable.next()).copied().map(at).ok_or_else(|| Refusal::NoAddress {
            workload: workload.uid.to_string(),
            reason: match workload.ips.is_empty() {
                true => "it has none",
                false => "none is of a family that the service allows",
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
    let allowed = match (declared, purpose) {
        (Some(0), Purpose::Traffic) => endpoint.ports.target(port).is_some(),
        (Some(_), _) => true,
        (None, _) => workload.application_tunnel.is_some(),
    };
    // One that leads to no port must not be drawn in place of one that does.
    reachable && allowed && target_port(endpoint, declared, port).is_some()
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

/// Resolves a reference to a waypoint or to the gateway of another network.
///
/// # Errors
/// What keeps it from being used; traffic must then not go on without it.
pub(super) fn referred(
    snapshot: &Snapshot,
    source: &Workload,
    reference: &GatewayAddress,
    purpose: Purpose,
    pick: &mut Pick<'_>,
) -> Result<Upstream, &'static str> {
    let port = reference.hbone_mtls_port;
    match &reference.destination {
        Destination::Hostname(name) => match snapshot.hostname(name) {
            Some(Found::Service(service)) => {
                by_service(snapshot, source, &service, port, purpose, pick).ok_or("it has no healthy endpoint")
            }
            Some(Found::Workload(workload)) => Ok(Upstream { workload, port, service: None }),
            None => Err("it is not known to this proxy"),
        },
        Destination::Address(addr) => by_address(snapshot, source, addr, port, purpose, pick)
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

/// Whether a reference to a waypoint stands for `local`: by its service, also while it is not healthy and still has
/// connections to finish, or by the address at which it was reached.
pub(super) fn stands_for(snapshot: &Snapshot, reference: &GatewayAddress, local: &Workload, local_ip: IpAddr) -> bool {
    match found(snapshot, reference) {
        Some(Found::Service(service)) => local.ports_for(&service.key).is_some(),
        Some(Found::Workload(workload)) => workload.owns(local_ip),
        None => false,
    }
}

/// What a reference names, whether it can be used or not.
pub(super) fn found(snapshot: &Snapshot, reference: &GatewayAddress) -> Option<Found> {
    match &reference.destination {
        Destination::Hostname(name) => snapshot.hostname(name),
        Destination::Address(addr) => snapshot.address(None, addr),
    }
}

/// Whether a reference stands for a workload that satisfies `is_it`: any endpoint of a service,
/// else the workload itself.
pub(super) fn members(snapshot: &Snapshot, reference: &GatewayAddress, is_it: &dyn Fn(&Workload) -> bool) -> bool {
    match found(snapshot, reference) {
        Some(Found::Workload(workload)) => is_it(&workload),
        Some(Found::Service(service)) => {
            let endpoints = snapshot.endpoints(&service);
            endpoints.is_some_and(|set| set.values().any(|endpoint| is_it(&endpoint.workload)))
        }
        None => false,
    }
}
