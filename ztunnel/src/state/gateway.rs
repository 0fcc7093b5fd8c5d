//! References to waypoints and network gateways, and the ports of a service.

use std::fmt;
use std::sync::Arc;

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_wire::workload as wire;
use serde::Serialize;

use super::reject::{self, FieldError};
use super::words::Words;

/// Where HBONE is served unless a reference says otherwise.
pub const HBONE_PORT: u16 = 15008;

/// How to reach a waypoint or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// What to look up.
    pub destination: Destination,
    /// Port of its HBONE listener.
    pub hbone_mtls_port: u16,
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A service, or a workload with that hostname, as `namespace/hostname`.
    Hostname(NamespacedName),
    /// A service or workload by address.
    Address(NetworkAddr),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(name) => name.fmt(f),
            Self::Address(addr) => addr.fmt(f),
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.destination, self.hbone_mtls_port)
    }
}

impl GatewayAddress {
    pub(crate) fn decode(field: &str, message: &wire::GatewayAddress, words: &mut Words) -> Result<Self, FieldError> {
        use wire::gateway_address::Destination as Wire;
        let destination = match &message.destination {
            Some(Wire::Hostname(name)) => {
                Destination::Hostname(NamespacedName::new(words.intern(&name.namespace), words.intern(&name.hostname)))
            }
            Some(Wire::Address(addr)) => {
                let ip = reject::ip(&format!("{field}.address"), &addr.address)?;
                Destination::Address(NetworkAddr::new(words.intern(&addr.network), ip))
            }
            None => return Err(FieldError::new(field, "no destination", "a hostname or an address")),
        };
        let port = reject::port(&format!("{field}.hbone_mtls_port"), message.hbone_mtls_port)?;
        Ok(Self { destination, hbone_mtls_port: if port == 0 { HBONE_PORT } else { port } })
    }
}

/// Service port to target port, sorted by service port. Target port 0: each endpoint has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Arc<[(u16, u16)]>);

impl Ports {
    pub(crate) fn decode(field: &str, ports: &[wire::Port]) -> Result<Self, FieldError> {
        let mut decoded = Vec::with_capacity(ports.len());
        for (n, port) in ports.iter().enumerate() {
            let service = reject::port(&format!("{field}[{n}].service_port"), port.service_port)?;
            let target = reject::port(&format!("{field}[{n}].target_port"), port.target_port)?;
            decoded.push((service, target));
        }
        decoded.sort_unstable_by_key(|(service, _)| *service);
        // The last of equal keys wins, as in a map.
        decoded.reverse();
        decoded.dedup_by_key(|(service, _)| *service);
        decoded.reverse();
        Ok(Self(decoded.into()))
    }

    /// Target port of a service port; `Some(0)` means that each endpoint has its own.
    #[must_use]
    pub fn target(&self, service_port: u16) -> Option<u16> {
        let at = self.0.binary_search_by_key(&service_port, |(service, _)| *service).ok()?;
        self.0.get(at).map(|(_, target)| *target)
    }

    /// All pairs, by service port.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<(u16, u16)> for Ports {
    fn from_iter<I: IntoIterator<Item = (u16, u16)>>(ports: I) -> Self {
        let mut ports: Vec<_> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup_by_key(|(service, _)| *service);
        Self(ports.into())
    }
}

impl Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(service, target)| (service.to_string(), target)))
    }
}
