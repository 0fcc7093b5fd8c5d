//! Where a connection goes, decided from one snapshot. Pure: no I/O, no clock; randomness comes in.
//!
//! `explain` calls the same functions as the data path.

mod balance;
mod inbound;
mod needs;
mod outbound;
mod path;
mod required;
mod upstream;

use std::sync::Arc;

use crate::state::{GatewayAddress, Service};

pub use inbound::{InboundRefusal, InboundTarget, check_authority, destination_service, inbound, inbound_plaintext};
pub use needs::{inbound_needs, needs};
pub use outbound::{Hop, Outbound, Source, outbound};
pub use path::{Authority, Dial, Families, Path};
pub use required::{Bypass, Caller, Missing, is_guarded, required, unknown};

pub use crate::state::PROXY_PORTS;

/// Why an outbound connection is refused. Refusing is final for this connection; the next one may
/// meet another state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The application dials a port of this proxy on loopback, which would loop.
    #[error("port {port} on loopback belongs to the mesh proxy")]
    ProxyPort {
        /// The port.
        port: u16,
    },
    /// The service has no endpoint that may be used.
    #[error("no healthy upstream for port {port} of service {service}")]
    NoUpstream {
        /// `namespace/hostname`.
        service: String,
        /// Service port.
        port: u16,
    },
    /// A waypoint is required and cannot be found; going direct would skip its policies.
    #[error("waypoint {waypoint} of {owner} cannot be used: {reason}")]
    Waypoint {
        /// Whose waypoint.
        owner: String,
        /// The reference.
        waypoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The chosen workload has no address of a usable family.
    #[error("workload {workload} has no usable address: {reason}")]
    NoAddress {
        /// Uid of the workload.
        workload: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The destination is on another network and cannot be reached there.
    #[error("workload {target} is on network {network:?} and cannot be reached: {reason}")]
    OtherNetwork {
        /// Uid of the workload or waypoint.
        target: Arc<str>,
        /// Its network.
        network: Arc<str>,
        /// What is missing.
        reason: &'static str,
    },
    /// The gateway of another network cannot be found.
    #[error("gateway {gateway} of network {network:?} cannot be used: {reason}")]
    Gateway {
        /// The network.
        network: Arc<str>,
        /// The reference.
        gateway: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody on the other network could prove to be the destination.
    #[error(
        "service {service} names no identities (subject_alt_names), so nobody on network {network:?} can prove to serve it"
    )]
    NobodyExpected {
        /// `namespace/hostname` of the service that was addressed.
        service: String,
        /// The network.
        network: Arc<str>,
    },
}

impl Refusal {
    fn waypoint(owner: &dyn std::fmt::Display, reference: &GatewayAddress, reason: impl ToString) -> Self {
        Self::Waypoint { owner: owner.to_string(), waypoint: reference.to_string(), reason: reason.to_string() }
    }

    fn no_upstream(service: &Service, port: u16) -> Self {
        Self::NoUpstream { service: service.key.to_string(), port }
    }
}

/// Yields a number from 0 up to but not including its argument, which is at least 1.
pub type Pick<'a> = dyn FnMut(u64) -> u64 + 'a;

#[cfg(test)]
mod tests;
