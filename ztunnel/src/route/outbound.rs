//! The decision for a connection that an enrolled pod opens.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::addr::canonical;
use mesh_core::{Identity, NetworkAddr};

use super::upstream::{self, Purpose, Upstream};
use super::{PROXY_PORTS, Pick, Refusal};
use crate::state::{Found, GatewayAddress, HBONE_PORT, Mode, Protocol, Service, Snapshot, Workload};

/// Who opens the connection.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The workload that the network namespace belongs to.
    pub workload: &'a Workload,
    /// Peer of the accepted socket.
    pub addr: SocketAddr,
}

/// How to reach the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Through a tunnel.
    Hbone {
        /// Where to open the TLS connection.
        dial: SocketAddr,
        /// `:authority` of the CONNECT request.
        authority: String,
        /// The server must prove one of these.
        expected: Vec<Identity>,
    },
    /// As it is, to a workload of the mesh that is not enrolled.
    Plain {
        /// Where to connect.
        dial: SocketAddr,
    },
    /// As it is, to an address that the mesh does not know.
    Passthrough {
        /// Where to connect: the original destination.
        dial: SocketAddr,
    },
}

impl Path {
    /// The address that is dialled.
    #[must_use]
    pub fn dial(&self) -> SocketAddr {
        match self {
            Self::Hbone { dial, .. } | Self::Plain { dial } | Self::Passthrough { dial } => *dial,
        }
    }
}

/// What the tunnel or connection ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The destination itself.
    Direct,
    /// A waypoint, which goes on from there.
    Waypoint,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// How to reach it.
    pub path: Path,
    /// Whether `workload` is the destination or its waypoint.
    pub hop: Hop,
    /// The workload that is dialled, when it is known.
    pub workload: Option<Arc<Workload>>,
    /// The service that was addressed, when it was one.
    pub service: Option<Arc<Service>>,
}

/// Decides where a connection to `dst` goes. The first rule that applies wins.
///
/// # Errors
/// It must be refused: going on would loop, skip a waypoint, or send in the clear what must not be.
///
/// # Source
/// Ambient mode, outbound decision table.
pub fn outbound(
    snapshot: &Snapshot,
    source: &Source<'_>,
    dst: SocketAddr,
    pick: &mut Pick<'_>,
) -> Result<Outbound, Refusal> {
    let dst = canonical(dst);
    if dst.ip().is_loopback() && PROXY_PORTS.contains(&dst.port()) {
        return Err(Refusal::ProxyPort { port: dst.port() });
    }
    let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), dst.ip());
    let service = match snapshot.address(Some(&source.workload.namespace), &addr) {
        Some(Found::Service(service)) => Some(service),
        Some(Found::Workload(_)) | None => None,
    };
    if let Some(service) = &service
        && let Some(reference) = upstream::service_waypoint(service, pick)
    {
        let owner = format!("service {}", service.key);
        return through_waypoint(snapshot, source, reference, &owner, dst, Some(service), pick);
    }
    let found = upstream::by_address(snapshot, source.workload, &addr, dst.port(), Purpose::Traffic, pick);
    let Some(chosen) = found else {
        return match service {
            Some(service) if service.mode() != Mode::Passthrough => Err(Refusal::no_upstream(&service, dst.port())),
            _ => {
                Ok(Outbound { path: Path::Passthrough { dial: dst }, hop: Hop::Direct, workload: None, service: None })
            }
        };
    };
    if chosen.workload.network != source.workload.network {
        return Err(other_network(&chosen.workload));
    }
    if service.is_none()
        && let Some(reference) = &chosen.workload.waypoint
        && !upstream::is_caller(snapshot, reference, &source.workload.identity, source.addr.ip())
    {
        let owner = format!("workload {}", chosen.workload.uid);
        return through_waypoint(snapshot, source, reference, &owner, dst, None, pick);
    }
    direct(chosen, dst)
}

fn direct(chosen: Upstream, dst: SocketAddr) -> Result<Outbound, Refusal> {
    let target = SocketAddr::new(chosen.ip(dst.ip())?, chosen.port);
    let path = match chosen.workload.protocol {
        Protocol::Hbone => Path::Hbone {
            dial: SocketAddr::new(target.ip(), HBONE_PORT),
            authority: target.to_string(),
            expected: chosen.expected(),
        },
        Protocol::Tcp => Path::Plain { dial: target },
    };
    Ok(Outbound { path, hop: Hop::Direct, workload: Some(chosen.workload), service: chosen.service })
}

fn through_waypoint(
    snapshot: &Snapshot,
    source: &Source<'_>,
    reference: &GatewayAddress,
    owner: &str,
    dst: SocketAddr,
    service: Option<&Arc<Service>>,
    pick: &mut Pick<'_>,
) -> Result<Outbound, Refusal> {
    let waypoint = upstream::waypoint(snapshot, source.workload, reference, pick)
        .map_err(|reason| Refusal::waypoint(owner, reference, reason))?;
    if waypoint.workload.network != source.workload.network {
        return Err(other_network(&waypoint.workload));
    }
    let ip = waypoint
        .ip(upstream::wanted_ip(reference, dst))
        .map_err(|refusal| Refusal::waypoint(owner, reference, refusal))?;
    let path = Path::Hbone {
        dial: SocketAddr::new(ip, waypoint.port),
        authority: dst.to_string(),
        expected: waypoint.expected(),
    };
    Ok(Outbound { path, hop: Hop::Waypoint, workload: Some(waypoint.workload), service: service.cloned() })
}

fn other_network(workload: &Workload) -> Refusal {
    Refusal::OtherNetwork { target: format!("workload {}", workload.uid), network: Arc::clone(&workload.network) }
}
