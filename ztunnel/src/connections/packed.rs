//! A connection's addresses in half the memory, for as long as nobody looks at them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_core::addr::canonical;

use super::{ConnectionInfo, Protocol};
use crate::report::Direction;

/// A [`ConnectionInfo`] with canonical addresses; flow labels and scopes, which only link-local addresses have, are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    src: Addr,
    original_dst: Addr,
    actual_dst: Addr,
    inbound: bool,
    hbone: bool,
}

/// An IPv4 address is mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addr {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: addr.port() }
    }
}

impl From<Addr> for SocketAddr {
    fn from(addr: Addr) -> Self {
        canonical(Self::new(Ipv6Addr::from(addr.ip).into(), addr.port))
    }
}

impl From<ConnectionInfo> for Packed {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            src: info.src.into(),
            original_dst: info.original_dst.into(),
            actual_dst: info.actual_dst.into(),
            inbound: info.direction == Direction::Inbound,
            hbone: info.protocol == Protocol::Hbone,
        }
    }
}

impl From<&Packed> for ConnectionInfo {
    fn from(packed: &Packed) -> Self {
        Self {
            direction: if packed.inbound { Direction::Inbound } else { Direction::Outbound },
            src: packed.src.into(),
            original_dst: packed.original_dst.into(),
            actual_dst: packed.actual_dst.into(),
            protocol: if packed.hbone { Protocol::Hbone } else { Protocol::Tcp },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again_and_takes_less_room() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        for direction in [Direction::Inbound, Direction::Outbound] {
            for protocol in [Protocol::Hbone, Protocol::Tcp] {
                let (src, original_dst) = (addr("10.1.2.3:40000"), addr("[fd00::7]:80"));
                let info = ConnectionInfo { direction, src, original_dst, actual_dst: addr("0.0.0.0:0"), protocol };
                assert_eq!(ConnectionInfo::from(&Packed::from(info)), info);
            }
        }
        assert!(size_of::<Option<Packed>>() <= 56);
    }
}
