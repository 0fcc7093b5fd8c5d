//! The ways to a destination.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::Identity;

use crate::state::Service;

/// How to reach the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Through a tunnel.
    Hbone {
        /// Where to open the TLS connection.
        dial: Dial,
        /// `:authority` of the CONNECT request.
        authority: Authority,
        /// The server must prove one of these.
        expected: Vec<Identity>,
    },
    /// Through a tunnel to the gateway of another network, and a second one inside it to the destination.
    DoubleHbone {
        /// Where to open the outer TLS connection.
        gateway: Dial,
        /// `:authority` of both CONNECT requests: the service, since addresses mean nothing on the other network.
        authority: Authority,
        /// The gateway must prove one of these.
        outer: Vec<Identity>,
        /// The destination must prove one of these; never empty.
        inner: Vec<Identity>,
    },
    /// As it is, to a workload of the mesh that is not enrolled.
    Plain {
        /// Where to connect.
        dial: Dial,
    },
    /// As it is, to an address that the mesh does not know.
    Passthrough {
        /// Where to connect: the original destination.
        dial: SocketAddr,
    },
}

impl Path {
    /// The address that is dialled; `None` as long as only its name is known.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Hbone { dial, .. } | Self::DoubleHbone { gateway: dial, .. } | Self::Plain { dial } => match dial {
                Dial::Addr(addr) => Some(*addr),
                Dial::Name { .. } => None,
            },
            Self::Passthrough { dial } => Some(*dial),
        }
    }

    /// What must be looked up before the path can be taken.
    #[must_use]
    pub fn lookup(&self) -> Option<(&Arc<str>, Families)> {
        match self {
            Self::Hbone { dial, .. } | Self::DoubleHbone { gateway: dial, .. } | Self::Plain { dial } => match dial {
                Dial::Name { host, families, .. } => Some((host, *families)),
                Dial::Addr(_) => None,
            },
            Self::Passthrough { .. } => None,
        }
    }

    /// The same path once the name is found to stand for `ip`. A tunnel that ends at the named workload itself is asked
    /// for that address, too.
    #[must_use]
    pub fn at(self, ip: IpAddr) -> Self {
        match self {
            Self::Hbone { dial, authority, expected } => {
                let authority = match (&dial, authority) {
                    (Dial::Name { host: dialled, .. }, Authority::Name { host, port }) if *dialled == host => {
                        Authority::Addr(SocketAddr::new(ip, port))
                    }
                    (_, authority) => authority,
                };
                Self::Hbone { dial: dial.at(ip), authority, expected }
            }
            Self::DoubleHbone { gateway, authority, outer, inner } => {
                Self::DoubleHbone { gateway: gateway.at(ip), authority, outer, inner }
            }
            Self::Plain { dial } => Self::Plain { dial: dial.at(ip) },
            Self::Passthrough { .. } => self,
        }
    }

    /// Whether both ends prove who they are.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        matches!(self, Self::Hbone { .. } | Self::DoubleHbone { .. })
    }

    /// `:authority` of the request, where there is one.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Self::Hbone { authority, .. } | Self::DoubleHbone { authority, .. } => Some(authority),
            Self::Plain { .. } | Self::Passthrough { .. } => None,
        }
    }
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dial {
    /// There.
    Addr(SocketAddr),
    /// At an address that is looked up for each connection: the control plane knows the name only.
    Name {
        /// DNS name.
        host: Arc<str>,
        /// Port.
        port: u16,
        /// Which of its addresses may be used.
        families: Families,
    },
}

impl Dial {
    fn at(self, ip: IpAddr) -> Self {
        match self {
            Self::Name { port, .. } => Self::Addr(SocketAddr::new(ip, port)),
            Self::Addr(_) => self,
        }
    }

    /// The same place with another port.
    pub(super) fn with_port(self, port: u16) -> Self {
        match self {
            Self::Addr(addr) => Self::Addr(SocketAddr::new(addr.ip(), port)),
            Self::Name { host, families, .. } => Self::Name { host, port, families },
        }
    }

    /// The place as the other end of a tunnel is told it.
    pub(super) fn authority(&self) -> Authority {
        match self {
            Self::Addr(addr) => Authority::Addr(*addr),
            Self::Name { host, port, .. } => Authority::Name { host: Arc::clone(host), port: *port },
        }
    }
}

impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// What a CONNECT request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// An address.
    Addr(SocketAddr),
    /// A service on another network, or a workload whose address is still to be looked up.
    Name {
        /// Host name.
        host: Arc<str>,
        /// Port: of the service, not of its endpoints.
        port: u16,
    },
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Which addresses of a name may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
    /// If both are there: IPv4, as the client dialled.
    pub prefer_v4: bool,
}

impl Families {
    /// Those that the service allows, and among them the one that the client dialled.
    pub(super) fn of(service: Option<&Service>, wanted: IpAddr) -> Self {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let accepts = |ip: IpAddr| service.is_none_or(|service| service.ip_families.accepts(ip));
        Self {
            v4: accepts(Ipv4Addr::UNSPECIFIED.into()),
            v6: accepts(Ipv6Addr::UNSPECIFIED.into()),
            prefer_v4: wanted.is_ipv4(),
        }
    }
}
