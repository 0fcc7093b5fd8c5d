//! The decision for a connection that an enrolled pod opens.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::NetworkAddr;
use mesh_core::addr::canonical;

use super::path::{Authority, Path};
use super::upstream::{self, Purpose, Upstream};
use super::{Pick, Refusal};
use crate::state::{Found, GatewayAddress, HBONE_PORT, Mode, Protocol, Service, Snapshot, Workload};

/// Who opens the connection.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The workload that the network namespace belongs to.
    pub workload: &'a Workload,
    /// Peer of the accepted socket.
    pub addr: SocketAddr,
}

/// What the tunnel or connection ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The destination itself.
    Direct,
    /// A waypoint, which goes on from there.
    Waypoint,
    /// The gateway of another network, which passes on what it cannot read.
    Gateway,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// How to reach it.
    pub path: Path,
    /// What `workload` is: the destination, its waypoint or the gateway of its network.
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
    Question { snapshot, source, dst: canonical(dst), pick }.decide()
}

struct Question<'a, 'p> {
    snapshot: &'a Snapshot,
    source: &'a Source<'a>,
    /// What the client dialled.
    dst: SocketAddr,
    pick: &'a mut Pick<'p>,
}

impl Question<'_, '_> {
    fn decide(mut self) -> Result<Outbound, Refusal> {
        let (snapshot, source, dst) = (self.snapshot, self.source, self.dst);
        if dst.ip().is_loopback() && snapshot.local.owns_port(dst.port()) {
            return Err(Refusal::ProxyPort { port: dst.port() });
        }
        let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), dst.ip());
        let service = match snapshot.address(Some(&source.workload.namespace), &addr) {
            Some(Found::Service(service)) => Some(service),
            Some(Found::Workload(_)) | None => None,
        };
        if let Some(service) = &service
            && let Some(reference) = upstream::service_waypoint(service, self.pick)
        {
            return self.through_waypoint(reference, &format_args!("service {}", service.key), Some(service));
        }
        let found = upstream::by_address(snapshot, source.workload, &addr, dst.port(), Purpose::Traffic, self.pick);
        let Some(chosen) = found else {
            return match service {
                Some(service) if service.mode() != Mode::Passthrough => Err(Refusal::no_upstream(&service, dst.port())),
                _ => Ok(Outbound {
                    path: Path::Passthrough { dial: dst },
                    hop: Hop::Direct,
                    workload: None,
                    service: None,
                }),
            };
        };
        if chosen.workload.network != source.workload.network {
            return self.across(&chosen, service.as_ref());
        }
        if service.is_none()
            && let Some(reference) = &chosen.workload.waypoint
            && !upstream::is_caller(snapshot, reference, &source.workload.identity, source.addr.ip())
        {
            return self.through_waypoint(reference, &format_args!("workload {}", chosen.workload.uid), None);
        }
        direct(chosen, dst)
    }

    fn through_waypoint(
        &mut self,
        reference: &GatewayAddress,
        owner: &dyn std::fmt::Display,
        service: Option<&Arc<Service>>,
    ) -> Result<Outbound, Refusal> {
        let waypoint = upstream::referred(self.snapshot, self.source.workload, reference, Purpose::Waypoint, self.pick)
            .map_err(|reason| Refusal::waypoint(owner, reference, reason))?;
        if waypoint.workload.network != self.source.workload.network {
            return self.across(&waypoint, service);
        }
        let dial = waypoint
            .dial(upstream::wanted_ip(reference, self.dst))
            .map_err(|refusal| Refusal::waypoint(owner, reference, refusal))?;
        let path = Path::Hbone { dial, authority: Authority::Addr(self.dst), expected: waypoint.expected() };
        Ok(Outbound { path, hop: Hop::Waypoint, workload: Some(waypoint.workload), service: service.cloned() })
    }

    /// To `target` on another network, through the gateway that it names.
    fn across(&mut self, target: &Upstream, service: Option<&Arc<Service>>) -> Result<Outbound, Refusal> {
        let unreachable = |reason| Refusal::OtherNetwork {
            target: Arc::clone(&target.workload.uid),
            network: Arc::clone(&target.workload.network),
            reason,
        };
        // Addresses of the other network mean nothing here: only services can be asked for.
        let service = service.ok_or_else(|| unreachable("it was dialled by its address, not through a service"))?;
        let reference =
            target.workload.network_gateway.as_deref().ok_or_else(|| unreachable("its network has no gateway"))?;
        let inner = target.service_identities();
        if inner.is_empty() {
            return Err(Refusal::NobodyExpected {
                service: service.key.to_string(),
                network: Arc::clone(&target.workload.network),
            });
        }
        let refused = |reason: &dyn std::fmt::Display| Refusal::Gateway {
            network: Arc::clone(&target.workload.network),
            gateway: reference.to_string(),
            reason: reason.to_string(),
        };
        let gateway = upstream::referred(self.snapshot, self.source.workload, reference, Purpose::Traffic, self.pick)
            .map_err(|reason| refused(&reason))?;
        let path = Path::DoubleHbone {
            gateway: gateway.dial(upstream::wanted_ip(reference, self.dst)).map_err(|refusal| refused(&refusal))?,
            authority: Authority::Name { host: Arc::clone(service.hostname()), port: self.dst.port() },
            outer: gateway.expected(),
            inner,
        };
        Ok(Outbound { path, hop: Hop::Gateway, workload: Some(gateway.workload), service: Some(Arc::clone(service)) })
    }
}

fn direct(chosen: Upstream, dst: SocketAddr) -> Result<Outbound, Refusal> {
    let target = chosen.dial(dst.ip())?;
    let path = match chosen.workload.protocol {
        Protocol::Hbone => Path::Hbone {
            authority: target.authority(),
            dial: target.with_port(HBONE_PORT),
            expected: chosen.expected(),
        },
        Protocol::Tcp => Path::Plain { dial: target },
    };
    Ok(Outbound { path, hop: Hop::Direct, workload: Some(chosen.workload), service: chosen.service })
}
