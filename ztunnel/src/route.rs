//! Where a connection goes, decided from one snapshot. Pure: no I/O, no clock; randomness comes in.
//!
//! `explain` calls the same functions as the data path.

mod balance;
mod inbound;
mod outbound;
mod upstream;

use std::sync::Arc;

use crate::state::{GatewayAddress, Service};

pub use inbound::{InboundRefusal, InboundTarget, destination_service, inbound, inbound_plaintext};
pub use outbound::{Hop, Outbound, Path, Source, outbound};

/// Ports of this proxy in every pod: 15001 outbound, 15006 plaintext inbound, 15008 HBONE.
pub const PROXY_PORTS: [u16; 3] = [15001, 15006, 15008];

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
    /// The destination is on another network, which this version cannot reach.
    #[error("{target} is on network {network:?}, and tunnels across networks are not supported by this version")]
    OtherNetwork {
        /// The workload or waypoint.
        target: String,
        /// Its network.
        network: Arc<str>,
    },
}

impl Refusal {
    fn waypoint(owner: impl ToString, reference: &GatewayAddress, reason: impl ToString) -> Self {
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
