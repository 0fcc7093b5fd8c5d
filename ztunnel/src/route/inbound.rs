//! What an arriving tunnel or plaintext connection is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::NetworkAddr;
use mesh_core::addr::{canonical, canonical_ip};

use super::upstream;
use crate::state::{Found, GatewayAddress, Local, Service, Snapshot, Workload};

/// Where the application is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundTarget {
    /// The pod's own address as it was dialled, or loopback, and the application's port.
    pub addr: SocketAddr,
    /// The service named by the authority, when it names one.
    pub service: Option<Arc<Service>>,
    /// The application is told of the connection in a PROXY header, with this as its destination.
    pub announce: Option<SocketAddr>,
    /// Whether the application may see the client's address as its peer; not over loopback.
    pub keep_source: bool,
}

/// A CONNECT request that is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InboundRefusal {
    /// HTTP status: 400 for what can never be right here, 503 for what may be right at another time.
    pub status: u16,
    /// For the log.
    pub reason: String,
}

impl InboundRefusal {
    fn bad_request(reason: impl Into<String>) -> Self {
        Self { status: 400, reason: reason.into() }
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        Self { status: 503, reason: reason.into() }
    }
}

/// Decides where a tunnel with `authority` leads that arrived at `local_addr` of the workload.
///
/// # Errors
/// The status to answer and why.
pub fn inbound(
    snapshot: &Snapshot,
    local: &Workload,
    authority: &str,
    local_addr: SocketAddr,
) -> Result<InboundTarget, InboundRefusal> {
    let local_ip = canonical_ip(local_addr.ip());
    let host = parse(authority)?;
    let (port, service) = match &host {
        Host::Ip(addr) => {
            if !accepts(snapshot, local, addr.ip(), local_ip) {
                let reason = format!("authority {authority} is not for this workload, reached at {local_ip}");
                return Err(InboundRefusal::bad_request(reason));
            }
            (addr.port(), None)
        }
        Host::Name(name, port) => {
            let (port, service) = by_hostname(snapshot, local, name, *port)?;
            (port, Some(service))
        }
    };
    if snapshot.local.owns_port(port) {
        return Err(InboundRefusal::unavailable(format!("port {port} belongs to the mesh proxy")));
    }
    let Some(tunnel) = local.application_tunnel else {
        return Ok(InboundTarget { addr: SocketAddr::new(local_ip, port), service, announce: None, keep_source: true });
    };
    let port = tunnel.port.unwrap_or(port);
    if !tunnel.proxy_protocol {
        return Ok(InboundTarget { addr: SocketAddr::new(local_ip, port), service, announce: None, keep_source: true });
    }
    let announce = Some(announced(snapshot, &host, service.as_deref())?);
    let ip = if snapshot.local.localhost_app_tunnel { loopback_like(local_ip) } else { local_ip };
    let keep_source = !ip.is_loopback();
    Ok(InboundTarget { addr: SocketAddr::new(ip, port), service, announce, keep_source })
}

/// Whether anybody could serve a tunnel with `authority`; asked before anything is looked up for it.
///
/// # Errors
/// It does not name a host and a port.
pub fn check_authority(authority: &str) -> Result<(), InboundRefusal> {
    parse(authority).map(drop)
}

/// The destination that a PROXY header names: what the client asked for, as an address.
fn announced(snapshot: &Snapshot, host: &Host<'_>, service: Option<&Service>) -> Result<SocketAddr, InboundRefusal> {
    match host {
        Host::Ip(addr) => Ok(*addr),
        Host::Name(name, port) => {
            let own = &snapshot.local.network;
            let vips = service.into_iter().flat_map(|service| &service.vips);
            let best = vips.min_by_key(|vip| (vip.network != *own, !vip.ip.is_ipv4()));
            let none = || InboundRefusal::unavailable(format!("{name} has no address that a PROXY header could name"));
            Ok(SocketAddr::new(best.ok_or_else(none)?.ip, *port))
        }
    }
}

fn loopback_like(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Decides about a plaintext connection whose original destination is `dst`.
///
/// # Errors
/// It was meant for the proxy itself.
pub fn inbound_plaintext(local: &Local, dst: SocketAddr) -> Result<SocketAddr, InboundRefusal> {
    let dst = canonical(dst);
    if local.owns_port(dst.port()) {
        return Err(InboundRefusal::unavailable(format!("port {} belongs to the mesh proxy", dst.port())));
    }
    Ok(dst)
}

/// The service to report for a connection that reached `port` of the workload: the one that the
/// client says it addressed, if the workload belongs to it, else the first that leads to that port.
#[must_use]
pub fn destination_service(
    snapshot: &Snapshot,
    local: &Workload,
    port: u16,
    forwarded_host: Option<&str>,
) -> Option<Arc<Service>> {
    let services = || local.services.iter().filter_map(|(key, ports)| Some((snapshot.service_by_key(key)?, ports)));
    let named = forwarded_host.and_then(|host| services().find(|(service, _)| **service.hostname() == *host));
    let found = named.or_else(|| {
        services().find(|(service, own)| {
            own.iter().any(|(_, target)| target == port) || service.ports.iter().any(|(_, target)| target == port)
        })
    });
    found.map(|(service, _)| Arc::clone(service))
}

/// What an authority names.
enum Host<'a> {
    /// Canonical.
    Ip(SocketAddr),
    Name(&'a str, u16),
}

fn parse(authority: &str) -> Result<Host<'_>, InboundRefusal> {
    if let Ok(addr) = authority.parse::<SocketAddr>() {
        return Ok(Host::Ip(canonical(addr)));
    }
    let bad = || InboundRefusal::bad_request(format!("authority {authority:?} is not <host>:<port>"));
    let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
    if host.is_empty() || !host.chars().all(name_like) {
        return Err(bad());
    }
    Ok(Host::Name(host, port.parse().map_err(|_| bad())?))
}

/// Whether an address in an authority may be meant for this workload.
fn accepts(snapshot: &Snapshot, local: &Workload, ip: IpAddr, local_ip: IpAddr) -> bool {
    if ip == local_ip || local.application_tunnel.is_some() {
        return true;
    }
    let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), ip);
    let is_waypoint_for = |reference: &GatewayAddress| upstream::stands_for(snapshot, reference, local, local_ip);
    match snapshot.address(None, &addr) {
        Some(Found::Workload(workload)) => workload.waypoint.as_deref().is_some_and(is_waypoint_for),
        Some(Found::Service(service)) => {
            let weighted = service.weighted_waypoints.iter().map(|(waypoint, _)| waypoint);
            service.waypoint.as_deref().into_iter().chain(weighted).any(is_waypoint_for)
        }
        None => false,
    }
}

fn by_hostname(
    snapshot: &Snapshot,
    local: &Workload,
    name: &str,
    port: u16,
) -> Result<(u16, Arc<Service>), InboundRefusal> {
    let service = snapshot
        .service_by_hostname(Some(&local.namespace), name)
        .ok_or_else(|| InboundRefusal::unavailable(format!("host name {name} is not known to this proxy")))?;
    let own = local.ports_for(&service.key).and_then(|ports| ports.target(port));
    let target = own.filter(|target| *target != 0).or_else(|| service.ports.target(port).filter(|target| *target != 0));
    match target {
        Some(target) => Ok((target, Arc::clone(service))),
        None => Err(InboundRefusal::unavailable(format!("port {port} of {name} leads to no port of this workload"))),
    }
}
