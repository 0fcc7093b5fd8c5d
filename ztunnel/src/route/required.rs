//! Did a connection to a guarded service come through the service's waypoint?
//!
//! A service is guarded when the controller says that one of its policies needs layer 7 (`waypointRequired`). The ports
//! at which a workload serves it then take connections from the service's waypoint only, those that address the workload
//! itself included: a caller that skipped the waypoint skipped the policy. Ports of the workload that belong to no
//! guarded service are exempt, and so is what never comes by here, such as probes of the kubelet.
//!
//! The caller must be one of the workloads behind the service's reference to its waypoint, by identity and by address:
//! others may share the identity. A waypoint on another network is seen through its gateway's address, so there its
//! identity alone decides. It counts for as long as its record names the waypoint's service, whether it is healthy or
//! not, so that one that is about to leave can finish.
//!
//! Of several weighted references each will do, one with weight 0 too: it enforces the same policies while its last
//! connections end. Of several guarded services at one port each must be satisfied, because nothing at this point tells
//! which of them was meant. Services that share a port of a workload must therefore share a waypoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName, NetworkAddr};

use super::upstream::found;
use crate::state::{Found, GatewayAddress, Ports, Service, Snapshot, Workload};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Proven by TLS; `None` for plaintext.
    pub identity: Option<&'a Identity>,
    /// Source address of the connection.
    pub ip: IpAddr,
}

/// A connection that skipped a waypoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "service {service} takes connections to port {port} only from its waypoint, since a policy of it needs layer 7: {missing}"
)]
pub struct Bypass {
    /// The guarded service.
    pub service: NamespacedName,
    /// Port of the workload.
    pub port: u16,
    /// What is missing, and what to do.
    pub missing: Missing,
}

/// Why a caller is not the waypoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The service has no waypoint at all.
    #[error("it has none; give it one (label istio.io/use-waypoint), or take back the policy")]
    Waypoint,
    /// It names one that this proxy does not know.
    #[error("its waypoint {waypoint} is not known to this proxy; see whether that gateway exists and is ready")]
    Known {
        /// The references.
        waypoint: String,
    },
    /// Somebody else calls.
    #[error("{caller} is not its waypoint {waypoint}; call the service, by its name or address, from an enrolled pod")]
    Match {
        /// The caller.
        caller: String,
        /// The references.
        waypoint: String,
    },
}

/// Whether `caller` may connect to `port` of the workload as far as waypoints are concerned. Policies come on top.
///
/// # Errors
/// [`Bypass`], for the first guarded service that the caller is not the waypoint of.
pub fn required(snapshot: &Snapshot, local: &Workload, port: u16, caller: Caller<'_>) -> Result<(), Bypass> {
    for (service, own) in guarded(snapshot, local) {
        if leads_to(service, own, local, port) {
            through_waypoint(snapshot, service, caller).map_err(|missing| Bypass {
                service: service.key.clone(),
                port,
                missing,
            })?;
        }
    }
    Ok(())
}

/// Whether any port of the workload is guarded.
#[must_use]
pub fn is_guarded(snapshot: &Snapshot, local: &Workload) -> bool {
    guarded(snapshot, local).next().is_some()
}

fn guarded<'a>(snapshot: &'a Snapshot, local: &'a Workload) -> impl Iterator<Item = (&'a Arc<Service>, &'a Ports)> {
    let known = local.services.iter().filter_map(|(key, own)| Some((snapshot.service_by_key(key)?, own)));
    known.filter(|(service, _)| service.waypoint_required)
}

/// Whether any port of the service is served at `port`, by the same rule that chooses the port of an endpoint.
fn leads_to(service: &Service, own: &Ports, local: &Workload, port: u16) -> bool {
    let declared = service.ports.iter();
    let all = declared.chain(own.iter().filter(|(public, _)| service.ports.target(*public).is_none()));
    match local.application_tunnel {
        // Whatever was asked for arrives at the tunnel's port.
        Some(tunnel) if tunnel.port == Some(port) => all.count() > 0,
        tunnel => all.into_iter().any(|(public, declared)| {
            let own = own.target(public).filter(|target| *target != 0);
            let fallback = || if tunnel.is_some() { Some(public) } else { None };
            own.or(Some(declared).filter(|target| *target != 0)).or_else(fallback) == Some(port)
        }),
    }
}

fn through_waypoint(snapshot: &Snapshot, service: &Service, caller: Caller<'_>) -> Result<(), Missing> {
    let references = references(service);
    if references.is_empty() {
        return Err(Missing::Waypoint);
    }
    let names = || references.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    let waypoints: Vec<Found> = references.iter().filter_map(|reference| found(snapshot, reference)).collect();
    if waypoints.is_empty() {
        return Err(Missing::Known { waypoint: names() });
    }
    let is_it =
        |identity: &Identity| waypoints.iter().any(|waypoint| is_one_of(snapshot, waypoint, identity, caller.ip));
    if caller.identity.is_some_and(is_it) {
        return Ok(());
    }
    let caller = match caller.identity {
        Some(identity) => format!("{identity} at {}", caller.ip),
        None => format!("plaintext from {}", caller.ip),
    };
    Err(Missing::Match { caller, waypoint: names() })
}

/// The references in use: the weighted ones, else the single one.
fn references(service: &Service) -> Vec<&GatewayAddress> {
    if service.weighted_waypoints.iter().any(|(_, weight)| *weight > 0) {
        return service.weighted_waypoints.iter().map(|(reference, _)| reference).collect();
    }
    service.waypoint.as_deref().into_iter().collect()
}

fn is_one_of(snapshot: &Snapshot, waypoint: &Found, identity: &Identity, ip: IpAddr) -> bool {
    let network = &snapshot.local.network;
    let elsewhere = |workload: &Workload| workload.identity == *identity && workload.network != *network;
    match waypoint {
        Found::Workload(workload) => {
            (workload.identity == *identity && workload.owns(ip) && workload.network == *network) || elsewhere(workload)
        }
        Found::Service(service) => {
            let here = snapshot.workloads_by_ip(&NetworkAddr::new(Arc::clone(network), ip));
            let backs = |workload: &Workload| workload.ports_for(&service.key).is_some();
            here.iter().any(|workload| workload.identity == *identity && backs(workload))
                || snapshot.endpoints(service).is_some_and(|set| set.values().any(|one| elsewhere(&one.workload)))
        }
    }
}

/// What [`required`] would look up and does not find, as names of resources: for proxies that ask for resources one by
/// one.
#[must_use]
pub fn unknown(snapshot: &Snapshot, local: &Workload, peer: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (key, _) in &local.services {
        if snapshot.service_by_key(key).is_none() {
            names.push(key.to_string());
        }
    }
    for (service, _) in guarded(snapshot, local) {
        let missing = references(service).into_iter().filter(|reference| found(snapshot, reference).is_none());
        names.extend(missing.map(|reference| reference.destination.to_string()));
    }
    let caller = NetworkAddr::new(Arc::clone(&snapshot.local.network), peer.ip());
    if is_guarded(snapshot, local) && snapshot.workloads_by_ip(&caller).is_empty() {
        names.push(caller.to_string());
    }
    names
}

#[cfg(test)]
mod tests;
