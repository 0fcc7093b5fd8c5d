//! What a tunnel may be for. Pure but for the question to the control plane who a workload's waypoint is: everything that
//! this proxy does not serve is refused, so that it never relays for anybody else.
//!
//! | authority | served by |
//! |---|---|
//! | `hostname:port` of a service that may be called by name | that port's chain |
//! | address and port of a service | that port's chain |
//! | address of a service, another port | nobody |
//! | address of a workload whose waypoint this is, a port of a service that a policy guards | nobody: the service is to be called |
//! | address of a workload whose waypoint this is, any other port | a chain for that address |
//! | anything else, whatever it is | nobody |

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use mesh_core::NamespacedName;
use mesh_core::addr::canonical;
use mesh_xds::client::DemandError;
use tokio::time::Instant;

use crate::connection::Destination;
use crate::endpoints::{Guarded, Peer, Store};
use crate::limits::LEARN_BUDGET;
use crate::shared::Shared;
use crate::snapshot::{ChainHandle, Snapshot};

/// Who serves a destination.
#[derive(Debug, Clone)]
pub enum Served {
    /// A service port.
    Port(ChainHandle),
    /// A workload that is called by its address.
    Workload(Peer, SocketAddr),
}

/// Why a tunnel is refused. Told to the client as a status, and to the log in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer does not say where it wants to go, or not as it should.
    #[error("authority {found:?} is neither address:port nor host:port")]
    Malformed {
        /// As it was sent.
        found: String,
    },
    /// No state of the control plane yet.
    #[error("nothing is known yet of what this proxy serves")]
    NotReady,
    /// A service of this proxy, but not one of its ports.
    #[error("{destination} is not a declared port of its service")]
    UndeclaredPort {
        /// What was called.
        destination: Destination,
    },
    /// A port of a workload at which it serves a service that a policy guards.
    #[error("{destination} serves {service}, which a policy guards: call the service, by its name or address")]
    Guarded {
        /// What was called.
        destination: Destination,
        /// What would have to be called.
        service: NamespacedName,
    },
    /// Nothing that this proxy serves.
    #[error("{destination} is not served by this proxy")]
    NotServed {
        /// What was called.
        destination: Destination,
    },
}

impl Refusal {
    /// What the client is told.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Guarded { .. } => StatusCode::FORBIDDEN,
            Self::UndeclaredPort { .. } | Self::NotServed { .. } => StatusCode::NOT_FOUND,
        }
    }
}

/// Reads an authority: `ip:port`, `[ip]:port` or `host:port`, nothing else.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn parse(authority: Option<&str>) -> Result<Destination, Refusal> {
    let text = authority.unwrap_or_default();
    let malformed = || Refusal::Malformed { found: text.chars().take(FOUND_CHARS_MAX).collect() };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err(malformed()) } else { Ok(Destination::Address(canonical(address))) };
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(malformed)?;
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > HOST_BYTES_MAX || !name.bytes().all(plain) || name.parse::<IpAddr>().is_ok() {
        return Err(malformed());
    }
    Ok(Destination::Name(name.into(), port))
}

/// What is known at the moment. `Err(None)`: the control plane has to be asked who has the address.
///
/// # Errors
/// [`Refusal`], or nothing when it is not known.
pub fn look_up(snapshot: &Snapshot, store: &Store, destination: &Destination) -> Result<Served, Option<Refusal>> {
    let Some(proxy) = &snapshot.proxy else { return Err(Some(Refusal::NotReady)) };
    if let Some(chain) = snapshot.find(destination) {
        return Ok(Served::Port(chain));
    }
    let not_served = || Some(Refusal::NotServed { destination: destination.clone() });
    let Destination::Address(address) = destination else { return Err(not_served()) };
    if snapshot.is_service(address.ip()) {
        return Err(Some(Refusal::UndeclaredPort { destination: destination.clone() }));
    }
    if !proxy.serves_workloads || is_never_a_workload(address.ip()) {
        return Err(not_served());
    }
    let place = store.place();
    let own = place.workload.as_ref();
    if own.is_some_and(|own| own.addresses.contains(&address.ip())) {
        return Err(not_served());
    }
    match store.workload(address.ip()) {
        Some(peer) if peer.is_served_from(&place) => match store.guarded(&peer, address.port()) {
            Guarded::No => Ok(Served::Workload(peer, *address)),
            Guarded::By(service) => Err(Some(Refusal::Guarded { destination: destination.clone(), service })),
            Guarded::Unknown(_) => Err(None),
        },
        Some(_) => Err(not_served()),
        None => Err(None),
    }
}

/// Decides who serves `destination`; asks the control plane about an address that is not known.
///
/// # Errors
/// [`Refusal`].
///
/// # Cancel safety
/// Cancel-safe.
pub async fn dispatch(shared: &Shared, destination: &Destination) -> Result<Served, Refusal> {
    let look = || look_up(&shared.snapshots.load(), &shared.endpoints, destination);
    let not_served = || Refusal::NotServed { destination: destination.clone() };
    match (look(), destination) {
        (Ok(served), _) => Ok(served),
        (Err(None), Destination::Address(address)) => {
            if let Err(error) = learn(shared, *address).await {
                tracing::debug!(%error, "a workload that was called by its address stays unknown");
            }
            look().map_err(|refusal| refusal.unwrap_or_else(not_served))
        }
        (Err(refusal), _) => Err(refusal.unwrap_or_else(not_served)),
    }
}

/// Asks who has an address, and what services it serves.
async fn learn(shared: &Shared, address: SocketAddr) -> Result<(), DemandError> {
    let until = Instant::now() + LEARN_BUDGET;
    let left = || until.saturating_duration_since(Instant::now());
    let store = &shared.endpoints;
    if store.workload(address.ip()).is_none() {
        shared.demand.fetch(&store.resource_name(address.ip()), left()).await?;
    }
    if let Some(peer) = store.workload(address.ip())
        && let Guarded::Unknown(services) = store.guarded(&peer, address.port())
    {
        for service in services {
            shared.demand.fetch(&service.to_string(), left()).await?;
        }
    }
    Ok(())
}

/// Addresses that mean this very machine, or nobody.
pub(crate) fn is_never_a_workload(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

/// Characters of a malformed authority that are kept.
const FOUND_CHARS_MAX: usize = 128;
/// Longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests;
