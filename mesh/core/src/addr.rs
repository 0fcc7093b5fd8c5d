//! Addresses: an IP is only meaningful inside a network.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// An IP address within a named network. The empty name is a valid network, the default one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddr {
    /// Network name.
    pub network: Arc<str>,
    /// Always canonical: never an IPv4-mapped IPv6 address.
    pub ip: IpAddr,
}

impl NetworkAddr {
    /// Canonicalises `ip`.
    #[must_use]
    pub fn new(network: impl Into<Arc<str>>, ip: IpAddr) -> Self {
        Self { network: network.into(), ip: canonical_ip(ip) }
    }
}

impl fmt::Display for NetworkAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

impl fmt::Debug for NetworkAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NetworkAddr {
    type Err = ParseNetworkAddrError;

    /// `<network>/<ip>`; the network may be empty and may itself not hold a slash.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseNetworkAddrError { found: text.to_owned() };
        let (network, ip) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self::new(network, ip.parse().map_err(|_| bad())?))
    }
}

/// The text is not `<network>/<ip>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {found:?} is not of the form <network>/<ip>")]
pub struct ParseNetworkAddrError {
    /// The text as it came.
    pub found: String,
}

/// What counts as one source of connections: an address, or of IPv6 the network that one machine has to itself.
#[must_use]
pub fn source(ip: IpAddr) -> IpAddr {
    match canonical_ip(ip) {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// An IPv4-mapped IPv6 address becomes the IPv4 address it stands for.
#[must_use]
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// [`canonical_ip`] for a socket address.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(addr.ip()), addr.port())
}

/// An IP from the 4 or 16 bytes of the wire, canonical; `None` for any other length.
#[must_use]
pub fn ip_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| canonical_ip(IpAddr::from(sixteen)))
}

/// The 4 or 16 bytes of an IP, in network order.
#[must_use]
pub fn ip_to_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_canonicalised() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:80".parse().unwrap());
        assert_eq!(NetworkAddr::new("n1", mapped.ip()).to_string(), "n1/10.0.0.1");
    }

    #[test]
    fn addresses_of_one_machine_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn the_empty_network_is_a_network() {
        let addr: NetworkAddr = "/1.2.3.4".parse().unwrap();
        assert_eq!(&*addr.network, "");
        assert!("1.2.3.4".parse::<NetworkAddr>().is_err());
        assert!("n/one".parse::<NetworkAddr>().is_err());
    }

    #[test]
    fn only_four_or_sixteen_bytes_make_an_ip() {
        assert_eq!(ip_from_bytes(&[10, 0, 0, 1]), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(ip_from_bytes(&[0; 16]), Some("::".parse().unwrap()));
        assert_eq!(ip_from_bytes(&[10, 0, 0, 1, 2]), None);
        assert_eq!(ip_from_bytes(&[]), None);
        let ip = "fd00::7".parse().unwrap();
        assert_eq!(ip_from_bytes(&ip_to_bytes(ip)), Some(ip));
    }
}
